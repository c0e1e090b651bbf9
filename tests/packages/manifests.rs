//! What the deb and the rpm package hold.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use super::child::command;
use super::files::{files_below, name_of, package};

/// The package's metadata as cargo reads it.
fn metadata() -> serde_json::Value {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = cargo.current_dir(package()).stdin(Stdio::null()).output().unwrap();
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    all["packages"][0]["metadata"].clone()
}

/// Source and destination of each file.
fn assets(list: &serde_json::Value) -> BTreeMap<String, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let of = |asset: &serde_json::Value| match asset.as_array() {
        Some(asset) => (text(&asset[0]), text(&asset[1])),
        None => (text(&asset["source"]), text(&asset["dest"])),
    };
    let assets: BTreeMap<_, _> = list.as_array().unwrap().iter().map(of).collect();
    assets.into_iter().map(|(source, to)| (source, to.trim_start_matches('/').to_owned())).collect()
}

/// Whether a pattern of an asset, which has a `*` in its last part at most, stands for a file.
fn covers(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((start, end)) => {
            let middle = path.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            middle.is_some_and(|middle| !middle.contains('/'))
        }
    }
}

#[test]
fn both_packages_hold_the_same() {
    let metadata = metadata();
    let deb = assets(&metadata["deb"]["assets"]);
    let rpm = assets(&metadata["generate-rpm"]["assets"]);
    let package_files: Vec<String> = ["docs/deploy", "docs/monitoring", "man", "completions"]
        .into_iter()
        .flat_map(files_below)
        .map(|path| name_of(&path))
        .collect();
    for (name, assets) in [("deb", &deb), ("rpm", &rpm)] {
        for pattern in assets.keys().filter(|it| !it.starts_with("target/")) {
            let is_there = package_files.iter().any(|path| covers(pattern, path))
                || package().join(pattern).is_file()
                || pattern == "docs/*.md"
                // A section of the manual need not have a page.
                || pattern.starts_with("man/*.");
            assert!(is_there, "{name}: there is no {pattern}");
        }
        let wanted = |path: &str| {
            let is_unit = path.starts_with("docs/deploy/systemd/");
            let is_rule = path.starts_with("docs/monitoring/");
            let is_shell = ["bash", "zsh", "fish"].iter().any(|shell| path.ends_with(shell));
            is_unit || is_rule || path.starts_with("man/") || is_shell
        };
        for path in package_files.iter().filter(|path| wanted(path)) {
            let is_held = assets.keys().any(|pattern| covers(pattern, path));
            assert!(is_held, "{path} is not in the {name} package");
        }
        // Names of others' packages.
        let places: BTreeSet<_> = assets.values().collect();
        assert!(!places.iter().any(|place| place.contains("bin/etcd")), "{places:?}");
        assert_eq!(assets["target/release/rusd"], "usr/bin/rusd");
    }
    let of_systemd = |assets: &BTreeMap<String, String>| -> Vec<(String, String)> {
        let all = assets.iter().filter(|(source, _)| source.contains("/systemd/"));
        all.map(|(source, to)| (source.clone(), to.clone())).collect()
    };
    assert_eq!(of_systemd(&deb), of_systemd(&rpm));
    assert_eq!(metadata["deb"]["conf-files"], serde_json::json!(["/etc/rusd/rusd.env"]));
}
