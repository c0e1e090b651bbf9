package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// shop holds what the secured checks need: a directory with certificates, and the servers' program.
type shop struct {
	dir    string
	server []string
}

func (s *shop) path(name string) string { return filepath.Join(s.dir, name) }

// secured runs every check that needs servers of its own: rusd makes the certificates, and is the
// server unless there is another one.
func secured(rusd string, server []string) error {
	dir, err := os.MkdirTemp("", "secured")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if len(server) == 0 {
		server = []string{rusd, "serve"}
	}
	store := &shop{dir: dir, server: server}
	for _, words := range [][]string{
		{"--clients", "root,alice,bob,mallory"},
		{"--clients", "root", "--dir", store.path("foreign")},
	} {
		words = append([]string{"cert", "gen", "--dir", dir, "--hosts", "localhost,127.0.0.1"}, words...)
		if output, err := exec.Command(rusd, words...).CombinedOutput(); err != nil {
			return fmt.Errorf("cert gen: %w: %s", err, output)
		}
	}
	type check struct {
		name string
		run  func(ctx context.Context, shop *shop) error
	}
	checks := []check{
		{"mTLS: who is let in", handshakes},
		{"mTLS: everything that works without", mutual},
		{"CN: the certificate's user and his rights", identities},
		{"plain text to TLS, TLS to plain text", mixedUp},
		{"simple tokens: logins, expiry, a new password", simpleTokens},
	}
	for _, method := range methods {
		checks = append(checks, check{"JWT: " + method.name, method.check})
	}
	// They mostly wait for tokens to end, so some run side by side.
	var all sync.WaitGroup
	var failed atomic.Int32
	places := make(chan struct{}, 5)
	for _, check := range checks {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			defer cancel()
			if err := check.run(ctx, store); err != nil {
				failed.Add(1)
				fmt.Printf("FAILED %s: %v\n", check.name, err)
			} else {
				fmt.Printf("ok     %s\n", check.name)
			}
		})
	}
	all.Wait()
	if failed := failed.Load(); failed > 0 {
		return fmt.Errorf("%d of %d failed", failed, len(checks))
	}
	fmt.Printf("%d passed\n", len(checks))
	return nil
}

// running is a server in a process of its own.
type running struct {
	shop     *shop
	endpoint string
	process  *exec.Cmd
	dir      string
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// start runs a server with these flags more, and waits until it takes connections.
func (s *shop) start(ctx context.Context, scheme string, flags ...string) (*running, error) {
	dir, err := os.MkdirTemp(s.dir, "data")
	if err != nil {
		return nil, err
	}
	client, err := freePort()
	if err != nil {
		return nil, err
	}
	peer, err := freePort()
	if err != nil {
		return nil, err
	}
	endpoint := fmt.Sprintf("%s://127.0.0.1:%d", scheme, client)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", peer)
	words := append(s.server[1:len(s.server):len(s.server)],
		"--name=one", "--data-dir="+dir, "--initial-cluster=one="+peerURL,
		"--listen-client-urls="+endpoint, "--advertise-client-urls="+endpoint,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL)
	if scheme == "https" {
		words = append(words, "--cert-file="+s.path("server.crt"), "--key-file="+s.path("server.key"))
	}
	process := exec.Command(s.server[0], append(words, flags...)...)
	log, err := os.Create(dir + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return nil, err
	}
	server := &running{shop: s, endpoint: endpoint, process: process, dir: dir}
	for ctx.Err() == nil {
		connection, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", client))
		if err == nil {
			return server, connection.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	server.stop()
	text, _ := os.ReadFile(dir + ".log")
	return nil, fmt.Errorf("no start: %s", text)
}

func (r *running) stop() {
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

// mutualFlags make clients show a certificate.
func (s *shop) mutualFlags() []string {
	return []string{"--client-cert-auth", "--trusted-ca-file=" + s.path("ca.crt")}
}

// tls is what a client shows and believes; without a name it shows nothing.
func (s *shop) tls(name string) (*tls.Config, error) {
	authority, err := os.ReadFile(s.path("ca.crt"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(authority)
	if name == "" {
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(s.path(name+".crt"), s.path(name+".key"))
	config.Certificates = []tls.Certificate{pair}
	return config, err
}

// client shows the certificate of that name.
func (r *running) client(name string, change ...func(*clientv3.Config)) (*clientv3.Client, error) {
	// Refusals are what is looked for; the library would log each.
	config := clientv3.Config{
		Endpoints: []string{r.endpoint}, DialTimeout: patience, Logger: zap.NewNop(),
	}
	if r.endpoint[:5] == "https" {
		tls, err := r.shop.tls(name)
		if err != nil {
			return nil, err
		}
		config.TLS = tls
	}
	for _, change := range change {
		change(&config)
	}
	return clientv3.New(config)
}

// login makes a client say who it is by password.
func login(name, password string) func(*clientv3.Config) {
	return func(config *clientv3.Config) { config.Username, config.Password = name, password }
}

// isServed tells whether one request of a new client gets an answer soon.
func isServed(ctx context.Context, client *clientv3.Client, err error) error {
	if err != nil {
		return err
	}
	defer client.Close()
	soon, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err = client.Get(soon, "a")
	return err
}

func handshakes(ctx context.Context, shop *shop) error {
	server, err := shop.start(ctx, "https", shop.mutualFlags()...)
	if err != nil {
		return err
	}
	defer server.stop()
	welcome := func(name string, change ...func(*clientv3.Config)) error {
		client, err := server.client(name, change...)
		return isServed(ctx, client, err)
	}
	if err := welcome("alice"); err != nil {
		return err
	}
	refusals := map[string]error{
		"no certificate":       welcome(""),
		"another authority's":  welcome("foreign/root"),
		"a server of nobody's": welcome("alice", func(c *clientv3.Config) { c.TLS.RootCAs = x509.NewCertPool() }),
		"TLS 1.1":              welcome("alice", func(c *clientv3.Config) { c.TLS.MaxVersion = tls.VersionTLS11 }),
	}
	for what, err := range refusals {
		if err == nil {
			return fmt.Errorf("%s is let in", what)
		}
	}
	return welcome("alice")
}

func mutual(ctx context.Context, shop *shop) error {
	server, err := shop.start(ctx, "https", shop.mutualFlags()...)
	if err != nil {
		return err
	}
	defer server.stop()
	client, err := server.client("root")
	if err != nil {
		return err
	}
	defer client.Close()
	for number, check := range checks {
		if err := runCheck(client, number, check); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
	}
	return nil
}

func mixedUp(ctx context.Context, shop *shop) error {
	for _, scheme := range []string{"http", "https"} {
		server, err := shop.start(ctx, scheme)
		if err != nil {
			return err
		}
		defer server.stop()
		right, err := server.client("")
		if err := isServed(ctx, right, err); err != nil {
			return fmt.Errorf("%s: %w", scheme, err)
		}
		wrong := *server
		wrong.endpoint = map[string]string{"http": "https", "https": "http"}[scheme] +
			server.endpoint[len(scheme):]
		client, err := wrong.client("")
		if isServed(ctx, client, err) == nil {
			return fmt.Errorf("%s serves the other", scheme)
		}
		raw, err := net.Dial("tcp", server.endpoint[len(scheme)+3:])
		if err != nil {
			return err
		}
		defer raw.Close()
		if scheme == "https" {
			fmt.Fprint(raw, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		} else {
			// A handshake's record of 64 bytes.
			raw.Write(append([]byte{22, 3, 1, 0, 64}, make([]byte, 64)...))
		}
		raw.SetReadDeadline(time.Now().Add(patience))
		answer := make([]byte, 64)
		count, _ := raw.Read(answer)
		if scheme == "https" && count != 0 {
			return fmt.Errorf("plain text is answered with %q", answer[:count])
		}
		again, err := server.client("")
		if err := isServed(ctx, again, err); err != nil {
			return fmt.Errorf("%s, afterwards: %w", scheme, err)
		}
	}
	return nil
}

// withUsers makes root, alice and bob, of whom alice may use the keys of the prefix and bob may read
// them, and puts auth on.
func withUsers(ctx context.Context, client *clientv3.Client) error {
	steps := []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "pw"); return err },
		func() error { _, err := client.UserAdd(ctx, "alice", "secret"); return err },
		func() error { _, err := client.UserAdd(ctx, "bob", "hidden"); return err },
		func() error { _, err := client.RoleAdd(ctx, "root"); return err },
		func() error { _, err := client.RoleAdd(ctx, "writer"); return err },
		func() error { _, err := client.RoleAdd(ctx, "reader"); return err },
		func() error { return grant(ctx, client, "writer", clientv3.PermissionType(clientv3.PermReadWrite)) },
		func() error { return grant(ctx, client, "reader", clientv3.PermissionType(clientv3.PermRead)) },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "alice", "writer"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "bob", "reader"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func grant(ctx context.Context, client *clientv3.Client, role string, kind clientv3.PermissionType) error {
	_, err := client.RoleGrantPermission(ctx, role, root, clientv3.GetPrefixRangeEnd(root), kind)
	return err
}

// rights shows what a client may do that is alice, who may use the keys of the prefix only.
func rights(ctx context.Context, client *clientv3.Client) error {
	const allowed, denied = root + "rights", "elsewhere"
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watch := client.Watch(watching, allowed, clientv3.WithCreatedNotify())
	if response := <-watch; response.Err() != nil || !response.Created {
		return fmt.Errorf("watch: %v", response.Err())
	}
	lease, err := client.Grant(ctx, 600)
	if err != nil {
		return err
	}
	if _, err := client.KeepAliveOnce(ctx, lease.ID); err != nil {
		return err
	}
	if _, err := client.Put(ctx, allowed, "1", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	got, err := value(ctx, client, allowed)
	if err != nil {
		return err
	}
	seen, err := take(watch, allowed, 1)
	if err != nil {
		return err
	}
	_, put := client.Put(ctx, denied, "1")
	_, get := client.Get(ctx, denied)
	_, more := client.Get(ctx, root, clientv3.WithFromKey())
	_, remove := client.Delete(ctx, denied)
	_, nested := client.Txn(ctx).
		Then(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(denied)}, nil)).Commit()
	_, administration := client.UserList(ctx)
	refused := <-client.Watch(ctx, denied)
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	no := error(rpctypes.ErrPermissionDenied)
	return errors.Join(
		equal("value", got, "1"),
		equal("events", len(seen), 1),
		equal("put", put, no),
		equal("get", get, no),
		equal("get beyond", more, no),
		equal("delete", remove, no),
		equal("nested", nested, no),
		equal("administration", administration, no),
		equal("watch ends", refused.Canceled, true),
		equal("watch", strings.Contains(fmt.Sprint(refused.Err()), forbidden), true),
	)
}

// is compares an error of the raw API with one of etcd's.
func is(what string, err error, code codes.Code, text string) error {
	found, _ := status.FromError(err)
	return errors.Join(
		equal(what+": code", found.Code(), code),
		equal(what+": text", found.Message(), text),
	)
}
