//! Refuses settings that do not hold together.
//!
//! The order of the checks and their texts are etcd's, since scripts and people match them.

use super::config::{Config, Stop, invalid};
use super::flags::{self, Flag, FlagKind, Given, Support};
use super::url::{self, Url};
use super::values::Values;
use crate::go;
use crate::trace::EVERY_TRACE;

/// Longest election timeout that etcd takes.
const ELECTION_MS_MAX: u64 = 50_000;
/// The flag of the traces per million that are recorded.
pub(super) const SAMPLING_RATE: &str = "distributed-tracing-sampling-rate";

/// Refuses flags and feature gates that are supported at their default alone, if they have another
/// value.
pub(super) fn refuse_unsupported(given: &Given) -> Result<(), Stop> {
    for (flag, text) in given.given().filter(|(flag, _)| flag.support == Support::Default) {
        if !is_default(flag, text) {
            return invalid(format!("flag --{} is not supported by rusd yet", flag.name));
        }
    }
    let gates = flags::gates(given.text("feature-gates")).map_err(Stop::Invalid)?;
    for (name, on) in gates {
        let known = flags::GATES.iter().find(|(gate, ..)| *gate == name);
        if known.is_some_and(|&(.., default, support)| on != default && support == Support::Default)
        {
            return invalid(format!("feature gate {name}={on} is not supported by rusd yet"));
        }
    }
    Ok(())
}

fn is_default(flag: &Flag, text: &str) -> bool {
    match flag.kind {
        FlagKind::Bool => go::parse_bool(text) == go::parse_bool(flag.default),
        FlagKind::Uint | FlagKind::Int => go::parse_int(text, 0) == go::parse_int(flag.default, 0),
        FlagKind::Duration => go::parse_duration(text) == go::parse_duration(flag.default),
        _ => text == flag.default,
    }
}

/// Flags and feature gates that were given another value than their default, and change nothing
/// here. Flags that etcd takes without effect as well are not among them.
pub(super) fn without_effect(given: &Given) -> Vec<&'static str> {
    let ignored = given.given().filter(|(flag, text)| {
        flag.support == Support::Ignored && !flag.help.is_empty() && !is_default(flag, text)
    });
    let gates = Values(given).gates().into_iter().filter_map(|(name, _, on)| {
        let ignored = (name, !on, Support::Ignored);
        let is_ignored = |&(gate, _, default, support)| (gate, default, support) == ignored;
        flags::GATES.iter().any(is_ignored).then_some(name)
    });
    ignored.map(|(flag, _)| flag.name).chain(gates).collect()
}

/// etcd's checks in etcd's order.
pub(super) fn check(config: &Config, given: &Given) -> Result<(), Stop> {
    let bind = |urls: &[Url]| url::check_bind(urls).map_err(Stop::Invalid);
    bind(&config.listen_peer_urls)?;
    bind(&config.listen_client_urls)?;
    bind(&config.listen_client_http_urls)?;
    bind(&config.listen_metrics_urls)?;
    if let Err(why) = url::check_host(&config.advertise_peer_urls) {
        let urls = go::quote(url::join(&config.advertise_peer_urls));
        return invalid(format!(
            "--initial-advertise-peer-urls {urls} must be \"host:port\" ({why})"
        ));
    }
    if let Err(why) = url::check_host(&config.advertise_client_urls) {
        let urls = go::quote(url::join(&config.advertise_client_urls));
        return invalid(format!(
            "--advertise-client-urls {urls} must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})"
        ));
    }
    check_source(given)?;
    let (heartbeat, election) = (config.heartbeat.as_millis(), config.election.as_millis());
    if heartbeat == 0 {
        return invalid("--heartbeat-interval must be >0 (set to 0ms)");
    }
    if election == 0 {
        return invalid("--election-timeout must be >0 (set to 0ms)");
    }
    if heartbeat.saturating_mul(5) > election {
        return invalid(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > u128::from(ELECTION_MS_MAX) {
        return invalid(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        ));
    }
    if is_advertise_missing(given) {
        return invalid(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        );
    }
    if Values(given).int("max-learners") < 0 {
        return invalid("membership: too many learner members in cluster");
    }
    match given.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return invalid("undefined auto-compaction-mode"),
        mode => return invalid(format!("unknown auto-compaction-mode {}", go::quote(mode))),
    }
    check_sampling_rate(config, given)?;
    if !["alarm", "auto"].contains(&given.text("space-policy")) {
        let policy = go::quote(given.text("space-policy"));
        return invalid(format!("unknown space-policy {policy}; it is alarm or auto"));
    }
    if config.takes_in_etcds && config.wal_dir.is_some() {
        return invalid(
            "--import-etcd-dir takes in a log that is in the data directory; where --wal-dir is \
             used, make a new directory with rusd import",
        );
    }
    check_time(given, "compact-hash-check-time")?;
    let clients = [config.listen_client_urls.as_slice(), &config.listen_client_http_urls].concat();
    let (peers, probes) = (&config.listen_peer_urls, &config.listen_metrics_urls);
    config.tls.check(&clients, peers, probes).map_err(Stop::Invalid)
}

/// etcd says so although zero is fine, and so is the bound.
fn check_sampling_rate(config: &Config, given: &Given) -> Result<(), Stop> {
    let why = match Values(given).int(SAMPLING_RATE) {
        _ if config.tracing.is_none() => return Ok(()),
        ..0 => "positive".to_owned(),
        rate if rate > i64::from(EVERY_TRACE) => format!("less than {EVERY_TRACE}"),
        _ => return Ok(()),
    };
    invalid(format!(
        "distributed tracing configurition is not valid: (tracing sampling rate must be {why})"
    ))
}

/// The members may be named in one way only, and that one must be complete.
fn check_source(given: &Given) -> Result<(), Stop> {
    let endpoints = Values(given).discovery_endpoints();
    let is_set = |name| given.is_set(name) && !given.text(name).is_empty();
    let ways = [is_set("initial-cluster"), is_set("discovery-srv"), !endpoints.is_empty()];
    if ways.into_iter().filter(|is_used| *is_used).count() > 1 {
        return invalid(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        );
    }
    if given.text("discovery-token").is_empty() != endpoints.is_empty() {
        return invalid("both --discovery-token and --discovery-endpoints must be set");
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return invalid("--discovery-endpoints must not contain empty endpoints");
    }
    Ok(())
}

/// Whether clients would be told the default URL, where this member does not listen.
fn is_advertise_missing(given: &Given) -> bool {
    let is_set = |name| given.is_set(name);
    is_set("listen-client-urls") && !is_set("advertise-client-urls") && !given.is_from_file()
}

fn check_time(given: &Given, name: &str) -> Result<(), Stop> {
    if go::parse_duration(given.text(name)).is_ok_and(|nanos| nanos <= 0) {
        return invalid(format!("--{name} must be >0 (set to {})", given.text(name)));
    }
    Ok(())
}
