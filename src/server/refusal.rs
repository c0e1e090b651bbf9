//! Starts that are refused, told to a person: what is in the way, and what to do about it.
//!
//! Under the name etcd the last line of such a start is etcd's, `discovery failed`, whatever the
//! reason. Under the name rusd its message is the subject, `error` keeps etcd's words, and `hint`
//! says what to do and names the section of docs/handbook.md.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::config::Config;
use super::datadir::Inaccessible;
use super::listen::Unbound;
use super::url::Url;
use super::{flags, holders};
use crate::files;
use crate::node::StartError;
use crate::transfer::LoadError;
use crate::{raft, store};

/// Why a start is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is in the way, with its name.
    pub subject: String,
    /// The error as etcd words it.
    pub error: String,
    /// What to do; empty if nobody knows.
    pub hint: String,
}

fn handbook(hint: impl AsRef<str>, title: &str) -> String {
    format!("{}; see the handbook, \"{title}\"", hint.as_ref())
}

impl Refusal {
    /// A refusal with a reason that no rule knows.
    pub(super) fn of_text(error: &str) -> Self {
        let known = BY_TEXT.iter().find(|(part, ..)| error.contains(part));
        let (subject, hint) =
            known.map_or(("the member cannot start", ""), |&(_, subject, hint)| (subject, hint));
        Self { subject: subject.to_owned(), error: error.to_owned(), hint: hint.to_owned() }
    }

    /// Settings that do not hold together.
    pub(super) fn of_settings(error: &str) -> Self {
        let known = Self::of_text(error);
        if !known.hint.is_empty() {
            return known;
        }
        let unknown = error.strip_prefix("unknown ").and_then(|rest| rest.split(' ').next());
        let unknown = unknown.filter(|name| flags::find(name).is_some());
        // The first flag that the text names is the one that is wrong.
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let named = error
            .split_once("--")
            .map_or("", |(_, rest)| rest.split(|c: char| !is_part(c)).next().unwrap_or_default());
        let subject = match unknown.unwrap_or(named) {
            "" => "the settings do not hold together".to_owned(),
            flag => format!("the value of --{flag} cannot be used"),
        };
        let hint = "`rusd serve --help` lists the flags, their values and defaults".to_owned();
        Self { subject, error: error.to_owned(), hint }
    }

    /// A port that cannot be listened on.
    pub(super) fn of_port(flag: &str, unbound: &Unbound) -> Self {
        let Unbound { url, kind, .. } = unbound;
        let (host, port) = url.host_port();
        let (subject, hint) = match kind {
            io::ErrorKind::AddrInUse => {
                let holder = match holders::of_port(port.parse().unwrap_or_default()) {
                    Some(holder) => format!("process {holder} listens there: stop it"),
                    None => "another process listens there: stop it".to_owned(),
                };
                let hint = format!("{holder}, or choose another port for --{flag}");
                (format!("port {port} of --{flag} is in use"), handbook(hint, "Port in use"))
            }
            io::ErrorKind::PermissionDenied if url.is_unix() => {
                let path = PathBuf::from(url.socket_path());
                let hint = whose(files::parent(&path));
                (
                    format!("the socket of --{flag} may not be made"),
                    handbook(hint, "Permission denied"),
                )
            }
            io::ErrorKind::PermissionDenied => (
                format!("port {port} of --{flag} is reserved for privileged processes"),
                handbook(
                    "choose a port above 1023, or give the process CAP_NET_BIND_SERVICE",
                    "Permission denied",
                ),
            ),
            io::ErrorKind::AddrNotAvailable => (
                format!("address {host} of --{flag} is not one of this machine"),
                format!("give --{flag} an address of this machine, or 0.0.0.0 for all of them"),
            ),
            // Not even localhost has an address without /etc/hosts, as in Go.
            _ if unbound.to_string().contains("lookup") => (
                format!("{host} of --{flag} has no address"),
                handbook("check the name in DNS or /etc/hosts", "Unknown host"),
            ),
            _ => (format!("--{flag} cannot be listened on"), String::new()),
        };
        Self { subject, error: unbound.to_string(), hint }
    }

    /// A file or directory that cannot be used, and the flag that names it.
    pub(super) fn of_path(flag: &str, path: &Path, source: &io::Error, error: String) -> Self {
        let shown = path.display();
        let (subject, hint) = match source.kind() {
            io::ErrorKind::NotFound => (
                format!("{shown}, of --{flag}, does not exist"),
                handbook(format!("make the file, or correct --{flag}"), "Missing file"),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("permission denied for {shown}, of --{flag}"),
                handbook(whose(path), "Permission denied"),
            ),
            io::ErrorKind::NotADirectory => (
                format!("{shown}, of --{flag}, is not in a directory"),
                format!("something on the way to it is a file; correct --{flag}"),
            ),
            _ => (format!("{shown}, of --{flag}, cannot be used"), String::new()),
        };
        Self { subject, error, hint }
    }

    /// A data directory that may not be looked into.
    pub(super) fn of_inaccessible(why: &Inaccessible) -> Self {
        Self::of_path("data-dir", &why.path, &why.source, why.to_string())
    }

    /// A data directory that a member cannot start in.
    pub(super) fn of_directory(data_dir: &Path, why: &StartError) -> Self {
        let dir = data_dir.display();
        let error = why.to_string();
        let damaged = || Self {
            subject: format!("data directory {dir} is damaged"),
            error: error.clone(),
            hint: handbook(
                format!(
                    "`rusd check data --data-dir {dir}` says what is damaged; in a cluster, `rusd \
                     rebuild` makes this member anew from the others; a single member is restored \
                     from a backup"
                ),
                "Damaged directory",
            ),
        };
        let of_store = match why {
            StartError::Store(error) | StartError::Load(LoadError::Store(error)) => error,
            StartError::MissingStore { .. }
            | StartError::MissingLog { .. }
            | StartError::Load(LoadError::Malformed { .. } | LoadError::Auth(_)) => {
                return damaged();
            }
            StartError::Raft(raft::Error::Log(error)) => {
                return match error {
                    raft::log::Error::Io { path, source, .. } => {
                        Self::of_path("data-dir", path, source, why.to_string())
                    }
                    raft::log::Error::Damage { .. } => damaged(),
                    _ => Self::of_text(&why.to_string()),
                };
            }
            StartError::Raft(
                raft::Error::LogEndsBefore { .. }
                | raft::Error::LogBeginsAfter { .. }
                | raft::Error::TermMismatch { .. }
                | raft::Error::Entry { .. },
            ) => return damaged(),
            StartError::Raft(raft::Error::Foreign { .. }) => {
                let subject = format!("data directory {dir} belongs to another member");
                let hint = "give --data-dir this member's own directory".to_owned();
                let hint = handbook(hint, "Cluster id mismatch");
                return Self { subject, error, hint };
            }
            _ => return Self::of_text(&error),
        };
        Self::of_store(&dir.to_string(), of_store, damaged)
    }

    fn of_store(dir: &str, why: &store::Error, damaged: impl FnOnce() -> Self) -> Self {
        let error = why.to_string();
        match why {
            store::Error::Locked { holder, .. } => {
                let pid = holder.trim().trim_start_matches("(pid ").trim_end_matches(')');
                let named = pid.parse().ok().map(holders::named);
                let who =
                    named.map_or("another process".into(), |named| format!("process {named}"));
                let subject = format!("data directory {dir} is locked by {who}");
                let hint =
                    "a directory is for one process: stop that one, or give another --data-dir";
                Self { subject, error, hint: handbook(hint, "Directory locked") }
            }
            store::Error::Etcd { .. } => {
                let subject = format!("{dir} is a data directory of etcd");
                let hint = format!(
                    "`rusd import --from-data-dir {dir} --data-dir NEW` makes one of rusd's of it; \
                     --import-etcd-dir does so in place at the start"
                );
                Self { subject, error, hint: handbook(hint, "Directory of etcd") }
            }
            store::Error::Damage { .. } | store::Error::Damaged(_) | store::Error::Lmdb { .. } => {
                damaged()
            }
            store::Error::Io { file, source } => Self::of_path("data-dir", file, source, error),
            store::Error::NoSpace { .. } | store::Error::NoFiles { .. } => {
                let subject = format!("the disk of data directory {dir} is full");
                Self { subject, error, hint: handbook("make room on it", "Full disk") }
            }
            _ => Self::of_text(&error),
        }
    }

    /// The first file among the settings that is missing or may not be read.
    pub(super) fn of_files(config: &Config) -> Option<Self> {
        let tls = &config.tls;
        let is_tls = |urls: &[Url]| urls.iter().any(Url::is_tls);
        let clients = [
            config.listen_client_urls.as_slice(),
            &config.listen_client_http_urls,
            &config.listen_metrics_urls,
        ];
        let for_clients = clients.into_iter().any(is_tls);
        let for_peers = is_tls(&config.listen_peer_urls);
        let files = [
            (for_clients, "cert-file", &tls.client.cert),
            (for_clients, "key-file", &tls.client.key),
            (for_clients, "trusted-ca-file", &tls.client.ca),
            (for_clients, "client-crl-file", &tls.client.crl),
            (for_peers, "peer-cert-file", &tls.peer.cert),
            (for_peers, "peer-key-file", &tls.peer.key),
            (for_peers, "peer-trusted-ca-file", &tls.peer.ca),
            (for_peers, "peer-crl-file", &tls.peer.crl),
            (for_peers, "peer-client-cert-file", &tls.dial_pair.0),
            (for_peers, "peer-client-key-file", &tls.dial_pair.1),
        ];
        let used = files.into_iter().filter(|(is_used, _, path)| *is_used && !path.is_empty());
        used.into_iter().find_map(|(_, flag, path)| {
            let path = Path::new(path);
            let error = fs::File::open(path).err()?;
            let text = format!("open {}: {}", path.display(), crate::go::reason(&error));
            Some(Self::of_path(flag, path, &error, text))
        })
    }
}

/// Whose a path is, or the nearest directory above it that can be seen, and who this process is.
fn whose(path: &Path) -> String {
    let (mut at, mut metadata) = (path, fs::symlink_metadata(path));
    while metadata.is_err() && files::parent(at) != at && at.parent().is_some() {
        let parent = files::parent(at);
        (at, metadata) = (parent, fs::symlink_metadata(parent));
    }
    let uid = rustix::process::geteuid().as_raw();
    match metadata {
        Ok(found) => format!(
            "{} belongs to uid {} (mode {:o}), and this process runs as uid {uid}: run it as that \
             user, or give the path to uid {uid}",
            at.display(),
            found.uid(),
            found.mode() & 0o7777
        ),
        Err(_) => format!("this process runs as uid {uid}"),
    }
}

/// Parts of errors whose texts are etcd's, or which come from far below: the subject and the hint.
const BY_TEXT: &[(&str, &str, &str)] = &[
    (
        "couldn't find local name",
        "--initial-cluster has no entry for this member's --name",
        "give --name one of the names in --initial-cluster, or add NAME=PEER-URL of this member to \
         it",
    ),
    (
        "but missing from --initial-",
        "--initial-cluster and --initial-advertise-peer-urls contradict each other",
        "leave --initial-advertise-peer-urls out: it follows from this member's entry in \
         --initial-cluster",
    ),
    (
        "to match --initial-cluster",
        "a name in --initial-cluster cannot be resolved",
        "check the name in DNS or /etc/hosts; see the handbook, \"Unknown host\"",
    ),
    (
        "has duplicate url",
        "two members in --initial-cluster have the same URL",
        "give each member a peer URL of its own",
    ),
    (
        "has already been bootstrapped",
        "this member has been part of the cluster, and its data directory is gone",
        "`rusd rebuild` puts a new member in its place; see the handbook, \"Lost directory\"",
    ),
    (
        "before, and its log is gone",
        "this member has been part of the cluster, and its log is gone",
        "`rusd rebuild` puts a new member in its place; see the handbook, \"Lost directory\"",
    ),
    (
        "member count is unequal",
        "the cluster has other members than --initial-cluster lists",
        "`rusd member list` shows them; a new member is announced with `rusd member add` first; see \
         the handbook, \"Member never started\"",
    ),
    (
        "error validating peerURLs",
        "the cluster has other peer URLs than --initial-cluster lists",
        "`rusd member list` shows them; see the handbook, \"Member never started\"",
    ),
    (
        "cannot fetch cluster info",
        "no member in --initial-cluster answers",
        "start the others first, and check the peer URLs; see the handbook, \"Member unreachable\"",
    ),
    (
        "file descriptor limit",
        "the limit of open files is too low",
        "raise it with `ulimit -n` or LimitNOFILE; see the handbook, \"Open files\"",
    ),
    (
        "cannot lock memory",
        "the memory cannot be locked, as --memory-mlock asks",
        "see the handbook, \"Memory limit\"",
    ),
    (
        "can't find journal",
        "systemd's journal, of --log-outputs, is not there",
        "choose another place for --log-outputs, such as stderr",
    ),
    (
        "open sink",
        "a place of --log-outputs cannot be opened",
        "check that its directory exists and may be written; see the handbook, \"Missing file\"",
    ),
    (
        "network file system",
        "the data directory is on a network file system",
        "give --data-dir a directory on a local disk",
    ),
    (
        "is not one that this rusd reads",
        "the data directory was written by a later rusd",
        "start the rusd that wrote it, or a later one; see the handbook, \"Unequal versions\"",
    ),
    (
        "private key does not match",
        "a certificate and its key do not belong together",
        "`rusd cert show FILE` shows both",
    ),
    (
        "must be provided for client url",
        "a client URL has https, and no certificate is given",
        "give --cert-file and --key-file, or --auto-tls, or use http",
    ),
    (
        "cannot listen on TLS",
        "a peer URL has https, and no certificate is given",
        "give --peer-cert-file and --peer-key-file, or --peer-auto-tls, or use http",
    ),
    (
        "expected IP in URL for binding",
        "a URL to listen on has a name, which may stand for several addresses",
        "listen on an address of this machine, or on 0.0.0.0; the name goes into the advertised URL",
    ),
    (
        "no such file or directory",
        "a file that the settings name does not exist",
        "see the handbook, \"Missing file\"",
    ),
    (
        "permission denied",
        "a file that the settings name may not be used",
        "see the handbook, \"Permission denied\"",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_the_flag() {
        let said = Refusal::of_settings("--election-timeout[1ms] should be at least as 5 times");
        assert_eq!(said.subject, "the value of --election-timeout cannot be used");
        let said = Refusal::of_settings("undefined auto-compaction-mode");
        assert_eq!(said.subject, "the settings do not hold together");
    }

    #[test]
    fn a_title_that_a_hint_names_is_one_of_the_handbooks() {
        let titles = [
            "Unknown host",
            "Lost directory",
            "Member never started",
            "Member unreachable",
            "Open files",
            "Memory limit",
            "Missing file",
            "Unequal versions",
            "Permission denied",
        ];
        for (_, _, hint) in BY_TEXT {
            let Some((_, title)) = hint.split_once("the handbook, \"") else { continue };
            assert!(titles.contains(&title.trim_end_matches('"')), "{title}");
        }
    }
}
