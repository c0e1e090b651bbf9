package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

// take reads a watch until it has shown that many events, as "PUT a=1" and the like.
func take(watch clientv3.WatchChan, prefix string, events int) ([]string, error) {
	var seen []string
	for len(seen) < events {
		response, open := <-watch
		if !open {
			return seen, errors.New("the watch has ended")
		}
		if err := response.Err(); err != nil {
			return seen, err
		}
		for _, event := range response.Events {
			key := string(event.Kv.Key)[len(prefix):]
			seen = append(seen, fmt.Sprintf("%s %s=%s", event.Type, key, event.Kv.Value))
		}
	}
	return seen, nil
}

func watches(ctx context.Context, client *clientv3.Client, prefix string) error {
	live := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if created := <-live; !created.Created {
		return fmt.Errorf("not created: %v", created)
	}
	first, err := putAll(ctx, client, prefix, "a=1", "b=2")
	if err != nil {
		return err
	}
	if _, err := client.Delete(ctx, prefix+"a"); err != nil {
		return err
	}
	past := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(first+1))
	deletions := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(first),
		clientv3.WithFilterPut(), clientv3.WithPrevKV(), clientv3.WithFragment())
	all, err := take(live, prefix, 3)
	if err != nil {
		return err
	}
	later, err := take(past, prefix, 2)
	if err != nil {
		return err
	}
	deleted := <-deletions
	if err := deleted.Err(); err != nil {
		return err
	}
	return errors.Join(
		equal("live", fmt.Sprint(all), "[PUT a=1 PUT b=2 DELETE a=]"),
		equal("past", fmt.Sprint(later), "[PUT b=2 DELETE a=]"),
		equal("previous value", string(deleted.Events[0].PrevKv.Value), "1"),
	)
}

func watchCompacted(ctx context.Context, client *clientv3.Client, prefix string) error {
	first, err := putAll(ctx, client, prefix, "a=1", "a=2", "a=3")
	if err != nil {
		return err
	}
	if _, err := client.Compact(ctx, first+2); err != nil {
		return err
	}
	var last clientv3.WatchResponse
	for response := range client.Watch(ctx, prefix+"a", clientv3.WithRev(first)) {
		last = response
	}
	return errors.Join(
		equal("error", last.Err(), error(rpctypes.ErrCompacted)),
		equal("compact revision", last.CompactRevision, first+2),
	)
}

func watchProgress(ctx context.Context, client *clientv3.Client, prefix string) error {
	watch := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	// Outside of what is watched: only progress can tell the revision.
	put, err := client.Put(ctx, root+"elsewhere", "")
	if err != nil {
		return err
	}
	if _, err := client.Delete(ctx, root+"elsewhere"); err != nil {
		return err
	}
	if err := client.RequestProgress(ctx); err != nil {
		return err
	}
	progress := <-watch
	return errors.Join(
		equal("is progress", progress.IsProgressNotify(), true),
		equal("revision", progress.Header.Revision >= put.Header.Revision+1, true),
	)
}

// resume watches while the server is stopped and started, and must miss nothing.
func resume(command []string) func(context.Context, *clientv3.Client, string) error {
	return func(ctx context.Context, client *clientv3.Client, prefix string) error {
		watch := client.Watch(ctx, prefix, clientv3.WithPrefix())
		if _, err := putAll(ctx, client, prefix, "a=1"); err != nil {
			return err
		}
		before, err := take(watch, prefix, 1)
		if err != nil {
			return err
		}
		restart := exec.CommandContext(ctx, command[0], command[1:]...)
		restart.Stderr = os.Stderr
		if err := restart.Run(); err != nil {
			return err
		}
		if err := putWhenUp(ctx, client, prefix+"b", "2"); err != nil {
			return err
		}
		after, err := take(watch, prefix, 1)
		if err != nil {
			return err
		}
		return errors.Join(
			equal("before", fmt.Sprint(before), "[PUT a=1]"),
			equal("after", fmt.Sprint(after), "[PUT b=2]"),
		)
	}
}

// putWhenUp tries until the server answers; the put happens once, since it is conditional.
func putWhenUp(ctx context.Context, client *clientv3.Client, key, value string) error {
	for {
		_, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, value)).
			Commit()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func rangeStream(ctx context.Context, client *clientv3.Client, prefix string) error {
	const keys = 100
	for number := range keys {
		if _, err := client.Put(ctx, fmt.Sprintf("%s%03d", prefix, number), "v"); err != nil {
			return err
		}
	}
	stream, err := client.GetStream(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	whole, err := clientv3.GetStreamToGetResponse(stream)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("keys", len(whole.Kvs), keys),
		equal("count", whole.Count, keys),
		equal("last", string(whole.Kvs[keys-1].Key), prefix+"099"),
	)
}

func mutex(ctx context.Context, client *clientv3.Client, prefix string) error {
	const workers, rounds = 4, 5
	inside, counted := 0, 0
	var wait sync.WaitGroup
	failures := make(chan error, workers)
	for range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
			if err != nil {
				failures <- err
				return
			}
			defer session.Close()
			lock := concurrency.NewMutex(session, prefix+"lock")
			for range rounds {
				if err := lock.Lock(ctx); err != nil {
					failures <- err
					return
				}
				inside++
				if inside == 1 {
					counted++
				}
				inside--
				if err := lock.Unlock(ctx); err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	wait.Wait()
	close(failures)
	return errors.Join(<-failures, equal("rounds", counted, workers*rounds))
}

func election(ctx context.Context, client *clientv3.Client, prefix string) error {
	sessions := make([]*concurrency.Session, 2)
	elections := make([]*concurrency.Election, 2)
	for number := range sessions {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
		if err != nil {
			return err
		}
		defer session.Close()
		sessions[number] = session
		elections[number] = concurrency.NewElection(session, prefix+"chair")
	}
	observed := elections[1].Observe(ctx)
	if err := elections[0].Campaign(ctx, "first"); err != nil {
		return err
	}
	seen := []string{string((<-observed).Kvs[0].Value)}
	won := make(chan error, 1)
	go func() { won <- elections[1].Campaign(ctx, "second") }()
	if err := elections[0].Proclaim(ctx, "first again"); err != nil {
		return err
	}
	seen = append(seen, string((<-observed).Kvs[0].Value))
	if err := elections[0].Resign(ctx); err != nil {
		return err
	}
	if err := <-won; err != nil {
		return err
	}
	seen = append(seen, string((<-observed).Kvs[0].Value))
	leader, err := elections[0].Leader(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("observed", fmt.Sprintf("%q", seen), `["first" "first again" "second"]`),
		equal("leader", string(leader.Kvs[0].Value), "second"),
	)
}

func stm(ctx context.Context, client *clientv3.Client, prefix string) error {
	const workers, rounds = 4, 10
	if _, err := putAll(ctx, client, prefix, "from=1000", "to=0"); err != nil {
		return err
	}
	move := func(stm concurrency.STM) error {
		from, err := strconv.Atoi(stm.Get(prefix + "from"))
		if err != nil {
			return err
		}
		to, err := strconv.Atoi(stm.Get(prefix + "to"))
		if err != nil {
			return err
		}
		stm.Put(prefix+"from", strconv.Itoa(from-1))
		stm.Put(prefix+"to", strconv.Itoa(to+1))
		return nil
	}
	failures := make(chan error, workers*rounds)
	var wait sync.WaitGroup
	for range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range rounds {
				_, err := concurrency.NewSTM(client, move, concurrency.WithAbortContext(ctx))
				failures <- err
			}
		}()
	}
	wait.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return err
		}
	}
	from, err := value(ctx, client, prefix+"from")
	if err != nil {
		return err
	}
	to, err := value(ctx, client, prefix+"to")
	return errors.Join(err, equal("from", from, "960"), equal("to", to, "40"))
}

func namespaces(ctx context.Context, client *clientv3.Client, prefix string) error {
	kv := namespace.NewKV(client, prefix)
	watch := namespace.NewWatcher(client, prefix).Watch(ctx, "a")
	if _, err := kv.Put(ctx, "a", "1"); err != nil {
		return err
	}
	inside, err := kv.Get(ctx, "", clientv3.WithFromKey())
	if err != nil {
		return err
	}
	outside, err := value(ctx, client, prefix+"a")
	if err != nil {
		return err
	}
	event, err := take(watch, "", 1)
	return errors.Join(
		err,
		equal("inside", keysOf(inside, ""), "a"),
		equal("outside", outside, "1"),
		equal("event", fmt.Sprint(event), "[PUT a=1]"),
	)
}

func leasingCache(ctx context.Context, client *clientv3.Client, prefix string) error {
	first, closeFirst, err := leasing.NewKV(client, prefix+"leases/")
	if err != nil {
		return err
	}
	defer closeFirst()
	second, closeSecond, err := leasing.NewKV(client, prefix+"leases/")
	if err != nil {
		return err
	}
	defer closeSecond()
	if _, err := first.Put(ctx, prefix+"a", "1"); err != nil {
		return err
	}
	if cached, err := value(ctx, first, prefix+"a"); err != nil || cached != "1" {
		return fmt.Errorf("cached %q, %v", cached, err)
	}
	// The owner gives its lease up before another client writes.
	if _, err := second.Put(ctx, prefix+"a", "2"); err != nil {
		return err
	}
	fresh, err := value(ctx, first, prefix+"a")
	return errors.Join(err, equal("after the other's put", fresh, "2"))
}

func mirrored(ctx context.Context, client *clientv3.Client, prefix string) error {
	if _, err := putAll(ctx, client, prefix, "a=1", "b=2"); err != nil {
		return err
	}
	syncer := mirror.NewSyncer(client, prefix, 0)
	base, failures := syncer.SyncBase(ctx)
	copied := ""
	for response := range base {
		copied += keysOf(response, prefix)
	}
	if err := <-failures; err != nil {
		return err
	}
	updates := syncer.SyncUpdates(ctx)
	if _, err := client.Delete(ctx, prefix+"a"); err != nil {
		return err
	}
	seen, err := take(updates, prefix, 1)
	return errors.Join(
		err,
		equal("base", copied, "a b"),
		equal("updates", fmt.Sprint(seen), "[DELETE a=]"),
	)
}

func ordered(ctx context.Context, client *clientv3.Client, prefix string) error {
	violated := errors.New("an answer is older than the one before")
	refuse := func(clientv3.Op, clientv3.OpResponse, int64) error { return violated }
	kv := ordering.NewKV(client, refuse)
	for number := range 20 {
		want := strconv.Itoa(number)
		if _, err := kv.Put(ctx, prefix+"a", want); err != nil {
			return err
		}
		response, err := kv.Get(ctx, prefix+"a", clientv3.WithSerializable())
		if err != nil {
			return err
		}
		if err := equal("value", string(response.Kvs[0].Value), want); err != nil {
			return err
		}
	}
	return nil
}

func maintenance(ctx context.Context, client *clientv3.Client, prefix string) error {
	endpoint := client.Endpoints()[0]
	if _, err := client.Put(ctx, prefix+"a", ""); err != nil {
		return err
	}
	status, err := client.Status(ctx, endpoint)
	if err != nil {
		return err
	}
	members, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	hash, err := client.HashKV(ctx, endpoint, 0)
	if err != nil {
		return err
	}
	same, err := client.HashKV(ctx, endpoint, hash.HashRevision)
	if err != nil {
		return err
	}
	alarms, err := client.AlarmList(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("leader", status.Leader != 0, true),
		equal("members", len(members.Members) > 0, true),
		equal("hash", same.Hash, hash.Hash),
		equal("alarms", len(alarms.Alarms), 0),
	)
}
