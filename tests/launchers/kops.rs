//! kOps' etcd-manager: variables alone, an end by SIGKILL, and a restore by the command that etcdctl
//! had up to 3.5.

use std::process::Command;

use super::fixture::{Host, ended};
use super::member::free_address;
use super::ports;
use super::shop::Shop;

struct Manager {
    host: Host,
    shop: Shop,
    client: u16,
    peer: u16,
    metrics: String,
}

impl Manager {
    fn new() -> Self {
        let shop = Shop::new();
        let (client, peer) = (ports::free(), ports::free());
        Self { host: Host::new(), shop, client, peer, metrics: free_address() }
    }

    fn member(&self) -> String {
        format!("etcd-a=https://127.0.0.1:{}", self.peer)
    }

    /// The process, in a data directory and with a cluster token of its own.
    fn process(&self, token: &str) -> Command {
        let Self { client, peer, metrics, .. } = self;
        let file = |name: &str| self.shop.path(name);
        let mut etcd = self.host.program("etcd");
        etcd.envs([
            ("ETCD_DATA_DIR", self.host.path(token)),
            ("ETCD_NAME", "etcd-a".to_owned()),
            ("ETCD_LISTEN_PEER_URLS", format!("https://0.0.0.0:{peer}")),
            ("ETCD_LISTEN_CLIENT_URLS", format!("https://0.0.0.0:{client}")),
            ("ETCD_LISTEN_METRICS_URLS", format!("http://{metrics}")),
            ("ETCD_ADVERTISE_CLIENT_URLS", format!("https://127.0.0.1:{client}")),
            ("ETCD_INITIAL_ADVERTISE_PEER_URLS", format!("https://127.0.0.1:{peer}")),
            ("ETCD_INITIAL_CLUSTER_STATE", "new".to_owned()),
            ("ETCD_INITIAL_CLUSTER", self.member()),
            ("ETCD_INITIAL_CLUSTER_TOKEN", token.to_owned()),
            ("ETCD_CLIENT_CERT_AUTH", "true".to_owned()),
            ("ETCD_CERT_FILE", file("server.crt")),
            ("ETCD_KEY_FILE", file("server.key")),
            ("ETCD_TRUSTED_CA_FILE", file("ca.crt")),
            ("ETCD_PEER_CLIENT_CERT_AUTH", "true".to_owned()),
            ("ETCD_PEER_CERT_FILE", file("server.crt")),
            ("ETCD_PEER_KEY_FILE", file("server.key")),
            ("ETCD_PEER_TRUSTED_CA_FILE", file("ca.crt")),
        ]);
        etcd.envs([
            ("ETCD_LOGGER", "zap"),
            ("ETCD_LOG_OUTPUTS", "stdout"),
            ("ETCD_ENABLE_V2", "false"),
            ("ETCD_STRICT_RECONFIG_CHECK", "true"),
            ("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true"),
            ("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s"),
        ]);
        etcd
    }

    fn good(&self, words: &[&str]) -> String {
        self.host.good_over_tls(&self.shop, self.client, words)
    }

    fn value(&self) -> String {
        self.good(&["get", "/registry/a", "--print-value-only"])
    }
}

#[test]
fn variables_alone_start_it_and_a_killed_one_is_restored() {
    let manager = Manager::new();
    let host = &manager.host;
    let mut etcd = host.start("etcd", &mut manager.process("one"));
    etcd.wait_probe(&manager.metrics, "/readyz");
    let log = etcd.log();
    assert!(log.contains(r#""initial-corrupt-check":true"#), "{log}");
    let unknown = |log: &str| -> Vec<String> {
        let lines = log.lines().filter(|line| line.contains("unrecognized environment variable"));
        lines.map(|line| line.rsplit(':').next().unwrap().to_owned()).collect()
    };
    assert_eq!(unknown(&log), [r#""ETCD_ENABLE_V2=false"}"#]);
    manager.good(&["put", "/registry/a", "1"]);
    // SIGKILL, as the manager ends it always.
    drop(etcd);

    let mut etcd = host.start("etcd", &mut manager.process("one"));
    etcd.wait_probe(&manager.metrics, "/readyz");
    assert_eq!(manager.value(), "1\n");
    manager.good(&["snapshot", "save", &host.path("backup.db")]);
    manager.good(&["put", "/registry/a", "2"]);
    drop(etcd);

    let mut restore = host.program("etcdctl");
    restore.env("ETCDCTL_API", "3").args(["snapshot", "restore", &host.path("backup.db")]);
    let url = format!("https://127.0.0.1:{}", manager.peer);
    restore.args(["--name", "etcd-a", "--initial-cluster", &manager.member()]);
    restore.args(["--initial-cluster-token", "two", "--initial-advertise-peer-urls", &url]);
    restore.args(["--data-dir", &host.path("two")]);
    let (code, said) = ended(&restore.output().unwrap());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Deprecated: Use `etcdutl snapshot restore` instead."), "{said}");
    let (code, said) = ended(&restore.output().unwrap());
    assert!(code == 1 && said.contains("not empty"), "{code} {said}");

    let mut etcd = host.start("etcd", manager.process("two").arg("--force-new-cluster"));
    etcd.wait_probe(&manager.metrics, "/readyz");
    assert_eq!(manager.value(), "1\n");
    assert_eq!(manager.good(&["member", "list"]).lines().count(), 1);
    manager.good(&["put", "/registry/a", "3"]);
    drop(etcd);
    let mut etcd = host.start("etcd", &mut manager.process("two"));
    etcd.wait_probe(&manager.metrics, "/readyz");
    assert_eq!(manager.value(), "3\n");
}
