use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::clock::{Clock as _, SystemClock};

fn order(dir: &Path) -> CertRequest {
    CertRequest {
        dir: dir.to_path_buf(),
        hosts: vec!["m1.example".into(), "127.0.0.1".into()],
        clients: vec!["alice".into()],
        purposes: Purpose::ALL.to_vec(),
        ca: None,
        days: 30,
        ca_days: 60,
        key_type: KeyType::P256,
        replaces: false,
    }
}

fn now() -> u64 {
    SystemClock::new().unix_nanos() / 1_000_000_000
}

fn made(order: &CertRequest) -> Result<Generated, String> {
    make(order, &SystemClock::new()).map_err(|error| error.to_string())
}

fn certificate(path: PathBuf) -> Certificate {
    match read(&path, now()).unwrap().remove(0) {
        Item::Certificate(certificate) => *certificate,
        other => panic!("{other:?}"),
    }
}

/// The `problem` words of the findings for a certificate of the directory, after a change.
fn problems(dir: &Path, name: &str, change: impl FnOnce(&mut Subject)) -> Vec<&'static str> {
    let path = |name: String| dir.join(name).to_str().unwrap().to_owned();
    let mut subject = Subject {
        chain: crate::tls::chain(path(format!("{name}.crt"))).unwrap(),
        key: Some(crate::tls::key(path(format!("{name}.key"))).unwrap()),
        roots: Some(crate::tls::roots(Some(&path("ca.crt".into()))).unwrap()),
        purposes: vec![if name == "alice" { Purpose::Client } else { Purpose::Peer }],
        now: now(),
        ..Subject::default()
    };
    change(&mut subject);
    check(&subject).into_iter().map(|finding| finding.problem).collect()
}

#[test]
fn an_order_makes_what_etcd_and_kubeadm_need() {
    let dir = tempfile::tempdir().unwrap();
    let files = made(&order(dir.path())).unwrap().files;
    assert_eq!(files.len(), 8);
    for (path, _) in &files {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let is_key = path.extension().unwrap() == "key";
        assert_eq!(mode, if is_key { 0o600 } else { 0o644 }, "{}", path.display());
    }
    for name in ["server", "peer"] {
        let it = certificate(dir.path().join(format!("{name}.crt")));
        assert_eq!(it.usages, ["server", "client"]);
        assert_eq!(
            (it.dns_names, it.addresses),
            (vec!["m1.example".into()], vec!["127.0.0.1".into()])
        );
        assert!([29, 30].contains(&it.days_left));
        assert_eq!(problems(dir.path(), name, |_| {}), [""; 0]);
    }
    let client = certificate(dir.path().join("alice.crt"));
    assert_eq!((client.subject.as_str(), client.usages), ("CN=alice", vec!["client".into()]));
    assert_eq!(problems(dir.path(), "alice", |_| {}), [""; 0]);
    assert!(certificate(dir.path().join("ca.crt")).is_authority);
    // There are no other files than those that were reported.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 8);
}

#[test]
fn what_exists_stays_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let order = order(dir.path());
    fs::write(dir.path().join("peer.key"), "mine").unwrap();
    let text = made(&order).unwrap_err();
    assert!(text.ends_with("peer.key exists already; --force replaces it"), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is half made");
    made(&CertRequest { replaces: true, ..order.clone() }).unwrap();
    assert_ne!(fs::read(dir.path().join("peer.key")).unwrap(), b"mine");
    let text = made(&order).unwrap_err();
    assert!(text.contains("ca.crt exists already; --ca-cert and --ca-key sign with"), "{text}");
}

#[test]
fn an_authority_that_exists_signs_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (kind, name) in KeyType::NAMES.iter().filter_map(|name| Some((KeyType::parse(name)?, name)))
    {
        let first =
            CertRequest { key_type: kind, ca_days: 10, dir: path(name), ..order(dir.path()) };
        made(&CertRequest { purposes: vec![Purpose::Client], ..first.clone() }).unwrap();
        let ca = Some((path(name).join("ca.crt"), path(name).join("ca.key")));
        let more = CertRequest { ca: ca.clone(), clients: vec!["bob".into()], ..first.clone() };
        let more = made(&CertRequest { purposes: vec![Purpose::Client], ..more }).unwrap();
        assert_eq!((more.files.len(), more.is_cut_short), (2, true));
        assert!([9, 10].contains(&certificate(path(name).join("bob.crt")).days_left));
        let mut found = problems(&path(name), "alice", |_| {});
        found.extend(problems(&path(name), "bob", |it| it.purposes = vec![Purpose::Client]));
        assert_eq!(found, [""; 0], "{name}");
    }
    let ca = |certificate: &str, key: &str| {
        let ca = Some((path("ecdsa-p256").join(certificate), path("ecdsa-p256").join(key)));
        made(&CertRequest { ca, dir: path("new"), ..order(dir.path()) }).unwrap_err()
    };
    assert!(ca("ca.crt", "alice.key").ends_with("alice.key is not its own"));
    assert!(ca("alice.crt", "alice.key").ends_with("not the certificate of an authority"));
    assert!(!path("new").exists());
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let new = || CertRequest { dir: dir.path().join("new"), ..order(dir.path()) };
    for (order, why) in [
        (CertRequest { hosts: Vec::new(), ..new() }, "needs a name"),
        (CertRequest { hosts: vec!["a b".into()], ..new() }, "neither an address nor"),
        (CertRequest { clients: vec!["../x".into()], ..new() }, "cannot name a client"),
        (CertRequest { clients: vec!["server".into()], ..new() }, "cannot name a client"),
        (CertRequest { clients: vec!["a".into(), "a".into()], ..new() }, "twice"),
        (CertRequest { days: 0, ..new() }, "a day at least"),
        (CertRequest { days: u64::MAX, ..new() }, "more than a certificate can name"),
        (CertRequest { days: 9_000_000, ..new() }, "more than a certificate can name"),
        (CertRequest { purposes: Vec::new(), ..new() }, "nothing to make"),
    ] {
        let text = made(&order).unwrap_err();
        assert!(text.contains(why), "{text}");
        assert!(!dir.path().join("new").exists());
    }
}

#[test]
fn each_reason_has_its_word() {
    let dir = tempfile::tempdir().unwrap();
    made(&order(dir.path())).unwrap();
    let other = tempfile::tempdir().unwrap();
    made(&order(other.path())).unwrap();
    let of = |name: &str, change: &dyn Fn(&mut Subject)| problems(dir.path(), name, change);
    let foreign = other.path().join("ca.crt").to_str().unwrap().to_owned();
    let key = other.path().join("server.key").to_str().unwrap().to_owned();
    assert_eq!(of("server", &|it| it.now += 40 * 86_400), ["expired"]);
    assert_eq!(of("server", &|it| it.now -= 40 * 86_400), ["not-yet-valid"]);
    assert_eq!(of("server", &|it| it.host = Some("example.org".into())), ["wrong-host"]);
    assert_eq!(of("server", &|it| it.host = Some("m1.example".into())), [""; 0]);
    assert_eq!(of("server", &|it| it.host = Some("[127.0.0.1]".into())), [""; 0]);
    let strange = |it: &mut Subject| it.roots = Some(crate::tls::roots(Some(&foreign)).unwrap());
    assert_eq!(of("server", &strange), ["unknown-authority"]);
    assert_eq!(of("alice", &strange), ["unknown-authority"]);
    assert_eq!(of("alice", &|it| it.purposes = vec![Purpose::Server]), ["missing-usage"]);
    let wrong = |it: &mut Subject| it.key = Some(crate::tls::key(&key).unwrap());
    assert_eq!(of("server", &wrong), ["key-mismatch"]);
    let revoked = |it: &mut Subject| it.revoked.extend(crate::tls::serial(&it.chain[0]));
    assert_eq!(of("server", &revoked), ["revoked"]);
    // One fault does not hide another.
    let all = |it: &mut Subject| {
        strange(it);
        wrong(it);
        it.now += 40 * 86_400;
        it.host = Some("x.example".into());
    };
    assert_eq!(of("alice", &all), ["expired", "wrong-host", "key-mismatch", "unknown-authority"]);
}

#[test]
fn what_is_made_for_auto_tls_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = dir.path().join("fixtures/client");
    let clock = SystemClock::new();
    let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    assert!(self_signed(&fixtures, &hosts, 0, &clock).is_err());
    let (path, key) = self_signed(&fixtures, &hosts, 2, &clock).unwrap();
    assert_eq!((path.clone(), key.clone()), (fixtures.join("cert.pem"), fixtures.join("key.pem")));
    let it = certificate(path.clone());
    assert_eq!((it.subject.as_str(), it.key.as_str()), ("O=etcd", "ECDSA P-521"));
    assert!([729, 730].contains(&it.days_left));
    assert_eq!((it.dns_names.len(), it.addresses.len(), it.usages), (1, 1, vec!["server".into()]));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&path).unwrap();
    self_signed(&fixtures, &hosts, 2, &clock).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn days_have_dates() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(facts::date(seconds), text);
    }
}
