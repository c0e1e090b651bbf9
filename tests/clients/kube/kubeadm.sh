#!/usr/bin/env bash
# A Kubernetes round over TLS, with etcd set up as kubeadm does: certificates, flags and probes.
#
#   tests/clients/kube/kubeadm.sh PATH_TO_RUSD
#
# Kubernetes' own checks of its storage and its cache run against the server over TLS (needs Go). Then a kube-apiserver from PATH serves on top of it and kubectl works with it.
# Without a kube-apiserver the second part is left out, and the script says so.
set -euo pipefail

rusd=$(realpath "${1:?usage: kubeadm.sh PATH_TO_RUSD}")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
client=${CLIENT_PORT:-23790} peer=${PEER_PORT:-23800} metrics=${METRICS_PORT:-23810}
api=${API_PORT:-26443}
pki=$work/pki
etcd_pid='' api_pid='' watch_pid=''

# Ends a process: by force if it does not end within some seconds.
end() {
    kill "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.2
    done
    kill -9 "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

finish() {
    local code=$?
    # The API server first: without its etcd it waits for a minute before it ends.
    for pid in $watch_pid $api_pid $etcd_pid; do end "$pid"; done
    if [ $code -ne 0 ]; then
        tail -n 30 "$work"/*.log >&2 || true
    fi
    rm -rf "$work"
    exit $code
}
trap finish EXIT

# Waits until a command succeeds, and no longer once one of the servers is gone.
until_true() {
    for _ in $(seq 900); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        for pid in $api_pid $etcd_pid; do
            kill -0 "$pid" 2>/dev/null || { echo "a server has ended; waited for: $*" >&2; return 1; }
        done
        sleep 0.2
    done
    echo "never succeeded: $*" >&2
    return 1
}

start_etcd() {
    "$work/etcd" \
        --advertise-client-urls=https://127.0.0.1:$client \
        --cert-file="$pki/etcd/server.crt" \
        --client-cert-auth=true \
        --data-dir="$work/data" \
        --feature-gates=InitialCorruptCheck=true \
        --initial-advertise-peer-urls=https://127.0.0.1:$peer \
        --initial-cluster=cp-1=https://127.0.0.1:$peer \
        --key-file="$pki/etcd/server.key" \
        --listen-client-urls=https://127.0.0.1:$client \
        --listen-metrics-urls=http://127.0.0.1:$metrics \
        --listen-peer-urls=https://127.0.0.1:$peer \
        --name=cp-1 \
        --peer-cert-file="$pki/etcd/peer.crt" \
        --peer-client-cert-auth=true \
        --peer-key-file="$pki/etcd/peer.key" \
        --peer-trusted-ca-file="$pki/etcd/ca.crt" \
        --snapshot-count=10000 \
        --trusted-ca-file="$pki/etcd/ca.crt" \
        --watch-progress-notify-interval=5s \
        >>"$work/etcd.log" 2>&1 &
    etcd_pid=$!
    echo $etcd_pid >"$work/etcd.pid"
    until_true curl -fs "http://127.0.0.1:$metrics/readyz"
    curl -fs "http://127.0.0.1:$metrics/livez" >/dev/null
}

ln -s "$rusd" "$work/etcd"
"$rusd" cert gen --dir "$pki/etcd" --clients healthcheck-client,apiserver-etcd-client >/dev/null
mv "$pki"/etcd/apiserver-etcd-client.* "$pki/"

echo "Kubernetes' checks of its storage, over TLS"
start_etcd
if command -v go >/dev/null; then
    (cd "$here" && go test . -count=1 -endpoint "127.0.0.1:$client" -pki "$pki")
else
    echo "go is not in PATH; Kubernetes' checks of its storage are left out"
fi

if ! command -v kube-apiserver >/dev/null || ! command -v kubectl >/dev/null; then
    echo "kube-apiserver or kubectl is not in PATH; that part is left out"
    exit 0
fi

echo "kube-apiserver on top of it"
openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null
openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
echo 'secret,admin,admin,system:masters' >"$work/tokens"
kube-apiserver \
    --authorization-mode=RBAC \
    --bind-address=127.0.0.1 --secure-port=$api --cert-dir="$work/apiserver" \
    --etcd-servers=https://127.0.0.1:$client \
    --etcd-cafile="$pki/etcd/ca.crt" \
    --etcd-certfile="$pki/apiserver-etcd-client.crt" \
    --etcd-keyfile="$pki/apiserver-etcd-client.key" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/sa.pub" \
    --service-account-signing-key-file="$pki/sa.key" \
    --service-cluster-ip-range=10.96.0.0/16 \
    --token-auth-file="$work/tokens" \
    >"$work/apiserver.log" 2>&1 &
api_pid=$!
kube() {
    kubectl --server "https://127.0.0.1:$api" --token secret --insecure-skip-tls-verify "$@"
}
until_true kube get --raw /readyz
kube create namespace round >/dev/null
for number in $(seq 50); do
    kube -n round create configmap "c$number" --from-literal=number="$number" >/dev/null
done
[ "$(kube -n round get configmaps --no-headers | grep -c '^c[0-9]')" -eq 50 ]

# etcd is killed and started again: what was acknowledged is there, and writes go on.
kill -9 $etcd_pid
wait $etcd_pid 2>/dev/null || true
etcd_pid=''
start_etcd
until_true kube get --raw /readyz
[ "$(kube -n round get configmaps --no-headers | grep -c '^c[0-9]')" -eq 50 ]
kube -n round get configmaps --watch >"$work/watch.txt" 2>&1 &
watch_pid=$!
shows() { [ "$(grep -c "$1" "$work/watch.txt")" -eq "$2" ]; }
until_true shows '^c[0-9]' 50
kube -n round delete configmap c1 >/dev/null
until_true shows '^c1 ' 2
kube delete namespace round --wait=false >/dev/null
echo "kube-apiserver: all well"
