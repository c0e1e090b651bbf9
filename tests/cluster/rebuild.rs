//! A member whose store is damaged: the others go on, and it is rebuilt from them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::backup::text;
use super::fixture::{Cluster, PATIENCE, get, put};
use super::oracle::Load;

const NEEDLE: &str = "a value that stands in one place only";

/// Flips a bit of every copy of a value, in a file that is mapped.
fn damage(dir: &Path) {
    let path = dir.join("member/db/gen-1/data.mdb");
    let bytes = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let needle = NEEDLE.as_bytes();
    let places = bytes.windows(needle.len()).enumerate().filter(|(_, found)| *found == needle);
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| file.write_all_at(&[bytes[*at] ^ 4], *at as u64).unwrap());
}

/// Runs a command; whether it succeeded, and what it said.
fn rusd(arguments: &[&str]) -> (bool, String) {
    // A flag counts more than its variable, which a shell may have kept from before.
    let mut command = crate::child::command(crate::child::RUSD);
    command.args(arguments).env("ETCDCTL_ENDPOINTS", "http://127.0.0.1:1");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.success(), said.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_member_is_fenced_and_rebuilt_from_its_peers() {
    let mut cluster = Cluster::start(3);
    let all = [0, 1, 2];
    cluster.ready(&all).await;
    put(cluster.channel(0), "needle", NEEDLE).await.unwrap();
    let victim = cluster.leader().await;
    let others: Vec<usize> = all.into_iter().filter(|at| *at != victim).collect();
    let load = Load::start(&cluster, &all);
    load.goes_on(&cluster).await;
    // The rows must have come to the file.
    sleep(Duration::from_secs(1)).await;
    damage(&cluster.dir(victim));
    // Nobody else reads that key; the scrub does.
    let begun = Instant::now();
    let refused = loop {
        match get(cluster.channel(victim), "writer/none").await {
            Err(status) if status.message().contains("corrupt cluster") => break status,
            _ => assert!(begun.elapsed() < PATIENCE, "{}", cluster.log(victim)),
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(refused.code(), tonic::Code::DataLoss);
    cluster.leader_but(victim).await;
    load.goes_on(&cluster).await;
    assert_eq!(get(cluster.channel(others[0]), "needle").await.unwrap().unwrap(), NEEDLE);
    cluster.kill(victim);
    let dir = cluster.dir(victim);
    let (sound, report) = rusd(&["check", "data", "--data-dir", text(&dir)]);
    assert!(!sound && report.contains("data.mdb: revision"), "{report}");
    let endpoints: Vec<&str> = others.iter().map(|at| &*cluster.members[*at].client).collect();
    let endpoints = endpoints.join(",");
    let rebuild = ["rebuild", "--data-dir", text(&dir), "--endpoints", &endpoints];
    let (done, said) = rusd(&[&rebuild[..], &["--no-wait"]].concat());
    assert!(done && said.contains("Removed member") && said.contains("as a learner"), "{said}");
    // Cut off after the member was added and before that was noted.
    let note = dir.join("rebuild.json");
    let mut noted: serde_json::Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
    noted["new_id"] = serde_json::Value::Null;
    fs::write(&note, noted.to_string()).unwrap();
    let (done, said) = rusd(&[&rebuild[..], &["--no-wait"]].concat());
    assert!(done && said.contains("is there in its place"), "{said}");
    let kept = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    let kept: Vec<_> = kept.filter(|it| it.to_string_lossy().contains(".damaged-")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    load.goes_on(&cluster).await;
    // With the flags of the first start.
    cluster.run(victim, "new");
    let (done, said) = rusd(&rebuild);
    assert!(done && said.contains("has caught up and votes"), "{said}");
    assert!(!note.exists());
    load.goes_on(&cluster).await;
    cluster.ready(&all).await;
    load.end(&cluster, &all).await;
    cluster.compare_hashes(&all).await;
    assert_eq!(get(cluster.channel(victim), "needle").await.unwrap().unwrap(), NEEDLE);
    // It starts again as what it is now.
    cluster.kill(victim);
    cluster.run(victim, "new");
    cluster.compare_hashes(&all).await;
    // A member that has its vote may be lost.
    cluster.kill(others[0]);
    cluster.ready(&[victim, others[1]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_is_lost_is_rebuilt_by_its_id() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    put(cluster.channel(0), "k", "v").await.unwrap();
    cluster.wipe(1);
    // Under its old id it would vote a second time.
    cluster.run(1, "new");
    assert_eq!(cluster.wait(1), Some(1));
    assert!(cluster.log(1).contains("has already been bootstrapped"), "{}", cluster.log(1));
    let dir = cluster.dir(1);
    fs::remove_dir_all(&dir).unwrap();
    let endpoints = format!("{},{}", cluster.members[0].client, cluster.members[2].client);
    let rebuild = ["rebuild", "--data-dir", text(&dir), "--endpoints", &endpoints];
    let (done, said) = rusd(&rebuild);
    assert!(!done && said.contains("name the member with --member ID"), "{said}");
    assert!(!dir.exists(), "a path that was mistyped is not made");
    let (_, members) = rusd(&["member", "list", "--endpoints", &endpoints]);
    let line = members.lines().find(|line| line.contains(&cluster.members[1].peer)).unwrap();
    let id = line.split(',').next().unwrap();
    let named = [&rebuild[..], &["--member", id]].concat();
    let (done, said) = rusd(&[&named[..], &["--no-wait"]].concat());
    assert!(done && said.contains("as a learner"), "{said}");
    cluster.run(1, "new");
    let (done, said) = rusd(&named);
    assert!(done && said.contains("has caught up and votes"), "{said}");
    cluster.ready(&[0, 1, 2]).await;
    cluster.compare_hashes(&[0, 1, 2]).await;
    assert_eq!(get(cluster.channel(1), "k").await.unwrap().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_needs_no_directory() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    put(cluster.channel(0), "k", "v").await.unwrap();
    let endpoints = format!("{},{}", cluster.members[0].client, cluster.members[2].client);
    let rebuild = ["rebuild", "--endpoints", &endpoints];
    let by = |words: &[&str]| rusd(&[&rebuild[..], words].concat());
    let (done, said) = by(&[]);
    assert!(!done && said.contains("--member ID or NAME if the disk is lost"), "{said}");
    let (done, said) = by(&["--member", "m2"]);
    assert!(!done && said.contains("is running"), "{said}");
    cluster.wipe(1);
    let (done, said) = by(&["--member", "nobody"]);
    assert!(!done && said.contains("no member nobody"), "{said}");
    let (done, said) = by(&["--member", "m2", "--no-wait"]);
    assert!(done && said.contains("The others serve all the while"), "{said}");
    assert!(said.contains("none of them may fail") && said.contains("as a learner"), "{said}");
    // Given again, it goes on from the list of members alone.
    let (done, again) = by(&["--member", "m2", "--no-wait"]);
    assert!(done && again.contains("is there in its place"), "{again}");
    // What it prints is pasted as it is.
    let (_, command) = said.split_once("\n\n").unwrap();
    let (command, _) = command.split_once("\n\n").unwrap();
    let root = tempfile::tempdir().unwrap();
    let binary = Path::new(crate::child::RUSD).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut shell = crate::child::command("sh");
    shell.args(["-c", &format!("exec {}", command.trim())]).env("PATH", path);
    let log = fs::File::create(root.path().join("log")).unwrap();
    let _member = crate::member::Process::start(shell.current_dir(root.path()), log);
    let id = again.split_once("It joins as member ").unwrap().1.split(' ').next().unwrap();
    let (done, said) = by(&["--member", id]);
    assert!(done && said.contains("has caught up and votes"), "{said}");
    cluster.ready(&[0, 1, 2]).await;
    cluster.compare_hashes(&[0, 1, 2]).await;
    assert_eq!(get(cluster.channel(1), "k").await.unwrap().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_runs_is_not_taken_out() {
    let mut cluster = Cluster::start(3);
    cluster.ready(&[0, 1, 2]).await;
    let endpoints = cluster.members[0].client.clone();
    let (_, members) = rusd(&["member", "list", "--endpoints", &endpoints]);
    let line = members.lines().find(|line| line.contains(&cluster.members[1].peer)).unwrap();
    let id = line.split(',').next().unwrap();
    // The disk of another one, which is new.
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let rebuild = ["rebuild", "--data-dir", text(&dir), "--endpoints", &endpoints, "--no-wait"];
    let named = [&rebuild[..], &["--member", id]].concat();
    let (done, said) = rusd(&named);
    assert!(!done && said.contains("is running") && said.contains("stop it first"), "{said}");
    assert!(said.contains(&cluster.members[1].client), "{said}");
    assert!(!dir.join("rebuild.json").exists());
    let (_, after) = rusd(&["member", "list", "--endpoints", &endpoints]);
    assert_eq!(after, members);
    cluster.kill(1);
    let (done, said) = rusd(&named);
    assert!(done && said.contains("as a learner"), "{said}");
    // The plan in the directory is not another member's.
    let line = members.lines().find(|line| line.contains(&cluster.members[2].peer)).unwrap();
    let other = line.split(',').next().unwrap();
    let (done, said) = rusd(&[&rebuild[..], &["--member", other]].concat());
    assert!(!done && said.contains("was begun, and --member names another one"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_vote_is_needed_is_not_taken_out() {
    let mut cluster = Cluster::start(2);
    cluster.ready(&[0, 1]).await;
    cluster.kill(1);
    let dir = cluster.dir(1);
    let endpoint = cluster.members[0].client.clone();
    let rebuild =
        ["rebuild", "--command-timeout=2s", "--data-dir", text(&dir), "--endpoints", &endpoint];
    let (done, said) = rusd(&rebuild);
    assert!(!done && said.contains("nothing was changed"), "{said}");
    assert!(said.contains("\"Lost quorum\""), "{said}");
    assert!(dir.join("member/wal").exists() && !dir.join("rebuild.json").exists());
    cluster.run(1, "new");
    cluster.compare_hashes(&[0, 1]).await;
    let (done, said) = rusd(&rebuild);
    assert!(done && said.contains("there is nothing to rebuild"), "{said}");
    assert!(said.contains("stop it first"), "{said}");
    // The directory says whose it is.
    let wrong = [&rebuild[..], &["--member", "f"]].concat();
    let (done, said) = rusd(&wrong);
    assert!(!done && said.contains("--member names another one"), "{said}");
}
