// Drives a running server as kube-apiserver does: through its storage over etcd, and through the
// watch cache that stands in front of that storage. Kubernetes publishes the checks that any such
// storage must pass; they run here against both, and so do a few of ours.
//
//	go test . -count=1 -endpoint HOST:PORT
//	go test . -count=1 -endpoint HOST:PORT -restart COMMAND    also restarts the server under writes
//	go test . -count=1 -endpoint HOST:PORT -pki DIR            over TLS, with kubeadm's certificates
//
// The server must be empty. Everything is deleted again between checks, and revisions are compacted.
// COMMAND, run by sh, must stop the server at the endpoint and start it again on the same data.
// DIR is as kubeadm's /etc/kubernetes/pki; kubeadm.sh makes one.
package kube

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

var (
	endpoint = flag.String("endpoint", "", "HOST:PORT of an empty server")
	restart  = flag.String("restart", "", "command that restarts that server")
	pki      = flag.String("pki", "", "directory of kubeadm's certificates; without it, no TLS")
)

// Long enough for a slow machine, short enough to end a check that hangs.
const patience = 60 * time.Second

const resource = "/pods/"

var codecs serializer.CodecFactory

func TestMain(m *testing.M) {
	flag.Parse()
	if *endpoint == "" {
		fmt.Fprintln(os.Stderr, "usage: go test . -count=1 -endpoint HOST:PORT [-restart COMMAND] [-pki DIR]")
		os.Exit(2)
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, add := range []func(*runtime.Scheme) error{example.AddToScheme, examplev1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	codecs = serializer.NewCodecFactory(scheme)
	// Both would report each watch that ends with its check.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	klog.SetLogger(klog.Logger{})
	os.Exit(m.Run())
}

func newPod() runtime.Object     { return &example.Pod{} }
func newPodList() runtime.Object { return &example.PodList{} }

// subject is one of the two storages, over a client of its own.
type subject struct {
	storage.Interface
	client   *kubernetes.Client
	isCached bool
}

// connect refuses a server with data in it, and leaves it empty.
func connect(t *testing.T) *kubernetes.Client {
	client, err := kubernetes.New(clientv3.Config{
		Endpoints:            []string{*endpoint},
		TLS:                  secured(t),
		DialTimeout:          patience,
		DialKeepAliveTime:    30 * time.Second,
		DialKeepAliveTimeout: 10 * time.Second,
		DialOptions:          []grpc.DialOption{grpc.WithBlock()},
	})
	if err != nil {
		t.Fatal(err)
	}
	every := []clientv3.OpOption{clientv3.WithFromKey()}
	held, err := client.KV.Get(t.Context(), "\x00", append(every, clientv3.WithCountOnly())...)
	if err != nil {
		t.Fatal(err)
	}
	if held.Count > 0 {
		t.Fatalf("the server holds %d keys; these checks need an empty one", held.Count)
	}
	t.Cleanup(func() {
		if _, err := client.KV.Delete(context.Background(), "\x00", every...); err != nil {
			t.Error(err)
		}
		client.Close()
	})
	client.KV = storagetesting.NewKVRecorder(client.KV)
	client.Kubernetes = storagetesting.NewKubernetesRecorder(client.Kubernetes)
	return client
}

// secured is TLS as kube-apiserver has it; nil without a directory of certificates.
func secured(t *testing.T) *tls.Config {
	if *pki == "" {
		return nil
	}
	client := filepath.Join(*pki, "apiserver-etcd-client")
	info := transport.TLSInfo{
		CertFile:      client + ".crt",
		KeyFile:       client + ".key",
		TrustedCAFile: filepath.Join(*pki, "etcd", "ca.crt"),
	}
	config, err := info.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// The cache's checks expect kube-apiserver's prefix in requests, the storage's none.
func newStore(t *testing.T, prefix string) subject {
	client := connect(t)
	compactor := etcd3.NewCompactor(client.Client, 0, clock.RealClock{}, nil)
	t.Cleanup(compactor.Stop)
	codec := apitesting.TestCodec(codecs, examplev1.SchemeGroupVersion)
	leases := etcd3.NewDefaultLeaseManagerConfig()
	// A lease that is used again for a minute would outlive the checks of short ones.
	leases.ReuseDurationSeconds = 1
	versioner := storage.APIObjectVersioner{}
	store, err := etcd3.New(client, compactor, codec, newPod, newPodList, prefix, resource,
		schema.GroupResource{Resource: "pods"}, identity.NewEncryptCheckTransformer(), leases,
		etcd3.NewDefaultDecoder(codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return subject{store, client, false}
}

func plain(t *testing.T) subject {
	return newStore(t, "")
}

func cached(t *testing.T) subject {
	below := newStore(t, "/registry")
	cache, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage:             below,
		Versioner:           storage.APIObjectVersioner{},
		GroupResource:       schema.GroupResource{Resource: "pods"},
		EventsHistoryWindow: cacher.DefaultEventFreshDuration,
		ResourcePrefix:      resource,
		KeyFunc: func(object runtime.Object) (string, error) {
			return storage.NamespaceKeyFunc(resource, object)
		},
		GetAttrsFunc: attributes,
		NewFunc:      newPod,
		NewListFunc:  newPodList,
		Codec:        codecs.LegacyCodec(examplev1.SchemeGroupVersion),
		Clock:        clock.RealClock{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Stop)
	if err := cache.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	delegator := cacher.NewCacheDelegator(cache, below)
	t.Cleanup(delegator.Stop)
	return subject{delegator, below.client, true}
}

func attributes(object runtime.Object) (labels.Set, fields.Set, error) {
	pod, isPod := object.(*example.Pod)
	if !isPod {
		return nil, nil, fmt.Errorf("%T is no pod", object)
	}
	return pod.Labels, fields.Set{
		"metadata.name":      pod.Name,
		"metadata.namespace": pod.Namespace,
		"spec.nodeName":      pod.Spec.NodeName,
		"spec.restartPolicy": string(pod.Spec.RestartPolicy),
		"status.phase":       string(pod.Status.Phase),
	}, nil
}

// advance makes a revision that concerns no pod.
func (s subject) advance(ctx context.Context, t *testing.T) int64 {
	response, err := s.client.KV.Put(ctx, "increaseRV", "")
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.Revision
}

// compact does as kube-apiserver's compactor, and returns when the storage has noticed.
func (s subject) compact(ctx context.Context, t *testing.T, revision string) {
	parsed, err := storage.APIObjectVersioner{}.ParseResourceVersion(revision)
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.client.KV.Get(ctx, "compact_rev_key")
	if err != nil {
		t.Fatal(err)
	}
	version := int64(0)
	for _, kv := range held.Kvs {
		version = kv.Version
	}
	if _, _, _, err = etcd3.Compact(ctx, s.client.Client, version, int64(parsed)); err != nil {
		t.Fatal(err)
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for s.CompactRevision() != int64(parsed) {
		select {
		case <-limit.Done():
			t.Fatalf("compacted at %d, but the storage knows %d", parsed, s.CompactRevision())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
