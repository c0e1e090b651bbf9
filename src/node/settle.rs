//! A stopped member's log, applied to its end without the rest of the member.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::StartError;
use super::steps::Steps;
use super::surroundings::Surroundings;
use super::{Config, Node};
use crate::clock::{Clock, SystemClock};
use crate::limits;
use crate::raft;

/// The pause between two turns of a member that elects itself.
const SETTLE_TURN: Duration = Duration::from_millis(1);

/// Applies what is in the log of a stopped member and not in its store: the entries that the log
/// knows to be committed, and in a cluster of one all of them. The member's other work does not
/// run. The caller checks that there is a log, since a start without one would make one.
pub fn settle(data_dir: &Path, wal_dir: Option<&Path>) -> Result<(), StartError> {
    let clock = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The duties become tasks of this runtime, which never runs them: no lease ends and nothing is
    // proposed.
    let _entered = runtime.enter();
    let mut surroundings = Surroundings::system(Arc::clone(&clock) as Arc<dyn Clock>);
    surroundings.transport = Some(Arc::new(raft::NoTransport));
    surroundings.store.reserve_bytes = 0;
    let config = Config { wal_dir: wal_dir.map(Path::to_path_buf), ..Config::of(data_dir) };
    let (node, steps) = Node::start_stepped(config, surroundings)?;
    // A sole voter elects itself, which commits the whole log. Asked in each turn, because an entry
    // in the log may add a voter.
    let votes_alone = || {
        let members = node.0.machine.members.read();
        let mut voters = members.voters();
        voters.next().is_some_and(|one| one.id == node.0.member_id) && voters.next().is_none()
    };
    let (mut reached, mut since) = (None, clock.now());
    loop {
        let status = turn(&node, &steps)?;
        let applied = node.0.applied.index();
        let is_committed = !votes_alone() || status.committed == status.last_index;
        if is_committed && applied >= status.committed {
            break;
        }
        if reached != Some((applied, status.committed)) {
            (reached, since) = (Some((applied, status.committed)), clock.now());
        } else if clock.now().saturating_sub(since) >= limits::SETTLE_STALL {
            let what = format!(
                "the log ends with entry {}, but no entry after {applied} was applied for {} s",
                status.last_index,
                limits::SETTLE_STALL.as_secs()
            );
            return Err(StartError::Unsettled(what));
        }
        std::thread::sleep(SETTLE_TURN);
    }
    node.stop_now();
    Ok(())
}

/// One turn of raft, the log writer and apply. Each batch is committed to LMDB before the next one:
/// without a committer thread, apply would wait for ever for room in the tail; and an error of a
/// full disk must end the command instead of hiding entries.
fn turn(node: &Node, steps: &Steps) -> Result<raft::Status, StartError> {
    steps.raft()?;
    while steps.log()? {}
    while steps.apply(usize::MAX).is_some() {
        node.0.machine.store.flush()?;
    }
    match node.0.supervisor.failure_reason() {
        Some(why) => Err(StartError::Unsettled(why)),
        None => Ok(steps.status()),
    }
}
