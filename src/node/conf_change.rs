//! Log entries that change the membership, and whether an entry can be applied at all.

use prost::Message;

use crate::apply::{self, Command, Fatal};
use crate::members::{Change, Members};
use crate::raft::{ConfChange, Entry};

/// The numbers of etcd's ConfChangeType. The raft crate's enum has no UPDATE_NODE.
const ADD_NODE: i32 = 0;
const REMOVE_NODE: i32 = 1;
const UPDATE_NODE: i32 = 2;
const ADD_LEARNER_NODE: i32 = 3;

/// The change of the members that a configuration change in the log asks for. A malformed one is
/// `Fatal`: it is committed, so every member would have to apply it.
pub(super) fn parse_change(change: &ConfChange) -> Result<Change, Fatal> {
    let wanted = match change.change_type {
        ADD_NODE | ADD_LEARNER_NODE => Change::addition(&change.context)?,
        REMOVE_NODE => Change::Remove(change.node_id),
        UPDATE_NODE => Change::update(&change.context)?,
        other => return Err(Fatal::ConfChange(format!("its type is {other}"))),
    };
    if wanted.id() == change.node_id {
        Ok(wanted)
    } else {
        Err(Fatal::ConfChange("it names two members".into()))
    }
}

/// Applies a configuration change of the log to `members` and returns true, if the rules allow it.
/// For `--force-new-cluster`, which needs the result before apply has reached the entry.
pub(super) fn apply_to(members: &mut Members, change: &ConfChange) -> Result<bool, String> {
    let wanted = parse_change(change).map_err(|error| error.to_string())?;
    let is_valid = members.validate(&wanted).is_ok();
    if is_valid {
        members.change(&wanted);
    }
    Ok(is_valid)
}

/// The change as a log entry carries it.
pub(super) fn conf_change(request: u64, change: &Change) -> ConfChange {
    let change_type = match change {
        Change::Add(member) if member.is_learner => ADD_LEARNER_NODE,
        Change::Add(_) | Change::Promote(_) => ADD_NODE,
        Change::Remove(_) => REMOVE_NODE,
        Change::Update { .. } => UPDATE_NODE,
    };
    let (node_id, context) = (change.id(), change.context().into());
    ConfChange { id: request, change_type, node_id, context }
}

/// Whether an entry of the log can be applied, judged by its bytes alone. `Ok(true)` for a request
/// of API v2, which changes nothing.
pub fn check_entry(entry: &Entry) -> Result<bool, String> {
    let data = entry.data.clone();
    if entry.entry_type == 0 {
        let command = apply::check(data).map_err(|fatal| fatal.to_string())?;
        return Ok(matches!(command, Some(Command::V2(_))));
    }
    let change = <ConfChange as Message>::decode(data).map_err(|error| error.to_string())?;
    parse_change(&change).map(|_| false).map_err(|fatal| fatal.to_string())
}
