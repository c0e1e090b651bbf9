//! The configuration file: YAML or JSON in the place of all flags and variables.
//!
//! A key is a flag's name. What concerns TLS and sockets stands in maps of its own, as in etcd.
//! etcd takes each value in one type only; here a duration may also be written as a flag's (`5s`
//! beside nanoseconds), a list as a comma separated text, a number where etcd wants a text. Keys that
//! etcd 3.5 had with the prefix `experimental-` are understood as well.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlLoader};

use super::flags::{self, Flag, FlagKind, Given};
use crate::{go, limits};

/// Flags that are not keys at the top of the file: they have no key, or one in a map.
const NOT_AT_TOP: &[&str] = &[
    "cert-file",
    "key-file",
    "client-cert-file",
    "client-key-file",
    "client-cert-auth",
    "client-crl-file",
    "client-cert-allowed-hostname",
    "trusted-ca-file",
    "auto-tls",
    "config-file",
    "discovery-fallback",
    "version",
    "raft-read-timeout",
    "raft-write-timeout",
    "socket-reuse-port",
    "socket-reuse-address",
];

/// A map of the file: the prefix of the flags that its keys stand for, and the keys that stand for
/// others.
struct Map {
    name: &'static str,
    prefix: &'static str,
    others: &'static [(&'static str, &'static str)],
}

const MAPS: &[Map] = &[
    Map {
        name: "client-transport-security",
        prefix: "",
        others: &[
            ("allowed-hostname", "client-cert-allowed-hostname"),
            // A key of the peers' map alone: a client's names are not compared with its address.
            ("skip-client-san-verification", ""),
        ],
    },
    Map {
        name: "peer-transport-security",
        prefix: "peer-",
        others: &[
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
        ],
    },
    Map { name: "socket-options", prefix: "socket-", others: &[] },
    Map { name: "discovery-config", prefix: "discovery-", others: &[] },
];

/// Reads a file as if its settings had been given as flags. Returns the unknown keys as well.
pub(super) fn read(path: &Path) -> Result<(Given, Vec<String>), String> {
    let failed = |error: std::io::Error| format!("open {}: {}", path.display(), go::reason(&error));
    let mut text = String::new();
    let limit = limits::CONFIG_FILE_BYTES_MAX;
    let file = File::open(path).map_err(failed)?;
    file.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(format!("{}: larger than {limit} bytes", path.display()));
    }
    parse(&text).map_err(|why| format!("{}: {why}", path.display()))
}

/// Refuses what would take memory or stack out of all proportion: the loader recurses into each
/// level, and copies the value of each alias.
fn check_bounds(text: &str) -> Result<(), String> {
    let mut parser = Parser::new_from_str(text);
    let (mut depth, mut aliases) = (0_usize, 0_usize);
    loop {
        let (event, place) = parser.next_token().map_err(|error| error.to_string())?;
        match event {
            Event::StreamEnd => return Ok(()),
            Event::Alias(_) => aliases += 1,
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        let what = match (depth, aliases) {
            (limits::CONFIG_FILE_DEPTH_MAX.., _) => "nested too deep",
            (_, limits::CONFIG_FILE_ALIASES_MAX..) => "too many aliases",
            _ => continue,
        };
        return Err(format!("{what} at line {}", place.line()));
    }
}

fn parse(text: &str) -> Result<(Given, Vec<String>), String> {
    check_bounds(text)?;
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    let mut reader = Reader::default();
    match documents.into_iter().next() {
        None | Some(Yaml::Null) => {}
        Some(Yaml::Hash(map)) => reader.top(&map)?,
        Some(_) => return Err("not a map of settings".to_owned()),
    }
    reader.given.set_from_file();
    Ok((reader.given, reader.unknown))
}

#[derive(Default)]
struct Reader {
    given: Given,
    unknown: Vec<String>,
}

impl Reader {
    fn top(&mut self, map: &Hash) -> Result<(), String> {
        let mut old = Vec::new();
        for (key, value) in map {
            let key = name(key)?;
            if let Some(map) = MAPS.iter().find(|map| map.name == key) {
                match value {
                    Yaml::Null => {}
                    Yaml::Hash(inner) => self.inner(map, inner)?,
                    _ => return Err(format!("invalid {key}")),
                }
                continue;
            }
            let is_at_top = !NOT_AT_TOP.contains(&key.as_str()) && !key.starts_with("peer-");
            match flags::find(&key).filter(|_| is_at_top) {
                Some(flag) => self.set(flag, &key, value)?,
                None => match flags::old_kind(&key) {
                    Some(kind) => old.push((key, kind, value)),
                    None => self.unknown.push(key),
                },
            }
        }
        // Last, since a key of this release counts more wherever it stands.
        for (key, kind, value) in old {
            let Some(text) = scalar_or_list(kind, &key, value)? else { continue };
            let is_known = self.given.set_old(&key, &text);
            if !is_known.map_err(|why| refusal(&key, &text, &why))? {
                self.unknown.push(key);
            }
        }
        Ok(())
    }

    fn inner(&mut self, map: &Map, inner: &Hash) -> Result<(), String> {
        for (key, value) in inner {
            let key = name(key)?;
            let path = format!("{}.{key}", map.name);
            let other = map.others.iter().find(|(other, _)| *other == key);
            let flag =
                other.map_or_else(|| format!("{}{key}", map.prefix), |(_, flag)| (*flag).into());
            match flags::find(&flag) {
                Some(flag) => self.set(flag, &path, value)?,
                None => self.unknown.push(path),
            }
        }
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, key: &str, value: &Yaml) -> Result<(), String> {
        let Some(text) = scalar_or_list(flag.kind, key, value)? else { return Ok(()) };
        // In a file any stage is accepted, since none has an effect.
        let text = if flag.kind == FlagKind::Stages { flag.default.to_owned() } else { text };
        self.given.set(flag, &text).map_err(|why| refusal(key, &text, &why))
    }
}

fn refusal(key: &str, text: &str, why: &str) -> String {
    format!("invalid value {} for {key}: {why}", go::quote(text))
}

/// The value of a key as a flag's text; None if there is none.
fn scalar_or_list(kind: FlagKind, key: &str, value: &Yaml) -> Result<Option<String>, String> {
    match text(kind, value) {
        Some(text) => Ok(text.filter(|text| !text.is_empty())),
        None => Err(format!("the value of {key} is neither a text, a number nor a list")),
    }
}

fn name(key: &Yaml) -> Result<String, String> {
    match key {
        Yaml::String(name) => Ok(name.to_ascii_lowercase()),
        _ => Err("a key that is not a text".to_owned()),
    }
}

/// A value as a flag's text; `Some(None)` for null, None for what is neither scalar nor list.
fn text(kind: FlagKind, value: &Yaml) -> Option<Option<String>> {
    let scalar = |value: &Yaml| match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(on) => Some(on.to_string()),
        _ => None,
    };
    match value {
        Yaml::Null => Some(None),
        Yaml::Integer(nanos) if kind == FlagKind::Duration => Some(Some(format!("{nanos}ns"))),
        Yaml::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(scalar).collect();
            Some(Some(items?.join(",")))
        }
        value => scalar(value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Given {
        parse(text).unwrap().0
    }

    #[test]
    fn keys_are_flags_and_values_have_their_types() {
        let given = given(
            "name: 'm1'\nData-Dir: /d\nheartbeat-interval: 500\n\
             grpc-keepalive-interval: 5000000000\nwatch-progress-notify-interval: 5s\n\
             auto-compaction-retention: 1\nlog-outputs: [stderr, /tmp/x]\n\
             listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\npre-vote: true\n\
             initial-cluster-token: ''\nwal-dir: ~\n",
        );
        assert_eq!(given.text("name"), "m1");
        assert_eq!(given.text("data-dir"), "/d");
        assert_eq!(given.text("heartbeat-interval"), "500");
        assert_eq!(given.text("grpc-keepalive-interval"), "5000000000ns");
        assert_eq!(given.text("watch-progress-notify-interval"), "5s");
        assert_eq!(given.text("auto-compaction-retention"), "1");
        assert_eq!(given.text("log-outputs"), "stderr,/tmp/x");
        assert_eq!(given.text("listen-client-urls"), "http://127.0.0.1:1,http://127.0.0.1:2");
        assert!(!given.is_set("initial-cluster-token") && !given.is_set("wal-dir"));
    }

    #[test]
    fn what_concerns_tls_and_sockets_has_maps_of_its_own() {
        let (given, unknown) = parse(
            "cert-file: /top\npeer-cert-file: /top\nproxy: 'off'\n\
             client-transport-security:\n  cert-file: /c\n  client-cert-auth: true\n\
             \x20 allowed-hostname: [a, b]\n  nope: 1\n\
             peer-transport-security:\n  key-file: /k\n  allowed-cn: [x]\n\
             socket-options:\n  reuse-port: true\n",
        )
        .unwrap();
        assert_eq!(given.text("cert-file"), "/c");
        assert_eq!(given.text("client-cert-auth"), "true");
        assert_eq!(given.text("client-cert-allowed-hostname"), "a,b");
        assert_eq!(given.text("peer-key-file"), "/k");
        assert_eq!(given.text("peer-cert-allowed-cn"), "x");
        assert_eq!(given.text("socket-reuse-port"), "true");
        assert!(!given.is_set("peer-cert-file"));
        let expected = ["cert-file", "peer-cert-file", "proxy", "client-transport-security.nope"];
        assert_eq!(unknown, expected);
    }

    #[test]
    fn keys_of_etcd_35_count_unless_those_of_this_release_are_there() {
        let (mut given, unknown) = parse(
            "experimental-initial-corrupt-check: true\n\
             experimental-watch-progress-notify-interval: 5000000000\n\
             experimental-corrupt-check-time: 2m\ncorrupt-check-time: 1m\nexperimental-x: 1\n",
        )
        .unwrap();
        assert_eq!(given.text("feature-gates"), "InitialCorruptCheck=true");
        assert_eq!(given.text("watch-progress-notify-interval"), "5000000000ns");
        assert_eq!(given.text("corrupt-check-time"), "1m");
        assert_eq!(std::mem::take(&mut given.old_names).len(), 3);
        assert_eq!(unknown, ["experimental-x"]);
        let refused = parse("experimental-initial-corrupt-check: 5s").err().unwrap();
        assert_eq!(
            refused,
            "invalid value \"5s\" for experimental-initial-corrupt-check: parse error"
        );
    }

    #[test]
    fn what_grows_when_it_is_read_is_refused() {
        let refused = |text: &str| parse(text).err().unwrap();
        for deep in ["- ", "? "] {
            let why = refused(&deep.repeat(100_000));
            assert!(why.contains("too deep"), "{why}");
        }
        assert!(refused(&"[".repeat(100_000)).contains("recursion limit"));
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..20 {
            let inner = vec![format!("*a{}", level - 1); 8].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert!(refused(&bomb).contains("too many aliases"));
        assert_eq!(given("data-dir: &d /d\nwal-dir: *d\n").text("wal-dir"), "/d");
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_refused() {
        let refused = |text: &str| parse(text).err().unwrap();
        assert_eq!(refused("- a\n- b"), "not a map of settings");
        assert_eq!(refused("peer-transport-security: 1"), "invalid peer-transport-security");
        assert_eq!(
            refused("election-timeout: ten"),
            "invalid value \"ten\" for election-timeout: parse error"
        );
        assert!(refused("name: {a: b}").contains("the value of name"));
        assert!(refused("name: [a").contains("line 2"));
        let missing = read(Path::new("/nonexistent/etcd.yaml")).err().unwrap();
        assert_eq!(missing, "open /nonexistent/etcd.yaml: no such file or directory");
        assert!(given("").rest.is_none() && given("{\"name\": \"j\"}").text("name") == "j");
    }
}
