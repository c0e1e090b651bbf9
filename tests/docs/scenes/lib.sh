# Scenes that many pages begin with. They are sourced by the shell that runs the page.

# A server with all defaults, in the background.
one() {
    rusd serve "$@" --listen-client-urls http://localhost:2379 --advertise-client-urls http://localhost:2379 \
        --listen-peer-urls http://localhost:2380 --initial-advertise-peer-urls http://localhost:2380 \
        --initial-cluster default=http://localhost:2380 >> rusd.log 2>&1 &
    serving 127.0.0.1:2379
}

# Member number $1 of three, with more flags behind it.
member() {
    local n=$1
    shift
    rusd serve --name m$n --data-dir m$n --initial-cluster m1=http://127.0.0.11:2380,m2=http://127.0.0.12:2380,m3=http://127.0.0.13:2380 \
        --listen-peer-urls http://127.0.0.1$n:2380 --initial-advertise-peer-urls http://127.0.0.1$n:2380 \
        --listen-client-urls http://127.0.0.1$n:2379 --advertise-client-urls http://127.0.0.1$n:2379 "$@" >> m$n.log 2>&1 &
}

# Three members m1, m2 and m3.
three() {
    local n
    for n in 1 2 3; do member $n "$@"; done
    export ETCDCTL_ENDPOINTS=127.0.0.11:2379,127.0.0.12:2379,127.0.0.13:2379
    for n in 1 2 3; do serving 127.0.0.1$n:2379; done
}

# Waits until this endpoint serves.
serving() {
    local tries
    for tries in $(seq 300); do
        rusd endpoint health --endpoints "$1" --command-timeout 2s > /dev/null 2>&1 && return
        sleep 0.1
    done
    echo "$1 does not serve" >&2
    return 1
}

# Ends member number $1, by the signal $2 if it is given, and waits until it has ended.
stop() {
    end m$1 $2
}

# Ends the server that has this data directory.
end() {
    kill ${2:--TERM} $(cat $1/rusd.lock)
    while ! flock -n $1/rusd.lock true; do sleep 0.05; done
}

# A server that asks clients for certificates.
one_tls() {
    rusd cert gen --dir certs --clients root
    rusd serve --listen-client-urls https://localhost:2379 --advertise-client-urls https://localhost:2379 \
        --listen-peer-urls http://localhost:2380 --initial-advertise-peer-urls http://localhost:2380 \
        --initial-cluster default=http://localhost:2380 --cert-file certs/server.crt --key-file certs/server.key \
        --trusted-ca-file certs/ca.crt --client-cert-auth >> rusd.log 2>&1 &
    (
        export ETCDCTL_CACERT=certs/ca.crt ETCDCTL_CERT=certs/root.crt ETCDCTL_KEY=certs/root.key
        serving localhost:2379
        rusd put city Bern --endpoints localhost:2379
    )
}

# A directory of etcd: an exported snapshot without the checksum behind it, and a log, whose format is
# the same.
etcds_directory() {
    one --data-dir ours
    rusd put registry/a 1
    end ours
    rusd export --data-dir ours exported.db
    truncate -s -32 exported.db
    mkdir -p /var/lib/etcd/member/snap
    mv exported.db /var/lib/etcd/member/snap/db
    cp -r ours/member/wal /var/lib/etcd/member/wal
}
