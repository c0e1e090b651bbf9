//! The table of etcd's flags and Go's way of parsing them.
//!
//! `-x` and `--x` are the same, a value follows `=` or is the next word, a boolean takes a value
//! only after `=`, the last one wins, and the first word that is not a flag ends parsing. The
//! environment fills in what no flag gave: `ETCD_` and the flag's name in capitals.

use std::collections::BTreeMap;

use super::url::Url;
use crate::go;

/// How a flag's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    Bool,
    Uint,
    Uint32,
    Int,
    Duration,
    Text,
    /// The name of a file or directory.
    Path,
    /// URLs, comma separated.
    Urls,
    /// URLs, or one of the words that stand for all of them.
    Origins,
    Words,
    State,
    Fallback,
    Gates,
    /// Stages of the v2 store's removal, comma separated.
    Stages,
    /// Any text, without effect.
    Nothing,
}

/// What this server does with a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    Honoured,
    /// Taken without effect: what it tunes does not exist here, or needs no tuning.
    Ignored,
    /// Only its default is taken, since ignoring another value would break a promise.
    Default,
}

/// Under which title help and manual show a flag: etcd's, in its order, and one of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Own,
}

impl Group {
    pub(super) const ALL: [(Self, &str); 10] = [
        (Member, "Member"),
        (Clustering, "Clustering"),
        (Security, "Security"),
        (Auth, "Auth"),
        (Monitoring, "Profiling and monitoring"),
        (Logging, "Logging"),
        (Tracing, "Distributed tracing"),
        (Features, "Features and feature gates"),
        (Own, "rusd's own"),
        (Unsafe, "Unsafe: these can cost data"),
    ];
}

use FlagKind::{
    Bool, Duration, Fallback, Gates, Int, Nothing, Origins, Path, Stages, State, Text, Uint,
    Uint32, Urls, Words,
};
use Group::{
    Auth, Clustering, Features, Logging, Member, Monitoring, Own, Security, Tracing, Unsafe,
};
use Support::{Default, Honoured, Ignored};

pub(super) struct Flag {
    pub group: Group,
    pub name: &'static str,
    pub kind: FlagKind,
    pub default: &'static str,
    pub support: Support,
    /// Empty for names that are taken and not shown.
    pub help: &'static str,
    /// What a number counts; empty where the kind says it.
    pub unit: &'static str,
    /// The values that completions offer, if a few are all or the usual ones.
    pub values: &'static [&'static str],
    /// What `rusd serve --help` and the manual add to `help`.
    pub more: &'static str,
}

impl Flag {
    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn among(self, values: &'static [&'static str]) -> Self {
        Self { values, ..self }
    }

    const fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }
}

const fn flag(
    group: Group,
    name: &'static str,
    kind: FlagKind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    Flag { group, name, kind, default, support, help, unit: "", values: &[], more: "" }
}

const PEER: &str = "http://localhost:2380";
const CLIENT: &str = "http://localhost:2379";

/// Flags that etcd warns about, and the text of the warning.
pub(super) const DEPRECATED: [(&str, &str); 2] = [
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
         enforced, ignoring user input.",
    ),
];

/// Every flag of etcd 3.7.1, and rusd's own.
#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    flag(Member, "name", Text, "default", Honoured, "Name of this member."),
    flag(Member, "data-dir", Path, "", Honoured, "Data directory; <name>.etcd by default."),
    flag(Member, "wal-dir", Path, "", Honoured, "Directory for the log; <data-dir>/member/wal by default.").more("On a disk of its own, writes do not wait for the store."),
    flag(Member, "snapshot-count", Uint, "10000", Honoured, "Entries applied between snapshots of the log.").unit("entries"),
    flag(Features, "snapshot-catchup-entries", Uint, "5000", Honoured, "Log entries kept for a slow follower.").unit("entries"),
    flag(Member, "max-snapshots", Uint, "5", Ignored, "Snapshot files kept.").unit("files"),
    flag(Member, "max-wals", Uint, "5", Ignored, "Log files kept.").unit("files"),
    flag(Member, "heartbeat-interval", Uint, "100", Honoured, "Milliseconds between heartbeats.").unit("ms").more("About the longest usual round trip between members."),
    flag(Member, "election-timeout", Uint, "1000", Honoured, "Milliseconds without a heartbeat before an election.").unit("ms").more("Five heartbeats at least, 50000 at most, and the same for all members."),
    flag(Member, "initial-election-tick-advance", Bool, "true", Honoured, "Hold the first election as soon as the others are reached."),
    flag(Clustering, "pre-vote", Bool, "true", Honoured, "Ask for votes before an election."),
    flag(Clustering, "strict-reconfig-check", Bool, "true", Honoured, "Refuse changes that would lose the quorum."),
    flag(Member, "listen-peer-urls", Urls, PEER, Honoured, "URLs to listen on for peers.").more("Not given: as --initial-advertise-peer-urls; where that has a name, all addresses at its port."),
    flag(Member, "listen-client-urls", Urls, CLIENT, Honoured, "URLs to listen on for clients.").more("gRPC, JSON, health and metrics are on each. Not given: as --advertise-client-urls."),
    flag(Member, "listen-client-http-urls", Urls, "", Honoured, "URLs to listen on for HTTP clients only."),
    flag(Monitoring, "listen-metrics-urls", Urls, "", Honoured, "URLs to listen on for metrics and health."),
    flag(Clustering, "initial-advertise-peer-urls", Urls, PEER, Honoured, "This member's peer URLs.").more("Where the other members reach it, as --initial-cluster has them. Not given: this member's URLs in --initial-cluster, else those of --listen-peer-urls."),
    flag(Clustering, "advertise-client-urls", Urls, CLIENT, Honoured, "This member's client URLs.").more("Where clients reach it, not where it listens: never 0.0.0.0. Not given: those of --listen-client-urls, else the host of the peer URLs at port 2379 if the peer port is 2380, at the port below it otherwise."),
    flag(Clustering, "initial-cluster", Text, "default=http://localhost:2380", Honoured, "Members of the first cluster.").more("name=URL of each, comma separated; a member with several URLs stands there once for each. Not given: this member alone."),
    flag(Clustering, "initial-cluster-state", State, "new", Honoured, "new or existing.").among(&["new", "existing"]).more("existing joins a cluster to which this member was added before. A member that has its data ignores it."),
    flag(Clustering, "initial-cluster-token", Text, "etcd-cluster", Honoured, "Token that makes the cluster's id its own.").more("Clusters that could meet by mistake need different ones."),
    flag(Unsafe, "force-new-cluster", Bool, "false", Honoured, "Make a new cluster of this member alone; the others are lost.").more("For one member that is left of a lost quorum; never on two members of one cluster."),
    flag(Features, "max-learners", Int, "1", Honoured, "Most learners in the cluster.").unit("members").more("The same for all members."),
    flag(Clustering, "discovery-srv", Text, "", Honoured, "DNS domain to find the cluster."),
    flag(Clustering, "discovery-srv-name", Text, "", Honoured, "Service name for discovery-srv."),
    flag(Clustering, "discovery-endpoints", Words, "", Honoured, "Endpoints of a discovery service."),
    flag(Clustering, "discovery-token", Text, "", Honoured, "Token for the discovery service."),
    flag(Clustering, "discovery-dial-timeout", Duration, "2s", Honoured, "Timeout to reach the discovery service."),
    flag(Clustering, "discovery-request-timeout", Duration, "5s", Honoured, "Timeout of a discovery request."),
    flag(Clustering, "discovery-keepalive-time", Duration, "2s", Honoured, "Keepalive to the discovery service."),
    flag(Clustering, "discovery-keepalive-timeout", Duration, "6s", Honoured, "Keepalive timeout to the discovery service."),
    flag(Clustering, "discovery-insecure-transport", Bool, "true", Honoured, "Reach the discovery service without TLS."),
    flag(Clustering, "discovery-insecure-skip-tls-verify", Bool, "false", Honoured, "Trust any discovery service."),
    flag(Clustering, "discovery-cert", Path, "", Honoured, "Client certificate for discovery."),
    flag(Clustering, "discovery-key", Path, "", Honoured, "Client key for discovery."),
    flag(Clustering, "discovery-cacert", Path, "", Honoured, "Authorities trusted for discovery."),
    flag(Clustering, "discovery-user", Text, "", Honoured, "User for discovery."),
    flag(Clustering, "discovery-password", Text, "", Honoured, "Password for discovery."),
    flag(Clustering, "discovery-fallback", Fallback, "exit", Honoured, "exit.").among(&["exit"]),
    flag(Member, "quota-backend-bytes", Int, "0", Honoured, "Size of the store that raises NOSPACE; 0 is 2 GiB, negative is none.").unit("bytes").more("Writes are refused from there on, reads and deletes go on."),
    flag(Member, "backend-batch-interval", Duration, "0s", Honoured, "Longest time between commits of the store."),
    flag(Member, "backend-batch-limit", Int, "0", Honoured, "Most operations between commits of the store.").unit("operations"),
    flag(Member, "backend-bbolt-freelist-type", Text, "map", Ignored, "Kind of bbolt free list.").among(&["array", "map"]),
    // rusd's own:
    flag(Own, "space-policy", Text, "alarm", Honoured, "alarm: NOSPACE stays until it is disarmed; auto: compact, reclaim and disarm.").among(&["alarm", "auto"]),
    flag(Own, "import-etcd-dir", Bool, "false", Honoured, "Make a data directory of etcd one of rusd's; etcd's files stay in member.etcd."),
    // etcd's again:
    flag(Features, "bootstrap-defrag-threshold-megabytes", Uint, "0", Honoured, "Defragment at start if that much is free.").unit("MB"),
    flag(Member, "max-txn-ops", Uint, "128", Honoured, "Most operations in a transaction.").unit("operations"),
    flag(Member, "max-request-bytes", Uint, "1572864", Honoured, "Largest request.").unit("bytes"),
    flag(Member, "max-concurrent-streams", Uint32, "4294967295", Honoured, "Streams that each client may open.").unit("streams"),
    flag(Member, "grpc-keepalive-min-time", Duration, "5s", Honoured, "Shortest time between a client's pings."),
    flag(Member, "grpc-keepalive-interval", Duration, "2h0m0s", Honoured, "Time between pings to a client; 0 is never."),
    flag(Member, "grpc-keepalive-timeout", Duration, "20s", Honoured, "Time to wait for the answer to a ping."),
    flag(Member, "socket-reuse-port", Bool, "false", Honoured, "Listen with SO_REUSEPORT."),
    flag(Member, "socket-reuse-address", Bool, "false", Honoured, "Listen with SO_REUSEADDR, which is always done."),
    flag(Member, "raft-read-timeout", Duration, "5s", Honoured, "Silence of a peer's stream that ends it; 5s at least."),
    flag(Member, "raft-write-timeout", Duration, "5s", Honoured, "Time in which a peer must take what is written to it; 5s at least."),
    flag(Security, "cert-file", Path, "", Honoured, "Server certificate."),
    flag(Security, "key-file", Path, "", Honoured, "Server key."),
    flag(Security, "client-cert-file", Path, "", Ignored, "Client certificate of this server."),
    flag(Security, "client-key-file", Path, "", Ignored, "Client key of this server."),
    flag(Security, "client-cert-auth", Bool, "false", Honoured, "Ask clients for certificates.").more("With auth enabled, the common name of a certificate is the user."),
    flag(Security, "client-crl-file", Path, "", Honoured, "Revoked client certificates."),
    flag(Security, "client-cert-allowed-hostname", Words, "", Honoured, "Host names allowed to clients."),
    flag(Security, "trusted-ca-file", Path, "", Honoured, "Authorities trusted for clients.").more("In PEM."),
    flag(Security, "auto-tls", Bool, "false", Honoured, "Make server certificates."),
    flag(Security, "peer-cert-file", Path, "", Honoured, "Peer certificate."),
    flag(Security, "peer-key-file", Path, "", Honoured, "Peer key."),
    flag(Security, "peer-client-cert-file", Path, "", Honoured, "Client certificate for peers."),
    flag(Security, "peer-client-key-file", Path, "", Honoured, "Client key for peers."),
    flag(Security, "peer-client-cert-auth", Bool, "false", Honoured, "Ask peers for certificates."),
    flag(Security, "peer-trusted-ca-file", Path, "", Honoured, "Authorities trusted for peers."),
    flag(Security, "peer-auto-tls", Bool, "false", Honoured, "Make peer certificates."),
    flag(Security, "self-signed-cert-validity", Uint, "1", Honoured, "Years that made certificates are valid.").unit("years"),
    flag(Security, "peer-crl-file", Path, "", Honoured, "Revoked peer certificates."),
    flag(Security, "peer-cert-allowed-cn", Words, "", Honoured, "Common names allowed to peers."),
    flag(Security, "peer-cert-allowed-hostname", Words, "", Honoured, "Host names allowed to peers."),
    flag(Security, "cipher-suites", Words, "", Honoured, "Cipher suites for TLS 1.2."),
    flag(Features, "peer-skip-client-san-verification", Bool, "false", Honoured, "Do not check the names in peers' certificates."),
    flag(Security, "tls-min-version", Text, "TLS1.2", Honoured, "Lowest TLS version.").among(&["TLS1.2", "TLS1.3"]),
    flag(Security, "tls-max-version", Text, "", Honoured, "Highest TLS version.").among(&["TLS1.2", "TLS1.3"]),
    flag(Security, "cors", Origins, "*", Honoured, "Origins allowed to browsers.").more("* is any."),
    flag(Security, "host-whitelist", Words, "*", Honoured, "Host names allowed in plain HTTP requests.").more("* is any."),
    flag(Auth, "auth-token", Text, "simple", Honoured, "Kind of auth token.").among(&["simple", "jwt"]).more("For JWT: jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=10m."),
    flag(Auth, "auth-token-ttl", Uint, "300", Honoured, "Seconds that a simple token lives.").unit("seconds"),
    flag(Auth, "bcrypt-cost", Uint, "10", Honoured, "Cost of hashing a password.").unit("cost").more("4 to 31; each step doubles the time of a login."),
    flag(Logging, "logger", Text, "zap", Honoured, "zap.").among(&["zap"]),
    flag(Logging, "log-outputs", Words, "default", Honoured, "default, stderr, stdout, systemd/journal or files.").among(&["default", "stderr", "stdout", "systemd/journal"]).more("Comma separated; default is stderr."),
    flag(Logging, "log-level", Text, "info", Honoured, "debug, info, warn, error, panic or fatal.").among(&["debug", "info", "warn", "error", "panic", "fatal"]),
    flag(Logging, "log-format", Text, "json", Honoured, "json or console.").among(&["json", "console", "human"]).more("human has short lines for people, and is the default at a terminal."),
    flag(Logging, "enable-log-rotation", Bool, "false", Honoured, "Rotate the one file among the log outputs."),
    flag(Logging, "log-rotation-config-json", Text, r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#, Honoured, "When to rotate, in MB, and how many old files, of how many days, are kept."),
    flag(Clustering, "auto-compaction-mode", Text, "periodic", Honoured, "periodic or revision.").among(&["periodic", "revision"]),
    flag(Clustering, "auto-compaction-retention", Text, "0", Honoured, "Hours, a duration, or revisions to keep; 0 is off.").more("With mode periodic a bare number means hours."),
    flag(Monitoring, "enable-pprof", Bool, "false", Ignored, "Profiles of Go, which this server does not have."),
    flag(Monitoring, "metrics", Text, "basic", Honoured, "basic or extensive.").among(&["basic", "extensive"]),
    flag(Tracing, "enable-distributed-tracing", Bool, "false", Honoured, "Send traces of calls to an OpenTelemetry collector."),
    flag(Tracing, "distributed-tracing-address", Text, "localhost:4317", Honoured, "Collector of traces (OTLP over gRPC, without TLS)."),
    flag(Tracing, "distributed-tracing-service-name", Text, "etcd", Honoured, "Service name in traces, the same for all members."),
    flag(Tracing, "distributed-tracing-instance-id", Text, "", Honoured, "Instance in traces, another for each member."),
    flag(Tracing, "distributed-tracing-sampling-rate", Int, "0", Honoured, "Traces per million that are recorded, beside those that clients ask for.").unit("traces"),
    flag(Member, "enable-grpc-gateway", Bool, "true", Honoured, "Serve JSON under /v3."),
    flag(Own, "gateway-exact-errors", Bool, "false", Honoured, "Write errors in JSON exactly as etcd 3.7, without what older clients read."),
    flag(Features, "corrupt-check-time", Duration, "0s", Honoured, "Time between checks of the members against each other."),
    flag(Features, "compact-hash-check-time", Duration, "1m0s", Honoured, "Time between checks of compaction hashes."),
    flag(Features, "compaction-batch-limit", Int, "0", Honoured, "Rows that a compaction reads between two pauses; 1000 by default.").unit("rows"),
    flag(Features, "compaction-sleep-interval", Duration, "0s", Honoured, "That pause; 10ms by default."),
    flag(Features, "watch-progress-notify-interval", Duration, "0s", Honoured, "Time between progress notifications; 0 is 10 minutes."),
    flag(Features, "downgrade-check-time", Duration, "5s", Honoured, "Time between checks of a downgrade."),
    flag(Features, "warning-apply-duration", Duration, "100ms", Honoured, "Time of an apply or a read that is logged."),
    flag(Logging, "warning-unary-request-duration", Duration, "300ms", Honoured, "Request time that is logged."),
    flag(Member, "memory-mlock", Bool, "false", Honoured, "Keep all memory in RAM, the mapped store included."),
    flag(Unsafe, "unsafe-no-fsync", Bool, "false", Honoured, "Sync neither log nor store: a power cut loses data."),
    flag(Clustering, "v2-deprecation", Stages, "write-only", Ignored, "Stage of the v2 store's removal.").among(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
    flag(Features, "feature-gates", Gates, "", Honoured, "Feature gates, such as A=true,B=false."),
    flag(Member, "config-file", Path, "", Honoured, "File that stands for all other flags and variables.").more("In YAML or JSON, with the names of the flags as keys."),
    flag(Member, "version", Bool, "false", Honoured, "Print the version and exit."),
    flag(Member, "cluster-active-size", Nothing, "", Ignored, ""),
    flag(Member, "cluster-remove-delay", Nothing, "", Ignored, ""),
    flag(Member, "cluster-sync-interval", Nothing, "", Ignored, ""),
    flag(Member, "config", Nothing, "", Ignored, ""),
    flag(Member, "force", Nothing, "", Ignored, ""),
    flag(Member, "max-result-buffer", Nothing, "", Ignored, ""),
    flag(Member, "max-retry-attempts", Nothing, "", Ignored, ""),
    flag(Member, "peer-heartbeat-interval", Nothing, "", Ignored, ""),
    flag(Member, "peer-election-timeout", Nothing, "", Ignored, ""),
    flag(Member, "retry-interval", Nothing, "", Ignored, ""),
    flag(Member, "snapshot", Nothing, "", Ignored, ""),
    flag(Member, "v", Nothing, "", Ignored, ""),
    flag(Member, "vv", Nothing, "", Ignored, ""),
    flag(Member, "test.coverprofile", Nothing, "", Ignored, ""),
    flag(Member, "test.outputdir", Nothing, "", Ignored, ""),
];

/// Feature gates of etcd 3.7.1: name, stage, default, and what this server does with the other value.
pub(super) const GATES: &[(&str, &str, bool, Support)] = &[
    ("AllAlpha", "ALPHA", false, Default),
    ("AllBeta", "BETA", false, Default),
    ("InitialCorruptCheck", "ALPHA", false, Honoured),
    ("CompactHashCheck", "ALPHA", false, Honoured),
    // A defragmentation stops no service here.
    ("StopGRPCServiceOnDefrag", "ALPHA", false, Ignored),
    ("LeaseCheckpoint", "ALPHA", false, Default),
    ("LeaseCheckpointPersist", "ALPHA", false, Default),
    ("SetMemberLocalAddr", "ALPHA", false, Honoured),
    ("PriorityRequest", "ALPHA", false, Default),
    ("FastLeaseKeepAlive", "BETA", true, Ignored),
    ("TxnModeWriteWithSharedBuffer", "BETA", true, Ignored),
];

/// Flags that etcd 3.5 had as `--experimental-` booleans and 3.7 has as gates.
const OLD_GATES: &[(&str, &str)] = &[
    ("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    ("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    ("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    ("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
];

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// Values that etcd takes for the stage of the v2 store's removal.
const STAGES: [&str; 4] = ["write-only", "write-only-skip-check", "write-only-drop-data", "gone"];

pub(super) fn environment_name(flag: &str) -> String {
    format!("ETCD_{}", flag.to_uppercase().replace('-', "_"))
}

/// Why the command line was not parsed. After `Bad`, the program prints the text and the usage and
/// ends with exit code 2.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Help,
    Bad(String),
}

/// The texts that were given, by flag.
#[derive(Debug, Default)]
pub(super) struct Given {
    texts: BTreeMap<&'static str, String>,
    /// Names of etcd 3.5 that were given, to be warned about.
    pub old_names: Vec<String>,
    /// First word that is not a flag.
    pub rest: Option<String>,
    is_from_file: bool,
}

impl Given {
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.texts.contains_key(name)
    }

    pub(super) fn set_from_file(&mut self) {
        self.is_from_file = true;
    }

    /// Whether a configuration file stands for the flags.
    pub(super) fn is_from_file(&self) -> bool {
        self.is_from_file
    }

    /// The flag's text: given, or its default.
    pub(super) fn text(&self, name: &str) -> &str {
        match self.texts.get(name) {
            Some(text) => text,
            None => find(name).map_or("", |flag| flag.default),
        }
    }

    pub(super) fn set(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        check(flag.kind, text)?;
        let text = match (flag.kind, self.texts.get(flag.name)) {
            // Gates add up; for any other flag the last one wins.
            (Gates, Some(earlier)) => format!("{earlier},{text}"),
            // An empty list of URLs counts as given, but leaves the earlier value or the default.
            (Urls, earlier) if text.is_empty() => {
                earlier.map_or(flag.default, String::as_str).to_owned()
            }
            _ => text.to_owned(),
        };
        self.texts.insert(flag.name, text);
        Ok(())
    }

    /// Sets what a name of etcd 3.5 stands for; what is given under its own name counts more. Returns
    /// false if there is no such name, or if what it stands for is supported at its default alone:
    /// etcd 3.7 passes over the name, so it is no reason to refuse the start.
    pub(super) fn set_old(&mut self, name: &str, text: &str) -> Result<bool, String> {
        let Some((flag, gate)) = resolve(name).filter(|(flag, _)| flag.name != name) else {
            return Ok(false);
        };
        let Some(gate) = gate else {
            if flag.support == Default {
                return Ok(false);
            }
            self.old_names.push(name.to_owned());
            return if self.is_set(flag.name) {
                Ok(true)
            } else {
                self.set(flag, text).map(|()| true)
            };
        };
        check(Bool, text)?;
        let on = go::parse_bool(text) == Ok(true);
        let takes = |(name, _, default, support): &(&str, &str, bool, Support)| {
            *name == gate && (*support != Default || *default == on)
        };
        if !GATES.iter().any(takes) {
            return Ok(false);
        }
        self.old_names.push(name.to_owned());
        let is_given = gates(self.text(flag.name))?.iter().any(|(given, _)| *given == gate);
        if !is_given {
            self.set(flag, &format!("{gate}={text}"))?;
        }
        Ok(true)
    }

    pub(super) fn given(&self) -> impl Iterator<Item = (&'static Flag, &str)> {
        self.texts.iter().filter_map(|(name, text)| Some((find(name)?, text.as_str())))
    }
}

/// Reads the command line.
pub(super) fn parse(arguments: &[String]) -> Result<Given, Stop> {
    let mut given = Given::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix('-').filter(|body| !body.is_empty()) else {
            given.rest = Some(word.clone());
            break;
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.is_empty() {
            given.rest = words.next().cloned();
            break;
        }
        if body.starts_with(['-', '=']) {
            return Err(Stop::Bad(format!("bad flag syntax: {word}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        one(&mut given, name, value, &mut words)?;
    }
    Ok(given)
}

fn one<'a>(
    given: &mut Given,
    name: &str,
    value: Option<&'a str>,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<(), Stop> {
    let Some((flag, gate)) = resolve(name) else {
        if matches!(name, "h" | "help") {
            return Err(Stop::Help);
        }
        return Err(Stop::Bad(format!("flag provided but not defined: -{name}")));
    };
    if name != flag.name {
        given.old_names.push(name.to_owned());
    }
    if matches!(flag.kind, Bool | Nothing) || gate.is_some() {
        let text = value.unwrap_or("true");
        if flag.kind != Nothing && go::parse_bool(text).is_err() {
            return Err(Stop::Bad(format!(
                "invalid boolean value {} for -{name}: parse error",
                go::quote(text)
            )));
        }
        let text = gate.map_or_else(|| text.to_owned(), |gate| format!("{gate}={text}"));
        return given.set(flag, &text).map_err(Stop::Bad);
    }
    let Some(text) = value.or_else(|| words.next().map(String::as_str)) else {
        return Err(Stop::Bad(format!("flag needs an argument: -{name}")));
    };
    given.set(flag, text).map_err(|why| {
        Stop::Bad(format!("invalid value {} for flag -{name}: {why}", go::quote(text)))
    })
}

/// The flag of this name. A name with the prefix `experimental-` is that of the flag without it, or
/// stands for a feature gate, which is then returned as well.
fn resolve(name: &str) -> Option<(&'static Flag, Option<&'static str>)> {
    if let Some(flag) = find(name) {
        return Some((flag, None));
    }
    if let Some((_, gate)) = OLD_GATES.iter().find(|(old, _)| *old == name) {
        return Some((find("feature-gates")?, Some(gate)));
    }
    find(name.strip_prefix("experimental-")?).map(|flag| (flag, None))
}

/// How the text of a name of etcd 3.5 is read; None if there is no such name.
pub(super) fn old_kind(name: &str) -> Option<FlagKind> {
    let (flag, gate) = resolve(name).filter(|(flag, _)| flag.name != name)?;
    Some(if gate.is_some() { Bool } else { flag.kind })
}

fn check(kind: FlagKind, text: &str) -> Result<(), String> {
    let of_flag = |error: go::NumberError| error.of_flag().to_owned();
    match kind {
        Bool => go::parse_bool(text).map(drop).map_err(of_flag),
        Uint => go::parse_uint(text, 0).map(drop).map_err(of_flag),
        Uint32 => go::parse_uint32(text, 0).map(drop).map_err(String::from),
        Int => go::parse_int(text, 0).map(drop).map_err(of_flag),
        Duration => go::parse_duration(text).map(drop).map_err(|_| "parse error".to_owned()),
        Urls if text.is_empty() => Ok(()),
        Urls => Url::parse_list(text).map(drop),
        Origins if text == "*" => Ok(()),
        Origins => Url::parse_list(text).map(drop),
        Text | Path | Words | Nothing => Ok(()),
        Stages => match text.split(',').find(|stage| !STAGES.contains(stage)) {
            Some(stage) => Err(format!("invalid value {}", go::quote(stage))),
            None => Ok(()),
        },
        State if matches!(text, "new" | "existing") => Ok(()),
        Fallback if matches!(text, "exit" | "proxy") => Ok(()),
        State | Fallback => Err("invalid value".to_owned()),
        Gates => gates(text).map(drop),
    }
}

/// Reads `A=true,B=false`.
pub(super) fn gates(text: &str) -> Result<Vec<(&'static str, bool)>, String> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) =
            part.split_once('=').ok_or_else(|| format!("missing bool value for {part}"))?;
        let (name, value) = (name.trim(), value.trim());
        let on = go::parse_bool(value)
            .map_err(|error| format!("invalid value of {name}={value}, err: {error}"))?;
        let known = GATES
            .iter()
            .find(|(gate, ..)| *gate == name)
            .ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
        found.push((known.0, on));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
