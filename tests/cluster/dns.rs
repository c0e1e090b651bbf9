//! Members and clients that find each other by SRV records, from a name server within the test.

use std::path::Path;
use std::process::Output;

use super::fixture::{Cluster, Member, PATIENCE, put};

fn ports(cluster: &Cluster, url: fn(&Member) -> &String) -> Vec<u16> {
    let port = |member| url(member).rsplit(':').next().unwrap().parse().unwrap();
    cluster.members.iter().map(port).collect()
}

fn client(conf: &Path, arguments: &[&str]) -> Output {
    let mut command = crate::child::command(crate::child::RUSD);
    command.env("RUSD_RESOLV_CONF", conf).args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_clients_find_each_other_in_dns() {
    let mut cluster = Cluster::empty();
    for _ in 0..3 {
        cluster.add();
    }
    let peers = ports(&cluster, |member| &member.peer);
    let clients = ports(&cluster, |member| &member.client);
    let records = vec![("_etcd-server-here", peers), ("_etcd-client", clients.clone())];
    let conf = format!("nameserver 127.0.0.1:{}\n", crate::names::serve(records));
    let conf = cluster.write("resolv.conf", &conf);
    cluster.environment.push(("RUSD_RESOLV_CONF", conf.clone()));
    let flags = ["--discovery-srv", "a.test", "--discovery-srv-name", "here"];
    for at in 0..3 {
        cluster.run_with(at, &flags);
    }
    cluster.ready(&[0, 1, 2]).await;
    put(cluster.channel(0), "k", "v").await.unwrap();
    for at in 0..3 {
        // It calls itself by its name, and those others by the numbers that it finds them under.
        let log = cluster.log(at);
        let line = log.lines().find(|line| line.contains("starting an etcd server")).unwrap();
        let of = |name: &str, member: &Member| {
            format!("{name}=http://127.0.0.1:{}", member.peer.rsplit(':').next().unwrap())
        };
        let others = cluster.members.iter().enumerate().filter(|(other, _)| *other != at);
        let mut members: Vec<String> =
            others.zip(0..).map(|((_, member), number)| of(&number.to_string(), member)).collect();
        members.push(of(&format!("m{}", at + 1), &cluster.members[at]));
        let expected = format!("\"initial-cluster\":\"{}\"", members.join(","));
        assert!(line.contains(&expected), "{expected}\n{line}");
    }

    let output = client(&conf, &["get", "k", "-d", "a.test"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "k\nv\n");
    let output = client(&conf, &["get", "k", "-d", "a.test", "--discovery-srv-name", "there"]);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "Error: dns lookup errors: lookup _etcd-client-ssl-there._tcp.a.test: no such host and \
         lookup _etcd-client-there._tcp.a.test: no such host\n"
    );
    assert_eq!(output.status.code(), Some(1));
    // What is not secure does not count, and the endpoints of the flag take its place.
    let endpoints = format!("--endpoints={}", cluster.members[0].client);
    let arguments = ["get", "k", "-d", "a.test", "--insecure-discovery=false", &endpoints];
    let output = client(&conf, &arguments);
    let url = format!("http://127.0.0.1.:{}", clients[0]);
    let ignored = format!("ignoring discovered insecure endpoint \"{url}\"\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains(&ignored));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "k\nv\n");

    // A member that stands in no record has no place.
    cluster.add();
    cluster.run_with(3, &flags);
    assert_eq!(cluster.wait(3), Some(1));
    let complaint = "cannot find local etcd member \\\"m4\\\" in SRV records";
    assert!(cluster.logs().contains(complaint), "{}", cluster.logs());
}

/// Members that records name over TLS, whose certificates are for these hosts.
fn secure_members(hosts: &str) -> Cluster {
    let mut cluster = Cluster::empty();
    for _ in 0..2 {
        cluster.add();
    }
    cluster.secure_peers();
    let records = vec![("_etcd-server-ssl", ports(&cluster, |member| &member.peer))];
    let conf = format!("nameserver 127.0.0.1:{}\n", crate::names::serve(records));
    let conf = cluster.write("resolv.conf", &conf);
    let made = conf.with_file_name("certificates");
    let words = ["cert", "gen", "--only", "peer", "--hosts", hosts, "--dir"];
    let mut command = crate::child::command(crate::child::RUSD);
    assert!(command.args(words).arg(&made).output().unwrap().status.success());
    // The authorities of the system are whom peers believe without one of their own.
    cluster.environment.push(("SSL_CERT_FILE", made.join("ca.crt")));
    cluster.environment.push(("RUSD_RESOLV_CONF", conf));
    let file = |name: &str| made.join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("peer.crt"), file("peer.key"));
    for at in 0..2 {
        let flags = ["--discovery-srv", "a.test", "--peer-cert-file", &cert];
        cluster.run_with(at, &[&flags[..], &["--peer-key-file", &key]].concat());
    }
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_in_secure_records_must_be_the_domains() {
    let cluster = secure_members("127.0.0.1,a.test");
    cluster.ready(&[0, 1]).await;
    put(cluster.channel(0), "k", "v").await.unwrap();

    let mut cluster = secure_members("127.0.0.1");
    let refusal = "not valid for name \\\"a.test\\\"";
    let is_refused = |cluster: &Cluster| (0..2).all(|at| cluster.log(at).contains(refusal));
    for _ in 0..PATIENCE.as_millis() / 20 {
        if is_refused(&cluster) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(is_refused(&cluster), "{}", cluster.logs());
    assert!((0..2).all(|at| !cluster.log(at).contains("ready to serve client requests")));
    (0..2).for_each(|at| cluster.kill(at));
}
