//! Each problem planted into facts of a healthy cluster or directory, one at a time. Those that real
//! processes can have are planted there as well, in tests/doctor.

use std::collections::BTreeSet;

use super::super::facts::{
    Auth, Cluster, Directory, Expiring, Facts, Member, RebuildStep, State, Unreached, Why,
};
use super::super::finding::Severity;
use super::super::scrape::Metrics;
use super::{CHECKS, judge};
use crate::offline;
use crate::pb::{AlarmType, DowngradeInfo, ResponseHeader, StatusResponse};

mod foreign;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
const GIB: f64 = (1_u64 << 30) as f64;

/// The metrics of a healthy member, with some of them replaced.
fn metrics(changed: &[(&str, f64)]) -> Option<Metrics> {
    let mut all = vec![
        ("etcd_server_has_leader", 1.0),
        ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"}", 900.0),
        ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.064\"}", 999.0),
        ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"}", 1000.0),
        ("etcd_disk_wal_fsync_duration_seconds_count", 1000.0),
        ("etcd_network_peer_round_trip_time_seconds_sum{To=\"2\"}", 0.5),
        ("etcd_network_peer_round_trip_time_seconds_count{To=\"2\"}", 100.0),
        ("etcd_server_leader_changes_seen_total", 2.0),
        ("process_start_time_seconds", (NOW - 30 * DAY) as f64),
        ("process_open_fds", 50.0),
        ("process_max_fds", 65_536.0),
        ("process_resident_memory_bytes", GIB),
        ("rusd_memory_limit_bytes", 8.0 * GIB),
        ("rusd_build_info{version=\"1.0.0\"}", 1.0),
        ("rusd_disk_free_bytes", 50.0 * GIB),
        ("rusd_disk_total_bytes", 100.0 * GIB),
        ("rusd_last_snapshot_save_timestamp_seconds", (NOW - DAY) as f64),
        ("rusd_space_growth_bytes", 1000.0),
        ("rusd_space_growth_seconds", 3600.0),
        ("rusd_store_damaged", 0.0),
    ];
    all.retain(|(name, _)| {
        changed.iter().all(|(other, _)| {
            other.split('{').next() != name.split('{').next() || name.contains("_bucket")
        })
    });
    all.extend(changed);
    Some(Metrics::of(&all))
}

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("m{id}"),
        is_listed: true,
        client_urls: vec![format!("http://m{id}:2379")],
        peer_urls: vec![format!("http://m{id}:2380")],
        url: format!("http://m{id}:2379"),
        status: Some(StatusResponse {
            header: Some(ResponseHeader { cluster_id: 0xc, member_id: id, ..Default::default() }),
            version: "3.7.1".to_owned(),
            leader: 1,
            raft_term: 4,
            raft_index: 100_000,
            raft_applied_index: 99_990,
            db_size: 1 << 30,
            db_size_in_use: 900 << 20,
            db_size_quota: 8 << 30,
            ..StatusResponse::default()
        }),
        metrics: metrics(&[]),
        clock: Some((0.01, 0.02)),
        settings: [("election-timeout".to_owned(), 1000)].into(),
        ..Member::default()
    }
}

fn healthy() -> Facts {
    let members = (1..=3).map(member).collect();
    let auth = Auth::On { has_root: true, root_has_role: true };
    Facts {
        now: NOW,
        cluster: Some(Cluster { members, auth, ..Cluster::default() }),
        certificates: vec![Expiring { what: "m1's client port".into(), ends: NOW + 90 * DAY }],
        ..Facts::default()
    }
}

fn at_rest() -> Facts {
    let auth = offline::Users {
        is_on: true,
        count: 2,
        has_root: true,
        root_has_role: true,
        root_has_password: true,
    };
    let report = offline::Report { auth: Some(auth), ..offline::Report::default() };
    let directory = Directory {
        path: "/data".into(),
        report: Some(report),
        disk: Some((50 << 30, 100 << 30)),
        ..Directory::default()
    };
    Facts { now: NOW, directory: Some(directory), ..Facts::default() }
}

fn cluster(facts: &mut Facts) -> &mut Cluster {
    facts.cluster.as_mut().unwrap()
}

fn first(facts: &mut Facts) -> &mut Member {
    &mut cluster(facts).members[0]
}

fn third(facts: &mut Facts) -> &mut Member {
    &mut cluster(facts).members[2]
}

fn status(member: &mut Member) -> &mut StatusResponse {
    member.status.as_mut().unwrap()
}

fn lose(member: &mut Member, why: Why) {
    member.status = None;
    member.metrics = None;
    member.clock = None;
    member.unreached = Some(Unreached { why, text: "the reason".to_owned() });
}

/// Adds an endpoint that no member has.
fn mistype(facts: &mut Facts, url: &str, why: Why) {
    let mut endpoint = Member { url: url.to_owned(), ..Member::default() };
    lose(&mut endpoint, why);
    cluster(facts).members.push(endpoint);
}

fn directory(facts: &mut Facts) -> &mut Directory {
    facts.directory.as_mut().unwrap()
}

/// Asks a cluster as well, and says whose the directory is.
fn beside_a_cluster(facts: &mut Facts, cluster_id: u64, member_id: u64) {
    facts.cluster = healthy().cluster;
    let report = directory(facts).report.as_mut().unwrap();
    (report.cluster_id, report.member_id) = (cluster_id, member_id);
}

fn users(facts: &mut Facts) -> &mut offline::Users {
    directory(facts).report.as_mut().unwrap().auth.as_mut().unwrap()
}

/// A problem: the check that finds it, its severity and section, a part of what is said, and how it
/// comes to be.
type Planted = (&'static str, Severity, &'static str, &'static str, fn(&mut Facts));

const OF_CLUSTERS: &[Planted] = &[
    ("member-list", Severity::Warning, "Request timed out", "cannot be read", |facts| {
        cluster(facts).list_error = Some("no answer".into());
    }),
    ("unreachable", Severity::Error, "Connection refused", "nothing listens", |facts| {
        lose(third(facts), Why::Refused);
    }),
    ("unreachable", Severity::Error, "Unknown host", "name is not known", |facts| {
        lose(third(facts), Why::UnknownHost);
    }),
    ("unreachable", Severity::Warning, "Connection refused", "no member has this URL", |facts| {
        mistype(facts, "127.0.0.1:9", Why::Refused);
    }),
    ("unreachable", Severity::Warning, "Unknown host", "of the scheme htp", |facts| {
        mistype(facts, "htp://127.0.0.1:2379", Why::UnknownHost);
    }),
    ("unreachable", Severity::Warning, "Unknown host", "it has no port", |facts| {
        mistype(facts, "127.0.0.1", Why::UnknownHost);
    }),
    ("unreachable", Severity::Warning, "Unknown host", "it has no port", |facts| {
        mistype(facts, "http://[::1]/", Why::UnknownHost);
    }),
    ("unreachable", Severity::Warning, "Unknown host", "its port, 237g, is no number", |facts| {
        mistype(facts, "127.0.0.1:237g", Why::UnknownHost);
    }),
    ("unreachable", Severity::Warning, "Unknown host", "the name is not known", |facts| {
        mistype(facts, "unix:///tmp/socket", Why::UnknownHost);
    }),
    // It may be that of the member.
    ("unreachable", Severity::Error, "Connection refused", "nothing listens", |facts| {
        third(facts).client_urls.clear();
        mistype(facts, "127.0.0.1:9", Why::Refused);
    }),
    ("unreachable", Severity::Error, "Unknown authority", "unknown authority", |facts| {
        mistype(facts, "https://balancer:2379", Why::UnknownAuthority);
    }),
    ("unreachable", Severity::Error, "Member unreachable", "no connection within", |facts| {
        lose(third(facts), Why::TimedOut);
    }),
    ("unreachable", Severity::Error, "Member unreachable", "it takes connections", |facts| {
        lose(third(facts), Why::Silent);
    }),
    ("unreachable", Severity::Error, "Plain text against TLS", "wants TLS", |facts| {
        lose(third(facts), Why::TlsServer);
    }),
    ("unreachable", Severity::Error, "Plain text against TLS", "speaks plain text", |facts| {
        lose(third(facts), Why::PlainServer);
    }),
    ("unreachable", Severity::Error, "Unknown authority", "unknown authority", |facts| {
        lose(third(facts), Why::UnknownAuthority);
    }),
    ("unreachable", Severity::Error, "Certificate expires", "has expired", |facts| {
        lose(third(facts), Why::Expired);
    }),
    ("unreachable", Severity::Error, "Certificate required", "client's certificate", |facts| {
        lose(third(facts), Why::CertificateRequired);
    }),
    ("unreachable", Severity::Error, "Login needed", "wants a login", |facts| {
        lose(third(facts), Why::Login);
    }),
    ("no-margin", Severity::Warning, "Member unreachable", "none of them may fail", |facts| {
        lose(third(facts), Why::Refused);
    }),
    ("quorum-lost", Severity::Error, "Lost quorum", "2 are needed", |facts| {
        for at in 1..3 {
            lose(&mut cluster(facts).members[at], Why::Refused);
        }
        status(first(facts)).leader = 0;
    }),
    ("no-leader", Severity::Error, "No leader", "no member that answers knows", |facts| {
        cluster(facts).members.iter_mut().for_each(|member| status(member).leader = 0);
    }),
    ("unreachable", Severity::Error, "Member unreachable", "m3 (3): no answer", |facts| {
        lose(third(facts), Why::Stray);
    }),
    ("no-leader", Severity::Error, "No leader", "cut off", |facts| {
        status(third(facts)).leader = 0;
    }),
    ("alarm-nospace", Severity::Error, "NOSPACE alarm", "m3 (3)", |facts| {
        status(first(facts)).header.as_mut().unwrap().revision = 77;
        cluster(facts).alarms = vec![(3, AlarmType::Nospace)];
    }),
    ("alarm-corrupt", Severity::Error, "CORRUPT alarm", "differs", |facts| {
        cluster(facts).alarms = vec![(3, AlarmType::Corrupt)];
    }),
    ("cluster-id", Severity::Error, "Cluster id mismatch", "of cluster d", |facts| {
        status(third(facts)).header.as_mut().unwrap().cluster_id = 0xd;
    }),
    ("cluster-id", Severity::Error, "Cluster id mismatch", "does not have it", |facts| {
        cluster(facts).members.push(Member { is_listed: false, ..member(9) });
    }),
    ("auth", Severity::Warning, "Auth without root", "users are there (5)", |facts| {
        cluster(facts).auth = Auth::Off { users: 5 };
    }),
    ("auth", Severity::Error, "Auth without root", "no user root", |facts| {
        cluster(facts).auth = Auth::On { has_root: false, root_has_role: false };
    }),
    ("auth", Severity::Error, "Auth without root", "role root", |facts| {
        cluster(facts).auth = Auth::On { has_root: true, root_has_role: false };
    }),
    ("auth", Severity::Note, "Login needed", "not root", |facts| {
        cluster(facts).auth = Auth::Hidden;
    }),
    ("never-started", Severity::Warning, "Member never started", "http://new", |facts| {
        let peer_urls = vec!["http://new".to_owned()];
        let new =
            Member { id: 9, is_listed: true, is_learner: true, peer_urls, ..Member::default() };
        cluster(facts).members.push(new);
    }),
    ("learner", Severity::Warning, "Learner not promoted", "has caught up", |facts| {
        cluster(facts).members.push(Member { is_learner: true, ..member(9) });
    }),
    ("learner", Severity::Note, "Learner not promoted", "90000 entries behind", |facts| {
        let mut learner = Member { is_learner: true, ..member(9) };
        status(&mut learner).raft_applied_index = 10_000;
        cluster(facts).members.push(learner);
    }),
    ("versions", Severity::Warning, "Unequal versions", "3.6.2 (m3), 3.7.1 (m1, m2)", |facts| {
        status(third(facts)).version = "3.6.2".into();
    }),
    ("versions", Severity::Warning, "Unequal versions", "rusd 0.9.0 (m3)", |facts| {
        third(facts).metrics = metrics(&[("rusd_build_info{version=\"0.9.0\"}", 1.0)]);
    }),
    ("versions", Severity::Note, "Unequal versions", "downgrade to 3.6", |facts| {
        let info = DowngradeInfo { enabled: true, target_version: "3.6".into() };
        status(first(facts)).downgrade_info = Some(info);
    }),
    ("flags", Severity::Warning, "Unequal flags", "1000 (m1, m2), 3000 (m3)", |facts| {
        third(facts).settings.insert("election-timeout".into(), 3000);
    }),
    ("lag", Severity::Warning, "Member lags", "60000 entries behind", |facts| {
        status(third(facts)).raft_applied_index = 40_000;
    }),
    ("damaged-member", Severity::Error, "CORRUPT alarm", "found damage", |facts| {
        third(facts).metrics = metrics(&[("rusd_store_damaged", 1.0)]);
    }),
    ("sync-latency", Severity::Warning, "Slow disk", "up to 256 ms", |facts| {
        third(facts).metrics = metrics(&[
            ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.064\"}", 900.0),
            ("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.256\"}", 999.0),
        ]);
    }),
    ("sync-latency", Severity::Error, "Slow disk", "more than eight seconds", |facts| {
        third(facts).metrics =
            metrics(&[("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.064\"}", 900.0)]);
    }),
    ("round-trip", Severity::Warning, "Slow network", "m2 (2) and back takes 200 ms", |facts| {
        third(facts).metrics = metrics(&[
            ("etcd_network_peer_round_trip_time_seconds_sum{To=\"2\"}", 20.0),
            ("etcd_network_peer_round_trip_time_seconds_count{To=\"2\"}", 100.0),
        ]);
    }),
    ("leader-changes", Severity::Warning, "Slow network", "5000 changes", |facts| {
        third(facts).metrics = metrics(&[("etcd_server_leader_changes_seen_total", 5000.0)]);
    }),
    ("clock-skew", Severity::Warning, "Clock skew", "3.5 s behind", |facts| {
        third(facts).clock = Some((-3.5, 0.02));
    }),
    (
        "clock-skew",
        Severity::Note,
        "Clock skew",
        "this machine's clock is 60.0 s behind",
        |facts| {
            cluster(facts).members.iter_mut().for_each(|member| member.clock = Some((60.0, 0.02)));
        },
    ),
    ("quota", Severity::Warning, "NOSPACE alarm", "85% of the quota", |facts| {
        status(third(facts)).db_size_quota = (1 << 30) * 100 / 85;
    }),
    ("quota", Severity::Error, "NOSPACE alarm", "99% of the quota", |facts| {
        status(third(facts)).db_size_quota = (1 << 30) * 1000 / 991;
    }),
    ("quota-pace", Severity::Warning, "NOSPACE alarm", "is reached in 7 hours", |facts| {
        third(facts).metrics = metrics(&[("rusd_space_growth_bytes", GIB)]);
    }),
    (
        "fragmentation",
        Severity::Warning,
        "Fragmented store",
        "of its store's file are free",
        |facts| {
            status(third(facts)).db_size_in_use = 100 << 20;
        },
    ),
    ("disk", Severity::Warning, "Full disk", "3.2 GB of 107 GB free", |facts| {
        third(facts).metrics = metrics(&[("rusd_disk_free_bytes", 3.0 * GIB)]);
    }),
    ("disk", Severity::Error, "Full disk", "54 MB of 107 GB free", |facts| {
        third(facts).metrics = metrics(&[("rusd_disk_free_bytes", 0.05 * GIB)]);
    }),
    ("certificates", Severity::Warning, "Certificate expires", "ends in 12 days", |facts| {
        facts.certificates[0].ends = NOW + 12 * DAY + 5;
    }),
    ("certificates", Severity::Error, "Certificate expires", "ended 3 days ago", |facts| {
        facts.certificates[0].ends = NOW - 3 * DAY - 5;
    }),
    ("open-files", Severity::Warning, "Open files", "may open 600 files only", |facts| {
        third(facts).metrics = metrics(&[("process_max_fds", 600.0)]);
    }),
    ("open-files", Severity::Warning, "Open files", "60000 open files of 65536", |facts| {
        third(facts).metrics = metrics(&[("process_open_fds", 60_000.0)]);
    }),
    ("memory", Severity::Warning, "Memory limit", "uses 1.1 GB of the 1.1 GB", |facts| {
        third(facts).metrics = metrics(&[("rusd_memory_limit_bytes", GIB)]);
    }),
    ("memory", Severity::Warning, "Memory limit", "allows 107 MB", |facts| {
        third(facts).metrics = metrics(&[
            ("rusd_memory_limit_bytes", 0.1 * GIB),
            ("process_resident_memory_bytes", 0.01 * GIB),
        ]);
    }),
    ("backup", Severity::Warning, "Old backup", "saved 10 days ago", |facts| {
        let saved = ("rusd_last_snapshot_save_timestamp_seconds", (NOW - 10 * DAY) as f64);
        cluster(facts).members.iter_mut().for_each(|member| member.metrics = metrics(&[saved]));
    }),
    (
        "backup",
        Severity::Warning,
        "Old backup",
        "since the members started, 30 days ago",
        |facts| {
            let none = ("rusd_last_snapshot_save_timestamp_seconds", 0.0);
            cluster(facts).members.iter_mut().for_each(|member| member.metrics = metrics(&[none]));
        },
    ),
];

const OF_DIRECTORIES: &[Planted] = &[
    ("directory", Severity::Error, "Lost directory", "no such directory", |facts| {
        directory(facts).state = State::Missing;
    }),
    ("directory", Severity::Error, "Lost directory", "ever started", |facts| {
        directory(facts).state = State::Empty;
    }),
    ("directory", Severity::Error, "Lost directory", "/data is one", |facts| {
        directory(facts).state = State::Near("/data".into());
    }),
    ("directory", Severity::Note, "Directory of etcd", "of etcd", |facts| {
        directory(facts).state = State::Etcds;
    }),
    ("directory", Severity::Note, "Directory locked", "process 7", |facts| {
        directory(facts).state = State::Locked("process 7 uses them".into());
    }),
    ("directory", Severity::Error, "Permission denied", "denied", |facts| {
        directory(facts).state = State::Denied("denied".into());
    }),
    ("directory", Severity::Error, "Damaged directory", "a reason", |facts| {
        directory(facts).state = State::Unusable("a reason".into());
    }),
    ("directory-damage", Severity::Error, "Damaged directory", "page 5: torn", |facts| {
        let report = directory(facts).report.as_mut().unwrap();
        report.add(offline::Severity::Damage, "/data/db".as_ref(), "page 5", "torn", "rebuild");
    }),
    ("directory-auth", Severity::Warning, "Auth without root", "auth is off", |facts| {
        users(facts).is_on = false;
    }),
    ("directory-auth", Severity::Warning, "Auth without root", "no password", |facts| {
        users(facts).root_has_password = false;
    }),
    ("directory-auth", Severity::Error, "Auth without root", "no user root", |facts| {
        users(facts).root_has_role = false;
    }),
    ("directory-cluster", Severity::Error, "Cluster id mismatch", "it is of cluster d", |facts| {
        beside_a_cluster(facts, 0xd, 3);
    }),
    ("directory-cluster", Severity::Error, "Cluster id mismatch", "not have any more", |facts| {
        beside_a_cluster(facts, 0xc, 9);
    }),
    ("directory-disk", Severity::Error, "Full disk", "free", |facts| {
        directory(facts).disk = Some((1 << 20, 100 << 30));
    }),
    ("directory-rebuild", Severity::Warning, "Damaged directory", "has not ended", |facts| {
        directory(facts).rebuild = Some(RebuildStep::Replace);
    }),
    ("directory-rebuild", Severity::Warning, "Damaged directory", "waits for the start", |facts| {
        directory(facts).rebuild = Some(RebuildStep::Start("m1".into()));
        directory(facts).state = State::Empty;
    }),
    ("directory-rebuild", Severity::Warning, "Damaged directory", "no vote yet", |facts| {
        directory(facts).rebuild = Some(RebuildStep::Promote);
    }),
    ("directory-rebuild", Severity::Note, "Damaged directory", "takes space", |facts| {
        directory(facts).put_aside = vec!["/data/member.damaged-7".into()];
    }),
];

fn check(facts: fn() -> Facts, planted: &Planted) {
    let (name, severity, section, text, plant) = planted;
    let mut facts = facts();
    plant(&mut facts);
    let found = judge(&facts);
    let is_it = |(check, it): &&(&str, super::Finding)| {
        check == name
            && it.severity == *severity
            && it.section.title() == *section
            && format!("{}: {}", it.subject, it.cause).contains(text)
    };
    let hits: Vec<_> = found.iter().filter(is_it).collect();
    assert_eq!(hits.len(), 1, "{name} ({text}) in {found:#?}");
    let (_, finding) = hits[0];
    assert!(!finding.command.is_empty() && finding.command.trim() == finding.command);
}

#[test]
fn each_planted_problem_is_named() {
    OF_CLUSTERS.iter().for_each(|planted| check(healthy, planted));
    OF_DIRECTORIES.iter().for_each(|planted| check(at_rest, planted));
}

#[test]
fn each_check_has_a_planted_problem() {
    let planted = OF_CLUSTERS.iter().chain(OF_DIRECTORIES).map(|(name, ..)| *name);
    let planted: BTreeSet<&str> = planted.collect();
    let checks: BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(planted, checks);
}

#[test]
fn what_is_healthy_has_no_findings() {
    for facts in [healthy(), at_rest()] {
        let found = judge(&facts);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn a_problem_is_found_alone() {
    // Where one problem is another as well, that is in this list.
    let double = ["no-margin", "quorum-lost", "unreachable", "member-list", "cluster-id"];
    for planted in OF_CLUSTERS.iter().filter(|planted| !double.contains(&planted.0)) {
        let mut facts = healthy();
        planted.4(&mut facts);
        let found = judge(&facts);
        assert_eq!(found.len(), 1, "{}: {found:#?}", planted.3);
    }
}

#[test]
fn a_member_that_cannot_be_reached_from_here_costs_no_quorum() {
    let mut facts = healthy();
    for at in 1..3 {
        lose(&mut cluster(&mut facts).members[at], Why::TimedOut);
    }
    // The one that is left knows the leader, so the others meet.
    status(first(&mut facts)).leader = 2;
    let found = judge(&facts);
    assert!(found.iter().all(|(check, _)| *check == "unreachable"), "{found:#?}");
}

#[test]
fn that_nobody_leads_is_said_without_a_list_of_members() {
    let mut facts = healthy();
    cluster(&mut facts).list_error = Some("no answer".into());
    for member in &mut cluster(&mut facts).members {
        status(member).leader = 0;
        member.is_listed = false;
    }
    assert!(judge(&facts).iter().any(|(check, _)| *check == "no-leader"));
}

/// Answers come from anybody who listens at an endpoint.
#[test]
fn absurd_answers_are_judged_like_others() {
    let families: Vec<String> = ["cluster", "machine", "members", "space", "speed"]
        .iter()
        .map(|file| format!("src/cli/commands/doctor/checks/{file}.rs"))
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let words = text.split('"').filter(|word| !word.contains(' ') && word.contains('_'));
            words.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert!(families.iter().any(|name| name == "rusd_disk_free_bytes"));
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1.0, 0.0, 1e19] {
        let changed: Vec<(&str, f64)> = families.iter().map(|it| (it.as_str(), number)).collect();
        for whole in [i64::MIN, -1, 0, 1, i64::MAX] {
            let mut facts = healthy();
            for member in &mut cluster(&mut facts).members {
                member.metrics = metrics(&changed);
                member.clock = Some((number, number));
                member.settings.insert("election-timeout".to_owned(), whole);
                let status = member.status.as_mut().unwrap();
                (status.db_size, status.db_size_in_use, status.db_size_quota) =
                    (whole, whole.wrapping_neg(), whole);
                (status.raft_index, status.raft_applied_index) =
                    (whole.cast_unsigned(), number as u64);
            }
            facts.certificates.push(Expiring { what: "it".to_owned(), ends: whole });
            for (_, finding) in judge(&facts) {
                assert!(!finding.cause.is_empty());
            }
        }
    }
    // As many series as an answer can hold.
    let family = "etcd_network_peer_round_trip_time_seconds";
    let names: Vec<String> = (0..200_000)
        .flat_map(|to| ["sum", "count"].map(|kind| format!("{family}_{kind}{{To=\"{to:x}\"}}")))
        .collect();
    let many: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 2.0)).collect();
    let mut facts = healthy();
    first(&mut facts).metrics = Some(Metrics::of(&many));
    assert!(judge(&facts).len() > 100_000);
}
