use std::borrow::Cow;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
};

pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle { change_type: change_type as i32, node_id }
}

/// Parses a list such as `v1 l2 r3`: make 1 a voter, 2 a learner, remove 3.
pub fn parse_conf_change(text: &str) -> Result<Vec<ConfChangeSingle>, String> {
    text.split_ascii_whitespace().map(parse_single).collect()
}

fn parse_single(token: &str) -> Result<ConfChangeSingle, String> {
    let mut rest = token.chars();
    let change_type = match rest.next() {
        Some('v') => ConfChangeType::AddNode,
        Some('l') => ConfChangeType::AddLearnerNode,
        Some('r') => ConfChangeType::RemoveNode,
        _ => return Err(format!("unknown token {token}")),
    };
    let node_id = rest.as_str().parse().map_err(|error| format!("token {token}: {error}"))?;
    Ok(new_conf_change_single(node_id, change_type))
}

/// The inverse of [`parse_conf_change`].
pub fn stringify_conf_change(changes: &[ConfChangeSingle]) -> String {
    let words: Vec<_> = changes
        .iter()
        .map(|change| {
            let letter = match change.get_change_type() {
                ConfChangeType::AddNode => 'v',
                ConfChangeType::AddLearnerNode => 'l',
                ConfChangeType::RemoveNode => 'r',
            };
            format!("{letter}{}", change.node_id)
        })
        .collect();
    words.join(" ")
}

/// Both forms of a configuration change as the newer one.
///
/// A change whose type `raft` does not know (etcd's UpdateNode changes a member's URLs and not the
/// configuration) becomes a change of node 0, which `raft` skips.
pub trait ConfChangeI {
    fn into_v2(self) -> ConfChangeV2;
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;
    /// The older form, if it is one.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        let single = ConfChangeSingle { change_type: self.change_type, node_id: self.node_id };
        ConfChangeV2 { transition: 0, changes: vec![single.known()], context: self.context }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(mut self) -> ConfChangeV2 {
        for change in &mut self.changes {
            *change = change.known();
        }
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        if self.changes.iter().all(|change| *change == change.known()) {
            Cow::Borrowed(self)
        } else {
            Cow::Owned(self.clone().into_v2())
        }
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeSingle {
    /// Itself, or the change of node 0 if `raft` does not know the type.
    fn known(&self) -> Self {
        match ConfChangeType::try_from(self.change_type) {
            Ok(_) => *self,
            Err(_) => new_conf_change_single(0, ConfChangeType::AddNode),
        }
    }
}

impl ConfChangeV2 {
    /// Whether this enters a joint configuration, and if so, whether it is left automatically.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.get_transition() {
            ConfChangeTransition::Explicit => Some(false),
            ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Auto if self.changes.len() > 1 => Some(true),
            ConfChangeTransition::Auto => None,
        }
    }

    /// Whether this leaves a joint configuration: it is empty but for the context.
    pub fn leave_joint(&self) -> bool {
        self.get_transition() == ConfChangeTransition::Auto && self.changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_changes_are_read_and_written() {
        let changes = parse_conf_change(" v1 l2  r3 ").unwrap();
        assert_eq!(changes[1], new_conf_change_single(2, ConfChangeType::AddLearnerNode));
        assert_eq!(stringify_conf_change(&changes), "v1 l2 r3");
        assert!(parse_conf_change("x1").is_err());
        assert!(parse_conf_change("v").is_err());
    }

    #[test]
    fn an_update_of_a_member_does_not_touch_the_configuration() {
        let update = ConfChange { change_type: 2, node_id: 7, ..ConfChange::default() };
        assert_eq!(update.as_v2().changes[0].node_id, 0);
        let both = ConfChangeV2 {
            changes: vec![
                ConfChangeSingle { change_type: 2, node_id: 7 },
                new_conf_change_single(8, ConfChangeType::AddLearnerNode),
            ],
            ..ConfChangeV2::default()
        };
        let ids: Vec<_> = both.as_v2().changes.iter().map(|change| change.node_id).collect();
        assert_eq!(ids, [0, 8]);
    }
}
