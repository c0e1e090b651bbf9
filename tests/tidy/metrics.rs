//! Each family of metrics has a test that drives it: it stands in a table of the tests named here,
//! or, with the test that does it, in `tests/data/metrics.tsv`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::promises::has_test;
use super::sources::{check, package, sources};

/// Whose tables name the families that they drive.
const TABLES: [&str; 2] = ["tests/server/metrics.rs", "tests/cluster/metrics.rs"];
/// Families that nothing drives in a process, at most.
const OPEN_FAMILIES_MAX: usize = 8;
const NAMESPACES: [&str; 6] = ["etcd_", "rusd_", "grpc_server_", "process_", "os_", "promhttp_"];

/// The text constants of a source that look like names of families.
fn named(code: &str) -> impl Iterator<Item = &str> {
    let is_name = |text: &&str| {
        let is_whole = text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_whole && NAMESPACES.iter().any(|namespace| text.starts_with(namespace))
    };
    code.split('"').skip(1).step_by(2).filter(is_name)
}

#[test]
fn each_family_is_driven() {
    let mut declared = BTreeSet::new();
    let sources = sources(&["src/metrics"]);
    let shipped: Vec<String> = sources.iter().map(|source| source.shipped()).collect();
    for code in &shipped {
        declared.extend(named(code));
    }
    assert!(declared.len() > 100, "the sources are not understood");
    let tables = TABLES.map(|path| fs::read_to_string(package().join(path)).unwrap());
    let mut driven: BTreeMap<&str, &str> = BTreeMap::new();
    for (table, path) in tables.iter().zip(TABLES) {
        let (_, rows) = table.split_once("const DRIVEN").unwrap();
        let (rows, _) = rows.split_once("\n/// ").unwrap_or((rows, ""));
        driven.extend(named(rows).map(|name| (name, path)));
        // A table for one flag may follow.
        if let Some((_, rows)) = table.split_once("const DRIVEN_BY_A_QUOTA") {
            let (rows, _) = rows.split_once(")];").unwrap();
            driven.extend(named(rows).map(|name| (name, path)));
        }
    }
    let elsewhere = fs::read_to_string(package().join("tests/data/metrics.tsv")).unwrap();
    let (mut findings, mut open) = (Vec::new(), 0);
    for line in elsewhere.lines().filter(|line| !line.starts_with("# ")) {
        let Some((family, proof)) = line.split_once('\t') else {
            findings.push(format!("not two columns: {line}"));
            continue;
        };
        open += usize::from(proof.starts_with("open: "));
        if !proof.starts_with("open: ") && !has_test(proof) {
            findings.push(format!("there is no test {proof}"));
        }
        if let Some(other) = driven.insert(family, proof) {
            findings.push(format!("{family} is driven in {other} already"));
        }
    }
    if open > OPEN_FAMILIES_MAX {
        findings.push(format!("{open} families are open, at most {OPEN_FAMILIES_MAX} may be"));
    }
    let without = declared.iter().filter(|family| !driven.contains_key(*family));
    findings.extend(without.map(|family| format!("nothing drives {family}")));
    let gone = driven.keys().filter(|family| !declared.contains(*family));
    findings.extend(gone.map(|family| format!("there is no {family}")));
    check("each family of metrics is driven by a test", &findings);
}
