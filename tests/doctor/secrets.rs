//! Auth, and a bundle: nothing in it belongs to the users of the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;

use super::fixture::{Found, Server, good, rusd, text};

/// What was put into the cluster, and must not leave with a bundle.
const SECRETS: [&str; 6] = [
    "sesame-open",
    "hunter2-password",
    "planted-key",
    "planted-value",
    "alice-the-user",
    "the-role",
];

/// The files of a bundle by their names.
fn unpacked(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, String::from_utf8(bytes).unwrap())
    });
    files.collect()
}

fn holds_no_secret(files: &BTreeMap<String, String>) {
    for (name, text) in files {
        for secret in SECRETS {
            assert!(!text.contains(secret) && !name.contains(secret), "{secret} in {name}");
        }
    }
}

#[test]
fn a_bundle_has_what_support_needs_and_no_secret() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::new(&root, "one");
    let initial = format!("one={}", server.peer);
    server.start(&["--initial-cluster", &initial]);
    server.wait_for("/health", "\"health\":\"true\"");
    let endpoint = server.client.clone();
    let on = |words: &[&str]| good(&[words, &["--endpoints", &endpoint]].concat());
    on(&["put", "planted-key", "planted-value"]);
    on(&["user", "add", "root:sesame-open"]);
    on(&["user", "grant-role", "root", "root"]);
    on(&["user", "add", "alice-the-user:hunter2-password"]);
    on(&["role", "add", "the-role"]);
    on(&["role", "grant-permission", "the-role", "readwrite", "planted-key"]);
    on(&["auth", "enable"]);

    // Without a login it is said that something was not seen; nothing is wrong.
    let found = Found::by(&["--endpoints", &endpoint]);
    assert!(
        found.all().contains("auth: Login needed")
            || found.all().contains("member-list: Login needed"),
        "{:#}",
        found.json
    );
    let login = ["--endpoints", &endpoint, "--user", "root:sesame-open"];
    Found::by(&login).are(&[]);

    let live = root.path().join("live.tar.gz");
    let output = rusd(&[&["doctor", "--bundle", text(&live)], &login[..]].concat());
    assert_ne!(output.status.code(), Some(2), "{output:?}");
    let files = unpacked(&live);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    for name in ["about.json", "doctor.json", "status.json"] {
        assert!(files.contains_key(&format!("rusd-doctor/{name}")), "{names:?}");
    }
    let metrics = files.iter().find(|(name, _)| name.contains("/metrics/1-")).unwrap().1;
    assert!(metrics.contains("etcd_server_has_leader 1\n"), "{metrics}");
    assert!(metrics.contains("rusd_setting{name=\"election-timeout\"} 1000\n"), "{metrics}");
    assert!(files["rusd-doctor/doctor.json"].contains("\"findings\""));
    holds_no_secret(&files);

    server.kill();
    let dir = server.data.clone();
    let rest = root.path().join("rest.tar.gz");
    let words = ["doctor", "--data-dir", text(&dir), "--bundle", text(&rest)];
    let output = rusd(&words);
    assert_ne!(output.status.code(), Some(2), "{output:?}");
    let files = unpacked(&rest);
    assert!(files["rusd-doctor/files.json"].contains("data.mdb"), "{files:?}");
    holds_no_secret(&files);
    // One that cannot be written is said, and leaves nothing behind.
    let words = ["doctor", "--data-dir", text(&dir), "--bundle", "/no/such/dir/bundle.tar.gz"];
    let output = rusd(&words);
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write /no/such/dir"));
    let victim = root.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    let linked = root.path().join("linked.tar.gz");
    std::os::unix::fs::symlink(&victim, root.path().join("linked.tar.gz.part")).unwrap();
    let output = rusd(&["doctor", "--data-dir", text(&dir), "--bundle", text(&linked)]);
    assert_ne!(output.status.code(), Some(2), "{output:?}");
    assert!(!unpacked(&linked).is_empty() && linked.symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    let (socket, data) = (root.path().join("socket"), root.path().join("data"));
    let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let missing = "127.0.0.1:1";
    for words in [
        ["doctor", "--data-dir", text(&data), "--bundle", text(&socket)].as_slice(),
        &["snapshot", "save", text(&socket), "--endpoints", missing],
        &["export", "--data-dir", text(&data), text(&socket)],
    ] {
        let output = rusd(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("it is no file"), "{words:?}: {said}");
        assert!(!socket.symlink_metadata().unwrap().is_file(), "{words:?}");
    }
}
