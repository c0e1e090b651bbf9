//! Starts that are refused, told to a person: what is in the way, and what to do about it.
//!
//! Under the name etcd the last line of such a start is etcd's, `discovery failed`, whatever the
//! reason. Under the name rusd its message is the subject, `error` keeps etcd's words, and `hint`
//! says what to do and names the section of docs/handbook.md.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::config::{Config, Source};
use super::datadir::{self, Inaccessible};
use super::listen::Unbound;
use super::url::Url;
use super::{flags, holders, kindly, member_list};
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

    /// A first start that fails before the data directory is opened.
    pub(super) fn of_bootstrap(config: &Config, error: &str) -> Self {
        let has_run = error.contains("has already been bootstrapped");
        if has_run && matches!(store::is_vacant(&config.data_dir.join("member/db")), Ok(false)) {
            return Self::of_missing_log(&config.data_dir, config.wal_dir.as_deref(), error);
        }
        if error.contains("cannot fetch cluster info")
            && let Source::Flags(list) = &config.source
            && let Ok(members) = member_list::parse(list)
            && members.iter().all(|(name, _)| *name == config.name)
        {
            let subject = "--initial-cluster names no other member, so there is none to ask";
            let hint = "with --initial-cluster-state existing it lists all members of the cluster, \
                        this one included, as `rusd member add` has printed it";
            let (subject, hint) = (subject.to_owned(), handbook(hint, "Member never started"));
            return Self { subject, error: error.to_owned(), hint };
        }
        Self::of_text(error)
    }

    /// A store whose log is not where it is looked for. That it lies elsewhere is likelier than that
    /// it is lost.
    fn of_missing_log(data_dir: &Path, wal_dir: Option<&Path>, error: &str) -> Self {
        let (dir, own) = (data_dir.display(), data_dir.join("member/wal"));
        let has_own = datadir::has_log(&own).unwrap_or_default();
        let (place, hint) = match wal_dir {
            Some(wal) if has_own => {
                (format!("in {}, of --wal-dir", wal.display()), "it is in it: leave --wal-dir out")
            }
            Some(wal) => (
                format!("in {}, of --wal-dir", wal.display()),
                "give the --wal-dir with which the member was started before",
            ),
            None => (
                "in it".to_owned(),
                "if the member was started with --wal-dir before, give that again",
            ),
        };
        let hint = format!(
            "{hint}. If the log is lost: in a cluster, `rusd rebuild` makes this member anew from \
             the others; a single member is restored from a backup"
        );
        let subject = format!("the log of data directory {dir} is not {place}");
        Self { subject, error: error.to_owned(), hint: handbook(hint, "Damaged directory") }
    }

    /// A value of a variable or of a configuration file, in the form `invalid value VALUE for NAME:
    /// WHY`, that its flag does not take.
    fn of_value(error: &str) -> Option<Self> {
        let (_, rest) = error.split_once("invalid value ")?;
        let (_, rest) = rest.rsplit_once("\" for ")?;
        let (name, _) = rest.split_once(": ")?;
        let is_its = |flag: &&flags::Flag| flags::environment_name(flag.name) == name;
        let variable = flags::FLAGS.iter().find(is_its);
        let flag = variable.or_else(|| flags::find(name))?;
        let hint = match kindly::takes(flag, variable.is_some()) {
            Some(takes) => format!("it takes {takes}"),
            None => format!("`rusd serve --help` says what --{} takes", flag.name),
        };
        let subject = format!("the value of {name} cannot be used");
        Some(Self { subject, error: error.to_owned(), hint })
    }

    /// Settings that do not hold together.
    pub(super) fn of_settings(error: &str) -> Self {
        if let Some(told) = Self::of_value(error) {
            return told;
        }
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
    pub(super) fn of_directory(config: &Config, why: &StartError) -> Self {
        let (data_dir, wal_dir) = (config.data_dir.as_path(), config.wal_dir.as_deref());
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
            StartError::MissingLog { .. } => {
                return Self::of_missing_log(data_dir, wal_dir, &error);
            }
            StartError::MissingStore { wal, .. } if wal_dir.is_some() => {
                let subject = format!("data directory {dir} has no store for the log of --wal-dir");
                let hint = format!(
                    "check --data-dir: the store that belongs to {} lies elsewhere, or is lost. If \
                     it is lost: in a cluster, `rusd rebuild` makes this member anew from the others",
                    wal.display()
                );
                return Self { subject, error, hint: handbook(hint, "Damaged directory") };
            }
            StartError::MissingStore { .. }
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
    while metadata.is_err() && files::parent(at) != at {
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
        "querying DNS SRV records",
        "DNS names no members, as --discovery-srv asks",
        "check --discovery-srv, and the records: `dig SRV _etcd-server._tcp.DOMAIN`, or \
         _etcd-server-ssl._tcp for https",
    ),
    (
        "error setting up initial cluster",
        "--initial-cluster cannot be read",
        "it takes NAME=URL of each member, separated by commas, such as \
         m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380",
    ),
    (
        "which waits for this member",
        "this member was added to a cluster that runs, and is started as the first of a new one",
        "start it with --initial-cluster-state existing; see the handbook, \"Cluster id mismatch\"",
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
    fn values_of_variables_and_files_are_told_with_what_is_taken() {
        for (error, subject, hint) in [
            (
                "invalid value \"yes\" for ETCD_PRE_VOTE: parse error",
                "ETCD_PRE_VOTE",
                "true or false",
            ),
            (
                "invalid value \"abc\" for ETCD_QUOTA_BACKEND_BYTES: parse error",
                "ETCD_QUOTA_BACKEND_BYTES",
                "with a unit, such as 8GiB",
            ),
            (
                "a.yaml: invalid value \"8GiB\" for quota-backend-bytes: parse error",
                "quota-backend-bytes",
                "it takes a whole number",
            ),
            (
                "invalid value \"a\\\" for b\" for ETCD_CORS: x: y",
                "ETCD_CORS",
                "`rusd serve --help` says what --cors takes",
            ),
        ] {
            let said = Refusal::of_settings(error);
            assert_eq!(said.subject, format!("the value of {subject} cannot be used"), "{said:?}");
            assert!(said.hint.contains(hint), "{said:?}");
        }
    }

    #[test]
    fn a_title_that_a_hint_names_is_one_of_the_handbooks() {
        let titles = [
            "Unknown host",
            "Lost directory",
            "Member never started",
            "Member unreachable",
            "Cluster id mismatch",
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
