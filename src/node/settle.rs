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

/// Between two looks at a member that elects itself.
const SETTLE_TURN: Duration = Duration::from_millis(1);

/// Applies what the log of a stopped member holds and its store does not: what it knows to be
/// committed, and in a cluster of one everything. Nothing else of the member runs. There must be a
/// log, since a start makes one if there is none.
pub fn settle(data_dir: &Path, wal_dir: Option<&Path>) -> Result<(), StartError> {
    let clock = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Tasks are made there and never run, so that no lease ends and nothing is proposed.
    let _entered = runtime.enter();
    let mut surroundings = Surroundings::system(Arc::clone(&clock) as Arc<dyn Clock>);
    surroundings.transport = Some(Arc::new(raft::NoTransport));
    surroundings.store.reserve_bytes = 0;
    let config = Config { wal_dir: wal_dir.map(Path::to_path_buf), ..Config::of(data_dir) };
    let (node, steps) = Node::start_stepped(config, surroundings)?;
    // A sole voter elects itself, which commits all of the log. Entries on the way may add voters.
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

/// A turn of everybody. Each batch is committed before the next one, since nobody else makes room in
/// the tail, in which apply waits for it, and a full disk must end this instead of hiding entries.
fn turn(node: &Node, steps: &Steps) -> Result<raft::Status, StartError> {
    steps.raft()?;
    while steps.log()? {}
    while steps.apply(usize::MAX).is_some() {
        node.0.machine.store.flush()?;
    }
    match node.0.supervisor.why() {
        Some(why) => Err(StartError::Unsettled(why)),
        None => Ok(steps.status()),
    }
}
