//! `rusd cert`, and members that find each other through a service that wants certificates.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use super::server::{BOTH, Port, Server, client};
use super::shop::Shop;

pub async fn rusd(words: &[&str]) -> Output {
    called("rusd", words).await
}

/// The same binary under another name.
pub async fn called(name: &str, words: &[&str]) -> Output {
    let mut command = Command::from(crate::child::command(crate::child::RUSD));
    let output = command.arg0(name).args(words).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panic"), "{words:?}: {errors}");
    output
}

/// Standard output of a command that ends with success.
pub async fn good(words: &[&str]) -> String {
    let output = rusd(words).await;
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words for what `cert check` found.
async fn problems(words: &[&str]) -> Vec<String> {
    let output = rusd(&[&["cert", "check", "-w", "json"], words].concat()).await;
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let found = told["findings"].as_array().unwrap();
    assert_eq!(told["ok"], found.is_empty());
    assert_eq!(output.status.code(), Some(i32::from(!found.is_empty())));
    found.iter().map(|one| one["problem"].as_str().unwrap().to_owned()).collect()
}

fn flags(dir: &str) -> Vec<String> {
    [
        ("cert-file", "server.crt"),
        ("key-file", "server.key"),
        ("trusted-ca-file", "ca.crt"),
        ("peer-cert-file", "peer.crt"),
        ("peer-key-file", "peer.key"),
        ("peer-trusted-ca-file", "ca.crt"),
    ]
    .iter()
    .map(|(flag, file)| format!("--{flag}={dir}/{file}"))
    .chain(["--client-cert-auth".to_owned(), "--peer-client-cert-auth".to_owned()])
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_makes_what_a_member_needs_and_another_checks_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("certs").to_str().unwrap().to_owned();
    let file = |name: &str| format!("{dir}/{name}");
    let told = good(&["cert", "gen", "--dir", &dir, "--clients", "alice,bob"]).await;
    assert!(told.contains("--peer-trusted-ca-file"), "{told}");
    let again = rusd(&["cert", "gen", "--dir", &dir]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"), "{again:?}");
    assert!(!Path::new(&file("client.crt")).exists());
    let server = Server::start("https", &flags(&dir)).await;
    let url = server.client_url();
    let address = url.trim_start_matches("https://");
    let (ca, alice, key) = (file("ca.crt"), file("alice.crt"), file("alice.key"));
    let own = ["--cacert", &ca, "--cert", &alice, "--key", &key];
    good(&[&["--endpoints", &url, "put", "a", "b"], &own[..]].concat()).await;

    let told = good(&[&["cert", "show", address], &own[..]].concat()).await;
    assert!(told.contains("names: localhost\n"), "{told}");
    let told = good(&["cert", "show", "-w", "json", &ca, &key]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["items"][0]["certificate"]["is_authority"], true);
    assert!(told[1]["items"][0]["key"]["kind"].as_str().unwrap().contains("PKCS #8"));

    assert_eq!(problems(&[&[address], &own[..]].concat()).await, [""; 0]);
    assert_eq!(problems(&[address, "--cacert", &ca]).await, ["refused-by-server"]);
    let wrong = [&[address, "--host", "example.org"], &own[..]].concat();
    assert_eq!(problems(&wrong).await, ["wrong-host"]);
    let (server_crt, server_key) = (file("server.crt"), file("server.key"));
    let pair = ["--cert", &server_crt, "--key", &server_key, "--cacert", &ca];
    assert_eq!(problems(&[&pair[..], &["--for", "peer"]].concat()).await, [""; 0]);
    assert_eq!(
        problems(&["--cert", &alice, "--key", &server_key, "--cacert", &ca, "--for", "server"])
            .await,
        ["missing-usage", "key-mismatch"]
    );
    let shop = Shop::new();
    let strange = shop.path("ca.crt");
    assert_eq!(
        problems(&["--cert", &server_crt, "--cacert", &strange]).await,
        ["unknown-authority"]
    );
    let careless =
        problems(&[address, "--cacert", &strange, "--cert", &alice, "--key", &key]).await;
    assert_eq!(careless, ["unknown-authority"]);
    for port in BOTH {
        assert!(server.meet(port, &client(&shop, "client"), "localhost").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_does_not_fit_ends_a_command_with_etcds_code() {
    let shop = Shop::new();
    let (ca, cert, key) = (shop.path("ca.crt"), shop.path("client.crt"), shop.path("server.key"));
    let pair = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let output = called("etcdctl", &[&pair[..], &["get", "a"]].concat()).await;
    assert_eq!(output.status.code(), Some(128), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "Error: tls: private key does not match public key\n");
}

/// The library that serves TLS gathers entropy of its own unless it is built without that, which
/// costs each command some 40 ms before its first byte.
#[test]
fn the_binary_gathers_no_entropy_from_the_processors_jitter() {
    let binary = std::fs::read(crate::child::RUSD).unwrap();
    let names = |name: &str| binary.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(names("get_entropy_source"), "names of functions are in the binary");
    assert!(!names("jent_entropy"), ".cargo/config.toml says how to build without it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_service_may_want_certificates() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("certs").to_str().unwrap().to_owned();
    good(&["cert", "gen", "--dir", &dir]).await;
    let file = |name: &str| format!("{dir}/{name}");
    let service = Server::start("https", &flags(&dir)).await;
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let url = service.client_url();
    let size = "/_etcd/registry/token/_config/size";
    let own = ["--endpoints", &url, "--cacert", &ca, "--cert", &cert, "--key", &key];
    good(&[&["put", size, "1"], &own[..]].concat()).await;
    let mut all = flags(&dir);
    all.extend([
        "--discovery-token=token".to_owned(),
        format!("--discovery-endpoints={url}"),
        format!("--discovery-cacert={ca}"),
        format!("--discovery-cert={cert}"),
        format!("--discovery-key={key}"),
    ]);
    let member = Server::start("https", &all).await;
    assert!(member.log().contains("discovery joined cluster successfully"), "{}", member.log());
    let shop = Shop::new();
    let stranger = client(&shop, "client");
    assert!(member.meet(Port::Client, &stranger, "localhost").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_an_endpoint_like_any_other() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let dir = path("certs");
    good(&["cert", "gen", "--dir", &dir]).await;
    let mut all = flags(&dir);
    // A certificate is for the name before the colon.
    let socket = format!("unixs://{}", path("localhost:0"));
    all.push(format!("--listen-client-urls={socket}"));
    let _server = Server::start("https", &all).await;
    let file = |name: &str| format!("{dir}/{name}");
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let own = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    good(&[&["--endpoints", &socket, "put", "a", "b"], &own[..]].concat()).await;
    let told = good(&[&["cert", "show", &socket], &own[..]].concat()).await;
    assert!(told.contains("names: localhost\n"), "{told}");
    assert_eq!(problems(&[&[socket.as_str()], &own[..]].concat()).await, [""; 0]);
    let other = path("m1");
    std::os::unix::fs::symlink(path("localhost:0"), &other).unwrap();
    let other = format!("unixs://{other}");
    assert_eq!(problems(&[&[other.as_str()], &own[..]].concat()).await, ["wrong-host"]);
    let refused = rusd(&[&["--endpoints", &other, "get", "a"], &own[..]].concat()).await;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// Users that change between a write's check and its turn in the log are no reason to refuse it
/// for good: nothing about the writer, who is known by a certificate, has to be renewed.
#[tokio::test(flavor = "multi_thread")]
async fn users_may_change_while_who_has_a_certificate_writes() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("certs").to_str().unwrap().to_owned();
    let file = |name: &str| format!("{dir}/{name}");
    good(&["cert", "gen", "--dir", &dir, "--clients", "root"]).await;
    let server = Server::start("https", &flags(&dir)).await;
    let (url, ca) = (server.client_url(), file("ca.crt"));
    let (cert, key) = (file("root.crt"), file("root.key"));
    let own = ["--endpoints", &url, "--cacert", &ca, "--cert", &cert, "--key", &key];
    let by_root = async |words: &[&str]| good(&[words, &own[..]].concat()).await;
    by_root(&["user", "add", "root", "--no-password"]).await;
    by_root(&["user", "grant-role", "root", "root"]).await;
    by_root(&["auth", "enable"]).await;
    let writes = by_root(&["bench", "put", "--clients", "50", "--duration", "3s", "-o", "json"]);
    let changes = async {
        for number in 0..20 {
            let name = format!("user-{number}");
            by_root(&["user", "add", &name, "--no-password"]).await;
            by_root(&["user", "delete", &name]).await;
        }
    };
    let (told, ()) = tokio::join!(writes, changes);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["servers"][0]["errors"], 0, "{told}");
}

/// Endpoints from records that must be secure are the domain's, whatever else their certificates say.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_in_secure_records_must_be_the_domains() {
    let shop = Shop::new();
    shop.sell("domain", |params| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("a.test".try_into().unwrap()));
    });
    for (name, is_right) in [("server", false), ("domain", true)] {
        let flags = ["cert", "key"].map(|kind| {
            let end = if kind == "cert" { "crt" } else { "key" };
            format!("--{kind}-file={}", shop.path(&format!("{name}.{end}")))
        });
        let peers = flags.clone().map(|flag| flag.replacen("--", "--peer-", 1));
        let server = Server::start("https", &[flags, peers].concat()).await;
        let url = server.client_url();
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        let records = vec![("_etcd-client-ssl", vec![port])];
        let conf = format!("nameserver 127.0.0.1:{}\n", crate::names::serve(records));
        let conf = shop.write("resolv.conf", conf);
        for (secure, works) in [("--insecure-discovery=false", is_right), ("--debug=false", true)] {
            let mut command = Command::from(crate::child::command(crate::child::RUSD));
            command.env("RUSD_RESOLV_CONF", &conf).args(["get", "k", "-d", "a.test", secure]);
            command.args(["--command-timeout=10s", "--cacert", &shop.path("ca.crt")]);
            let output = command.output().await.unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.success(), works, "{name} {secure}: {said}");
            assert!(works || said.contains("a.test"), "{said}");
        }
    }
}
