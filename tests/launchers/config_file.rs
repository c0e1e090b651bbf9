//! RKE2 and k3s: a file with their keys, which RKE2 keeps in the data directory itself.

use std::fs;
use std::process::Stdio;

use super::child::command;
use super::fixture::{Etcd, Host, ended, flags_over_tls, probe};
use super::ports;
use super::shop::Shop;

/// What the two files have in common.
struct Server {
    host: Host,
    shop: Shop,
    client: u16,
    http: u16,
    peer: u16,
    metrics: String,
}

impl Server {
    fn new() -> Self {
        let (host, shop) = (Host::new(), Shop::new());
        for name in ["server-client", "peer-server-client"] {
            shop.sell(name, |_| {});
        }
        let [client, http, peer] = std::array::from_fn(|_| ports::free());
        Self { host, shop, client, http, peer, metrics: format!("127.0.0.1:{}", ports::free()) }
    }

    /// The file, as the Go program writes it: keys in alphabetical order.
    fn write(&self, more: &str) -> String {
        let Self { client, http, peer, metrics, .. } = self;
        let data = self.host.path("db/etcd");
        let security = |side: &str, pair: &str| {
            let file = |name: &str| self.shop.path(name);
            format!(
                "{side}-transport-security:\n  cert-file: {}\n  client-cert-auth: true\n  \
                 key-file: {}\n  trusted-ca-file: {}\n",
                file(&format!("{pair}.crt")),
                file(&format!("{pair}.key")),
                file("ca.crt"),
            )
        };
        let text = format!(
            "advertise-client-urls: https://127.0.0.1:{client}\n{}data-dir: {data}\n\
             election-timeout: 5000\nheartbeat-interval: 500\n\
             initial-advertise-peer-urls: https://127.0.0.1:{peer}\n\
             initial-cluster: server-1-0a1b2c3d=https://127.0.0.1:{peer}\n\
             initial-cluster-state: new\nlisten-client-http-urls: https://127.0.0.1:{http}\n\
             listen-client-urls: https://127.0.0.1:{client},https://127.0.0.2:{client}\n\
             listen-metrics-urls: http://{metrics}\n\
             listen-peer-urls: https://127.0.0.1:{peer},https://127.0.0.2:{peer}\n\
             log-outputs:\n- stderr\nlogger: zap\nname: server-1-0a1b2c3d\n{}{more}\
             snapshot-count: 10000\n",
            security("client", "server-client"),
            security("peer", "peer-server-client"),
        );
        self.host.write("db/etcd/config", text)
    }

    fn start(&self, file: &str) -> Etcd {
        let mut etcd = self.host.program("etcd");
        etcd.arg(format!("--config-file={file}"));
        let mut etcd = self.host.start("etcd", &mut etcd);
        etcd.wait_probe(&self.metrics, "/readyz");
        let log = etcd.log();
        assert!(!log.contains("unknown key"), "{log}");
        etcd
    }

    fn good(&self, words: &[&str]) -> String {
        self.host.good_over_tls(&self.shop, self.client, words)
    }

    /// Waits for a watch to be told of progress, which comes every ten minutes by default.
    fn wait_progress(&self) {
        let mut watch = self.host.program("etcdctl");
        watch
            .args(["watch", "--progress-notify", "k"])
            .args(flags_over_tls(&self.shop, self.client));
        let watch = watch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut watch = watch.spawn().unwrap();
        let mut lines = command("timeout");
        lines.args(["90", "grep", "-m1", "progress notify"]).stdin(watch.stdout.take().unwrap());
        let (code, said) = ended(&lines.output().unwrap());
        watch.kill().unwrap();
        watch.wait().unwrap();
        assert_eq!(code, 0, "no progress: {said}");
    }

    /// The lines of the start that say what has a meaning.
    fn assert_settings(&self, etcd: &Etcd, more: &[&str]) {
        let log = etcd.log();
        let common = [
            r#""heartbeat-interval":"500ms""#,
            r#""election-timeout":"5s""#,
            r#""initial-corrupt-check":true"#,
            r#""name":"server-1-0a1b2c3d""#,
        ];
        for setting in common.iter().chain(more) {
            assert!(log.contains(setting), "{setting} in {log}");
        }
    }
}

#[test]
fn rke2s_file_of_each_release_is_understood() {
    let server = Server::new();
    // What RKE2 has put into the directory before the first start.
    server.host.write("db/etcd/name", "server-1-0a1b2c3d");
    let old = "experimental-initial-corrupt-check: true\n\
               experimental-watch-progress-notify-interval: 5000000000\n";
    let new = "feature-gates: InitialCorruptCheck=true\n\
               watch-progress-notify-interval: 5000000000\n";
    for keys in [old, new] {
        let mut etcd = server.start(&server.write(keys));
        for path in ["/livez", "/readyz", "/health?serializable=true"] {
            assert_eq!(probe(&server.metrics, path), 200, "{path}");
        }
        server.assert_settings(&etcd, &[]);
        server.good(&["put", "/registry/a", "1"]);
        server.wait_progress();
        etcd.stop();
        fs::remove_file(server.host.path("etcd.log")).unwrap();
    }
    assert!(fs::exists(server.host.path("db/etcd/name")).unwrap());
}

#[test]
fn k3s_file_is_understood_and_resets_a_cluster() {
    let server = Server::new();
    let keys = "experimental-initial-corrupt-check: true\n\
                experimental-watch-progress-notify-interval: 5000000000\n\
                socket-options:\n  reuse-address: true\n  reuse-port: true\n";
    let mut etcd = server.start(&server.write(keys));
    server.assert_settings(&etcd, &[r#""reuse-address":true,"reuse-port":true"#]);
    server.good(&["put", "/registry/a", "1"]);
    // Another server that never comes: the quorum is gone.
    let url = format!("https://127.0.0.1:{}", ports::free());
    server.good(&["member", "add", "server-2", "--peer-urls", &url]);
    etcd.child.kill().unwrap();
    etcd.wait_end();
    fs::remove_file(server.host.path("etcd.log")).unwrap();

    let mut etcd = server.start(&server.write(&format!("{keys}force-new-cluster: true\n")));
    server.assert_settings(&etcd, &[r#""force-new-cluster":true"#]);
    assert_eq!(server.good(&["get", "/registry/a", "--print-value-only"]), "1\n");
    assert_eq!(server.good(&["member", "list"]).lines().count(), 1);
    etcd.stop();
    let mut etcd = server.start(&server.write(keys));
    server.good(&["put", "/registry/a", "2"]);
    etcd.stop();
}
