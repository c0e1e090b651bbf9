// Drives a running server through etcd's official Go client.
//
//	go run . ENDPOINT            every check against the server at ENDPOINT
//	go run . ENDPOINT COMMAND..  also restarts the server with COMMAND under a watch
//	go run . -secured RUSD       TLS, users and tokens, against servers that it starts itself
//	go run . -secured RUSD SERVER..  the same against another program; RUSD makes the certificates
//
// COMMAND must stop the server at ENDPOINT and start it again on the same data. All keys that the
// checks write begin with "go-client/", and each check removes its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Long enough for a slow machine, short enough to end a check that hangs.
const patience = 60 * time.Second

const root = "go-client/"

type check struct {
	name string
	run  func(ctx context.Context, client *clientv3.Client, prefix string) error
}

var checks = []check{
	{"put, get, delete", putGetDelete},
	{"ranges: limits, orders, old revisions", ranges},
	{"errors are the client's own", errorsAreKnown},
	{"range stream", rangeStream},
	{"transactions, nested ones too", transactions},
	{"compaction", compaction},
	{"leases: attach, list, revoke", leases},
	{"a lease lives while it is kept alive", keepAlive},
	{"watch: live, from the past, filtered", watches},
	{"watch of a compacted revision", watchCompacted},
	{"watch: progress", watchProgress},
	{"mutex", mutex},
	{"election", election},
	{"software transactional memory", stm},
	{"namespace", namespaces},
	{"leasing", leasingCache},
	{"mirror", mirrored},
	{"ordering", ordered},
	{"status, hash, members", maintenance},
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . ENDPOINT [RESTART COMMAND..] | -secured RUSD [SERVER..]")
		os.Exit(2)
	}
	if os.Args[1] == "-secured" && len(os.Args) > 2 {
		if err := secured(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{os.Args[1]},
		DialTimeout: patience,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()
	all := checks
	if len(os.Args) > 2 {
		all = append(all, check{"watch resumes over a restart", resume(os.Args[2:])})
	}
	passed, failed := 0, 0
	for number, check := range all {
		if err := runCheck(client, number, check); err != nil {
			failed++
			fmt.Printf("FAILED %s: %v\n", check.name, err)
		} else {
			passed++
			fmt.Printf("ok     %s\n", check.name)
		}
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func runCheck(client *clientv3.Client, number int, check check) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	prefix := fmt.Sprintf("%s%d-%02d/", root, os.Getpid(), number)
	err := check.run(ctx, client, prefix)
	_, cleanup := client.Delete(context.Background(), prefix, clientv3.WithPrefix())
	return errors.Join(err, cleanup)
}

func equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

func keysOf(response *clientv3.GetResponse, prefix string) string {
	var keys []string
	for _, kv := range response.Kvs {
		keys = append(keys, strings.TrimPrefix(string(kv.Key), prefix))
	}
	return strings.Join(keys, " ")
}

// putAll puts key=value words in turn and returns the revision of the first.
func putAll(ctx context.Context, kv clientv3.KV, prefix string, words ...string) (int64, error) {
	first := int64(0)
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		response, err := kv.Put(ctx, prefix+key, value)
		if err != nil {
			return 0, err
		}
		if first == 0 {
			first = response.Header.Revision
		}
	}
	return first, nil
}

func value(ctx context.Context, kv clientv3.KV, key string) (string, error) {
	response, err := kv.Get(ctx, key)
	if err != nil {
		return "", err
	}
	if len(response.Kvs) == 0 {
		return "", nil
	}
	return string(response.Kvs[0].Value), nil
}

func putGetDelete(ctx context.Context, client *clientv3.Client, prefix string) error {
	if _, err := putAll(ctx, client, prefix, "a=1", "a=2", "b=3"); err != nil {
		return err
	}
	got, err := client.Get(ctx, prefix+"a")
	if err != nil {
		return err
	}
	put, err := client.Put(ctx, prefix+"a", "", clientv3.WithIgnoreValue(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	deleted, err := client.Delete(ctx, prefix, clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	return errors.Join(
		equal("value", string(got.Kvs[0].Value), "2"),
		equal("version", got.Kvs[0].Version, 2),
		equal("previous value", string(put.PrevKv.Value), "2"),
		equal("deleted", deleted.Deleted, 2),
		equal("kept value", string(deleted.PrevKvs[0].Value), "2"),
	)
}

func ranges(ctx context.Context, client *clientv3.Client, prefix string) error {
	first, err := putAll(ctx, client, prefix, "a=3", "b=2", "c=1", "b=0")
	if err != nil {
		return err
	}
	get := func(options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
		return client.Get(ctx, prefix, append(options, clientv3.WithPrefix())...)
	}
	cases := []struct {
		want    string
		options []clientv3.OpOption
	}{
		{"a b c", nil},
		{"a b", []clientv3.OpOption{clientv3.WithLimit(2)}},
		{"b c a", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}},
		{"b c a", []clientv3.OpOption{clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend)}},
		{"a b", []clientv3.OpOption{clientv3.WithRev(first + 1)}},
		{"c b", []clientv3.OpOption{clientv3.WithMinModRev(first + 2),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)}},
		{"", []clientv3.OpOption{clientv3.WithCountOnly()}},
	}
	for number, each := range cases {
		response, err := get(each.options...)
		if err != nil {
			return err
		}
		if err := equal(fmt.Sprint("case ", number), keysOf(response, prefix), each.want); err != nil {
			return err
		}
	}
	response, err := get(clientv3.WithLimit(1))
	if err != nil {
		return err
	}
	return errors.Join(equal("count", response.Count, 3), equal("more", response.More, true))
}

func errorsAreKnown(ctx context.Context, client *clientv3.Client, prefix string) error {
	current, err := client.Get(ctx, prefix)
	if err != nil {
		return err
	}
	_, empty := client.Put(ctx, "", "")
	_, future := client.Get(ctx, prefix, clientv3.WithRev(current.Header.Revision+100))
	_, lease := client.Put(ctx, prefix+"a", "", clientv3.WithLease(0x7abc))
	_, missing := client.Put(ctx, prefix+"none", "", clientv3.WithIgnoreValue())
	_, twice := client.Txn(ctx).Then(clientv3.OpPut(prefix, "1"), clientv3.OpPut(prefix, "2")).Commit()
	return errors.Join(
		equal("empty key", empty, error(rpctypes.ErrEmptyKey)),
		equal("future", future, error(rpctypes.ErrFutureRev)),
		equal("lease", lease, error(rpctypes.ErrLeaseNotFound)),
		equal("ignore value", missing, error(rpctypes.ErrKeyNotFound)),
		equal("duplicate", twice, error(rpctypes.ErrDuplicateKey)),
	)
}

func transactions(ctx context.Context, client *clientv3.Client, prefix string) error {
	if _, err := putAll(ctx, client, prefix, "a=1"); err != nil {
		return err
	}
	inner := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value(prefix+"a"), "=", "1")},
		[]clientv3.Op{clientv3.OpPut(prefix+"inner", "saw the state before")},
		[]clientv3.Op{clientv3.OpPut(prefix+"inner", "saw the put")},
	)
	response, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.Version(prefix+"a"), ">", 0),
			clientv3.Compare(clientv3.CreateRevision(prefix), "=", 0).WithPrefix().WithRange(prefix+"\x00")).
		Then(clientv3.OpPut(prefix+"a", "2"), inner, clientv3.OpGet(prefix+"a")).
		Else(clientv3.OpDelete(prefix + "a")).
		Commit()
	if err != nil {
		return err
	}
	nested, err := value(ctx, client, prefix+"inner")
	if err != nil {
		return err
	}
	return errors.Join(
		equal("succeeded", response.Succeeded, true),
		equal("responses", len(response.Responses), 3),
		equal("a range sees the put", string(response.Responses[2].GetResponseRange().Kvs[0].Value), "2"),
		equal("nested", nested, "saw the state before"),
	)
}

func compaction(ctx context.Context, client *clientv3.Client, prefix string) error {
	first, err := putAll(ctx, client, prefix, "a=1", "a=2", "a=3")
	if err != nil {
		return err
	}
	if _, err := client.Compact(ctx, first+1, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	_, before := client.Get(ctx, prefix+"a", clientv3.WithRev(first))
	_, again := client.Compact(ctx, first+1)
	at, err := client.Get(ctx, prefix+"a", clientv3.WithRev(first+1))
	if err != nil {
		return err
	}
	return errors.Join(
		equal("before", before, error(rpctypes.ErrCompacted)),
		equal("again", again, error(rpctypes.ErrCompacted)),
		equal("at", string(at.Kvs[0].Value), "2"),
	)
}

func leases(ctx context.Context, client *clientv3.Client, prefix string) error {
	lease, err := client.Grant(ctx, 1000)
	if err != nil {
		return err
	}
	for _, key := range []string{"b", "a"} {
		if _, err := client.Put(ctx, prefix+key, "", clientv3.WithLease(lease.ID)); err != nil {
			return err
		}
	}
	left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	list, err := client.Leases(ctx)
	if err != nil {
		return err
	}
	is := func(status clientv3.LeaseStatus) bool { return status.ID == lease.ID }
	isListed := slices.ContainsFunc(list.Leases, is)
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	gone, err := client.TimeToLive(ctx, lease.ID)
	if err != nil {
		return err
	}
	rest, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	_, again := client.Revoke(ctx, lease.ID)
	return errors.Join(
		equal("granted", left.GrantedTTL, 1000),
		equal("keys", len(left.Keys), 2),
		equal("listed", isListed, true),
		equal("gone", gone.TTL, -1),
		equal("keys left", rest.Count, 0),
		equal("again", again, error(rpctypes.ErrLeaseNotFound)),
	)
}

func keepAlive(ctx context.Context, client *clientv3.Client, prefix string) error {
	lease, err := client.Grant(ctx, 2)
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, prefix+"a", "", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	watch := client.Watch(ctx, prefix+"a", clientv3.WithFilterPut())
	alive, stop := context.WithCancel(ctx)
	defer stop()
	renewals, err := client.KeepAlive(alive, lease.ID)
	if err != nil {
		return err
	}
	for range 6 {
		if renewal, open := <-renewals; !open || renewal.TTL != 2 {
			return fmt.Errorf("renewal %v", renewal)
		}
	}
	held, err := client.Get(ctx, prefix+"a")
	if err != nil {
		return err
	}
	stop()
	deleted := <-watch
	if err := deleted.Err(); err != nil {
		return err
	}
	return errors.Join(
		equal("held", held.Count, 1),
		equal("expiry deletes", len(deleted.Events), 1),
	)
}
