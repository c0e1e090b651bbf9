//! Talos: a container with flags and some variables. It restores a snapshot by etcd's Go library, which
//! leaves a data directory of etcd for the server to start in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use super::fixture::{Etcd, Host, ended};
use super::ports;
use super::shop::Shop;

const CIPHER_SUITES: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,\
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,\
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";

struct Machine {
    host: Host,
    shop: Shop,
    client: u16,
    peer: u16,
}

impl Machine {
    fn new() -> Self {
        let (client, peer) = (ports::free(), ports::free());
        Self { host: Host::new(), shop: Shop::new(), client, peer }
    }

    fn data(&self) -> PathBuf {
        self.host.path("var/lib/etcd").into()
    }

    fn command(&self) -> Command {
        let Self { client, peer, .. } = self;
        let file = |name: &str| self.shop.path(name);
        let url = format!("https://127.0.0.1:{peer}");
        let mut etcd = self.host.program("etcd");
        etcd.args([
            format!("--advertise-client-urls=https://127.0.0.1:{client}"),
            "--auto-tls=false".to_owned(),
            format!("--cert-file={}", file("server.crt")),
            "--client-cert-auth=true".to_owned(),
            format!("--data-dir={}", self.data().display()),
            "--experimental-compact-hash-check-enabled=true".to_owned(),
            "--experimental-initial-corrupt-check=true".to_owned(),
            "--experimental-watch-progress-notify-interval=5s".to_owned(),
            format!("--initial-advertise-peer-urls={url}"),
            format!("--initial-cluster=talos-1={url}"),
            "--initial-cluster-state=new".to_owned(),
            format!("--key-file={}", file("server.key")),
            format!("--listen-client-urls=https://0.0.0.0:{client}"),
            format!("--listen-peer-urls={url}"),
            "--name=talos-1".to_owned(),
            "--peer-auto-tls=false".to_owned(),
            format!("--peer-cert-file={}", file("server.crt")),
            "--peer-client-cert-auth=true".to_owned(),
            format!("--peer-key-file={}", file("server.key")),
            format!("--peer-trusted-ca-file={}", file("ca.crt")),
            format!("--trusted-ca-file={}", file("ca.crt")),
        ]);
        etcd.env("ETCD_CIPHER_SUITES", CIPHER_SUITES).env("ETCD_UNSUPPORTED_ARCH", "arm64");
        etcd
    }

    fn start(&self, more: &[&str]) -> Etcd {
        // Each start has a log of its own.
        let _ = fs::remove_file(self.host.path("etcd.log"));
        self.host.start("etcd", self.command().args(more))
    }

    fn good(&self, words: &[&str]) -> String {
        self.host.good_over_tls(&self.shop, self.client, words)
    }

    fn value(&self) -> String {
        self.good(&["get", "/registry/a", "--print-value-only"])
    }

    /// Makes the data directory one of etcd, with the state that it had: its file is an exported
    /// snapshot without the checksum behind it, and its log has our format.
    fn make_etcds(&self) {
        let (data, ours) = (self.data(), PathBuf::from(self.host.path("ours")));
        fs::rename(&data, &ours).unwrap();
        let mut export = self.host.program("rusd");
        export.arg("export").arg("--data-dir").arg(&ours).arg(self.host.path("exported"));
        let (code, said) = ended(&export.output().unwrap());
        assert_eq!(code, 0, "{said}");
        let mut file = fs::read(self.host.path("exported")).unwrap();
        file.truncate(file.len() - 32);
        fs::create_dir_all(data.join("member/snap")).unwrap();
        fs::write(data.join("member/snap/db"), file).unwrap();
        copy(&ours.join("member/wal"), &data.join("member/wal"));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// Names and contents of all files below a directory.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            all.extend(contents(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else {
            all.push((name, fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_directory_of_etcd_is_taken_in_when_it_is_asked_for() {
    let machine = Machine::new();
    let mut etcd = machine.start(&[]);
    etcd.wait_serving();
    machine.good(&["put", "/registry/a", "1"]);
    let member = machine.good(&["member", "list"]);
    etcd.stop();
    machine.make_etcds();
    let (data, kept) = (machine.data(), machine.data().join("member.etcd"));
    let etcds = contents(&data.join("member"));

    let mut refused = machine.start(&[]);
    assert_eq!(refused.wait_end().code(), Some(1), "{}", refused.log());
    assert!(refused.log().contains("--import-etcd-dir"), "{}", refused.log());
    let mut refused = machine.start(&["--import-etcd-dir", "--wal-dir=/elsewhere"]);
    assert_eq!(refused.wait_end().code(), Some(1), "{}", refused.log());
    assert!(refused.log().contains("rusd import"), "{}", refused.log());
    assert_eq!(contents(&data.join("member")), etcds);

    let mut etcd = machine.start(&["--import-etcd-dir"]);
    etcd.wait_serving();
    assert!(etcd.log().contains("took in etcd's data directory"), "{}", etcd.log());
    assert_eq!(machine.value(), "1\n");
    assert_eq!(machine.good(&["member", "list"]), member);
    assert_eq!(contents(&kept), etcds);
    machine.good(&["put", "/registry/a", "2"]);
    etcd.stop();
    // The flag may stay: the directory is not etcd's any more.
    for more in [&["--import-etcd-dir"][..], &[]] {
        let mut etcd = machine.start(more);
        etcd.wait_serving();
        assert_eq!(machine.value(), "2\n");
        assert!(!etcd.log().contains("took in"), "{}", etcd.log());
        etcd.stop();
    }
    assert_eq!(contents(&kept), etcds);
}

#[test]
fn a_start_that_is_killed_while_it_takes_a_directory_in_loses_nothing() {
    let machine = Machine::new();
    let mut etcd = machine.start(&[]);
    etcd.wait_serving();
    machine.good(&["put", "/registry/a", "1"]);
    etcd.stop();
    machine.make_etcds();
    let (data, saved) = (machine.data(), PathBuf::from(machine.host.path("saved")));
    copy(&data, &saved);
    let etcds = contents(&saved.join("member"));
    for millis in [5, 20, 40, 60, 80, 110, 150, 250] {
        fs::remove_dir_all(&data).unwrap();
        copy(&saved, &data);
        let killed = machine.start(&["--import-etcd-dir"]);
        sleep(Duration::from_millis(millis));
        drop(killed);
        let places = ["member", "importing/member", "member.etcd"].map(|name| data.join(name));
        let found = places.iter().find(|place| place.join("snap").exists());
        assert_eq!(contents(found.unwrap()), etcds, "after {millis} ms");
        let member = &places[0];
        assert!(member.join("snap").exists() || member.join("db/CURRENT").exists(), "{millis} ms");

        let mut etcd = machine.start(&["--import-etcd-dir"]);
        etcd.wait_serving();
        assert_eq!(machine.value(), "1\n", "after {millis} ms");
        assert_eq!(contents(&places[2]), etcds, "after {millis} ms");
        assert!(!data.join("importing").exists());
        etcd.stop();
    }
}
