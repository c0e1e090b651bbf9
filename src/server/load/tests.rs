//! Which settings are accepted and which are refused, with the texts.

use super::*;
use crate::server::flags::FlagKind;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn of(line: &str) -> Result<Config, Stop> {
    load(StartedAs::Etcd, &words(line), &[], &mut Vec::new())
}

fn refused(line: &str) -> String {
    match of(line) {
        Err(Stop::Invalid(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn defaults_are_etcds() {
    let config = of("").unwrap();
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.election, Duration::from_secs(1));
    assert_eq!(config.max_request_bytes, 1_572_864);
    assert_eq!(config.snapshot_count, 10_000);
    assert_eq!(config.compaction, Compaction::Off);
    assert!(
        matches!(config.source, Source::Flags(list) if list == "default=http://localhost:2380")
    );
}

#[test]
fn peers_are_reached_from_the_first_address_that_they_are_told() {
    let all = "--initial-cluster default=http://127.0.0.1:1 --initial-advertise-peer-urls \
               http://127.0.0.1:1,http://host:2,http://[2001:db8::1]:4,http://192.0.2.1:3";
    assert_eq!(of(all).unwrap().local_address(), None);
    let gate = "--feature-gates SetMemberLocalAddr=true";
    let expected = "192.0.2.1".parse().unwrap();
    let config = of(&format!("{all} {gate}")).unwrap();
    assert_eq!(config.local_address(), Some(expected), "lists are sorted");
    assert_eq!(of(gate).unwrap().local_address(), None);
}

#[test]
fn a_name_alone_names_the_first_cluster() {
    let config = of("--name m1").unwrap();
    assert!(matches!(config.source, Source::Flags(list) if list == "m1=http://localhost:2380"));
    assert_eq!(config.data_dir, PathBuf::from("m1.etcd"));
}

/// Command lines that are refused, and the texts.
const REFUSED: &[(&str, &str)] = &[
    ("extra", "\"extra\" is not a valid flag"),
    (
        "--listen-client-urls http://127.0.0.1:1",
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    ),
    (
        "--enable-distributed-tracing --distributed-tracing-sampling-rate=-1",
        "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
    ),
    (
        "--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001",
        "distributed tracing configurition is not valid: (tracing sampling rate must be less than \
         1000000)",
    ),
    ("--heartbeat-interval 0", "--heartbeat-interval must be >0 (set to 0ms)"),
    ("--discovery-token t", "both --discovery-token and --discovery-endpoints must be set"),
    ("--discovery-endpoints=", "both --discovery-token and --discovery-endpoints must be set"),
    (
        "--discovery-token t --discovery-endpoints a:1,,b:1",
        "--discovery-endpoints must not contain empty endpoints",
    ),
    (
        "--discovery-srv a.test --initial-cluster default=http://localhost:2380",
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\"",
    ),
    (
        "--heartbeat-interval 300",
        "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
    ),
    (
        "--election-timeout 50001",
        "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
    ),
    (
        "--peer-cert-file c --peer-key-file k --peer-client-cert-file x",
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: x]",
    ),
    ("--max-learners=-1", "membership: too many learner members in cluster"),
    ("--auto-compaction-mode x", "unknown auto-compaction-mode \"x\""),
    (
        "--auto-compaction-retention 0.5",
        "error parsing CompactionRetention: time: missing unit in duration \"0.5\"",
    ),
    (
        "--listen-peer-urls https://127.0.0.1:1",
        "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
    ),
    (
        "--listen-client-urls https://127.0.0.1:1 --advertise-client-urls https://127.0.0.1:1",
        "TLS key/cert (--cert-file, --key-file) must be provided for client url \
         https://127.0.0.1:1 with HTTPS scheme",
    ),
    (
        "--tls-max-version TLS1.1",
        "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
    ),
    (
        "--tls-min-version TLS1.3 --cipher-suites TLS_AES_128_GCM_SHA256",
        "cipher suites cannot be configured when only TLS1.3 is enabled",
    ),
    ("--cipher-suites NONE", "unexpected TLS cipher suite \"NONE\""),
    (
        "--log-outputs systemd/journal,stderr",
        "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \
         \"systemd/journal\"]) are configured with 'default'; override 'default' value with \
         something else",
    ),
    (
        "--peer-auto-tls --peer-client-cert-auth",
        "--peer-auto-tls makes certificates that no authority has signed, so that peers \
         cannot meet --peer-client-cert-auth or --peer-trusted-ca-file",
    ),
    (
        "--peer-cert-allowed-cn a,b --peer-cert-allowed-hostname c",
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], \
         hostnames=[\"c\"])",
    ),
    (
        "--feature-gates LeaseCheckpoint=true",
        "feature gate LeaseCheckpoint=true is not supported by rusd yet",
    ),
];

#[test]
fn settings_that_do_not_hold_together_are_refused_in_etcds_words() {
    for (line, text) in REFUSED {
        assert_eq!(refused(line), *text, "{line}");
    }
}

#[test]
fn unsupported_flags_may_repeat_their_default() {
    of("--cert-file= --client-cert-auth=false --pre-vote=1 --auth-token simple").unwrap();
    of("--feature-gates InitialCorruptCheck=true,LeaseCheckpoint=false").unwrap();
}

#[test]
fn numbers_of_any_size_are_times_that_can_be_added() {
    let ttl = |text: &str| of(&format!("--auth-token-ttl {text}")).unwrap().auth_token_ttl;
    for (text, seconds) in [("300", 300), ("0", 0), ("9223372036", 9_223_372_036)] {
        assert_eq!(ttl(text), Duration::from_secs(seconds), "{text}");
    }
    // A product that overflows in etcd is negative, so the default is used.
    for text in ["9223372037", "18446744073709551615", "9223372036854775808"] {
        assert_eq!(ttl(text), Duration::ZERO, "{text}");
    }
    let durations = flags::FLAGS.iter().filter(|flag| flag.kind == FlagKind::Duration);
    for name in durations.map(|flag| flag.name) {
        let longest = of(&format!("--{name} 2562047h47m16.854775807s"));
        assert!(longest.is_ok(), "--{name}: {longest:?}");
        let longer = of(&format!("--{name} 2562047h47m16.854775808s"));
        assert!(matches!(longer, Err(Stop::Usage(_))), "--{name}: {longer:?}");
    }
}

#[test]
fn batch_limits_are_counts() {
    let read = |text: &str| {
        let line = format!("--backend-batch-limit={text} --compaction-batch-limit={text}");
        let writing = of(&line).unwrap().writing;
        (writing.batch_limit, writing.compaction_batch_limit)
    };
    assert_eq!(read("7"), (Some(7), Some(7)));
    assert_eq!(read("0"), (None, None));
    assert_eq!(read("-1"), (None, None));
}

#[test]
fn flags_without_effect_are_named_unless_they_have_their_default() {
    let named = |line: &str| {
        let mut notices = Vec::new();
        load(StartedAs::Etcd, &words(line), &[], &mut notices).unwrap();
        let found = notices.into_iter().find_map(|notice| match notice {
            Notice::NoEffect(flags) => Some(flags),
            _ => None,
        });
        found.unwrap_or_default()
    };
    assert_eq!(named("--max-wals 0x5 --raft-read-timeout 6s --force=x"), [""; 0]);
    assert_eq!(named("--max-wals 3 --enable-pprof --name n"), ["enable-pprof", "max-wals"]);
    let gates = "StopGRPCServiceOnDefrag=true,FastLeaseKeepAlive=false,CompactHashCheck=true";
    assert_eq!(
        named(&format!("--feature-gates {gates}")),
        ["StopGRPCServiceOnDefrag", "FastLeaseKeepAlive"]
    );
    let defaults = "StopGRPCServiceOnDefrag=false,FastLeaseKeepAlive=true";
    assert_eq!(named(&format!("--feature-gates {defaults}")), [""; 0]);
}

#[test]
fn timeouts_between_members_are_raised_to_the_least() {
    let read = |line: &str| {
        let mut notices = Vec::new();
        let timeouts =
            load(StartedAs::Etcd, &words(line), &[], &mut notices).unwrap().peer_timeouts;
        notices.retain(|notice| matches!(notice, Notice::Raised(..)));
        ((timeouts.read.as_secs(), timeouts.write.as_secs()), notices)
    };
    assert_eq!(read(""), ((5, 5), vec![]));
    assert_eq!(read("--raft-read-timeout 7s --raft-write-timeout 1m"), ((7, 60), vec![]));
    let least = Duration::from_secs(5);
    let raised = ["raft-read-timeout", "raft-write-timeout"];
    assert_eq!(
        read("--raft-read-timeout 4999ms --raft-write-timeout=-1h"),
        ((5, 5), raised.map(|name| Notice::Raised(name, least)).into())
    );
}

#[test]
fn compaction_retention_reads_hours_durations_and_revisions() {
    let kept = |line: &str| of(line).unwrap().compaction;
    assert_eq!(
        kept("--auto-compaction-retention 5"),
        Compaction::Periodic(Duration::from_secs(5 * 3600))
    );
    assert_eq!(
        kept("--auto-compaction-retention 10m"),
        Compaction::Periodic(Duration::from_secs(600))
    );
    assert_eq!(
        kept("--auto-compaction-mode revision --auto-compaction-retention 1000"),
        Compaction::Revision(1000)
    );
    assert_eq!(
        kept("--auto-compaction-mode revision --auto-compaction-retention 1s"),
        Compaction::Revision(1_000_000_000)
    );
    assert!(refused("--auto-compaction-retention=-1h").contains("must not be negative"));
}

#[test]
fn the_environment_fills_in_and_conflicts_stop() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = [
        variable("ETCD_NAME", "n"),
        variable("ETCD_DATA_DIR", ""),
        variable("ETCD_ENABLE_V2", "1"),
        variable("HOME", "/"),
    ];
    let mut notices = Vec::new();
    let config = load(StartedAs::Etcd, &[], &environment, &mut notices).unwrap();
    assert_eq!(config.name, "n");
    assert!(notices.contains(&Notice::VariableUnknown("ETCD_ENABLE_V2=1".into())));
    let (name, value) = ("ETCD_NAME".into(), "n".into());
    assert!(notices.contains(&Notice::VariableUsed { name, value }));
    let stop =
        load(StartedAs::Etcd, &words("--name x"), &environment, &mut Vec::new()).unwrap_err();
    assert!(matches!(stop, Stop::Conflict(name) if name == "ETCD_NAME"));
    let variables = [variable("ETCD_ELECTION_TIMEOUT", "x")];
    let stop = load(StartedAs::Etcd, &[], &variables, &mut Vec::new()).unwrap_err();
    assert!(matches!(stop, Stop::Invalid(text)
        if text == "invalid value \"x\" for ETCD_ELECTION_TIMEOUT: parse error"));
}

#[test]
fn variables_of_etcd_35_stand_for_what_their_flags_do() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = [
        variable("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true"),
        variable("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s"),
        variable("ETCD_EXPERIMENTAL_NONE", "1"),
    ];
    let mut notices = Vec::new();
    let config = load(StartedAs::Etcd, &[], &environment, &mut notices).unwrap();
    assert!(config.initial_corrupt_check);
    assert_eq!(config.progress_interval, Duration::from_secs(5));
    assert!(notices.contains(&Notice::OldName("experimental-initial-corrupt-check".into())));
    assert!(notices.contains(&Notice::VariableUnknown("ETCD_EXPERIMENTAL_NONE=1".into())));
    let line = "--watch-progress-notify-interval=1s --feature-gates=InitialCorruptCheck=false";
    let config = load(StartedAs::Etcd, &words(line), &environment, &mut notices).unwrap();
    assert!(!config.initial_corrupt_check);
    assert_eq!(config.progress_interval, Duration::from_secs(1));
    let wrong = [variable("ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME", "x")];
    let stop = load(StartedAs::Etcd, &[], &wrong, &mut Vec::new()).unwrap_err();
    assert!(matches!(stop, Stop::Invalid(text)
        if text == "invalid value \"x\" for ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME: parse error"));
}

#[test]
fn deprecated_flags_are_warned_about_wherever_they_are_given() {
    let warned = |line: &str, environment: &[(String, String)]| -> Vec<&str> {
        let mut notices = Vec::new();
        load(StartedAs::Etcd, &words(line), environment, &mut notices).unwrap();
        let startup_log = notices.iter().filter_map(|notice| match notice {
            Notice::Deprecated(text) => text.split(' ').next(),
            _ => None,
        });
        startup_log.collect()
    };
    assert_eq!(warned("--max-wals 5", &[]), [""; 0]);
    assert_eq!(
        warned("--v2-deprecation gone --max-snapshots 5", &[]),
        ["--max-snapshots", "--v2-deprecation"]
    );
    let variable = ("ETCD_MAX_SNAPSHOTS".to_owned(), "5".to_owned());
    assert_eq!(warned("", &[variable]), ["--max-snapshots"]);
}
