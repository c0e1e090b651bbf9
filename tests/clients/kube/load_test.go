package kube

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
)

const (
	workers = 16
	each    = 200
)

func keyOf(pod *example.Pod) string {
	return resource + pod.Namespace + "/" + pod.Name
}

func podOf(worker, number int) *example.Pod {
	name := fmt.Sprintf("pod-%d-%d", worker, number)
	return &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "load", Name: name}}
}

// everyWorker runs one function for each worker, and ends the test if one of them fails.
func everyWorker(t *testing.T, run func(worker int) error) {
	t.Helper()
	var group sync.WaitGroup
	errs := make(chan error, workers)
	for worker := range workers {
		group.Go(func() {
			if err := run(worker); err != nil {
				errs <- fmt.Errorf("worker %d: %w", worker, err)
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
}

func list(ctx context.Context, s subject) (*example.PodList, error) {
	pods := &example.PodList{}
	options := storage.ListOptions{Predicate: storage.Everything, Recursive: true}
	return pods, s.GetList(ctx, resource, options, pods)
}

func annotate(value string) storage.UpdateFunc {
	return storage.SimpleUpdate(func(object runtime.Object) (runtime.Object, error) {
		pod := object.(*example.Pod).DeepCopy()
		pod.Annotations = map[string]string{"value": value}
		return pod, nil
	})
}

// What one writer was told must be in the next list, although the list comes from memory.
func TestCacheHasOwnWrites(t *testing.T) {
	s := cached(t)
	everyWorker(t, func(worker int) error {
		pod := podOf(worker, 0)
		if err := s.Create(t.Context(), keyOf(pod), pod, &example.Pod{}, 0); err != nil {
			return err
		}
		for round := range 20 {
			want := strconv.Itoa(round)
			err := s.GuaranteedUpdate(t.Context(), keyOf(pod), &example.Pod{}, false, nil,
				annotate(want), nil)
			if err != nil {
				return err
			}
			pods, err := list(t.Context(), s)
			if err != nil {
				return err
			}
			found := false
			for _, held := range pods.Items {
				found = found || held.Name == pod.Name && held.Annotations["value"] == want
			}
			if !found {
				return fmt.Errorf("the list at %s lacks write %d", pods.ResourceVersion, round)
			}
		}
		return nil
	})
}

// A storm of creations and deletions arrives at a watcher whole and in order.
func TestStormIsWatched(t *testing.T) {
	s := plain(t)
	began, err := list(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := s.Watch(t.Context(), resource, storage.ListOptions{
		ResourceVersion: began.ResourceVersion, Predicate: storage.Everything, Recursive: true})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	seen := make(chan error, 1)
	go func() { seen <- readStorm(watcher) }()
	everyWorker(t, func(worker int) error {
		for number := range each {
			pod := podOf(worker, number)
			if err := s.Create(t.Context(), keyOf(pod), pod, &example.Pod{}, 0); err != nil {
				return err
			}
		}
		return nil
	})
	everyWorker(t, func(worker int) error {
		for number := range each {
			err := s.Delete(t.Context(), keyOf(podOf(worker, number)), &example.Pod{}, nil,
				storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{})
			if err != nil {
				return err
			}
		}
		return nil
	})
	select {
	case err := <-seen:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the watch has not seen everything")
	}
}

func readStorm(watcher watch.Interface) error {
	counts := map[watch.EventType]int{}
	last := uint64(0)
	for event := range watcher.ResultChan() {
		revision, err := storage.APIObjectVersioner{}.ObjectResourceVersion(event.Object)
		if err != nil {
			return fmt.Errorf("%v: %w", event, err)
		}
		if revision <= last {
			return fmt.Errorf("revision %d follows %d", revision, last)
		}
		last = revision
		counts[event.Type]++
		if counts[watch.Added]+counts[watch.Deleted] == 2*workers*each {
			break
		}
	}
	if counts[watch.Added] != workers*each || counts[watch.Deleted] != workers*each {
		return fmt.Errorf("saw %v", counts)
	}
	return nil
}

// A cache over a server that is restarted under writes comes back by itself, and neither it nor the
// server lacks what was acknowledged.
func TestRestart(t *testing.T) {
	if *restart == "" {
		t.Skip("needs -restart COMMAND")
	}
	s := cached(t)
	stop := make(chan struct{})
	written := make([]int, workers)
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for number := 0; ; number++ {
				select {
				case <-stop:
					return
				default:
				}
				pod := podOf(worker, number)
				limit, cancel := context.WithTimeout(t.Context(), patience)
				err := s.Create(limit, keyOf(pod), pod, &example.Pod{}, 0)
				cancel()
				// What failed may have happened or not: the next number is what can be relied on.
				if err == nil {
					written[worker]++
				}
			}
		})
	}
	// Nothing depends on how many writes this lets through.
	time.Sleep(time.Second)
	output, err := exec.Command("sh", "-c", *restart).CombinedOutput()
	time.Sleep(2 * time.Second)
	close(stop)
	group.Wait()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	acknowledged := 0
	for _, count := range written {
		acknowledged += count
	}
	fromCache, err := listPatiently(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.client.KV.Get(t.Context(), "/registry/pods/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	if len(fromCache.Items) < acknowledged || int64(len(fromCache.Items)) != held.Count {
		t.Fatalf("%d acknowledged, %d in the cache, %d in the server", acknowledged,
			len(fromCache.Items), held.Count)
	}
}

// A cache that reconnects refuses lists until it has caught up.
func listPatiently(ctx context.Context, s subject) (*example.PodList, error) {
	limit := time.Now().Add(patience)
	for {
		pods, err := list(ctx, s)
		if err == nil || time.Now().After(limit) {
			return pods, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
