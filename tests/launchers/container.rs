//! Containers: the first process of its own, with variables alone, ended by SIGTERM.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::child::command;
use super::fixture::{Etcd, Host, probe};
use super::member::free_address;

const UNSHARE: [&str; 3] = ["--pid", "--fork", "--kill-child"];

/// Whether this user may make a process the first one; says so if not.
fn is_possible() -> bool {
    let mut probe = command("unshare");
    let probe = probe.args(UNSHARE).arg("true").stderr(Stdio::null()).status();
    let is_possible = probe.is_ok_and(|status| status.success());
    if !is_possible {
        eprintln!("unshare --pid does not work here; nothing is tested");
    }
    is_possible
}

fn container(host: &Host) -> Command {
    let mut unshare = command("unshare");
    unshare.args(UNSHARE).arg(host.path("bin/etcd")).env_clear().current_dir(host.path("."));
    unshare
}

/// Sends SIGTERM to the first process.
fn stop(etcd: &mut Etcd) -> Option<i32> {
    let unshare = etcd.child.id();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let first: i32 = children.trim().parse().unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
    etcd.wait_end().code()
}

#[test]
fn the_first_process_serves_and_ends_in_order() {
    if !is_possible() {
        return;
    }
    let host = Host::new();
    let (client, peer) = (free_address(), free_address());
    let everywhere =
        |address: &str| format!("http://0.0.0.0:{}", address.rsplit(':').next().unwrap());
    for round in 0..2 {
        let mut container = container(&host);
        container.envs([
            ("ETCD_NAME", "node1".to_owned()),
            ("ETCD_DATA_DIR", host.path("etcd-data")),
            ("ETCD_LISTEN_CLIENT_URLS", everywhere(&client)),
            ("ETCD_ADVERTISE_CLIENT_URLS", format!("http://{client}")),
            ("ETCD_LISTEN_PEER_URLS", everywhere(&peer)),
            ("ETCD_INITIAL_ADVERTISE_PEER_URLS", format!("http://{peer}")),
            ("ETCD_INITIAL_CLUSTER", format!("node1=http://{peer}")),
            ("ETCD_INITIAL_CLUSTER_STATE", "new".to_owned()),
            ("ETCD_INITIAL_CLUSTER_TOKEN", "tkn".to_owned()),
            ("ETCD_AUTO_COMPACTION_RETENTION", "1".to_owned()),
            ("ETCD_VERSION", "v3.7.1".to_owned()),
        ]);
        let mut etcd = host.start("etcd", &mut container);
        etcd.wait_probe(&client, "/health");
        let endpoint = format!("--endpoints={client}");
        if round == 1 {
            assert_eq!(host.good(&["get", "k", "--print-value-only", &endpoint]), "v\n");
        }
        host.good(&["put", "k", "v", &endpoint]);
        assert_eq!(stop(&mut etcd), Some(0), "{}", etcd.log());
        let log = etcd.log();
        assert_eq!(log.matches("closed etcd server").count(), round + 1, "{log}");
    }
    assert_eq!(probe(&client, "/health"), 0);
}

/// The system takes no default action for the first process of a container.
#[test]
fn the_first_process_ends_before_it_serves_too() {
    if !is_possible() {
        return;
    }
    let host = Host::new();
    // A discovery service that takes connections and says nothing.
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut container = container(&host);
    let (client, peer) = (free_address(), free_address());
    container.envs([
        ("ETCD_DATA_DIR", host.path("data")),
        ("ETCD_LISTEN_CLIENT_URLS", format!("http://{client}")),
        ("ETCD_ADVERTISE_CLIENT_URLS", format!("http://{client}")),
        ("ETCD_LISTEN_PEER_URLS", format!("http://{peer}")),
        ("ETCD_DISCOVERY_ENDPOINTS", service.local_addr().unwrap().to_string()),
        ("ETCD_DISCOVERY_TOKEN", "token".to_owned()),
        ("ETCD_DISCOVERY_DIAL_TIMEOUT", "1h".to_owned()),
        ("ETCD_DISCOVERY_REQUEST_TIMEOUT", "1h".to_owned()),
    ]);
    let mut etcd = host.start("etcd", &mut container);
    service.accept().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(etcd.child.try_wait().unwrap().is_none(), "{}", etcd.log());
    assert_eq!(stop(&mut etcd), Some(2), "{}", etcd.log());
}
