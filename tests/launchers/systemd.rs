//! systemd: a unit of type notify, whose settings are variables.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::fixture::{Host, PATIENCE, probe};
use super::member::free_address;

/// What listens on NOTIFY_SOCKET.
struct Manager(UnixDatagram);

impl Manager {
    fn new(host: &Host) -> Self {
        Self(UnixDatagram::bind(host.path("notify")).unwrap())
    }

    /// The next message within the time; empty if there is none.
    fn hear(&self, patience: Duration) -> String {
        let mut bytes = [0; 256];
        self.0.set_read_timeout(Some(patience)).unwrap();
        let length = self.0.recv(&mut bytes).unwrap_or_default();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Waits for a message, and returns those before it.
    fn wait(&self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let message = self.hear(PATIENCE);
            if message == wanted {
                return before;
            }
            assert!(!message.is_empty(), "no {wanted}, but {before:?}");
            before.push(message);
        }
    }
}

/// A member of `cluster`, by variables as a unit's EnvironmentFile sets them.
fn variables(command: &mut Command, host: &Host, at: usize, addresses: &[(String, String)]) {
    let (client, peer) = &addresses[at];
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let cluster: Vec<String> = addresses
        .iter()
        .enumerate()
        .map(|(number, (_, peer))| format!("m{number}=http://{peer}"))
        .collect();
    command.envs([
        ("ETCD_NAME", format!("m{at}")),
        ("ETCD_DATA_DIR", host.path(&format!("state/m{at}"))),
        ("ETCD_LISTEN_CLIENT_URLS", client.clone()),
        ("ETCD_ADVERTISE_CLIENT_URLS", client),
        ("ETCD_LISTEN_PEER_URLS", peer.clone()),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", peer),
        ("ETCD_INITIAL_CLUSTER", cluster.join(",")),
    ]);
}

fn addresses(count: usize) -> Vec<(String, String)> {
    (0..count).map(|_| (free_address(), free_address())).collect()
}

#[test]
fn ready_is_said_by_a_member_that_serves_and_stopping_by_one_that_stops() {
    let (host, addresses) = (Host::new(), addresses(2));
    let manager = Manager::new(&host);
    // StateDirectory= makes it so.
    DirBuilder::new().recursive(true).mode(0o755).create(host.path("state/m0")).unwrap();
    let mut unit = host.script("WATCHDOG_PID=$$ exec etcd");
    variables(&mut unit, &host, 0, &addresses);
    unit.env("NOTIFY_SOCKET", host.path("notify")).env("WATCHDOG_USEC", "200000");
    let mut first = host.start("first", &mut unit);
    manager.wait("EXTEND_TIMEOUT_USEC=30000000");
    // Half of a cluster serves nobody, and a start that waits for the other half asks for no time.
    first.wait_for("a start", |log| log.contains("now serving peer/client/metrics"));
    let next = manager.hear(Duration::from_secs(1));
    assert!(next.is_empty() || next.starts_with("EXTEND_TIMEOUT_USEC="), "{next}");
    let mut other = host.program("etcd");
    variables(&mut other, &host, 1, &addresses);
    let mut second = host.start("second", &mut other);
    manager.wait("READY=1");
    assert_eq!(probe(&addresses[0].0, "/health"), 200);
    for _ in 0..3 {
        assert_eq!(manager.wait("WATCHDOG=1"), [""; 0]);
    }
    first.signal(Signal::TERM);
    let before = manager.wait("STOPPING=1");
    assert!(before.iter().all(|message| message == "WATCHDOG=1"), "{before:?}");
    assert_eq!(first.wait_end().signal(), Some(Signal::TERM.as_raw()));
    assert!(first.log().contains("successfully notified init daemon"), "{}", first.log());
    second.wait_serving();
    assert!(!second.log().contains("init daemon"), "{}", second.log());
}

#[test]
fn a_gateway_says_that_it_is_ready_alive_and_stopping() {
    let host = Host::new();
    let manager = Manager::new(&host);
    let mut unit = host.program("etcd");
    unit.args(["gateway", "start", "--listen-addr", &free_address()]);
    // Nobody listens there, which a restart would not mend.
    unit.args(["--endpoints", &free_address(), "--retry-delay", "100ms"]);
    unit.env("NOTIFY_SOCKET", host.path("notify")).env("WATCHDOG_USEC", "200000");
    let mut gateway = host.start("gateway", &mut unit);
    assert_eq!(manager.wait("READY=1"), [""; 0]);
    for _ in 0..3 {
        assert_eq!(manager.wait("WATCHDOG=1"), [""; 0]);
    }
    gateway.signal(Signal::TERM);
    let before = manager.wait("STOPPING=1");
    assert!(before.iter().all(|message| message == "WATCHDOG=1"), "{before:?}");
    assert_eq!(gateway.wait_end().signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn a_watchdog_for_another_process_hears_nothing() {
    let (host, addresses) = (Host::new(), addresses(1));
    let manager = Manager::new(&host);
    let mut unit = host.program("etcd");
    variables(&mut unit, &host, 0, &addresses);
    unit.env("NOTIFY_SOCKET", host.path("notify"));
    unit.env("WATCHDOG_USEC", "20000").env("WATCHDOG_PID", "1");
    let mut etcd = host.start("etcd", &mut unit);
    manager.wait("READY=1");
    assert_eq!(manager.hear(Duration::from_secs(1)), "");
    etcd.signal(Signal::TERM);
    assert_eq!(manager.wait("STOPPING=1"), [""; 0]);
    etcd.wait_end();
}

#[test]
fn nothing_is_said_to_be_notified_where_nobody_listens() {
    let (host, addresses) = (Host::new(), addresses(1));
    drop(Manager::new(&host));
    assert!(fs::exists(host.path("notify")).unwrap());
    let mut unit = host.program("etcd");
    variables(&mut unit, &host, 0, &addresses);
    unit.env("NOTIFY_SOCKET", host.path("notify")).env("WATCHDOG_USEC", "20000");
    let mut etcd = host.start("etcd", &mut unit);
    etcd.wait_for("an error", |log| log.contains("failed to notify systemd for readiness"));
    assert_eq!(probe(&addresses[0].0, "/health"), 200);
    etcd.stop();
    let log = etcd.log();
    assert!(!log.contains("successfully notified"), "{log}");
    assert_eq!(log.matches("failed to tell systemd that the process is alive").count(), 1, "{log}");
}
