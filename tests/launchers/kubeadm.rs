//! kubeadm: a static pod whose flags change with the release, certificates in the files of
//! `/etc/kubernetes/pki/etcd`, probes over plain HTTP, and members that join as learners.

use std::fs;
use std::process::Command;

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
};

use super::fixture::{Etcd, Host, probe};
use super::ports;
use super::shop::{Authority, Form, key, root_of};

/// The flags that etcd 3.6 has renamed, as kubeadm gave them until 1.33 and gives them since.
const UNTIL_1_33: [&str; 2] = [
    "--experimental-initial-corrupt-check=true",
    "--experimental-watch-progress-notify-interval=5s",
];
const SINCE_1_34: [&str; 2] =
    ["--feature-gates=InitialCorruptCheck=true", "--watch-progress-notify-interval=5s"];

/// A control plane node.
struct Node {
    name: &'static str,
    ip: &'static str,
    client: u16,
    peer: u16,
    metrics: String,
}

impl Node {
    /// A node with its certificates.
    fn new(host: &Host, authority: &Authority, name: &'static str, ip: &'static str) -> Self {
        let names = ["localhost", name, ip, "127.0.0.1", "::1"].map(str::to_owned);
        let (server, client) =
            (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        let sell = |file: &str, common: &str, names: &[String], usages: Vec<_>| {
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, common);
            params.key_usages =
                vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
            params.extended_key_usages = usages;
            let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
            let certificate = params.signed_by(&pair, authority).unwrap();
            host.write(&format!("{name}/pki/{file}.crt"), certificate.pem());
            host.write(&format!("{name}/pki/{file}.key"), key(&pair, Form::Pkcs1));
        };
        for file in ["etcd/server", "etcd/peer"] {
            sell(file, name, &names, vec![server.clone(), client.clone()]);
        }
        let health = "kube-etcd-healthcheck-client";
        sell("etcd/healthcheck-client", health, &[], vec![client.clone()]);
        sell("apiserver-etcd-client", "kube-apiserver-etcd-client", &[], vec![client]);
        host.write(&format!("{name}/pki/etcd/ca.crt"), fs::read(host.path("ca.crt")).unwrap());
        let metrics = format!("127.0.0.1:{}", ports::free());
        Self { name, ip, client: ports::free(), peer: ports::free(), metrics }
    }

    fn peer_url(&self) -> String {
        format!("https://{}:{}", self.ip, self.peer)
    }

    fn member(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// The static pod's command, in kubeadm's order.
    fn command(&self, host: &Host, renamed: [&str; 2], cluster: &[String]) -> Command {
        let Self { name, ip, client, metrics, .. } = self;
        let file = |file: &str| host.path(&format!("{name}/pki/etcd/{file}"));
        let mut etcd = host.program("etcd");
        etcd.args([
            format!("--advertise-client-urls=https://{ip}:{client}"),
            format!("--cert-file={}", file("server.crt")),
            "--client-cert-auth=true".to_owned(),
            format!("--data-dir={}", host.path(&format!("{name}/data"))),
            renamed[0].to_owned(),
            format!("--initial-advertise-peer-urls={}", self.peer_url()),
            format!("--initial-cluster={}", cluster.join(",")),
        ]);
        if cluster.len() > 1 {
            etcd.arg("--initial-cluster-state=existing");
        }
        etcd.args([
            format!("--key-file={}", file("server.key")),
            format!("--listen-client-urls=https://127.0.0.1:{client},https://{ip}:{client}"),
            format!("--listen-metrics-urls=http://{metrics}"),
            format!("--listen-peer-urls={}", self.peer_url()),
            format!("--name={name}"),
            format!("--peer-cert-file={}", file("peer.crt")),
            "--peer-client-cert-auth=true".to_owned(),
            format!("--peer-key-file={}", file("peer.key")),
            format!("--peer-trusted-ca-file={}", file("ca.crt")),
            "--snapshot-count=10000".to_owned(),
            format!("--trusted-ca-file={}", file("ca.crt")),
            renamed[1].to_owned(),
        ]);
        etcd
    }

    /// Starts it and waits for the startup probe.
    fn start(&self, host: &Host, renamed: [&str; 2], cluster: &[String]) -> Etcd {
        let mut etcd = host.start(self.name, &mut self.command(host, renamed, cluster));
        etcd.wait_probe(&self.metrics, "/readyz");
        etcd
    }

    /// The probes of all releases.
    fn assert_healthy(&self) {
        for path in [
            "/livez",
            "/readyz",
            "/health?serializable=true",
            "/health?serializable=false",
            "/health?exclude=NOSPACE&serializable=true",
        ] {
            assert_eq!(probe(&self.metrics, path), 200, "{path}");
        }
    }

    /// etcdctl's flags with this client's certificate, for one of the addresses.
    fn flags(&self, host: &Host, ip: &str, client: &str) -> [String; 5] {
        let pki = |file: &str| host.path(&format!("{}/pki/{file}", self.name));
        [
            format!("--endpoints=https://{ip}:{}", self.client),
            format!("--cacert={}", pki("etcd/ca.crt")),
            format!("--cert={}", pki(&format!("{client}.crt"))),
            format!("--key={}", pki(&format!("{client}.key"))),
            "--command-timeout=30s".to_owned(),
        ]
    }

    fn good(&self, host: &Host, words: &[&str]) -> String {
        let flags = self.flags(host, "127.0.0.1", "etcd/healthcheck-client");
        let flags = flags.each_ref().map(String::as_str);
        host.good(&[words, &flags].concat())
    }

    /// Repeats a command until it succeeds, as kubeadm does: a learner may not have caught up, and a
    /// cluster needs some seconds after a change until it takes the next one.
    fn until_good(&self, host: &Host, words: &[&str]) {
        let flags = self.flags(host, "127.0.0.1", "etcd/healthcheck-client");
        let flags = flags.each_ref().map(String::as_str);
        host.until_good(&[words, &flags].concat());
    }
}

#[test]
fn a_control_plane_starts_is_upgraded_and_grows() {
    let host = Host::new();
    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let (ca, authority) = root_of("etcd-ca", pair);
    host.write("ca.crt", ca);
    let first = Node::new(&host, &authority, "cp-1", "127.0.0.2");
    let second = Node::new(&host, &authority, "cp-2", "127.0.0.3");

    let alone = [first.member()];
    let mut etcd = first.start(&host, UNTIL_1_33, &alone);
    first.assert_healthy();
    first.good(&host, &["put", "/registry/a", "1"]);
    for word in UNTIL_1_33 {
        let name = word.trim_start_matches("--").split('=').next().unwrap();
        assert!(etcd.log().contains(&format!(r#""flag":"{name}""#)), "{}", etcd.log());
    }
    etcd.stop();
    let mut etcd = first.start(&host, SINCE_1_34, &alone);
    first.assert_healthy();
    assert_eq!(first.good(&host, &["get", "/registry/a", "--print-value-only"]), "1\n");
    for setting in
        [r#""feature-gates":"InitialCorruptCheck=true""#, r#""initial-corrupt-check":true"#]
    {
        assert!(etcd.log().contains(setting), "{}", etcd.log());
    }

    // kube-apiserver's certificate, at the node's own address; and nobody without one.
    let flags = first.flags(&host, first.ip, "apiserver-etcd-client");
    let flags = flags.each_ref().map(String::as_str);
    host.good(&[&["get", "/registry/a"], &flags[..]].concat());
    let (code, said) =
        host.ctl(&["get", "/registry/a", flags[0], flags[1], "--command-timeout=2s"]);
    assert_ne!(code, 0, "{said}");

    let added = first
        .good(&host, &["member", "add", "--learner", "cp-2", "--peer-urls", &second.peer_url()]);
    // An id is padded to sixteen places.
    let id = added.split_whitespace().nth(1).unwrap();
    assert!(added.contains("added as learner"), "{added}");
    // A learner is alive and not ready.
    let both = [first.member(), second.member()];
    let mut joined = host.start("cp-2", &mut second.command(&host, SINCE_1_34, &both));
    joined.wait_probe(&second.metrics, "/livez");
    assert_eq!(probe(&second.metrics, "/readyz"), 503);
    first.until_good(&host, &["member", "promote", id]);
    joined.wait_probe(&second.metrics, "/readyz");
    second.assert_healthy();
    assert_eq!(second.good(&host, &["get", "/registry/a", "--print-value-only"]), "1\n");
    // What kubeadm's reset of a node does.
    first.until_good(&host, &["member", "remove", id]);
    assert!(joined.wait_end().success(), "{}", joined.log());
    first.good(&host, &["put", "/registry/a", "2"]);
    etcd.stop();
}
