//! Rooms stand in layers, and imports point down. The layers are read from the table at the top of
//! `src/lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::paths::paths;
use super::sources::{check, package, sources};

#[test]
fn imports_point_down() {
    let layers = layers();
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room() else { continue };
        let Some(layer) = layers.get(room) else {
            findings.push(format!("{}: {room} has no layer in src/lib.rs", source.path));
            continue;
        };
        for name in imported(&source.code()).into_iter().filter(|name| name != room) {
            let is_below = match (room, layers.get(&name)) {
                (_, None) => continue,
                // Layer 0 holds what has no state of its own and may lean on its neighbours.
                (_, Some(0)) if *layer == 0 => true,
                ("cli", Some(_)) => true,
                // The server is a client of the discovery service, and makes certificates.
                (_, Some(_)) if ["client", "cert"].contains(&name.as_str()) => room == "server",
                (_, Some(below)) => below < layer,
            };
            if !is_below {
                findings.push(format!("{}: {room} must not import {name}", source.path));
            }
        }
    }
    check("imports point down, and rooms of a layer do not import each other", &findings);
}

#[test]
fn groups_of_imports_are_understood() {
    let code = "use crate::{limits, rpc::{self, Error}, http};\ncrate::store::open();\n";
    let names: Vec<String> = imported(code).into_iter().collect();
    assert_eq!(names, ["http", "limits", "rpc", "store"]);
}

/// The layer of each room, as the table in `src/lib.rs` says.
fn layers() -> BTreeMap<String, u32> {
    let map = fs::read_to_string(package().join("src/lib.rs")).unwrap();
    let mut layers = BTreeMap::new();
    for line in map.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let Some((layer, rest)) = line.split_once('|') else { continue };
        let Ok(layer) = layer.trim().parse() else { continue };
        let rooms = rest.split('|').next().unwrap_or_default();
        layers.extend(quoted(rooms).map(|room| (room.to_owned(), layer)));
    }
    // "Beside them" is above layer 0 and below nothing but the command line.
    layers.extend([("client".to_owned(), 1), ("cert".to_owned(), 1), ("cli".to_owned(), 11)]);
    layers
}

/// Words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The first names after each `crate::`, those of a group included.
fn imported(code: &str) -> BTreeSet<String> {
    let own = paths(code).into_iter().filter(|path| path[0] == "crate");
    own.filter_map(|path| path.into_iter().nth(1)).collect()
}
