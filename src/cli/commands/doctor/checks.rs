//! The table of checks. A check is a pure function from facts to findings, in the file of its
//! subject; a new one is a line here. Of equal severity, the order is that of what is said.

mod certificates;
mod cluster;
mod directory;
mod machine;
mod members;
mod reach;
mod space;
mod speed;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use super::finding::Finding;

pub(super) struct Check {
    /// The name in JSON.
    pub name: &'static str,
    pub judge: fn(&Facts) -> Vec<Finding>,
}

macro_rules! checks {
    ($($name:literal $judge:expr;)*) => {
        pub(super) const CHECKS: &[Check] = &[$(Check { name: $name, judge: $judge },)*];
    };
}

checks! {
    "quorum-lost" cluster::quorum;
    "no-leader" cluster::leader;
    "alarm-corrupt" cluster::corrupt;
    "alarm-nospace" cluster::nospace;
    "member-list" reach::list;
    "unreachable" reach::members;
    "no-margin" cluster::margin;
    "cluster-id" cluster::ids;
    "auth" cluster::auth;
    "never-started" members::unstarted;
    "learner" members::learners;
    "versions" members::versions;
    "flags" members::flags;
    "lag" members::lag;
    "damaged-member" members::damaged;
    "sync-latency" speed::sync;
    "round-trip" speed::round_trip;
    "leader-changes" speed::leader_changes;
    "clock-skew" speed::clocks;
    "quota" space::quota;
    "quota-pace" space::pace;
    "fragmentation" space::fragmentation;
    "disk" space::disk;
    "certificates" certificates::ends;
    "open-files" machine::open_files;
    "memory" machine::memory;
    "backup" machine::backup;
    "directory" directory::state;
    "directory-damage" directory::damage;
    "directory-auth" directory::auth;
    "directory-cluster" directory::of_cluster;
    "directory-disk" directory::disk;
    "directory-rebuild" directory::rebuild;
}

/// All findings with the names of their checks, the worst first.
pub(super) fn judge(facts: &Facts) -> Vec<(&'static str, Finding)> {
    let named = |check: &Check| {
        let found = (check.judge)(facts).into_iter();
        found.map(|finding| (check.name, finding)).collect::<Vec<_>>()
    };
    let mut findings: Vec<_> = CHECKS.iter().flat_map(named).collect();
    findings.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
    findings
}
