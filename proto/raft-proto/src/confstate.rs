use std::collections::BTreeSet;

use crate::eraftpb::ConfState;

/// Whether both describe the same configuration, whatever the order of the ids.
#[must_use]
pub fn conf_state_eq(left: &ConfState, right: &ConfState) -> bool {
    fn same(left: &[u64], right: &[u64]) -> bool {
        left == right
            || left.iter().collect::<BTreeSet<_>>() == right.iter().collect::<BTreeSet<_>>()
    }
    same(&left.voters, &right.voters)
        && same(&left.learners, &right.learners)
        && same(&left.voters_outgoing, &right.voters_outgoing)
        && same(&left.learners_next, &right.learners_next)
        && left.auto_leave == right.auto_leave
}
