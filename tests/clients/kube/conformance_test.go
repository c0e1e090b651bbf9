package kube

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

type check struct {
	name string
	run  func(ctx context.Context, t *testing.T, s subject)
}

// of takes a check of Kubernetes that needs the storage and nothing else.
func of(name string, run func(context.Context, *testing.T, storage.Interface)) check {
	return check{name, func(ctx context.Context, t *testing.T, s subject) {
		run(ctx, t, s)
	}}
}

func anyKey(context.Context, *testing.T, string) {}

func anyCalls(*testing.T, uint64, uint64) {}

// What storage and cache have in common.
var checks = []check{
	of("create with a TTL", storagetesting.RunTestCreateWithTTL),
	of("create what exists", storagetesting.RunTestCreateWithKeyExist),
	of("get", storagetesting.RunTestGet),
	of("delete", storagetesting.RunTestUnconditionalDelete),
	of("conditional delete", storagetesting.RunTestConditionalDelete),
	of("delete with a suggestion", storagetesting.RunTestDeleteWithSuggestion),
	of("delete with an old suggestion", storagetesting.RunTestDeleteWithSuggestionAndConflict),
	of("delete with a conflict", storagetesting.RunTestDeleteWithConflict),
	of("delete what is gone", storagetesting.RunTestDeleteWithSuggestionOfDeletedObject),
	of("validated delete", storagetesting.RunTestValidateDeletionWithSuggestion),
	of("validated by the suggestion", storagetesting.RunTestValidateDeletionWithOnlySuggestionValid),
	of("precondition and suggestion", storagetesting.RunTestPreconditionalDeleteWithSuggestion),
	of("precondition of the suggestion",
		storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass),
	of("pages", storagetesting.RunTestListPaging),
	of("lists below a prefix", storagetesting.RunTestGetListRecursivePrefix),
	of("keys", storagetesting.RunTestKeySchema),
	of("update with a TTL", storagetesting.RunTestGuaranteedUpdateWithTTL),
	of("update with a conflict", storagetesting.RunTestGuaranteedUpdateWithConflict),
	of("update with an old suggestion",
		storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict),
	of("watch", storagetesting.RunTestWatch),
	of("watch of a namespace", storagetesting.RunTestNamespaceScopedWatch),
	of("watch after a delete", storagetesting.RunTestDeleteTriggerWatch),
	of("watch from a revision", storagetesting.RunTestWatchFromNonZero),
	of("watch that is read late", storagetesting.RunTestDelayedWatchDelivery),
	of("watch with a short deadline", storagetesting.RunTestWatcherTimeout),
	of("watch of a delete's revision", storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV),
	of("watch that says it began", storagetesting.RunTestWatchInitializationSignal),
	of("watch with more initial events", storagetesting.RunWatchSemanticInitialEventsExtended),
	of("watch with initial events, old form",
		storagetesting.RunSendInitialEventsBackwardCompatibility),
	of("watch list of one", storagetesting.RunWatchListMatchSingle),
	{"create", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestCreate(ctx, t, s, anyKey)
	}},
	{"list", func(ctx context.Context, t *testing.T, s subject) {
		recorder := s.client.Kubernetes.(*storagetesting.KubernetesRecorder)
		storagetesting.RunTestList(ctx, t, s, s.compact, s.isCached, recorder)
	}},
	{"consistent list", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestConsistentList(ctx, t, s, s.advance, s.isCached, true, s.isCached)
	}},
	{"list of one", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestGetListNonRecursive(ctx, t, s.advance, s)
	}},
	{"next pages", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestListContinuation(ctx, t, s, anyCalls)
	}},
	{"pages with few matches", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestListPaginationRareObject(ctx, t, s, anyCalls)
	}},
	{"next pages with a filter", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestListContinuationWithFilter(ctx, t, s, anyCalls)
	}},
	{"compacted revision", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestCompactRevision(ctx, t, s, s.advance, s.compact)
	}},
}

// What only the storage promises, since the cache answers from memory.
var storeChecks = []check{
	// The cache would need keys without namespaces for it.
	of("watch of the cluster", storagetesting.RunTestClusterScopedWatch),
	of("watch whose caller leaves", storagetesting.RunTestWatchContextCancel),
	of("lists of a namespace", storagetesting.RunTestNamespaceScopedList),
	{"next page of a compacted revision", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestListInconsistentContinuation(ctx, t, s, s.compact)
	}},
	{"watch from the start, compacted", func(ctx context.Context, t *testing.T, s subject) {
		storagetesting.RunTestWatchFromZero(ctx, t, s, s.compact)
	}},
}

// Watches from revision 1, which a cache only knows if the server was at it; so this comes first.
func TestInitialEvents(t *testing.T) {
	t.Run("cache", func(t *testing.T) {
		s := cached(t)
		now, err := s.client.KV.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if now.Header.Revision > 1 {
			t.Skip("needs a new server; this one is at revision ", now.Header.Revision)
		}
		storagetesting.RunWatchSemantics(t.Context(), t, s)
	})
	t.Run("storage", func(t *testing.T) {
		s := plain(t)
		if _, err := s.client.KV.Get(t.Context(), "a", clientv3.WithRev(1)); err != nil {
			t.Skip("needs a server that was never compacted: ", err)
		}
		storagetesting.RunWatchSemantics(t.Context(), t, s)
	})
}

func TestStorage(t *testing.T) {
	runAll(t, append(storeChecks, checks...), plain)
}

func TestCache(t *testing.T) {
	runAll(t, checks, cached)
}

func runAll(t *testing.T, checks []check, open func(*testing.T) subject) {
	for _, check := range checks {
		t.Run(check.name, func(t *testing.T) {
			check.run(t.Context(), t, open(t))
		})
	}
}
