//! The unit of systemd, its settings, and what both name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::child::{RUSD, command};
use super::files::{
    client_flags, files_below, flag_of, matches, name_of, package, read, server_flags, text_of,
    tool,
};

const UNIT: &str = "docs/deploy/systemd/rusd.service";
/// Keys that systemd before 254 does not know, and passes over.
const NEWER_KEYS: [&str; 2] = ["RestartSteps", "RestartMaxDelaySec"];

#[test]
fn systemd_takes_the_unit() {
    let Some(mut analyze) = tool("systemd-analyze") else { return };
    let root = tempfile::tempdir().unwrap();
    let unit = root.path().join("rusd.service");
    let text = read(UNIT).replace("/usr/bin/rusd", RUSD);
    assert!(text.contains(RUSD));
    fs::write(&unit, text).unwrap();
    let output = analyze.args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    let said = text_of(&output);
    // Of other units, which this machine has, nothing is our concern.
    let ours = said.lines().filter(|line| line.contains("rusd"));
    let wrong: Vec<_> =
        ours.filter(|line| !NEWER_KEYS.iter().any(|key| line.contains(key))).collect();
    assert!(wrong.is_empty(), "{said}");

    let mut analyze = command("systemd-analyze");
    let output = analyze.args(["security", "--offline=yes", "--threshold=20"]).arg(&unit);
    let output = output.output().unwrap();
    let said = text_of(&output);
    // Older releases cannot look at a file; a threshold of 20 is an exposure of 2.0.
    if !said.contains("exposure level") {
        eprintln!("systemd-analyze does not judge files here");
        return;
    }
    assert!(output.status.success(), "{}", said.lines().last().unwrap_or_default());
}

#[test]
fn the_unit_and_its_directories_agree() {
    let unit = read(UNIT);
    let sysusers = read("docs/deploy/systemd/rusd.sysusers");
    let tmpfiles = read("docs/deploy/systemd/rusd.tmpfiles");
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nWatchdogSec="));
    for (line, text) in [
        ("\nUser=rusd\n", &unit),
        ("\nStateDirectory=rusd\n", &unit),
        ("\nEnvironmentFile=-/etc/rusd/rusd.env\n", &unit),
        ("\nu rusd - ", &sysusers),
        ("\nd /var/lib/rusd 0700 rusd rusd ", &tmpfiles),
        ("\nd /etc/rusd 0750 root rusd ", &tmpfiles),
    ] {
        assert!(text.contains(line), "{line:?} is missing");
    }
}

/// Each setting stands there as a comment, so a user finds it, and a wrong one would not be noticed
/// until somebody uses it.
#[test]
fn each_setting_of_the_file_is_taken_by_the_server() {
    let text = read("docs/deploy/systemd/rusd.env");
    let settings = matches(r"(?m)^#(ETCD_[A-Z0-9_]+=.*)$", &text);
    assert!(settings.len() > 20, "{settings:?}");
    let mut server = command(RUSD);
    server.arg("serve");
    for setting in &settings {
        let (name, value) = setting.split_once('=').unwrap();
        server.arg(format!("--{}={value}", flag_of(name.strip_prefix("ETCD_").unwrap())));
    }
    // The flags are parsed before the version is printed.
    let output = server.arg("--version").output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}

#[test]
fn each_variable_in_shipped_files_is_a_flag() {
    let (server, client) = (server_flags(), client_flags(&["endpoint", "health"]));
    let mut seen = BTreeSet::new();
    let packages = Path::new("docs/packages.md");
    let files = files_below("docs/deploy").into_iter().chain([package().join(packages)]);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for (prefix, flags) in [("ETCD", &server), ("ETCDCTL", &client)] {
            let variables = matches(&format!(r"\b{prefix}_([A-Z][A-Z0-9_]+)\b"), &text);
            // Kubernetes would set it, for a service of that name.
            for variable in variables.iter().filter(|variable| *variable != "PORT") {
                let flag = flag_of(variable);
                let file = name_of(&path);
                assert!(flags.contains(&flag), "{file}: {prefix}_{variable} is no flag");
                seen.insert(format!("{prefix}_{variable}"));
            }
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}
