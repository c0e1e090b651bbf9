//! The container image: its root file system and what its recipe names.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::child::{RUSD, command};
use super::files::{client_flags, matches, package, read, rusd, text_of};
use super::member::{Process, alone, flags, free_address, is_healthy, serve};

/// A static binary for the tests, as `docs/deploy/build.sh --static` makes it.
const STATIC: &str = "RUSD_STATIC_BINARY";

fn is_static(binary: &Path) -> bool {
    let head = fs::read(binary).unwrap();
    let head = &head[..head.len().min(4096)];
    !head.windows(9).any(|bytes| bytes == b"/ld-linux" || bytes.starts_with(b"/ld-musl"))
}

fn rootfs(directory: &Path, binary: &Path) -> std::process::Output {
    let mut script = command(package().join("docs/deploy/container/rootfs.sh"));
    script.arg(directory).arg(binary).output().unwrap()
}

#[test]
fn a_binary_that_needs_a_loader_makes_no_image() {
    if is_static(Path::new(RUSD)) {
        eprintln!("{RUSD} is static");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("rootfs");
    let output = rootfs(&directory, Path::new(RUSD));
    assert!(!output.status.success());
    assert!(text_of(&output).contains("is not static; build it by"), "{output:?}");
    assert!(!directory.exists());
}

#[test]
fn the_root_has_all_names_and_runs_without_anything_else() {
    let given = std::env::var_os(STATIC).map(PathBuf::from);
    let Some(binary) = given.or_else(|| is_static(Path::new(RUSD)).then(|| RUSD.into())) else {
        eprintln!("{STATIC} names no static binary; the image is not tested");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("rootfs");
    let output = rootfs(&directory, &binary);
    assert!(output.status.success(), "{output:?}");
    let again = rootfs(&directory, &binary);
    assert!(text_of(&again).contains("is not empty"), "{again:?}");
    for name in ["etcd", "etcdctl", "etcdutl"] {
        let link = fs::read_link(directory.join("usr/local/bin").join(name)).unwrap();
        assert_eq!(link, Path::new("rusd"));
    }
    for data in ["var/lib/rusd", "var/lib/etcd"] {
        let found = fs::metadata(directory.join(data)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o700);
        assert!(found.uid() == 65532 || found.uid() == rustix::process::getuid().as_raw());
    }
    assert!(!directory.join("bin/sh").exists() && !directory.join("usr/bin").exists());

    // With nothing below it but these files.
    let run = |words: &[&str]| {
        let mut unshare = command("unshare");
        unshare.args(["--map-root-user", "--root"]).arg(&directory).args(words);
        unshare.env_clear().stdin(Stdio::null()).output().unwrap()
    };
    if !run(&["/usr/local/bin/rusd", "version"]).status.success() {
        eprintln!("unshare --map-root-user does not work here");
        return;
    }
    for (words, expected) in [
        (["/usr/local/bin/etcd", "--version"], "etcd Version: 3.7.1"),
        (["/usr/local/bin/etcdctl", "version"], "etcdctl version: 3.7.1"),
        (["/usr/local/bin/etcdutl", "version"], "etcdutl version: 3.7.1"),
    ] {
        let output = run(&words);
        assert!(text_of(&output).contains(expected), "{words:?}: {output:?}");
    }
    // Names are resolved without the C library's modules: the file of hosts is read.
    fs::write(directory.join("etc/hosts"), "127.0.0.9 beside\n").unwrap();
    let words = ["/usr/local/bin/rusd", "cert", "show", "beside:1"];
    let output = run(&words);
    assert!(text_of(&output).to_lowercase().contains("refused"), "{output:?}");
}

/// An image, or a small system, may have no public authorities. Only who needs one is refused.
#[test]
fn a_system_without_authorities_runs_a_cluster_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let without = |command: &mut Command| {
        command.env("SSL_CERT_FILE", dir.path().join("none")).env("SSL_CERT_DIR", dir.path());
    };
    let (client, peer) = (free_address(), free_address());
    let [client_url, peer_url] = [&client, &peer].map(|address| format!("http://{address}"));
    let mut server = serve();
    server.args(flags("a", &dir.path().join("data"), &client_url, &peer_url));
    server.args(alone("a", &peer_url));
    without(&mut server);
    let log = dir.path().join("log");
    let mut server = Process::start(&mut server, File::create(&log).unwrap());
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_healthy(&client) {
        let ended = server.try_wait().unwrap();
        let log = fs::read_to_string(&log).unwrap();
        assert!(ended.is_none() && Instant::now() < patience, "{log}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut get = command(RUSD);
    get.args(["--endpoints", &client, "get", "a"]);
    without(&mut get);
    let output = get.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_recipe_names_what_the_root_has() {
    let recipe = read("docs/deploy/container/Containerfile");
    let script = read("docs/deploy/container/rootfs.sh");
    let programs = matches(r#""/usr/local/bin/(\w+)""#, &recipe);
    assert_eq!(programs.into_iter().collect::<Vec<_>>(), ["rusd"]);
    assert!(script.contains("usr/local/bin/rusd"));
    let user = matches(r"(?m)^user=(\d+)$", &script).into_iter().next().unwrap();
    assert!(recipe.contains(&format!("\nARG RUN_AS={user}:{user}\nUSER ${{RUN_AS}}\n")));
    assert!(recipe.contains("\nFROM scratch\n"));
    // Under the name etcd, a flag next to its variable ends the start.
    assert!(matches(r"(?m)^ENV .*\b(ETCD_\w+)=", &recipe).is_empty());
    assert!(rusd(&["endpoint", "health", "--help"]).contains("endpoint health"));
    let flags = client_flags(&["endpoint", "health"]);
    assert!(flags.contains("cacert"));
}
