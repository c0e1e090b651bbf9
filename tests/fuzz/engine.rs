//! The loop: an input, what it reached, and the next one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::coverage::{self, SeenEdges};
use super::memory;
use super::mutate::{self, Chance};
use super::targets::{Entry, Shape, Target};

/// One input may not take longer, on a processor or waiting.
const INPUT_CPU_MAX: Duration = Duration::from_secs(30);
const INPUT_WALL_MAX: Duration = Duration::from_secs(600);
/// A search ends after so many different failures.
const FAILURES_MAX: usize = 8;
/// What is kept of a target.
const KEPT_FILES_MAX: usize = 60;
const KEPT_BYTES_MAX: usize = 160 << 10;
const KEPT_TIME_MAX: Duration = Duration::from_millis(500);
/// Runs of a failing input with something left out.
const TRIMS_MAX: usize = 400;

/// What a run tells beside the edges it passed.
#[derive(Default)]
pub struct Notes(Vec<u64>);

impl Notes {
    /// An outcome in words; numbers in it do not count, nor does what is quoted. Edges say more, so
    /// that it is not needed where they are counted.
    pub fn text(&mut self, text: &str) {
        if coverage::edges() > 0 {
            return;
        }
        let mut hasher = DefaultHasher::new();
        let text = text.split('"').next().unwrap_or_default();
        let words = text.split(|c: char| !c.is_ascii_alphabetic());
        for word in words.filter(|word| word.len() > 2).take(12) {
            word.hash(&mut hasher);
        }
        self.0.push(hasher.finish());
    }

    /// How much of something there was, roughly.
    pub fn number(&mut self, what: &str, number: u64) {
        let mut hasher = DefaultHasher::new();
        (what, number.checked_ilog2()).hash(&mut hasher);
        self.0.push(hasher.finish());
    }

    pub fn result<T, E: ToString>(&mut self, what: &str, result: &Result<T, E>) {
        match result {
            Ok(_) => self.text(what),
            Err(error) => self.text(&format!("{what} {}", error.to_string())),
        }
    }
}

static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// The input at work, for whoever has to give up on it.
static CURRENT: Mutex<(Vec<u8>, &str)> = Mutex::new((Vec::new(), ""));
/// Since when, by both clocks in milliseconds; 0 is none.
static SINCE_WALL: AtomicU64 = AtomicU64::new(0);
static SINCE_CPU: AtomicU64 = AtomicU64::new(0);

/// What the process used of processors, all threads together.
pub fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = after_name.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn wall_millis() -> u64 {
    static START: Mutex<Option<Instant>> = Mutex::new(None);
    let start = *START.lock().unwrap().get_or_insert_with(Instant::now);
    start.elapsed().as_millis() as u64 + 1
}

/// Notes panics of all threads, and ends the process when an input hangs.
pub fn watch() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload().downcast_ref::<String>().cloned();
        let text = text.or_else(|| info.payload().downcast_ref::<&str>().map(ToString::to_string));
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let text = format!("{at}: {}", text.unwrap_or_default());
        PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(text);
    }));
    wall_millis();
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let (wall, cpu) =
                (SINCE_WALL.load(Ordering::Relaxed), SINCE_CPU.load(Ordering::Relaxed));
            if wall == 0 {
                continue;
            }
            let waited = wall_millis().saturating_sub(wall);
            // The processor's clock is read only when it may matter.
            if u128::from(waited) < INPUT_CPU_MAX.as_millis() {
                continue;
            }
            if cpu == 0 {
                SINCE_CPU.store(cpu_time().as_millis() as u64, Ordering::Relaxed);
                continue;
            }
            let used = (cpu_time().as_millis() as u64).saturating_sub(cpu);
            if u128::from(used) > INPUT_CPU_MAX.as_millis()
                || u128::from(waited) > INPUT_WALL_MAX.as_millis()
            {
                give_up("it hangs");
            }
        }
    });
}

/// Writes the input at work to a file and ends the process.
pub fn give_up(why: &str) -> ! {
    if let Ok(current) = CURRENT.try_lock() {
        let path = write(&scratch("failed"), current.1, &current.0);
        println!("{}: FAILED: {why}: {}", current.1, path.display());
    } else {
        println!("FAILED: {why}");
    }
    std::process::exit(1);
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Where a search puts what it finds.
fn scratch(what: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(what)
}

fn write(dir: &Path, target: &str, input: &[u8]) -> PathBuf {
    let dir = dir.join(target);
    let path = dir.join(format!("{:016x}", hash(input)));
    fs::create_dir_all(&dir).and_then(|()| fs::write(&path, input)).unwrap();
    path
}

fn kept(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// The files of a directory, in order of their names.
fn inputs(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

struct Kept {
    bytes: Vec<u8>,
    took: Duration,
}

/// A target and everything that is known of it.
pub struct Search {
    entry: &'static Entry,
    target: Box<dyn Target>,
    chance: Chance,
    seen: SeenEdges,
    notes: HashSet<u64>,
    pool: Vec<Kept>,
    pub executions: u64,
    took: Duration,
    /// Different failures, by their texts, and where their inputs are.
    pub failures: BTreeMap<String, PathBuf>,
    coarse: bool,
    /// Whether failures are only counted.
    pub silent: bool,
}

impl Search {
    pub fn new(entry: &'static Entry, seed: u64) -> Self {
        let target = (entry.make)();
        CURRENT.lock().unwrap().1 = entry.name;
        Self {
            entry,
            target,
            chance: Chance::new(seed),
            seen: SeenEdges::new(),
            notes: HashSet::new(),
            pool: Vec::new(),
            executions: 0,
            took: Duration::ZERO,
            failures: BTreeMap::new(),
            coarse: false,
            silent: false,
        }
    }

    /// Runs an input. An error says what is wrong.
    fn run(&mut self, input: &[u8]) -> Result<(usize, Duration), String> {
        CURRENT.lock().unwrap().0.clone_from(&input.to_vec());
        SINCE_CPU.store(0, Ordering::Relaxed);
        SINCE_WALL.store(wall_millis(), Ordering::Relaxed);
        let mut notes = Notes::default();
        SeenEdges::reset();
        let mark = memory::mark();
        let begin = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.target.run(input, &mut notes)));
        let took = begin.elapsed();
        let peak = memory::peak_above(mark);
        let new_edges = self.seen.take(self.coarse);
        SINCE_WALL.store(0, Ordering::Relaxed);
        self.executions += 1;
        self.took += took;
        let panic = PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if outcome.is_err() || panic.is_some() {
            let before = self.target.before();
            self.renew();
            // What led here is a part of it.
            CURRENT.lock().unwrap().0 = before;
            return Err(panic.unwrap_or_else(|| "a panic without a word".to_owned()));
        }
        if peak > self.target.memory_max(input.len()) {
            return Err(format!("memory: {} bytes of input take {peak}", input.len()));
        }
        let new_notes = notes.0.into_iter().filter(|note| self.notes.insert(*note)).count();
        Ok((new_edges + new_notes, took))
    }

    fn renew(&mut self) {
        // It may panic again when it goes.
        let made = catch_unwind(AssertUnwindSafe(|| self.target = (self.entry.make)()));
        PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if made.is_err() {
            self.target = (self.entry.make)();
        }
    }

    /// Runs an input, and keeps it if it reached something new.
    fn try_one(&mut self, input: Vec<u8>) -> bool {
        match self.run(&input) {
            Ok((0, _)) => false,
            Ok((_, took)) => {
                self.pool.push(Kept { bytes: input, took });
                true
            }
            Err(why) => {
                let before = std::mem::take(&mut CURRENT.lock().unwrap().0);
                self.failed(&[before, input].concat(), &why);
                false
            }
        }
    }

    fn failed(&mut self, input: &[u8], why: &str) {
        let kind = kind_of(why);
        if self.failures.contains_key(&kind) || self.failures.len() >= FAILURES_MAX {
            return;
        }
        let input = self.trim(input, &kind);
        let path = write(&scratch("failed"), self.entry.name, &input);
        if !self.silent {
            println!("{}: FAILED: {why}: {}", self.entry.name, path.display());
        }
        self.failures.insert(kind, path);
    }

    /// Leaves out of a failing input what does not matter.
    fn trim(&mut self, input: &[u8], kind: &str) -> Vec<u8> {
        let mut best = input.to_vec();
        let (mut size, mut tries) = (best.len() / 2, 0);
        while size > 0 && tries < TRIMS_MAX {
            let mut at = 0;
            while at < best.len() && tries < TRIMS_MAX {
                let mut shorter = best.clone();
                shorter.drain(at..(at + size).min(best.len()));
                tries += 1;
                self.renew();
                if self.run(&shorter).is_err_and(|why| kind_of(&why) == kind) {
                    best = shorter;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        self.renew();
        best
    }

    /// Begins with what is kept and with what the target itself knows to be good. True if all of it
    /// passed.
    pub fn begin(&mut self) -> bool {
        for (path, input) in inputs(&kept(self.entry.name)) {
            if let Err(why) = self.run(&input) {
                println!("{}: FAILED: {why}: {}", self.entry.name, path.display());
                self.failures.insert(kind_of(&why), path);
            } else {
                self.pool.push(Kept { bytes: input, took: Duration::ZERO });
            }
        }
        for seed in self.target.seeds() {
            self.try_one(seed);
        }
        self.failures.is_empty()
    }

    fn pick(&mut self) -> Vec<u8> {
        let average = self.took / u32::try_from(self.executions.max(1)).unwrap_or(u32::MAX);
        for _ in 0..4 {
            let recent = self.pool.len().min(64);
            let at = match self.chance.below(3) {
                0 => self.pool.len() - 1 - self.chance.below(recent),
                _ => self.chance.below(self.pool.len()),
            };
            if self.pool[at].took < average * 8 || self.chance.one_in(8) {
                return self.pool[at].bytes.clone();
            }
        }
        self.pool[self.chance.below(self.pool.len())].bytes.clone()
    }

    /// Makes up an input out of those that are there.
    fn next_input(&mut self) -> Vec<u8> {
        if self.pool.is_empty() {
            return (0..self.chance.below(64)).map(|_| self.chance.next() as u8).collect();
        }
        let mut input = self.pick();
        let other = self.pool[self.chance.below(self.pool.len())].bytes.clone();
        let words = self.target.words();
        match self.target.shape() {
            Shape::Parts(is_message) if !self.chance.one_in(20) => {
                mutate::sequence(&mut input, &other, words, is_message, &mut self.chance);
            }
            _ => mutate::bytes(&mut input, &other, words, &mut self.chance),
        }
        if self.chance.one_in(2) {
            self.target.mend(&mut input);
        }
        input.truncate(self.target.length_max());
        input
    }

    /// Searches for so long. What is new is written down if `keeps`.
    pub fn search(&mut self, limit: Duration, keeps: bool) {
        let begin = cpu_time();
        let mut told = Duration::ZERO;
        while self.failures.len() < FAILURES_MAX {
            for _ in 0..16 {
                let input = self.next_input();
                if self.try_one(input) && keeps {
                    let newest = self.pool.last().map_or(&[][..], |kept| &kept.bytes);
                    write(&scratch("found"), self.entry.name, newest);
                }
            }
            let used = cpu_time().saturating_sub(begin);
            if used >= limit {
                break;
            }
            if keeps && used >= told + Duration::from_secs(60) {
                told = used;
                println!("{}", self.summary(used));
            }
        }
        if keeps {
            println!("{}", self.summary(cpu_time().saturating_sub(begin)));
        }
    }

    pub fn summary(&self, used: Duration) -> String {
        format!(
            "{}: {} s of processors, {} executions, {} inputs, {} of {} edges, {} outcomes, {} failures",
            self.entry.name,
            used.as_secs(),
            self.executions,
            self.pool.len(),
            self.seen.count(),
            coverage::edges(),
            self.notes.len(),
            self.failures.len(),
        )
    }

    /// Replaces what is kept by a few inputs, found or kept, that together reach the most: the one
    /// that adds the most to what the others reach is next, of equal ones the smallest.
    pub fn keep(mut self) {
        self.coarse = true;
        let mut all = inputs(&kept(self.entry.name));
        all.extend(inputs(&scratch("found").join(self.entry.name)));
        all.extend(self.target.seeds().into_iter().map(|seed| (PathBuf::new(), seed)));
        all.sort_by_key(|(_, input)| input.len());
        let (mut left, mut candidates) = (HashSet::new(), Vec::new());
        for (_, input) in all {
            (self.seen, self.notes) = (SeenEdges::new(), HashSet::new());
            let Ok((_, took)) = self.run(&input) else { continue };
            let reached: Vec<u64> = self.seen.passed().chain(self.notes.drain()).collect();
            let before = left.len();
            left.extend(reached.iter().copied());
            if left.len() > before {
                candidates.push((reached, input, took));
            }
        }
        let reachable = left.len();
        let (mut files, mut bytes, mut time) = (Vec::new(), 0, Duration::ZERO);
        while files.len() < KEPT_FILES_MAX {
            candidates.retain_mut(|(adds, input, took)| {
                adds.retain(|place| left.contains(place));
                let fits = bytes + input.len() <= KEPT_BYTES_MAX && time + *took <= KEPT_TIME_MAX;
                fits && !adds.is_empty()
            });
            let most = (0..candidates.len())
                .max_by_key(|at| (candidates[*at].0.len(), Reverse(candidates[*at].1.len())));
            let Some(most) = most else { break };
            let (adds, input, took) = candidates.swap_remove(most);
            for place in &adds {
                left.remove(place);
            }
            bytes += input.len();
            time += took;
            files.push(input);
        }
        drop(fs::remove_dir_all(kept(self.entry.name)));
        for input in &files {
            let dir = kept(self.entry.name);
            write(dir.parent().unwrap(), self.entry.name, input);
        }
        println!(
            "{}: {} files, {bytes} bytes, which reach {} of {reachable} places",
            self.entry.name,
            files.len(),
            reachable - left.len(),
        );
    }

    /// Runs one file.
    pub fn replay(&mut self, path: &str) -> Result<(), String> {
        let input = fs::read(path).map_err(|error| error.to_string())?;
        self.run(&input).map(|_| ())
    }
}

/// A failure without its numbers.
fn kind_of(why: &str) -> String {
    let place: String = why.chars().take_while(|c| *c != ' ').collect();
    let words = why.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ');
    let words: String = words.take(60).collect();
    if place.contains(".rs:") { place } else { words }
}
