//! A cluster in plain text: first healthy, then with many problems at once.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::fixture::{Found, Server, good, in_time, rusd, text};
use super::member::free_address;

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

/// Long enough for a busy machine; the doctor compares disks and networks with it.
const PATIENT: [&str; 2] = ["--election-timeout=4000", "--heartbeat-interval=400"];

fn initial(servers: &[Server]) -> String {
    servers.iter().map(|it| format!("{}={}", it.name, it.peer)).collect::<Vec<_>>().join(",")
}

fn endpoints(servers: &[Server]) -> String {
    servers.iter().map(|it| it.client.as_str()).collect::<Vec<_>>().join(",")
}

fn id_of(endpoints: &str, name: &str) -> String {
    let members = good(&["member", "list", "--endpoints", endpoints]);
    let line = members.lines().find(|line| line.contains(&format!(", {name}, "))).unwrap();
    line.split(',').next().unwrap().to_owned()
}

#[test]
fn a_healthy_cluster_is_one_line_and_each_planted_problem_is_named() {
    let root = tempfile::tempdir().unwrap();
    let mut servers: Vec<Server> =
        ["m1", "m2", "m3"].iter().map(|name| Server::new(&root, name)).collect();
    let all = initial(&servers);
    for server in &mut servers {
        server.start(&[&PATIENT[..], &["--initial-cluster", &all]].concat());
    }
    for server in &servers {
        server.wait_for("/health", "\"health\":\"true\"");
    }
    let endpoint = servers[0].client.clone();
    is_healthy(&endpoint);

    // A member with other flags than the others, few files and a small quota.
    servers[2].kill();
    let odd =
        ["--election-timeout=4000", "--heartbeat-interval=300", "--quota-backend-bytes=100000"];
    servers[2].start_after("ulimit -n 700", &[&odd[..], &["--initial-cluster", &all]].concat());
    servers[2].wait_for("/health", "\"health\":\"true\"");
    let of_third = servers[2].client.clone();
    good(&["move-leader", &id_of(&endpoint, "m1"), "--endpoints", &endpoints(&servers)]);
    good(&["user", "add", "somebody:password", "--endpoints", &endpoint]);
    // The member that is given too much raises the alarm.
    let much = "x".repeat(100_000);
    let refused = rusd(&["put", "k", &much, "--endpoints", &of_third]);
    assert!(!refused.status.success(), "{refused:?}");
    let mut learner = Server::new(&root, "m4");
    let urls = format!("--peer-urls={}", learner.peer);
    in_time(&["member", "add", "m4", "--learner", &urls, "--endpoints", &endpoint]);
    let joined = format!("{all},m4={}", learner.peer);
    let existing = ["--initial-cluster-state=existing", "--initial-cluster", &joined];
    learner.start(&[&PATIENT[..], &existing].concat());
    learner.wait_for("/metrics", "etcd_server_has_leader 1");
    // Another cluster, at an endpoint that was given by mistake.
    let mut foreign = Server::new(&root, "other");
    foreign.start(&["--initial-cluster", &format!("other={}", foreign.peer)]);
    foreign.wait_for("/health", "\"health\":\"true\"");
    // One that hangs.
    servers[1].signal(SIGSTOP);
    let nobody = format!("http://{}", free_address());
    let mixed = format!("{endpoint},{},{nobody},http://no-such-host.invalid:2379", foreign.client);
    let found = Found::by(&["--endpoints", &mixed]);
    servers[1].signal(SIGCONT);
    found.are(&[
        "alarm-nospace: NOSPACE alarm",
        "auth: Auth without root",
        "cluster-id: Cluster id mismatch",
        "flags: Unequal flags",
        "learner: Learner not promoted",
        "no-margin: Member unreachable",
        "open-files: Open files",
        "unreachable: Connection refused",
        "unreachable: Member unreachable",
        "unreachable: Unknown host",
    ]);
    assert_eq!(found.code, 2);
    assert!(found.cause("unreachable", "m2").contains("it takes connections"));
    assert!(found.cause("open-files", "m3").contains("700 files"));
    assert!(found.json["cluster"]["mayFail"] == 0, "{:#}", found.json);
    foreign.kill();

    never_started_and_no_quorum(&mut servers, &mut learner);
}

/// One that was started alone listens, and answers nobody.
#[test]
fn a_member_that_waits_for_the_others_does_not_hang() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::new(&root, "m1");
    let list = format!("m1={},m2=http://{}", server.peer, free_address());
    server.start(&["--initial-cluster", &list]);
    let log = server.data.with_extension("log");
    let waits = || {
        fs::read_to_string(&log)
            .unwrap()
            .lines()
            .find_map(|line| line.contains("no quorum yet").then(|| line.to_owned()))
    };
    let begun = Instant::now();
    while waits().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is said of the quorum");
        sleep(Duration::from_millis(50));
    }
    let said = waits().unwrap();
    assert!(said.contains("No leader") && !said.contains("Lost quorum"), "{said}");
    let found = Found::by(&["--endpoints", &server.client]);
    assert!(found.cause("unreachable", "endpoint").contains("it takes connections"));
    let text = found.json.to_string();
    assert!(text.contains("only once there is a quorum") && !text.contains("firewall"), "{text}");
    let output = rusd(&["put", "k", "v", "--dial-timeout=1s", "--endpoints", &server.client]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("answers only once there is a quorum"), "{said}");
}

fn is_healthy(endpoint: &str) {
    let found = Found::by(&["--endpoints", endpoint]);
    found.are(&[]);
    assert_eq!(found.json["cluster"]["mayFail"], 1);
    assert_eq!(found.json["cluster"]["members"].as_array().unwrap().len(), 3);
    if found.json["severity"] != "ok" {
        println!("this machine is short of disk or memory: {}", found.text);
        return;
    }
    let output = rusd(&["doctor", "--endpoints", endpoint]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("3 members of cluster ") && said.contains(" healthy: "), "{said}");
    assert!(said.ends_with("1 more may fail\n") && !said.contains('\x1b'), "{said}");
    assert!(output.stderr.is_empty());
}

fn never_started_and_no_quorum(servers: &mut [Server], learner: &mut Server) {
    let endpoint = servers[0].client.clone();
    servers[1].wait_for("/health", "ALARM NOSPACE");
    let third = servers[2].client.clone();
    good(&["alarm", "disarm", "--endpoints", &endpoint]);
    servers[1].wait_for("/health", "\"health\":\"true\"");
    let urls = format!("--peer-urls=http://{}", free_address());
    in_time(&["member", "add", "m5", &urls, "--endpoints", &endpoint]);
    let found = Found::by(&["--endpoints", &third]);
    assert!(found.all().contains("never-started: Member never started"), "{:#}", found.json);
    assert!(found.cause("never-started", "member ").contains("counts for the quorum"));
    learner.kill();
    // One that starts without a quorum opens no client port, so the first one goes on.
    servers[1..].iter_mut().for_each(Server::kill);
    servers[0].wait_for("/metrics", "etcd_server_has_leader 0");
    let found = Found::by(&["--endpoints", &endpoint]);
    assert!(found.all().contains("quorum-lost: Lost quorum"), "{:#}", found.json);
    assert_eq!(found.code, 2);
    // What is left of the others is read as it lies there.
    let found = Found::by(&["--data-dir", text(&servers[1].data)]);
    found.are(&["directory-auth: Auth without root"]);
    assert_eq!(found.code, 1);
    fs::write(
        servers[1].data.join("rebuild.json"),
        r#"{"cluster_id":1,"old_id":2,"name":"","peer_urls":[],"others":[],"new_id":null}"#,
    )
    .unwrap();
    let found = Found::by(&["--data-dir", text(&servers[1].data)]);
    found.are(&["directory-auth: Auth without root", "directory-rebuild: Damaged directory"]);
    // The old files are put aside: only the start of the new member is left to do.
    fs::write(
        servers[1].data.join("rebuild.json"),
        r#"{"cluster_id":1,"old_id":2,"name":"m2","peer_urls":[],"others":[],"new_id":3}"#,
    )
    .unwrap();
    fs::rename(servers[1].data.join("member"), servers[1].data.join("member.damaged-2")).unwrap();
    let found = Found::by(&["--data-dir", text(&servers[1].data)]);
    found.are(&["directory-rebuild: Damaged directory"]);
    assert!(found.json.to_string().contains("rusd serve --name m2"), "{:#}", found.json);
}
