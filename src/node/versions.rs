//! The cluster's version: the lowest release of its members, or during a downgrade the release
//! before that.

use std::time::Duration;

use super::{Error, Node, Op, VERSION};
use crate::apply::RELEASE;
use crate::auth::{Credentials, Demand};
use crate::limits;
use crate::metrics;
use crate::pb::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use crate::raft::Via;
use crate::trace::Context;
use crate::types::Version;

/// The interval at which etcd's leader compares the members' versions.
const VERSION_INTERVAL: Duration = Duration::from_secs(4);

/// etcd's version of a cluster whose members have not all answered yet.
const UNKNOWN: Version = Version::new(3, 0);

/// An operator's request about a downgrade by one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downgrade {
    Validate(String),
    Enable(String),
    Cancel,
}

/// The version that the cluster should get, None if it has it. It rises to the lowest of its
/// members' releases. It falls only to a downgrade target one release below both. While no version
/// is set and a member does not answer, it is `UNKNOWN`.
fn decide(
    current: Option<Version>,
    lowest: Option<Version>,
    target: Option<Version>,
) -> Option<Version> {
    let Some(current) = current else { return Some(lowest.unwrap_or(UNKNOWN)) };
    let lowest = lowest?;
    match target {
        Some(target) if target == current => None,
        Some(target) if current.before() == Some(target) && lowest.before() == Some(target) => {
            Some(target)
        }
        Some(target) => {
            tracing::error!(
                "downgrade-target" = target.short(),
                "cluster-version" = current.short(),
                "minimal-server-version" = lowest.short(),
                "Cannot downgrade from cluster-version to downgrade-target"
            );
            None
        }
        None => (current < lowest && current.major == lowest.major).then_some(lowest),
    }
}

impl Node {
    /// While this member leads, proposes the cluster version that `decide` finds, every four
    /// seconds.
    pub(super) async fn agree_on_version(&self) {
        let mut ready = self.ready();
        if ready.wait_for(|ready| *ready).await.is_err() {
            return;
        }
        loop {
            if self.is_leader()
                && let Some(version) = self.due_version().await
            {
                let ver = version.to_string();
                tracing::info!("cluster-version" = ver, "updating cluster version using v3 API");
                let set = Op::ClusterVersionSet(ClusterVersionSetRequest { ver });
                if let Err(error) = self.propose_own(set).await {
                    tracing::warn!(%error, "failed to update cluster version");
                }
            }
            if let Some(version) = self.0.machine.members.read().cluster_version() {
                metrics::set_cluster_version(&version.short());
            }
            self.0.clock.sleep(VERSION_INTERVAL).await;
        }
    }

    async fn due_version(&self) -> Option<Version> {
        let (current, target) = {
            let members = self.0.machine.members.read();
            (members.cluster_version(), members.downgrade().target())
        };
        if current == Some(RELEASE) && target.is_none() {
            return None;
        }
        let told = self.members_versions().await;
        let lowest =
            told.into_iter().try_fold(RELEASE, |lowest, (_, told)| Some(lowest.min(told?)));
        decide(current, lowest, target)
    }

    /// The releases that the other members report; None for a member that does not answer.
    async fn members_versions(&self) -> Vec<(u64, Option<Version>)> {
        let inner = &self.0;
        let members = self.members();
        let others = members.iter().filter(|member| member.id != inner.member_id);
        let asked = others.map(|member| async {
            let limit = limits::ASK_LEADER_TIMEOUT;
            let version = async {
                let answered =
                    inner.known_peers.reach.ask(member.id, "/version", None, limit).await?;
                let versions: serde_json::Value = serde_json::from_slice(&answered.body).ok()?;
                Version::parse(versions.get("etcdserver")?.as_str()?)
            };
            (member.id, version.await)
        });
        futures_util::future::join_all(asked).await
    }

    /// Ends a downgrade once every member runs the target release.
    pub(super) async fn watch_downgrade(&self) {
        let interval = self.0.config.downgrade_check_interval;
        if interval.is_zero() {
            return;
        }
        loop {
            self.0.clock.sleep(interval).await;
            let target = self.0.machine.members.read().downgrade().target();
            let Some(target) = target.filter(|_| self.is_leader()) else { continue };
            if self.all_run(target).await {
                tracing::info!(
                    "cluster-version" = target.short(),
                    "the cluster has been downgraded"
                );
                if let Err(error) = self.cancel_downgrade(&Context::Nothing).await {
                    tracing::warn!(%error, "failed to cancel downgrade");
                }
            }
        }
    }

    async fn all_run(&self, target: Version) -> bool {
        let mut told = self.members_versions().await;
        told.push((self.0.member_id, Version::parse(VERSION)));
        let other = told.into_iter().find(|(_, version)| *version != Some(target));
        if let Some((id, Some(version))) = other {
            tracing::warn!(
                "remote-member-id" = format!("{id:x}"),
                "current-server-version" = version.to_string(),
                "target-version" = target.to_string(),
                "remotes server has mismatching etcd version"
            );
        }
        other.is_none()
    }

    /// Validates, enables or cancels a downgrade; returns the cluster's version.
    pub async fn downgrade(&self, who: &Credentials, asked: Downgrade) -> Result<Version, Error> {
        self.permits(who, &Demand::Root).await?;
        let outcome = match &asked {
            Downgrade::Validate(text) => return self.validate_downgrade(text).await.map(|it| it.0),
            Downgrade::Enable(text) => self.enable_downgrade(text, who.span()).await,
            Downgrade::Cancel => {
                // As in etcd, a client gets no error if there was nothing to cancel.
                if let Err(error) = self.cancel_downgrade(who.span()).await {
                    tracing::warn!(%error, "failed to cancel downgrade");
                }
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "reject downgrade request");
            return Err(error);
        }
        let version = self.0.machine.members.read().cluster_version();
        version.ok_or(Error::ClusterVersionUnavailable)
    }

    /// The cluster's version as read before the barrier, as etcd shows it, and the target.
    async fn validate_downgrade(&self, text: &str) -> Result<(Version, Version), Error> {
        let target = Version::parse(text).ok_or(Error::WrongDowngradeVersionFormat)?;
        let shown = self.0.machine.members.read().cluster_version();
        let shown = shown.ok_or(Error::ClusterVersionUnavailable)?;
        self.barrier().await?;
        let members = self.0.machine.members.read();
        if members.cluster_version().and_then(Version::before) != Some(target) {
            return Err(Error::InvalidDowngradeTargetVersion);
        }
        if members.downgrade().enabled {
            return Err(Error::DowngradeInProcess);
        }
        Ok((shown, target))
    }

    async fn enable_downgrade(&self, text: &str, span: &Context) -> Result<(), Error> {
        let (_, target) = self.validate_downgrade(text).await?;
        let set = DowngradeInfoSetRequest { enabled: true, ver: target.to_string() };
        self.set_downgrade(set, span).await
    }

    async fn cancel_downgrade(&self, span: &Context) -> Result<(), Error> {
        self.barrier().await?;
        if !self.is_downgrading() {
            return Err(Error::NoInflightDowngrade);
        }
        let set = DowngradeInfoSetRequest::default();
        self.set_downgrade(set, span).await
    }

    async fn set_downgrade(
        &self,
        set: DowngradeInfoSetRequest,
        span: &Context,
    ) -> Result<(), Error> {
        let set = Op::DowngradeInfoSet(set);
        self.submit(&self.own_identity(), set, Via::AnyLeader, span).await.map(drop)
    }

    /// Whether a downgrade is under way, as far as this member has applied.
    pub fn is_downgrading(&self) -> bool {
        self.0.machine.members.read().downgrade().enabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_version_follows_its_members_and_a_downgrade() {
        let at = |minor| Some(Version::new(3, minor));
        for (current, lowest, target, due) in [
            (None, None, None, at(0)),
            (None, at(7), None, at(7)),
            (at(0), None, None, None),
            (at(0), at(7), None, at(7)),
            (at(6), at(7), None, at(7)),
            (at(7), at(6), None, None),
            (at(7), at(7), at(6), at(6)),
            (at(6), at(7), at(6), None),
            (at(7), None, at(6), None),
            (at(7), at(7), at(5), None),
            (at(7), at(6), at(6), None),
            (Some(Version::new(2, 9)), at(7), None, None),
        ] {
            assert_eq!(decide(current, lowest, target), due, "{current:?} {lowest:?} {target:?}");
        }
    }
}
