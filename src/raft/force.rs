//! Makes a cluster of one out of a member whose other members are lost for good.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType, HardState};

use super::log::{self, Batch, Disk};
use super::store::Store;
use super::{Config, Error};
use crate::limits;

const ADD_NODE: i32 = ConfChangeType::AddNode as i32;
const REMOVE_NODE: i32 = ConfChangeType::RemoveNode as i32;
const ADD_LEARNER_NODE: i32 = ConfChangeType::AddLearnerNode as i32;

/// Appends the removal of all other members to the log of one that is not running, and declares the
/// whole log committed. Entries that this member has received, but does not know to be committed,
/// stay: the others may have committed and acknowledged them. Returns the ids of the members that
/// are removed.
///
/// `takes` says by apply's rules whether a configuration change in the log that is not applied will
/// take effect. It is called for each of them, in log order.
///
/// A learner is refused with [`Error::NoVote`].
pub fn force_alone(
    config: &Config,
    disk: &Arc<dyn Disk>,
    mut takes: impl FnMut(&ConfChange) -> Result<bool, String>,
) -> Result<Vec<u64>, Error> {
    let options = log::Options { fill_ahead: false, ..config.log };
    let (mut writer, reader, recovered) = log::open(disk, &config.dir, options)?;
    let (last, mut hard_state) = (recovered.table.last_index(), recovered.hard_state);
    let term = hard_state.term.max(recovered.table.last_term());
    writer.rewrite(recovered.table.place(config.applied))?;
    let state = config.conf_state.clone();
    let mut voters: BTreeSet<u64> = state.voters.iter().copied().collect();
    let mut others: BTreeSet<u64> = voters.iter().chain(&state.learners).copied().collect();
    let store = Store::new(recovered.table, HardState::default(), state, Some(reader));
    let mut next = config.applied + 1;
    while next <= last {
        let entries = store.read(next, last + 1, limits::LOG_READ_BYTES)?;
        for entry in &entries {
            next = entry.index + 1;
            if entry.get_entry_type() == EntryType::EntryConfChange {
                let failed = |what| Error::Entry { index: entry.index, what };
                let change = ConfChange::decode(entry.data.clone());
                let change = change.map_err(|error| failed(error.to_string()))?;
                if takes(&change).map_err(failed)? {
                    apply_change(&change, &mut voters, &mut others);
                }
            }
        }
    }
    // A learner alone could never commit anything again, not even its own promotion.
    if !voters.contains(&config.id) {
        return Err(Error::NoVote(config.id));
    }
    others.remove(&config.id);
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let removals = others.iter().zip(last + 1..);
    let removals = removals.map(|(id, index)| {
        let mut change = ConfChange { node_id: *id, ..ConfChange::default() };
        change.set_change_type(ConfChangeType::RemoveNode);
        let data = Bytes::from(change.encode_to_vec());
        let mut entry = Entry { term, index, data, ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChange);
        entry
    });
    let entries: Vec<Entry> = removals.collect();
    hard_state.term = term;
    hard_state.commit = last + entries.len() as u64;
    writer.append(&Batch { snapshot: None, entries, hard_state: Some(hard_state) })?;
    writer.write()?;
    writer.sync()?;
    Ok(others.into_iter().collect())
}

/// Applies a configuration change to the ids of the voters, and to those of all members.
fn apply_change(change: &ConfChange, voters: &mut BTreeSet<u64>, all: &mut BTreeSet<u64>) {
    match change.change_type {
        ADD_NODE if change.node_id != 0 => {
            voters.insert(change.node_id);
            all.insert(change.node_id);
        }
        ADD_LEARNER_NODE => {
            all.insert(change.node_id);
        }
        REMOVE_NODE => {
            voters.remove(&change.node_id);
            all.remove(&change.node_id);
        }
        _ => {}
    }
}
