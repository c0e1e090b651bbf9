package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

const (
	noUser    = "etcdserver: user name is empty"
	noToken   = "etcdserver: invalid auth token"
	noLogin   = "etcdserver: authentication failed, invalid user ID or password"
	forbidden = "etcdserver: permission denied"
)

// identities shows that a certificate's common name is its client's user.
func identities(ctx context.Context, shop *shop) error {
	server, err := shop.start(ctx, "https", shop.mutualFlags()...)
	if err != nil {
		return err
	}
	defer server.stop()
	clients := map[string]*clientv3.Client{}
	for _, name := range []string{"root", "alice", "bob", "mallory"} {
		if clients[name], err = server.client(name); err != nil {
			return err
		}
		defer clients[name].Close()
	}
	if err := withUsers(ctx, clients["root"]); err != nil {
		return err
	}
	if err := rights(ctx, clients["alice"]); err != nil {
		return err
	}
	if _, err := clients["root"].Put(ctx, "elsewhere", "1"); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	_, read := clients["bob"].Get(ctx, root)
	_, write := clients["bob"].Put(ctx, root, "")
	_, stranger := clients["mallory"].Get(ctx, root)

	// Who logs in is who he says, not who his certificate says.
	both, err := server.client("bob", login("alice", "secret"))
	if err != nil {
		return err
	}
	defer both.Close()
	_, asAlice := both.Put(ctx, root, "")

	// Nobody is asked for a name that a gateway's certificate has.
	kv := pb.NewKVClient(clients["root"].ActiveConnection())
	get := &pb.RangeRequest{Key: []byte(root)}
	proxied := metadata.AppendToOutgoingContext(ctx, "grpcgateway-accept", "application/json")
	_, gateway := kv.Range(proxied, get)
	withToken := func(token string) error {
		_, err := kv.Range(metadata.AppendToOutgoingContext(ctx, "token", token), get)
		return err
	}
	return errors.Join(
		equal("bob reads", read, nil),
		equal("bob writes", write, error(rpctypes.ErrPermissionDenied)),
		equal("a user who is none", stranger, error(rpctypes.ErrPermissionDenied)),
		equal("a login beside a certificate", asAlice, nil),
		is("gateway", gateway, codes.InvalidArgument, noUser),
		is("a bad token beside a good certificate", withToken("x.1"), codes.Unauthenticated, noToken),
		is("an empty token", withToken(""), codes.Unauthenticated, noToken),
	)
}

// raw logs in without the library's help.
func raw(ctx context.Context, client *clientv3.Client, name, password string) (string, error) {
	auth := pb.NewAuthClient(client.ActiveConnection())
	response, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password})
	if err != nil {
		return "", err
	}
	return response.Token, nil
}

// tokens checks a server with auth on, whose tokens live for two seconds.
func tokens(ctx context.Context, server *running) (string, error) {
	plain, err := server.client("")
	if err != nil {
		return "", err
	}
	defer plain.Close()
	_, early := raw(ctx, plain, "root", "pw")
	if err := is("early", early, codes.FailedPrecondition, "etcdserver: authentication is not enabled"); err != nil {
		return "", err
	}
	if err := withUsers(ctx, plain); err != nil {
		return "", err
	}
	alice, err := server.client("", login("alice", "secret"))
	if err != nil {
		return "", err
	}
	defer alice.Close()
	if err := rights(ctx, alice); err != nil {
		return "", err
	}
	// A watch and a lease go on while the token ends, and the library logs in again.
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watch := alice.Watch(watching, root, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	lease, err := alice.Grant(ctx, 3)
	if err != nil {
		return "", err
	}
	renewals, err := alice.KeepAlive(watching, lease.ID)
	if err != nil {
		return "", err
	}
	if _, err := alice.Put(ctx, root+"kept", "1", clientv3.WithLease(lease.ID)); err != nil {
		return "", err
	}
	token, err := raw(ctx, plain, "alice", "secret")
	if err != nil {
		return "", err
	}
	kv := pb.NewKVClient(plain.ActiveConnection())
	ask := func(token string) error {
		bearing := metadata.AppendToOutgoingContext(ctx, "token", token)
		_, err := kv.Range(bearing, &pb.RangeRequest{Key: []byte(root)})
		return err
	}
	if err := ask(token); err != nil {
		return "", fmt.Errorf("a fresh token: %w", err)
	}
	time.Sleep(5 * time.Second)
	over := ask(token)
	_, later := alice.Put(ctx, root+"later", "2")
	seen, err := take(watch, root, 2)
	if err != nil {
		return "", err
	}
	held, err := alice.Get(ctx, root+"kept")
	if err != nil {
		return "", err
	}
	alive := 0
	for len(renewals) > 0 {
		if renewal := <-renewals; renewal != nil {
			alive++
		}
	}
	_, wrong := raw(ctx, plain, "alice", "wrong")
	_, ghost := raw(ctx, plain, "ghost", "secret")
	_, empty := raw(ctx, plain, "", "")
	_, nobody := plain.Get(ctx, root)
	_, refused := server.client("", login("alice", "wrong"))
	return token, errors.Join(
		is("a token that is over", over, codes.Unauthenticated, noToken),
		equal("put after a new login", later, nil),
		equal("events", len(seen), 2),
		equal("kept alive", held.Count, 1),
		equal("renewed", alive > 0, true),
		is("wrong password", wrong, codes.InvalidArgument, noLogin),
		is("unknown user", ghost, codes.InvalidArgument, noLogin),
		is("no name", empty, codes.InvalidArgument, noLogin),
		equal("no token", nobody, error(rpctypes.ErrUserEmpty)),
		equal("library, wrong password", refused, error(rpctypes.ErrAuthFailed)),
		is("rubbish", ask("rubbish"), codes.Unauthenticated, noToken),
		is("cut short", ask(token[:len(token)/2]), codes.Unauthenticated, noToken),
		is("changed", ask("_"+token[1:]), codes.Unauthenticated, noToken),
	)
}

// newPassword changes alice's, and tells what her client can do then.
func newPassword(ctx context.Context, server *running) error {
	administrator, err := server.client("", login("root", "pw"))
	if err != nil {
		return err
	}
	defer administrator.Close()
	alice, err := server.client("", login("alice", "secret"))
	if err != nil {
		return err
	}
	defer alice.Close()
	if _, err := administrator.UserChangePassword(ctx, "alice", "new"); err != nil {
		return err
	}
	_, old := alice.Get(ctx, root)
	again, err := server.client("", login("alice", "new"))
	if err != nil {
		return err
	}
	defer again.Close()
	_, fresh := again.Get(ctx, root)
	return errors.Join(
		equal("old password", old, error(rpctypes.ErrAuthFailed)),
		equal("new password", fresh, nil),
	)
}

func simpleTokens(ctx context.Context, shop *shop) error {
	server, err := shop.start(ctx, "https", "--auth-token-ttl=2", "--bcrypt-cost=4")
	if err != nil {
		return err
	}
	defer server.stop()
	if _, err := tokens(ctx, server); err != nil {
		return err
	}
	return newPassword(ctx, server)
}
