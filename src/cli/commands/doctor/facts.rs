//! What is known of a cluster, or of a directory. Gathering fills it in; checks read nothing else,
//! so a test plants a problem by changing a field.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::scrape::Metrics;
use crate::offline::Report;
use crate::pb::{AlarmType, StatusResponse};

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// This machine's clock, in seconds since 1970.
    pub now: i64,
    /// How `rusd` is called for this cluster: the flags that lead there, with a blank before each.
    /// Never a password or a token.
    pub flags: String,
    /// Those of them that do not say which members are asked.
    pub access: String,
    /// None if no cluster was asked.
    pub cluster: Option<Cluster>,
    pub certificates: Vec<Expiring>,
    /// None if no directory was looked at.
    pub directory: Option<Directory>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// Listed members in the order of the list, then endpoints that are none.
    pub members: Vec<Member>,
    /// Why there is no list of members; then the endpoints stand in its place.
    pub list_error: Option<String>,
    /// Active alarms by member id.
    pub alarms: Vec<(u64, AlarmType)>,
    pub auth: Auth,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    pub id: u64,
    /// Empty if the member never started.
    pub name: String,
    /// Whether the list of members has it.
    pub is_listed: bool,
    pub is_learner: bool,
    pub client_urls: Vec<String>,
    pub peer_urls: Vec<String>,
    /// The URL that answered, or the first one that did not.
    pub url: String,
    /// Why it does not answer; None if it does, or if it has no URL.
    pub unreached: Option<Unreached>,
    /// None if it does not answer, or tells only its metrics.
    pub status: Option<StatusResponse>,
    pub metrics: Option<Metrics>,
    /// How long a connection took.
    pub round_trip: Duration,
    /// How far its clock is ahead of this machine's, and how exact that is, in seconds.
    pub clock: Option<(f64, f64)>,
    /// Flags by name. Of a server that does not show its settings, those of its command line.
    pub settings: BTreeMap<String, i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Refused,
    UnknownHost,
    /// No connection came about.
    TimedOut,
    /// It takes connections, and answers nothing.
    Silent,
    /// The endpoint is dialled with TLS, and the server speaks plain text.
    PlainServer,
    /// The endpoint is dialled in plain text, and the server wants TLS.
    TlsServer,
    UnknownAuthority,
    Expired,
    WrongName,
    CertificateRequired,
    OtherTls,
    Login,
    /// Another member answers at its URLs.
    Stray,
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Unreached {
    pub why: Why,
    pub text: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Auth {
    #[default]
    Unknown,
    Off {
        users: usize,
    },
    On {
        has_root: bool,
        root_has_role: bool,
    },
    /// It is on, and the caller is not root.
    Hidden,
}

/// A certificate, and when it ends.
#[derive(Clone, Debug)]
pub(super) struct Expiring {
    /// What it is, such as `m1's client port`.
    pub what: String,
    /// In seconds since 1970.
    pub ends: i64,
}

/// What is next of a rebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RebuildStep {
    Replace,
    /// The start of the member with this name, whose old files are put aside.
    Start(String),
    Promote,
}

/// A data directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub path: PathBuf,
    pub state: State,
    /// None if it could not be read, or belongs to a running member.
    pub report: Option<Report>,
    /// Free bytes of its disk and all of them.
    pub disk: Option<(u64, u64)>,
    /// What is next of a rebuild that has not ended.
    pub rebuild: Option<RebuildStep>,
    /// Directories that an earlier rebuild has put aside.
    pub put_aside: Vec<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    AtRest,
    Missing,
    Empty,
    /// No data directory, but it lies in this one, or holds it.
    Near(PathBuf),
    Etcds,
    /// Another process has the lock; the text says which.
    Locked(String),
    Denied(String),
    /// Why it cannot be looked at.
    Unusable(String),
}

impl Member {
    pub(super) fn is_reached(&self) -> bool {
        self.status.is_some() || self.metrics.is_some()
    }

    pub(super) fn is_started(&self) -> bool {
        !self.name.is_empty() || !self.client_urls.is_empty()
    }

    /// Its name and id, or its URL.
    pub(super) fn shown(&self) -> String {
        match (self.id, self.name.as_str()) {
            (0, _) => format!("endpoint {}", self.url),
            (id, "") => format!("member {id:x}"),
            (id, name) => format!("{name} ({id:x})"),
        }
    }

    /// Whether it knows a leader; None if it does not say.
    pub(super) fn has_leader(&self) -> Option<bool> {
        let of_status = self.status.as_ref().map(|status| status.leader != 0);
        of_status.or_else(|| Some(self.metric("etcd_server_has_leader")? > 0.0))
    }

    pub(super) fn leads(&self) -> bool {
        match &self.status {
            Some(status) => status.leader != 0 && status.leader == self.id,
            None => self.metric("etcd_server_is_leader").is_some_and(|leads| leads > 0.0),
        }
    }

    /// The cluster that it says it is of.
    pub(super) fn cluster_id(&self) -> Option<u64> {
        Some(self.status.as_ref()?.header.as_ref()?.cluster_id)
    }

    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.as_ref()?.value(name)
    }

    pub(super) fn election_seconds(&self) -> f64 {
        self.settings.get("election-timeout").map_or(1.0, |millis| *millis as f64 / 1000.0)
    }
}

impl Cluster {
    pub(super) fn reached(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_reached())
    }

    /// The cluster that most of the listed members say they are of; of as many, the first.
    pub(super) fn id(&self) -> Option<u64> {
        let listed = self.members.iter().filter(|member| member.is_listed);
        let listed: Vec<u64> = listed.filter_map(Member::cluster_id).collect();
        let all: Vec<u64> = match listed.is_empty() {
            true => self.members.iter().filter_map(Member::cluster_id).collect(),
            false => listed,
        };
        let count = |id: &u64| all.iter().filter(|other| *other == id).count();
        let most = all.iter().map(count).max()?;
        all.iter().copied().find(|id| count(id) == most)
    }

    /// Whether a member says that it is of another cluster: it may have the id of one of this
    /// cluster's, and does not count for it.
    pub(super) fn is_foreign(&self, member: &Member) -> bool {
        member.cluster_id().is_some_and(|id| self.id() != Some(id))
    }

    /// Whether a member answers, and as one of this cluster.
    pub(super) fn is_here(&self, member: &Member) -> bool {
        member.is_reached() && !self.is_foreign(member)
    }

    /// Those of them that are of the cluster, as far as that is known.
    pub(super) fn own_reached(&self) -> impl Iterator<Item = &Member> {
        let has_list = self.list_error.is_none();
        let is_own = move |member: &&Member| member.is_listed || !has_list;
        self.members.iter().filter(|member| self.is_here(member)).filter(is_own)
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_listed && !member.is_learner)
    }

    /// Voters that a quorum needs.
    pub(super) fn needed(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    pub(super) fn voters_reached(&self) -> usize {
        self.voters().filter(|voter| self.is_here(voter)).count()
    }

    pub(super) fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.leads() && !self.is_foreign(member))
    }

    /// Whether a member that answers knows a leader.
    pub(super) fn has_leader(&self) -> bool {
        let here = self.members.iter().filter(|member| self.is_here(member));
        here.into_iter().any(|member| member.has_leader() == Some(true))
    }

    pub(super) fn by_id(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

impl Facts {
    /// A command for this cluster.
    pub(super) fn command(&self, words: &str) -> String {
        format!("rusd{} {words}", self.flags)
    }

    /// The members that answer.
    pub(super) fn reached(&self) -> impl Iterator<Item = &Member> {
        self.cluster.iter().flat_map(Cluster::reached)
    }
}
