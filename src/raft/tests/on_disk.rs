//! One member with its threads and its log in a directory.

use super::super::log::crash::clock::Chance;
use super::super::log::crash::disk::SimDisk;
use super::*;

#[test]
fn a_sole_voter_commits_and_replays() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    assert_eq!(member.conf_state.voters, [ID]);
    let mut leader = member.handle.subscribe_leader();
    assert_eq!(leader.borrow_and_update().id, ID);
    for number in 0..1000 {
        member.handle.propose(number, value(number)).unwrap();
    }
    member.apply_until(1000);
    assert!(member.applied.iter().enumerate().all(|(at, data)| *data == value(at as u64)));
    assert!(member.read_index().unwrap() >= 1000);
    let status = member.handle.status();
    assert_eq!((status.id, status.leader), (ID, ID));
    member.stop();
    assert!(matches!(member.handle.propose(0, value(0)), Err(Error::Stopped)));
    assert!(matches!(member.read_index(), Err(Error::Stopped)));
    assert!(member.recorder.fatal.lock().is_empty());

    // The state has half of the entries; the rest is replayed, also after the log was closed.
    for half in [500, 600] {
        let (index, term, conf_state) = (half + 2, 2, member.conf_state.clone());
        let mut again = try_start(config(&dir, (index, term), conf_state), None).unwrap();
        again.apply_until(1000 - half as usize);
        assert_eq!(again.applied[0], value(half));
        again.lead();
        assert!(again.handle.status().term > 2);
        again.stop();
    }
}

#[test]
fn a_torn_tail_loses_nothing_that_was_applied() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    for number in 0..100 {
        member.handle.propose(number, value(number)).unwrap();
    }
    member.apply_until(100);
    member.stop();
    let name = "0000000000000000-0000000000000000.wal";
    let mut bytes = fs::read(dir.join(name)).unwrap();
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    // A batch that was being written when the power went.
    bytes[end.next_multiple_of(8)..][..32].copy_from_slice(&[0x55; 32]);
    bytes[end.next_multiple_of(8)..][..8].copy_from_slice(&900_u64.to_le_bytes());
    fs::write(dir.join(name), &bytes).unwrap();
    let mut again = try_start(config(&dir, (0, 0), ConfState::default()), None).unwrap();
    assert!(dir.join(format!("{name}.broken")).exists());
    again.apply_until(100);
    again.stop();
}

#[test]
fn a_tail_that_a_failed_sync_left_in_memory_is_written_again() {
    let dir = Path::new("/member/wal");
    // Longer than what a disk writes at once, so that no later write takes it along.
    let value = |number: u8| Bytes::from(vec![number; 5000]);
    for seed in 0..8 {
        let disk = SimDisk::default();
        let start = |bootstrap: Option<&Bootstrap>| {
            let log = Options { segment_bytes: 256 << 10, fill_ahead: false };
            let config = Config { log, ..config(dir, (0, 0), ConfState::default()) };
            let disk: Arc<dyn Disk> = Arc::new(disk.clone());
            try_start_with(config, bootstrap, Arc::new(NoTransport), disk).unwrap()
        };
        let mut member = start(Some(&alone()));
        member.lead();
        member.handle.propose(1, value(1)).unwrap();
        member.apply_until(1);
        disk.troubles(|troubles| troubles.sync_fails = true);
        member.handle.propose(2, value(2)).unwrap();
        let gave_up = crate::clock::instant() + Duration::from_secs(60);
        while member.recorder.fatal.lock().is_empty() {
            assert!(crate::clock::instant() < gave_up, "a sync that failed ends nobody");
            std::thread::sleep(Duration::from_millis(1));
        }
        member.stop();

        // The system shows what did not reach the disk. Once it is applied, it must be there.
        let mut again = start(None);
        again.lead();
        again.handle.propose(3, value(3)).unwrap();
        again.apply_until(3);
        again.stop();
        disk.cut_power(&mut Chance::new(seed));
        let mut again = start(None);
        again.apply_until(3);
        assert_eq!(again.applied, [value(1), value(2), value(3)]);
        again.stop();
    }
}

#[test]
fn a_log_that_does_not_fit_the_state_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    member.stop();
    let voters = || ConfState { voters: vec![ID], ..ConfState::default() };
    let refused = |config| match try_start(config, None) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    };
    let error = refused(config(&dir, (50, 2), voters()));
    assert!(matches!(error, Error::LogEndsBefore { applied: 50, .. }), "{error}");
    let error = refused(config(&dir, (2, 9), voters()));
    assert!(matches!(error, Error::TermMismatch { index: 2, applied: 9, logged: 2 }), "{error}");
    let error = refused(Config { id: 5, ..config(&dir, (0, 0), voters()) });
    assert!(matches!(error, Error::Foreign { id: 5, .. }), "{error}");
    let nowhere = temp.path().join("nowhere");
    let error = refused(config(&nowhere, (0, 0), voters()));
    assert!(matches!(error, Error::Log(_)), "{error}");
}

#[test]
fn segments_below_the_durable_state_go() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    let segments = || fs::read_dir(&dir).unwrap().count();
    let mut count = 0;
    while segments() < 5 {
        for _ in 0..100 {
            member.handle.propose(0, Bytes::from(vec![7; 1000])).unwrap();
        }
        count += 100;
        member.apply_until(count);
    }
    let (index, term) = member.position;
    member.handle.durable(index, term, member.conf_state.clone());
    while segments() > 3 {
        member.handle.propose(0, value(0)).unwrap();
        count += 1;
        member.apply_until(count);
    }
    let conf_state = member.conf_state.clone();
    member.stop();
    let mut again = try_start(config(&dir, (index, term), conf_state), None).unwrap();
    again.lead();
    again.stop();
    let error = try_start(config(&dir, (2, 2), ConfState::default()), None).err().unwrap();
    assert!(matches!(error, Error::LogBeginsAfter { applied: 2, .. }), "{error}");
}

#[test]
fn a_damaged_segment_keeps_the_member_down() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    member.stop();
    let path = dir.join("0000000000000000-0000000000000000.wal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let disk: &dyn Disk = &SystemDisk;
    assert!(exists(disk, &dir).unwrap());
    let error = try_start(config(&dir, (0, 0), ConfState::default()), None).err().unwrap();
    assert!(error.to_string().contains("damaged"), "{error}");
}
