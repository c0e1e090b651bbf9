//! Members on disks that run full, and out of inodes: none ends, reads and deletes go on, and the
//! way back that the handbook gives works. And a member on a disk that stands still: it answers what
//! needs no write.
//!
//! The disks are file systems of a hundred megabytes or more, mounted in a mount namespace of this
//! test's own, so that nothing is left of them. Where the system lets nobody mount, the test says
//! so and passes. `RUSD_FULL_ROUNDS` sets the number of rounds, `RUSD_FULL_SEED` where they begin;
//! as root, some of them use ext4 in a file.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
#![expect(clippy::print_stderr, reason = "a failure shows its round")]

#[path = "../common/child.rs"]
mod child;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
#[path = "../common/ports.rs"]
mod ports;

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use child::{RUSD, command};
use member::{Process, flags, serve};
use rusd::clock::split_mix;

/// Set where mounting is possible.
const INNER: &str = "RUSD_FULL_INNER";
const START: Duration = Duration::from_secs(120);
/// A debug build on a busy machine fills some hundred megabytes with small values.
const FILL: Duration = Duration::from_secs(1800);

#[derive(Clone, Copy, Debug)]
struct Plan {
    megabytes: u64,
    members: usize,
    clients: u64,
    value_bytes: u64,
    /// The log has a file system of its own.
    log_apart: bool,
    inodes: Option<u64>,
    is_ext4: bool,
    is_killed: bool,
    /// Else the compaction leaves rows everywhere, and the newest of each key.
    deletes: bool,
    /// Few keys are written again and again, so that history fills the disk.
    overwrites: bool,
}

impl Plan {
    /// Three rounds for everybody, and all of what can be said otherwise.
    fn of_seed(seed: u64, is_root: bool) -> Self {
        let pick = |number: u64, of: u64| split_mix(seed << 8 | number) % of;
        let small = Self {
            megabytes: 100,
            members: 1,
            clients: 4,
            value_bytes: 10_000,
            log_apart: false,
            inodes: None,
            is_ext4: false,
            is_killed: true,
            deletes: true,
            overwrites: false,
        };
        match seed {
            1 => small,
            2 => Self {
                members: 3,
                megabytes: 80,
                clients: 16,
                log_apart: true,
                deletes: false,
                ..small
            },
            3 => Self {
                megabytes: 96,
                clients: 20,
                value_bytes: 4096,
                deletes: false,
                overwrites: true,
                ..small
            },
            _ => Self {
                megabytes: [150, 300, 400][pick(1, 3) as usize],
                members: [1, 1, 3][pick(2, 3) as usize],
                clients: 1 + pick(3, 16),
                value_bytes: [1000, 10_000, 10_000, 100_000][pick(4, 4) as usize],
                log_apart: pick(5, 3) == 0,
                inodes: (pick(6, 4) == 0).then(|| 19 + pick(7, 6)),
                is_ext4: is_root && pick(8, 4) == 0,
                is_killed: pick(9, 2) == 0,
                deletes: pick(10, 2) == 0,
                overwrites: pick(11, 3) == 0,
            },
        }
    }
}

fn run(program: &str, args: &[&str]) -> Output {
    command(program).args(args).stdin(Stdio::null()).output().unwrap()
}

fn must(program: &str, args: &[&str]) {
    let output = run(program, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
}

/// Mounts a file system, whose root directory is its only one.
fn mount(dir: &Path, plan: &Plan) {
    fs::create_dir_all(dir).unwrap();
    let megabytes = plan.megabytes;
    let text = dir.to_str().unwrap();
    if plan.is_ext4 {
        let image = dir.with_extension("image");
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let image = image.to_str().unwrap();
        must("mkfs.ext4", &["-q", image]);
        return must("mount", &["-o", "loop", image, text]);
    }
    let inodes = plan.inodes.map(|count| format!(",nr_inodes={count}")).unwrap_or_default();
    let options = format!("size={megabytes}m{inodes}");
    must("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", text]);
}

struct Member {
    flags: Vec<String>,
    endpoint: String,
    disks: Vec<PathBuf>,
    log: PathBuf,
    child: Option<Process>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        for disk in &self.disks {
            run("umount", &[disk.to_str().unwrap()]);
        }
    }
}

impl Member {
    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        self.child = Some(Process::start(serve().args(&self.flags), log));
    }

    fn kill(&mut self) {
        self.child = None;
    }

    /// Stops in order, or is killed.
    fn end(&mut self, is_killed: bool) {
        let Some(child) = &mut self.child else { return };
        if !is_killed {
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            child.wait().unwrap();
        }
        self.kill();
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

struct Cluster {
    plan: Plan,
    members: Vec<Member>,
    endpoints: String,
    _root: tempfile::TempDir,
}

impl Cluster {
    fn start(plan: Plan) -> Self {
        let root = tempfile::tempdir().unwrap();
        let urls = |_| format!("http://127.0.0.1:{}", ports::free());
        let peers: Vec<String> = (0..plan.members).map(urls).collect();
        let clients: Vec<String> = (0..plan.members).map(urls).collect();
        let named = peers.iter().enumerate().map(|(at, url)| format!("m{at}={url}"));
        let initial = named.collect::<Vec<_>>().join(",");
        let members = (0..plan.members).map(|at| {
            let disk = root.path().join(format!("disk{at}"));
            mount(&disk, &plan);
            let mut disks = vec![disk.clone()];
            let (client, peer) = (&clients[at], &peers[at]);
            let mut flags = flags(&format!("m{at}"), &disk.join("data"), client, peer).to_vec();
            flags.extend(["--initial-cluster".to_owned(), initial.clone()]);
            if plan.log_apart {
                let disk = root.path().join(format!("log{at}"));
                mount(&disk, &plan);
                flags.extend(["--wal-dir".to_owned(), format!("{}/wal", disk.display())]);
                disks.push(disk);
            }
            let log = root.path().join(format!("out{at}"));
            Member { flags, endpoint: client.clone(), disks, log, child: None }
        });
        let members = members.collect();
        let endpoints = clients.join(",");
        let mut cluster = Self { plan, members, endpoints, _root: root };
        cluster.members.iter_mut().for_each(Member::start);
        cluster.until("a start", START, |cluster| cluster.ctl(&["put", "kept", "1"]).is_ok());
        cluster
    }

    fn check(&mut self, when: &str) {
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            let ended = member.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "{when}: member {at} ended: {ended:?}\n{}", member.log());
        }
    }

    fn until(&mut self, what: &str, limit: Duration, mut test: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !test(self) {
            self.check(what);
            assert!(begun.elapsed() < limit, "{what} does not come:\n{}", self.members[0].log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ctl(&self, args: &[&str]) -> Result<String, String> {
        self.ctl_at(&self.endpoints, args)
    }

    fn ctl_at(&self, endpoints: &str, args: &[&str]) -> Result<String, String> {
        let always = ["--endpoints", endpoints, "--command-timeout", "60s"];
        let output = run(RUSD, &[&always, args].concat());
        let [out, err] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        if output.status.success() { Ok(out) } else { Err(out + &err) }
    }

    /// What has to work; else says what the first member logged last.
    fn done(&self, args: &[&str]) -> String {
        let log = || self.members[0].log();
        self.ctl(args).unwrap_or_else(|error| panic!("{args:?}: {error}\n{}", log()))
    }

    fn bench(&self, seconds: u64) -> u64 {
        self.bench_with(self.plan.clients, seconds)
    }

    /// Returns the number of writes that were accepted.
    fn bench_with(&self, clients: u64, seconds: u64) -> u64 {
        let Plan { value_bytes, megabytes, overwrites, .. } = self.plan;
        // Half of what fits, so that neither new keys nor history alone fills the disk.
        let keys = (megabytes << 20) / value_bytes / if overwrites { 12 } else { 2 };
        let command = format!(
            "bench put --endpoints {} --clients {clients} --val-size {value_bytes} --keys {keys} \
             --duration {seconds}s --keep --force",
            self.endpoints
        );
        let output = run(RUSD, &command.split_whitespace().collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let requests = text.split(" requests in ").next().and_then(|text| text.rsplit(' ').next());
        requests.and_then(|requests| requests.parse().ok()).unwrap_or(0)
    }

    fn has_alarm(&self) -> bool {
        self.ctl(&["alarm", "list"]).is_ok_and(|alarms| alarms.contains("NOSPACE"))
    }

    /// Whether each disk has much of its space left.
    fn has_much_room(&self) -> bool {
        self.members.iter().flat_map(|member| &member.disks).all(|disk| {
            let space = rustix::fs::statvfs(disk).unwrap();
            space.f_bavail > space.f_blocks / 3
        })
    }

    /// Writes until there is no space. One client would take long for the first part.
    fn fill(&mut self) {
        self.until("the alarm", FILL, |cluster| {
            match cluster.has_much_room() {
                true => cluster.bench_with(16, 1),
                false => cluster.bench(3),
            };
            cluster.has_alarm()
        });
        // Whoever does not listen goes on.
        self.bench(3);
        self.check("writing on");
        let refused = self.ctl(&["put", "x", "1"]).unwrap_err();
        assert!(refused.contains("alarm NOSPACE"), "{refused}");
    }

    fn compact(&mut self) {
        let status = self.done(&["endpoint", "status", "-w", "fields"]);
        let revision = status.lines().find_map(|line| line.strip_prefix("\"Revision\" : "));
        self.done(&["compaction", "--physical", revision.unwrap()]);
    }

    /// What the handbook says.
    fn recover(&mut self) {
        if self.plan.deletes {
            self.done(&["del", "--prefix", "/rusd-bench/"]);
        }
        self.compact();
        // On a full disk there may be no room for it.
        if let Err(refused) = self.ctl(&["defrag"]) {
            assert!(refused.contains("defragmentation needs"), "{refused}");
        }
        self.done(&["alarm", "disarm"]);
        self.check("recovering");
        // A member whose deletions take a little longer may raise it once more.
        let mut disarmed = Instant::now();
        self.until("a put after recovery", START, |cluster| {
            if cluster.ctl(&["put", "back", "1"]).is_ok() {
                return true;
            }
            if disarmed.elapsed() > Duration::from_secs(3) {
                let _ = cluster.ctl(&["alarm", "disarm"]);
                disarmed = Instant::now();
            }
            false
        });
    }

    fn round(&mut self) {
        self.fill();
        for member in &self.members {
            let found = self.ctl_at(&member.endpoint, &["get", "kept"]).unwrap();
            assert!(found.contains('1'), "{found}");
        }
        for number in 0..20 {
            self.done(&["del", &format!("none {number}")]);
        }
        self.recover();
        // The file stays as large as it was, and what is free within it is used again.
        for _ in 0..if self.plan.overwrites { 4 } else { 0 } {
            let enough = (400_000 / self.plan.value_bytes).max(2);
            self.until("writes after recovery", START, |cluster| {
                let is_enough = cluster.bench(2) >= enough;
                // Another member may raise it once more, as after a recovery.
                let _ = cluster.ctl(&["alarm", "disarm"]);
                is_enough
            });
            self.fill();
            self.recover();
        }
        self.fill();
        // A start on a disk of which somebody else has taken the rest.
        let is_killed = self.plan.is_killed;
        self.members[0].end(is_killed);
        for disk in &self.members[0].disks {
            let mut hog = File::create(disk.join("hog")).ok();
            while hog.as_mut().is_some_and(|hog| hog.write_all(&[7; 4096]).is_ok()) {}
        }
        self.members[0].start();
        let endpoint = self.members[0].endpoint.clone();
        self.until("a restart", START, |cluster| {
            cluster.ctl_at(&endpoint, &["get", "kept"]).is_ok()
        });
        // Of the last quarter of what is held back deletes are refused, and compaction makes room.
        if let Err(refused) = self.ctl(&["del", "back"]) {
            assert!(refused.contains("alarm NOSPACE"), "{refused}");
            self.compact();
            self.until("a delete after compaction", START, |cluster| {
                cluster.ctl(&["del", "back"]).is_ok()
            });
        }
        for disk in &self.members[0].disks {
            let _ = fs::remove_file(disk.join("hog"));
        }
        self.recover();
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn rounds() {
    let first = number("RUSD_FULL_SEED", 1);
    let is_root = env::var(INNER).is_ok_and(|how| how == "root");
    for seed in first..first + number("RUSD_FULL_ROUNDS", 3) {
        let plan = Plan::of_seed(seed, is_root);
        eprintln!("RUSD_FULL_SEED={seed} {plan:?}");
        Cluster::start(plan).round();
    }
}

/// A file system that takes no write until this is dropped, or until the test ends in any other
/// way: the pipe is closed then.
struct Frozen(Child);

impl Frozen {
    fn new(disk: &Path) -> Self {
        let script = r#"trap "" INT TERM HUP; fsfreeze -f "$0" && echo; cat; fsfreeze -u "$0""#;
        let mut shell = command("sh");
        shell.args(["-c", script]).arg(disk).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let said = shell.stdout.take().unwrap().read(&mut [0]).unwrap();
        let frozen = Self(shell);
        assert_eq!(said, 1, "{} cannot be frozen", disk.display());
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn is_live(endpoint: &str) -> bool {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: member\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    answer().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// Only root may mount what can be frozen.
fn freeze() {
    let plan = Plan { is_ext4: true, ..Plan::of_seed(1, true) };
    let mut cluster = Cluster::start(plan);
    // A store that was made by this process, and one that was found.
    for _ in 0..2 {
        let frozen = Frozen::new(&cluster.members[0].disks[0]);
        for consistency in ["s", "l", "s", "l"] {
            let found = cluster.done(&["get", "--consistency", consistency, "kept"]);
            assert!(found.contains('1'), "{found}");
            assert!(
                is_live(&cluster.members[0].endpoint),
                "not live:\n{}",
                cluster.members[0].log()
            );
        }
        drop(frozen);
        cluster.done(&["put", "kept", "1"]);
        cluster.members[0].end(false);
        cluster.members[0].start();
        cluster.until("a restart", START, |cluster| cluster.ctl(&["get", "kept"]).is_ok());
    }
}

/// Where a copy of the store finds no inodes, nothing is lost, and it is said what is missing.
fn inodes() {
    let cluster = Cluster::start(Plan { inodes: Some(40), ..Plan::of_seed(1, false) });
    let disk = &cluster.members[0].disks[0];
    let taken: Vec<PathBuf> = (0..40).map(|number| disk.join(format!("taken{number}"))).collect();
    let made = taken.iter().take_while(|path| File::create(path).is_ok()).count();
    assert!(made < taken.len());
    let free = || rustix::fs::statvfs(disk).unwrap().f_ffree;
    // The member, too, makes files and removes them.
    let refusals = taken.iter().take_while(|path| {
        let before = free();
        let Err(refused) = cluster.ctl(&["defrag"]) else { return false };
        let told = [before, free()].map(|free| format!("has inodes for {free} more"));
        let is_told = told.iter().any(|free| refused.contains(free));
        assert!(refused.contains("defragmentation needs") && is_told, "{told:?}: {refused}");
        cluster.done(&["put", "kept", "1"]);
        fs::remove_file(path).unwrap();
        true
    });
    let refused = refusals.count();
    assert!((3..made).contains(&refused));
    // One for a file that the member may have made since.
    taken[refused..made].iter().take(2).for_each(|path| fs::remove_file(path).unwrap());
    cluster.done(&["defrag"]);
}

/// A restore that finds no room says so, and leaves nothing behind.
fn restores() {
    let cluster = Cluster::start(Plan::of_seed(1, false));
    let root = tempfile::tempdir().unwrap();
    let snapshot = root.path().join("a.db");
    cluster.done(&["snapshot", "save", snapshot.to_str().unwrap()]);
    let plan = Plan { megabytes: 8, ..cluster.plan };
    let disk = root.path().join("disk");
    mount(&disk, &plan);
    let mut file = File::create(disk.join("filler")).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    let data = disk.join("data");
    let words =
        ["snapshot", "restore", snapshot.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    let output = run(RUSD, &words);
    let said = String::from_utf8_lossy(&output.stderr);
    let is_left = data.exists();
    drop(file);
    must("umount", &[disk.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{:?}: {said}", output.status);
    assert!(said.contains("o space left"), "{said}");
    assert!(!is_left, "something is left of it");
}

#[test]
fn a_restore_on_a_full_disk_says_so_and_leaves_nothing() {
    match env::var(INNER) {
        Ok(_) => restores(),
        Err(_) => mounting("a_restore_on_a_full_disk"),
    }
}

#[test]
fn a_defragmentation_without_inodes_says_so() {
    match env::var(INNER) {
        Ok(_) => inodes(),
        Err(_) => mounting("a_defragmentation_without_inodes"),
    }
}

#[test]
fn a_member_answers_reads_while_its_disk_stands_still() {
    match env::var(INNER).as_deref() {
        Ok("root") => freeze(),
        Ok(_) => eprintln!("skipped: only root may freeze a file system"),
        Err(_) => mounting("a_member_answers_reads_while"),
    }
}

#[test]
fn no_member_ends_on_a_full_disk_and_the_recipe_brings_it_back() {
    match env::var(INNER) {
        Ok(_) => rounds(),
        Err(_) => mounting("no_member_ends_on_a_full_disk"),
    }
}

/// Runs a test of this file where it may mount.
fn mounting(test: &str) {
    let is_root = rustix::process::geteuid().is_root();
    let how: &[&str] =
        if is_root { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] };
    let probe = [how, &["mount", "-t", "tmpfs", "tmpfs", "/mnt"]].concat();
    let can_mount = command("unshare").args(probe).stderr(Stdio::null()).status();
    if !can_mount.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: nobody may mount a file system here");
    }
    let this = env::current_exe().unwrap();
    let status = command("unshare")
        .args(how)
        .arg(this)
        .args(["--nocapture", test])
        .env(INNER, if is_root { "root" } else { "user" })
        .status();
    assert!(status.unwrap().success());
}
