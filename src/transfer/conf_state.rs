//! Raft's configuration as the store keeps it, in etcd's JSON.

use serde::{Deserialize, Serialize};

use super::error::LoadError;
use crate::raft::ConfState;
use crate::store::Bucket;

/// A `ConfState` in etcd's JSON: empty lists are left out, `auto_leave` never is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StoredConfState {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    #[serde(default)]
    auto_leave: bool,
}

impl From<&ConfState> for StoredConfState {
    fn from(state: &ConfState) -> Self {
        Self {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            voters_outgoing: state.voters_outgoing.clone(),
            learners_next: state.learners_next.clone(),
            auto_leave: state.auto_leave,
        }
    }
}

impl StoredConfState {
    pub fn to_json(&self) -> Vec<u8> {
        // Cannot fail: numbers and lists always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn parse(json: &[u8]) -> Result<ConfState, LoadError> {
        let stored: Self = serde_json::from_slice(json).map_err(|error| LoadError::Malformed {
            table: Bucket::Meta.name(),
            what: format!("confState: {error}"),
        })?;
        Ok(ConfState {
            voters: stored.voters,
            learners: stored.learners,
            voters_outgoing: stored.voters_outgoing,
            learners_next: stored.learners_next,
            auto_leave: stored.auto_leave,
        })
    }
}

/// The ids of all voters and learners in a stored configuration, sorted.
pub fn ids_of_conf_state(json: &[u8]) -> Result<Vec<u64>, LoadError> {
    let state = StoredConfState::parse(json)?;
    let mut ids = state.voters;
    ids.extend(state.learners.iter().chain(&state.voters_outgoing).chain(&state.learners_next));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
