# The third member has a directory of another cluster.
rusd serve --name m3 --data-dir m3 --initial-cluster m3=http://127.0.0.13:2380 --initial-cluster-token other \
    --listen-peer-urls http://127.0.0.13:2380 --initial-advertise-peer-urls http://127.0.0.13:2380 \
    --listen-client-urls http://127.0.0.13:2379 --advertise-client-urls http://127.0.0.13:2379 2>> m3.log &
serving 127.0.0.13:2379
stop 3
for n in 1 2 3; do member $n; done
export ETCDCTL_ENDPOINTS=127.0.0.11:2379,127.0.0.12:2379
for n in 1 2; do serving 127.0.0.1$n:2379; done
sleep 5.5
