//! Where a member listens, and how many may wait there.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::fixture::{Member, PATIENCE};
use super::{files, ports};

#[test]
fn a_wildcard_stands_for_both_families() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this system has no IPv6");
        return;
    }
    for wildcard in ["0.0.0.0", "[::]"] {
        let root = tempfile::tempdir().unwrap();
        let [client, peer, metrics] = [(); 3].map(|()| ports::free());
        let mut command = crate::child::command(crate::child::RUSD);
        command.args(["serve", "--name", "one", "--data-dir"]).arg(root.path().join("data"));
        command.args(["--listen-client-urls", &format!("http://{wildcard}:{client}")]);
        command.args(["--advertise-client-urls", &format!("http://[::1]:{client}")]);
        command.args(["--listen-peer-urls", &format!("http://{wildcard}:{peer}")]);
        command.args(["--initial-advertise-peer-urls", &format!("http://[::1]:{peer}")]);
        command.args(["--initial-cluster", &format!("one=http://[::1]:{peer}")]);
        command.args(["--listen-metrics-urls", &format!("http://{wildcard}:{metrics}")]);
        let address = format!("127.0.0.1:{client}");
        let mut member = Member::run(command, address, &root.path().join("log"));
        member.wait_ready();
        for port in [client, peer, metrics] {
            for host in ["127.0.0.1", "[::1]"] {
                let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
                TcpStream::connect_timeout(&address, PATIENCE)
                    .unwrap_or_else(|error| panic!("{wildcard}: {address}: {error}"));
            }
        }
    }
}

#[test]
fn as_many_connections_may_wait_as_the_system_lets() {
    let most: usize =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let most = most.min(4096).min(files::spare());
    let member = Member::start();
    let pid = Pid::from_child(&member.child);
    kill_process(pid, Signal::STOP).unwrap();
    let address: SocketAddr = member.address.parse().unwrap();
    // Nobody accepts: the kernel takes those that may wait, and lets the others try again.
    let waiting = (0..most).map(|number| {
        TcpStream::connect_timeout(&address, Duration::from_secs(10))
            .unwrap_or_else(|error| panic!("connection {number}: {error}"))
    });
    let waiting: Vec<TcpStream> = waiting.collect();
    kill_process(pid, Signal::CONT).unwrap();
    drop(waiting);
}
