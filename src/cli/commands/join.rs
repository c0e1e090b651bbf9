//! `join`: prepares the data directory of a member before its server starts, in an init container
//! or a unit's `ExecStartPre=`, where nobody looks at the list of members first.
//!
//! ```text
//! the directory holds a member ──────────────► nothing to do
//! no endpoint answers ── first member? ──────► nothing to do: the first cluster starts
//!                           └─ else ─────────► an error: wait for the cluster, and run again
//! listed, never started ─────────────────────► note its id
//! listed, has run ── --replace? ─────────────► remove it, add a new one, note its id
//!                           └─ else ─────────► an error: its data is lost
//! not listed ────────────────────────────────► add it, note its id
//! ```
//!
//! The note is that of `rebuild`: a server that finds it beside no log joins as the member that it
//! names, whatever its flags say about a first start. Every step looks at the list again, so the
//! command may be interrupted and repeated.
//!
//! A member that has run and lost its data gets a new id. Its old one may have voted, and have
//! acknowledged entries that its disk has lost, and the others must not count on these.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tonic::Code;

use super::at_rest::patiently;
use super::endpoint::single;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::{Client, Config, Error, rpc};
use crate::offline::{Rebuild, owner};
use crate::pb::{
    Member, MemberAddRequest, MemberListRequest, MemberRemoveRequest, StatusRequest, StatusResponse,
};
use crate::store;

/// Attempts to add the member while the leader refuses: it counts a member as healthy once that has
/// been connected for five seconds, and takes one change at a time.
const ADD_ATTEMPTS_MAX: u32 = 60;
const ADD_RETRY: Duration = Duration::from_millis(500);
/// Refusals that pass by themselves.
const PASSING: [&str; 2] = [
    "etcdserver: unhealthy cluster",
    "etcdserver: re-configuration failed due to not enough started members",
];

struct Join<'a> {
    context: &'a Context,
    config: Config,
    data_dir: PathBuf,
    name: String,
    peer_urls: Vec<String>,
}

/// What an endpoint says of its cluster.
struct Told {
    client: Client,
    cluster_id: u64,
    members: Vec<Member>,
}

/// Whether an error says nothing but that nobody could answer. A server that wants TLS, or a login,
/// is somebody.
fn is_silence(error: &Error) -> bool {
    match error {
        Error::Unreachable(all) => all.iter().all(|endpoint| endpoint.cause.may_pass()),
        error if error.is_silence() => true,
        error => matches!(error.code(), Some(Code::Unavailable | Code::DeadlineExceeded)),
    }
}

pub(super) async fn run(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("join takes no arguments"));
    }
    let data_dir = context.flags.path("data-dir").map(PathBuf::from).unwrap_or_default();
    // An error is no answer: a disk that cannot be read may hold a member.
    let member = data_dir.join("member");
    let is_there = member.try_exists().map_err(|error| {
        Failure::error(format!("{}: {}", member.display(), crate::go::reason(&error)))
    })?;
    if is_there {
        forget_note(&data_dir)?;
        let text = format!("{} holds a member, which starts as it is", data_dir.display());
        context.printer.line(text);
        return Ok(());
    }
    if !context.flags.changed("endpoints") {
        let text = "join requires --endpoints: client URLs of the other members";
        return Err(Failure::arguments(text));
    }
    let config = context.config().await?;
    let name = context.flags.string("name").to_owned();
    let peer_urls = context.flags.strings("peer-urls");
    Join { context: &context, config, data_dir, name, peer_urls }.run().await
}

/// Removes the note of an earlier run once its member has a log. It would tell a server that has
/// lost that log to join under the same id.
fn forget_note(data_dir: &Path) -> Outcome {
    let note = Rebuild::read(data_dir).map_err(Failure::error)?;
    let owner = owner(data_dir, None).map(|(id, _)| id);
    match note {
        Some(note) if note.is_voter && note.new_id == owner => {
            Rebuild::remove(data_dir).map_err(Failure::error)
        }
        _ => Ok(()),
    }
}

impl Join<'_> {
    async fn run(&self) -> Outcome {
        let Some(told) = self.ask().await? else { return self.alone() };
        let mut dir = DirBuilder::new();
        dir.recursive(true).mode(0o700).create(&self.data_dir).map_err(|error| {
            Failure::error(format!("{} cannot be made: {error}", self.data_dir.display()))
        })?;
        let lock = patiently(self.context, || Ok(store::lock(&self.data_dir)?))?;
        let own = told.members.iter().find(|member| self.is_own(member));
        let (old_id, new_id) = match own {
            Some(own) if own.client_ur_ls.is_empty() => {
                self.say(format!("Member {:x} is in the cluster and has not started", own.id));
                (0, own.id)
            }
            Some(own) => {
                self.check_lost(&told, own).await?;
                let request = MemberRemoveRequest { id: own.id };
                let deadline = self.context.deadline();
                told.client.call(&rpc::MEMBER_REMOVE, request, deadline).await?;
                self.say(format!("Removed member {:x}, whose data is lost", own.id));
                (own.id, self.add(&told.client).await?)
            }
            None => (0, self.add(&told.client).await?),
        };
        let others = told.members.iter().filter(|member| !self.is_own(member));
        let note = Rebuild {
            cluster_id: told.cluster_id,
            old_id,
            name: self.name.clone(),
            peer_urls: self.peer_urls.clone(),
            others: others.flat_map(|member| member.peer_ur_ls.clone()).collect(),
            new_id: Some(new_id),
            is_voter: true,
        };
        note.write(&self.data_dir).map_err(Failure::error)?;
        drop(lock);
        self.say(format!("{} joins as member {new_id:x} when its server starts", self.name));
        Ok(())
    }

    fn say(&self, text: impl AsRef<str>) {
        self.context.printer.line(text);
    }

    fn is_own(&self, member: &Member) -> bool {
        member.peer_ur_ls.iter().any(|url| self.peer_urls.contains(url))
    }

    /// Asks all endpoints at once, and returns the first list that a quorum confirms; None if there is
    /// none. Fails if a member refuses to say: that is no reason to start a cluster.
    async fn ask(&self) -> Result<Option<Told>, Failure> {
        let asked = self.config.endpoints.iter().map(async |endpoint| {
            let client = match self.context.connect(single(&self.config, endpoint)).await {
                Err(Failure { cause: Some(error), .. }) if is_silence(&error) => return Ok(None),
                client => client?,
            };
            let request = MemberListRequest { linearizable: true };
            let deadline = self.context.deadline();
            let list = match client.call(&rpc::MEMBER_LIST, request, deadline).await {
                Err(error) if is_silence(&error) => return Ok(None),
                list => list?,
            };
            let cluster_id = list.header.unwrap_or_default().cluster_id;
            Ok(Some(Told { client, cluster_id, members: list.members }))
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut refusal = None;
        while let Some(told) = asked.next().await {
            match told {
                Ok(None) => {}
                Ok(told) => return Ok(told),
                Err(failure) => refusal = Some(failure),
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    /// No cluster answers. Only a member of the first one may go on: it is the server's to find out
    /// that the others know it from before.
    fn alone(&self) -> Outcome {
        let first = self.context.flags.string("initial-cluster").split(',');
        if first.filter_map(|named| named.split_once('=')).any(|(name, _)| name == self.name) {
            self.say(format!(
                "No cluster answers; {} starts as a member of the first one",
                self.name
            ));
            return Ok(());
        }
        Err(Failure::error(format!(
            "no cluster with a leader answers at {}, and {} is not in --initial-cluster, which may \
             start without one; start the other members, and run this again",
            self.config.endpoints.join(","),
            self.name
        )))
    }

    /// Fails unless this member's loss is known, wanted, and bearable: it does not run elsewhere, and
    /// a quorum of the present voters is healthy without it.
    async fn check_lost(&self, told: &Told, own: &Member) -> Outcome {
        let directory = self.data_dir.display();
        if !self.context.flags.bool("replace") {
            return Err(Failure::error(format!(
                "member {:x} ({}) has run before, and {directory} holds no data of it; if the \
                 directory is the wrong one, give the right one, and if the data is lost, add \
                 --replace: a new member then takes its place",
                own.id, own.name
            )));
        }
        if !self.statuses_of(own).await.is_empty() {
            return Err(Failure::error(format!(
                "member {:x} ({}) is running, so {directory} is not its directory; nothing was \
                 changed",
                own.id, own.name
            )));
        }
        let voters: Vec<_> = told.members.iter().filter(|member| !member.is_learner).collect();
        let others = voters.iter().filter(|voter| voter.id != own.id);
        let healthy = join_all(others.map(|voter| self.is_healthy(voter))).await;
        let (healthy, needed) = (healthy.iter().filter(|it| **it).count(), voters.len() / 2 + 1);
        if healthy >= needed || own.is_learner {
            return Ok(());
        }
        Err(Failure::error(format!(
            "without member {:x} only {healthy} of {} voters are healthy, and {needed} are needed; \
             nothing was changed. Bring the other members back first, or restore a backup",
            own.id,
            voters.len()
        )))
    }

    async fn is_healthy(&self, member: &Member) -> bool {
        self.statuses_of(member).await.iter().any(|status| status.leader != 0)
    }

    /// What this member answers at its client URLs; others may answer there as well.
    async fn statuses_of(&self, member: &Member) -> Vec<StatusResponse> {
        let asked = member.client_ur_ls.iter().map(async |url| {
            let client = self.context.connect(single(&self.config, url)).await.ok()?;
            let deadline = self.context.deadline();
            client.call(&rpc::STATUS, StatusRequest::default(), deadline).await.ok()
        });
        let is_own = |status: &StatusResponse| {
            status.header.as_ref().is_some_and(|header| header.member_id == member.id)
        };
        join_all(asked).await.into_iter().flatten().filter(is_own).collect()
    }

    /// Adds this member as a voter. A learner would wait for somebody to promote it.
    async fn add(&self, client: &Client) -> Result<u64, Failure> {
        let request = MemberAddRequest { peer_ur_ls: self.peer_urls.clone(), is_learner: false };
        let mut attempts = 1;
        let added = loop {
            let deadline = self.context.deadline();
            match client.call(&rpc::MEMBER_ADD, request.clone(), deadline).await {
                Err(error)
                    if PASSING.iter().any(|text| error.is(text)) && attempts < ADD_ATTEMPTS_MAX =>
                {
                    attempts += 1;
                    tokio::time::sleep(ADD_RETRY).await;
                }
                added => break added?,
            }
        };
        let id = added.member.unwrap_or_default().id;
        self.say(format!("Added member {id:x}, with the peer URLs {}", self.peer_urls.join(",")));
        Ok(id)
    }
}
