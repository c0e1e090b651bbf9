//! The flags of `etcd gateway`, parsed as pflag parses them and with the texts of cobra.

use std::time::Duration;

use crate::{go, limits};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    pub listen: String,
    pub endpoints: Vec<String>,
    pub discovery_srv: String,
    pub discovery_srv_name: String,
    pub insecure_discovery: bool,
    pub trusted_ca: String,
    pub retry_delay: Duration,
}

/// How the command ends before it starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text for standard output; exit code 0.
    Help(String),
    /// The text for standard error; exit code 1.
    Bad(String),
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:23790".to_owned(),
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            discovery_srv: String::new(),
            discovery_srv_name: String::new(),
            insecure_discovery: false,
            trusted_ca: String::new(),
            retry_delay: Duration::from_secs(60),
        }
    }
}

pub(super) const ABOUT: &str = "gateway related command

Usage:
  etcd gateway [command]

Available Commands:
  start       start the gateway

Flags:
  -h, --help   help for gateway

Use \"etcd gateway [command] --help\" for more information about a command.
";

/// A flag of `gateway start`.
pub(in crate::server) struct Flag {
    pub name: &'static str,
    /// pflag's word for its kind; empty for a switch.
    pub kind: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}

#[rustfmt::skip]
pub(in crate::server) const FLAGS: [Flag; 7] = [
    Flag { name: "discovery-srv", kind: "string", default: "", help: "DNS domain used to bootstrap initial cluster" },
    Flag { name: "discovery-srv-name", kind: "string", default: "", help: "service name to query when using DNS discovery" },
    Flag { name: "endpoints", kind: "strings", default: "127.0.0.1:2379", help: "comma separated etcd cluster endpoints" },
    Flag { name: "insecure-discovery", kind: "", default: "", help: "accept insecure SRV records" },
    Flag { name: "listen-addr", kind: "string", default: "127.0.0.1:23790", help: "listen address" },
    Flag { name: "retry-delay", kind: "duration", default: "1m0s", help: "duration of delay before retrying failed endpoints" },
    Flag { name: "trusted-ca-file", kind: "string", default: "", help: "path to the client server TLS CA file for verifying the discovered endpoints when discovery-srv is provided." },
];

/// The usage of `gateway start`, as pflag prints it.
fn usage() -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    for flag in &FLAGS {
        if flag.name > "help" && rows.iter().all(|(left, _)| !left.contains("-h,")) {
            rows.push(("  -h, --help".to_owned(), "help for start".to_owned()));
        }
        let default = match (flag.kind, flag.default) {
            (_, "") => String::new(),
            ("string", text) => format!(" (default \"{text}\")"),
            ("strings", text) => format!(" (default [{text}])"),
            (_, text) => format!(" (default {text})"),
        };
        let left = format!("      --{} {}", flag.name, flag.kind);
        rows.push((left.trim_end().to_owned(), format!("{}{default}", flag.help)));
    }
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or_default() + 3;
    let rows = rows.iter().map(|(left, right)| format!("{left:width$}{right}\n"));
    format!("Usage:\n  etcd gateway start [flags]\n\nFlags:\n{}", rows.collect::<String>())
}

/// The first word that is neither a flag nor a flag's value, as cobra finds it: of the flags before it
/// only that for help is known to take none.
fn command_at(words: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let takes_value = match word.as_str() {
            "--" => return None,
            "-h" | "--help" => false,
            flag if flag.starts_with("--") => !flag.contains('='),
            flag if flag.starts_with('-') => flag.len() == 2,
            _ => return Some(at),
        };
        at += 1 + usize::from(takes_value);
    }
    None
}

/// Reads the words behind `gateway`.
pub(super) fn parse(words: &[String]) -> Result<Flags, Stop> {
    let Some(command) = words.first() else { return Err(Stop::Help(ABOUT.to_owned())) };
    let at = command_at(words).filter(|at| words[*at] == "start");
    let words = at.map(|at| [&words[..at], &words[at + 1..]].concat());
    let Some(words) = words else {
        return Err(match command.strip_prefix('-') {
            Some(flag) if !matches!(flag, "h" | "-help") => {
                let unknown = unknown(command);
                Stop::Bad(format!("Error: {unknown}\n{}\n{unknown}", usage_of(ABOUT)))
            }
            _ => Stop::Help(ABOUT.to_owned()),
        });
    };
    let mut flags = Flags::default();
    let bad = |why: String| Stop::Bad(format!("Error: {why}\n{}\n{why}", usage()));
    let (mut words, mut has_endpoints) = (words.iter(), false);
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix("--") else {
            match word.strip_prefix('-') {
                Some(flag) if !flag.is_empty() => {
                    return Err(match flag.trim_start_matches('h') {
                        "" => help(),
                        rest => bad(unknown(&format!("-{rest}"))),
                    });
                }
                // A word that is no flag is passed over.
                _ => continue,
            }
        };
        if body.is_empty() {
            break;
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        if name == "help" {
            return Err(help());
        }
        if !FLAGS.iter().any(|flag| flag.name == name) {
            return Err(bad(unknown(word)));
        }
        let is_switch = name == "insecure-discovery";
        let value = value.or_else(|| match is_switch {
            true => Some("true"),
            false => words.next().map(String::as_str),
        });
        let value = value.ok_or_else(|| bad(format!("flag needs an argument: --{name}")))?;
        flags.set(name, value, &mut has_endpoints).map_err(|why| {
            bad(format!("invalid argument {} for \"--{name}\" flag: {why}", go::quote(value)))
        })?;
    }
    Ok(flags)
}

impl Flags {
    fn set(&mut self, name: &str, value: &str, has_endpoints: &mut bool) -> Result<(), String> {
        let text = value.to_owned();
        match name {
            "discovery-srv" => self.discovery_srv = text,
            "discovery-srv-name" => self.discovery_srv_name = text,
            "listen-addr" => self.listen = text,
            "trusted-ca-file" => self.trusted_ca = text,
            "insecure-discovery" => {
                self.insecure_discovery =
                    go::parse_bool(value).map_err(|error| error.to_string())?;
            }
            "retry-delay" => {
                let nanos = go::parse_duration(value)?;
                // etcd waits five minutes then, and without a pause for less than that.
                self.retry_delay = match u64::try_from(nanos) {
                    Ok(0) => Duration::from_secs(300),
                    nanos => Duration::from_nanos(nanos.unwrap_or_default()),
                }
                .max(limits::RELAY_RETRY_MIN);
            }
            _ => {
                // The first list takes the default's place, and further ones are added.
                if !std::mem::replace(has_endpoints, true) {
                    self.endpoints.clear();
                }
                let list = value.split(',').filter(|_| !value.is_empty());
                self.endpoints.extend(list.map(str::to_owned));
            }
        }
        Ok(())
    }
}

fn help() -> Stop {
    Stop::Help(format!("start the gateway\n\n{}", usage()))
}

/// A text's part from its usage on.
fn usage_of(about: &str) -> &str {
    about.find("Usage:").map_or("", |at| &about[at..])
}

fn unknown(word: &str) -> String {
    match word.strip_prefix("--") {
        Some(body) => format!("unknown flag: --{}", body.split('=').next().unwrap_or_default()),
        None => {
            let first = word.chars().nth(1).unwrap_or_default();
            format!("unknown shorthand flag: '{first}' in {word}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Flags, Stop> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn why(line: &str) -> String {
        match read(line) {
            Err(Stop::Bad(text)) => text.rsplit('\n').next().unwrap().to_owned(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_are_read_as_etcd_reads_them() {
        assert_eq!(read("start"), Ok(Flags::default()));
        let before = read("--endpoints=a:1 --retry-delay 5s start --listen-addr :3").unwrap();
        assert_eq!(before.endpoints, ["a:1"]);
        assert_eq!((before.listen.as_str(), before.retry_delay), (":3", Duration::from_secs(5)));
        assert!(matches!(read("-h start"), Err(Stop::Help(_))));
        let flags = read(
            "start x --endpoints a:1,b:2 --listen-addr=:3 --insecure-discovery --retry-delay 5s \
             --endpoints=c:4 --discovery-srv d --discovery-srv-name n --trusted-ca-file f -- --no",
        );
        let expected = Flags {
            listen: ":3".into(),
            endpoints: ["a:1", "b:2", "c:4"].map(str::to_owned).to_vec(),
            discovery_srv: "d".into(),
            discovery_srv_name: "n".into(),
            insecure_discovery: true,
            trusted_ca: "f".into(),
            retry_delay: Duration::from_secs(5),
        };
        assert_eq!(flags, Ok(expected));
        assert_eq!(read("start --endpoints=").unwrap().endpoints, [""; 0]);
        let delay = |text: &str| read(&format!("start --retry-delay={text}")).unwrap().retry_delay;
        assert_eq!(delay("0s"), Duration::from_secs(300));
        assert_eq!(delay("-1s"), limits::RELAY_RETRY_MIN);
        for line in ["", "stop", "-h", "--help", "start -h", "start --help"] {
            assert!(matches!(read(line), Err(Stop::Help(_))), "{line}");
        }
    }

    #[test]
    fn help_is_etcds() {
        let Err(Stop::Help(text)) = read("start --help") else { panic!() };
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["start the gateway", ""]);
        assert_eq!(
            lines[7..11],
            [
                "      --discovery-srv-name string   service name to query when using DNS discovery",
                "      --endpoints strings           comma separated etcd cluster endpoints (default \
                 [127.0.0.1:2379])",
                "  -h, --help                        help for start",
                "      --insecure-discovery          accept insecure SRV records",
            ]
        );
        assert!(lines[11].ends_with("listen address (default \"127.0.0.1:23790\")"), "{text}");
    }

    #[test]
    fn errors_are_cobras() {
        assert_eq!(why("start --nope=1"), "unknown flag: --nope");
        assert_eq!(why("start -n"), "unknown shorthand flag: 'n' in -n");
        assert_eq!(why("start --listen-addr"), "flag needs an argument: --listen-addr");
        assert_eq!(
            why("start --retry-delay x"),
            "invalid argument \"x\" for \"--retry-delay\" flag: time: invalid duration \"x\""
        );
        assert_eq!(
            why("start --insecure-discovery=x"),
            "invalid argument \"x\" for \"--insecure-discovery\" flag: strconv.ParseBool: parsing \
             \"x\": invalid syntax"
        );
    }
}
