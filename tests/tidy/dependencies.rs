//! Dependencies: those that are used, under licences that may be. The licences are read from
//! `deny.toml`.

use std::fs;
use std::process::Command;

use super::sources::{check, package, sources};

#[test]
fn dependencies_are_used() {
    let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
    let mut code = String::new();
    for source in sources(&["src", "tests", "build.rs"]) {
        code += &source.code();
    }
    let mut findings = Vec::new();
    for table in ["[dependencies]\n", "[build-dependencies]\n", "[dev-dependencies]\n"] {
        let Some((_, rest)) = manifest.split_once(table) else { continue };
        let rest = rest.split("\n[").next().unwrap_or_default();
        for name in rest.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name) {
            let path = name.replace('-', "_") + "::";
            // Generated code names these.
            let is_generated = ["prost", "tonic-prost"].contains(&name);
            if !is_generated && !code.contains(&path) {
                findings.push(name.to_owned());
            }
        }
    }
    check("each dependency in Cargo.toml is named in the code", &findings);
}

#[test]
fn dependencies_may_be_used() {
    let allowed = deny_list("allow");
    let banned = deny_list("deny");
    let mut findings = Vec::new();
    for package in packages() {
        let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
        if !is_allowed(&text("license"), &allowed) {
            findings.push(format!("{}: licence {:?}", text("name"), text("license")));
        }
        if banned.contains(&text("name")) {
            findings.push(format!("{} is banned in deny.toml", text("name")));
        }
        let source = text("source");
        if !source.is_empty() && !source.starts_with("registry+https://github.com/rust-lang/") {
            findings.push(format!("{} comes from {source}", text("name")));
        }
    }
    check("dependencies have a licence from deny.toml and come from crates.io", &findings);
}

#[test]
fn excused_advisories_are_still_needed() {
    let lock = fs::read_to_string(package().join("Cargo.lock")).unwrap();
    let mut findings = Vec::new();
    let ignored = deny_list("ignore");
    for excuse in ignored.chunks(2) {
        let [id, reason] = excuse else { panic!("an advisory without a reason: {excuse:?}") };
        let subject = reason.split(':').next().unwrap_or_default();
        let (name, version) = subject.split_once(' ').unwrap_or_default();
        if !lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")) {
            findings.push(format!("{id}: Cargo.lock has no {subject}"));
        }
    }
    check("an excuse names a package and version that is in use", &findings);
}

/// What cargo knows of the packages that are built here; the build has fetched them all.
fn packages() -> Vec<serde_json::Value> {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(package()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let rustc = run("rustc", &["-vV"]);
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--format-version=1", "--offline", "--filter-platform", host];
    let metadata = run(env!("CARGO"), &arguments);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The strings of a list in `deny.toml`.
fn deny_list(name: &str) -> Vec<String> {
    let text = fs::read_to_string(package().join("deny.toml")).unwrap();
    let (_, rest) = text.split_once(&format!("\n{name} = [\n")).unwrap();
    let (list, _) = rest.split_once("\n]").unwrap();
    let strings = list.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
    strings.map(str::to_owned).collect()
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0", "MIT AND (GPL-3.0 OR ISC)"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

/// Whether a licence expression can be met with what is allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (is_met, rest) = either(&words, allowed);
    is_met && rest.is_empty()
}

fn either<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut is_met, mut rest) = both(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (other, after) = both(more, allowed);
        (is_met, rest) = (is_met || other, after);
    }
    (is_met, rest)
}

fn both<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut is_met, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (other, after) = one(more, allowed);
        (is_met, rest) = (is_met && other, after);
    }
    (is_met, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => {
            let (is_met, rest) = either(inner, allowed);
            (is_met && rest.first() == Some(&")"), rest.get(1..).unwrap_or_default())
        }
        // An exception only adds permissions.
        [licence, "WITH", _, rest @ ..] | [licence, rest @ ..] => {
            (allowed.iter().any(|name| name == licence), rest)
        }
        [] => (false, words),
    }
}
