//! Logs on the simulator's disk, which loses power: each sector that was not synced survives or
//! not, at random.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState};

use self::clock::Chance;
use self::disk::SimDisk;
use super::*;

#[expect(dead_code, unreachable_pub, reason = "the simulator uses all of it")]
#[path = "../../../tests/sim/clock.rs"]
pub(in crate::raft) mod clock;
#[expect(dead_code, unreachable_pub, reason = "the simulator uses all of it")]
#[path = "../../../tests/sim/disk.rs"]
pub(in crate::raft) mod disk;

const METADATA: Metadata = Metadata { node_id: 1, cluster_id: 2 };
const OPTIONS: Options = Options { segment_bytes: 24 << 10, fill_ahead: false };

/// The expected content of a log: its entries and its hard state.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: Vec<(u64, u64)>,
    state: HardState,
}

impl Model {
    fn entry(&mut self, entry: &Entry) {
        self.entries.retain(|(index, _)| *index < entry.index);
        self.entries.push((entry.index, entry.term));
    }

    /// Whether the recovered log is this one. It may lack purged entries; if the last hard state is
    /// lost, its term is that of the last entry.
    fn explains(&self, recovered: &Recovered) -> bool {
        let table = &recovered.table;
        let last = self.entries.last().copied().unwrap_or_default();
        let known = self.entries.iter().filter(|(index, _)| *index >= table.first_index());
        let mut state = self.state.clone();
        if last.1 > state.term {
            state = HardState { term: last.1, vote: 0, commit: state.commit };
        }
        (table.last_index(), table.last_term()) == last
            && known.clone().all(|(index, term)| table.term(*index) == Some(*term))
            && known.count() as u64 == table.last_index() + 1 - table.first_index()
            && recovered.hard_state == state
    }
}

/// A log that is written, synced, purged and crashed at random.
struct Trial {
    chance: Chance,
    disk: SimDisk,
    term: u64,
    model: Model,
    /// The possible contents after a crash: that of the last sync, and that after each record
    /// since.
    possible: Vec<Model>,
    purged: u64,
}

impl Trial {
    fn batch(&mut self) -> Batch {
        let last = self.model.entries.last().map_or(0, |(index, _)| *index);
        let commit = self.model.state.commit;
        if self.chance.below(8) == 0 {
            self.term += 1;
        }
        let conflict = self.chance.below(6) == 0 && last > commit;
        let back = if conflict { self.chance.below(last - commit) + 1 } else { 0 };
        if back > 0 {
            self.term += 1;
        }
        let first = last + 1 - back;
        let count = self.chance.below(12);
        let mut batch = Batch::default();
        for index in first..first + count {
            let length = self.chance.below(1500) as usize;
            let data = Bytes::from(vec![index as u8 | 1; length]);
            let entry = Entry { index, term: self.term, data, ..Entry::default() };
            self.model.entry(&entry);
            self.possible.push(self.model.clone());
            batch.entries.push(entry);
        }
        let last = self.model.entries.last().map_or(0, |(index, _)| *index);
        let commit = commit + self.chance.below(last - commit.min(last) + 1);
        let state = HardState { term: self.term, vote: 1, commit: commit.min(last) };
        self.model.state = state.clone();
        self.possible.push(self.model.clone());
        batch.hard_state = Some(state);
        batch
    }

    fn purge(&mut self, writer: &mut Writer) {
        let commit = self.model.state.commit;
        let Some((_, term)) = self.model.entries.iter().find(|(index, _)| *index == commit) else {
            return;
        };
        let record =
            SnapshotRecord { index: commit, term: *term, conf_state: Some(ConfState::default()) };
        let below = commit.saturating_sub(5);
        writer.purge(below, &record).unwrap();
        self.purged = self.purged.max(below);
    }

    fn life(&mut self, dir: &Path, seed: u64) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let (mut writer, _, recovered) = open(&disk, dir, OPTIONS)
            .unwrap_or_else(|error| panic!("seed {seed}: the log does not open: {error}"));
        assert!(recovered.table.first_index() <= self.purged + 1, "seed {seed}");
        let found = self.possible.iter().find(|model| model.explains(&recovered));
        let Some(found) = found else {
            let table = &recovered.table;
            panic!(
                "seed {seed}: the log holds {}..={} with {:?}, possible were {:#?}",
                table.first_index(),
                table.last_index(),
                recovered.hard_state,
                self.possible
            );
        };
        self.model = Model { state: recovered.hard_state.clone(), ..found.clone() };
        // What a start has found may be acknowledged, so it must survive from here on.
        self.possible = vec![self.model.clone()];
        self.term = self.term.max(self.model.state.term);
        for _ in 0..self.chance.below(20) {
            let batch = self.batch();
            writer.append(&batch).unwrap();
            match self.chance.below(4) {
                0 => {}
                1 => drop(writer.write().unwrap()),
                _ => {
                    writer.write().unwrap();
                    writer.sync().unwrap();
                    self.possible = vec![self.model.clone()];
                }
            }
            if self.chance.below(10) == 0 {
                self.purge(&mut writer);
            }
        }
        drop(writer);
        // If only the process dies, the next one finds what was never synced.
        if self.chance.below(3) > 0 {
            self.disk.cut_power(&mut self.chance);
        }
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_synced() {
    let dir = Path::new("/member/wal");
    for seed in 0..300 {
        let disk = SimDisk::default();
        create(&disk, dir, METADATA, &Batch::default(), OPTIONS).unwrap();
        let mut trial = Trial {
            chance: Chance::new(seed),
            disk,
            term: 1,
            model: Model::default(),
            possible: vec![Model::default()],
            purged: 0,
        };
        trial.disk.cut_power(&mut trial.chance);
        for _ in 0..8 {
            trial.life(dir, seed);
        }
    }
}

#[test]
fn a_log_is_made_as_a_whole_or_not_at_all() {
    let dir = Path::new("/member/wal");
    let entry = Entry { index: 1, term: 1, ..Entry::default() };
    let batch = Batch { entries: vec![entry], ..Batch::default() };
    let mut made = 0;
    for seed in 0..200 {
        let chance = &mut Chance::new(seed);
        let disk = SimDisk::default();
        // The power fails after this many operations.
        disk.troubles(|troubles| troubles.fuse = Some(seed % 20));
        let outcome = create(&disk, dir, METADATA, &batch, OPTIONS);
        disk.troubles(|troubles| troubles.fuse = None);
        disk.cut_power(chance);
        let is_there = exists(&disk, dir).unwrap();
        assert!(is_there || outcome.is_err(), "seed {seed}: a log that was made is gone");
        made += u64::from(outcome.is_ok());
        if !is_there {
            create(&disk, dir, METADATA, &batch, OPTIONS).unwrap();
        }
        let disk: Arc<dyn Disk> = Arc::new(disk);
        assert_eq!(open(&disk, dir, OPTIONS).unwrap().2.table.last_index(), 1, "seed {seed}");
    }
    assert!((1..200).contains(&made), "{made}");
}

#[test]
fn a_full_disk_leaves_room_for_votes_and_purges_and_nothing_is_lost() {
    let dir = Path::new("/member/wal");
    let sim = SimDisk::default();
    create(&sim, dir, METADATA, &Batch::default(), OPTIONS).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (mut writer, ..) = open(&disk, dir, OPTIONS).unwrap();
    let batch = |index: u64| {
        let entry = Entry { index, term: 1, data: vec![7; 700].into(), ..Entry::default() };
        let hard_state = Some(HardState { term: 1, vote: 1, commit: index });
        Batch { entries: vec![entry], hard_state, ..Batch::default() }
    };
    let mut last = 0;
    for round in 1..=3 {
        sim.troubles(|troubles| troubles.is_full = true);
        let begun = last;
        while writer.append(&batch(last + 1)).is_ok() {
            last += 1;
            writer.write().unwrap();
            writer.sync().unwrap();
        }
        assert!(last > begun, "round {round}: what was allocated can be used");
        assert!(matches!(writer.append(&batch(last + 1)), Err(Error::NoRoom(_))));
        // A hard state still has room, so that the member can vote.
        let vote = HardState { term: 1, vote: 1, commit: last };
        writer.append(&Batch { hard_state: Some(vote), ..Batch::default() }).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
        sim.troubles(|troubles| troubles.is_full = false);
        last += 1;
        writer.append(&batch(last)).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
        // So has the record of a purge, which frees segments.
        sim.troubles(|troubles| troubles.is_full = true);
        let record =
            SnapshotRecord { index: last, term: 1, conf_state: Some(ConfState::default()) };
        assert!(writer.purge(last, &record).unwrap());
        let segments = disk.list(dir).unwrap();
        assert_eq!(segments.len(), 1, "round {round}: {segments:?}");
    }
    drop(writer);
    sim.cut_power(&mut Chance::new(1));
    // A start on the full disk works with the blocks that are there.
    let (_, _, recovered) = open(&disk, dir, OPTIONS).unwrap();
    assert_eq!(recovered.table.last_index(), last);
}

/// After a panic of the log writer's thread, the raft loop may still try to write a short job.
#[test]
fn nothing_is_written_after_a_panic() {
    let dir = Path::new("/member/wal");
    let sim = SimDisk::default();
    create(&sim, dir, METADATA, &Batch::default(), OPTIONS).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let (mut writer, ..) = open(&disk, dir, OPTIONS).unwrap();
    let entry = Entry { index: 1, term: 1, data: vec![7; 700].into(), ..Entry::default() };
    let batch = Batch { entries: vec![entry], ..Batch::default() };
    writer.append(&batch).unwrap();
    sim.troubles(|troubles| troubles.trap.set(1));
    let unwound = catch_unwind(AssertUnwindSafe(|| writer.write().map(drop)));
    assert!(unwound.is_err(), "{unwound:?}");
    assert!(matches!(writer.write(), Err(Error::Failed)));
    assert!(matches!(writer.append(&batch), Err(Error::Failed)));
    assert!(matches!(writer.sync(), Err(Error::Failed)));
    drop(writer);
    assert_eq!(open(&disk, dir, OPTIONS).unwrap().2.table.last_index(), 0);
}
