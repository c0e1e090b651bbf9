//! `rebuild`: takes a stopped, damaged member out of its cluster and puts a new one in its place,
//! which gets everything from the others.
//!
//! ```text
//!   note what is planned ─► remove the old member ─► add a learner at the same URLs
//!     ─► move the damaged files aside ─► (the operator starts the server) ─► promote
//! ```
//!
//! Each step first looks whether it was done, so that the command can be given again after any
//! interruption. The new member has another id: the old one may have acknowledged entries or votes
//! that its disk has lost, and the others must not count on these.
//!
//! Without a directory, as after the loss of a disk, the list of members alone says how far an
//! earlier attempt got (`lost`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tonic::Code;

use super::at_rest::{LOCK_RETRY, failure};
use super::endpoint::single;
use super::growth;
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::printer::{OnSignal, Progress, Unit};
use crate::cli::shell::quoted;
use crate::cli::size;
use crate::client::{self, Cause, Client, Config, Deadline, rpc};
use crate::go;
use crate::offline::{Error, Rebuild, RebuildProgress, owner, put_aside};
use crate::pb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    StatusRequest, StatusResponse,
};
use crate::store;

/// Interval between attempts to promote the new member.
const PROMOTE_RETRY: Duration = Duration::from_secs(1);
/// Attempts to add the new member while the cluster is "unhealthy". The leader counts a member as
/// healthy once it has been connected for five seconds, and the others may have restarted as well.
const ADD_ATTEMPTS_MAX: u32 = 30;
/// What a disk and a network of today copy in a second, for an estimate.
const COPY_BYTES_PER_SECOND: u64 = 50_000_000;
const ADD_RETRY: Duration = Duration::from_millis(500);

mod again;
mod lost;
mod peer;
#[cfg(test)]
mod tests;

/// What a look at the cluster without the member that is to go has found.
struct Quorum {
    voters: usize,
    /// Those that are healthy without the member.
    healthy: usize,
    needed: usize,
    /// The largest of their stores.
    store_bytes: u64,
}

struct Command<'a> {
    context: &'a Context,
    config: Config,
    client: Client,
    data_dir: PathBuf,
    wal_dir: Option<PathBuf>,
}

pub(super) async fn run(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("rebuild takes no arguments"));
    }
    let path = |name| context.flags.path(name);
    let (data_dir, wal_dir) =
        (path("data-dir").map(PathBuf::from), path("wal-dir").map(PathBuf::from));
    let data_dir = data_dir.unwrap_or_default();
    let is_lost = data_dir.as_os_str().is_empty();
    if is_lost && context.flags.string("member").is_empty() {
        let text = "rebuild requires --data-dir, or --member ID or NAME if the disk is lost";
        return Err(Failure::arguments(text));
    }
    // A missing directory is accepted with --member: the whole disk may be lost.
    if !is_lost && !data_dir.is_dir() && context.flags.string("member").is_empty() {
        let text = format!(
            "{}: no such directory; if it is lost, name the member with --member ID",
            data_dir.display()
        );
        return Err(Failure::error(text));
    }
    if !context.flags.changed("endpoints") {
        let text = "rebuild requires --endpoints: client URLs of the healthy members; \
                    ETCDCTL_ENDPOINTS is not taken, since it may name the one to be rebuilt";
        return Err(Failure::arguments(text));
    }
    let config = context.config().await?;
    let client = context.connect(config.clone()).await?;
    let command = Command { context: &context, config, client, data_dir, wal_dir };
    if is_lost { command.run_without_directory().await } else { command.run().await }
}

impl Command<'_> {
    async fn run(&self) -> Outcome {
        let patience = self.context.deadline();
        let lock = loop {
            if let Some((plan, is_started)) = self.replaced().await? {
                let new_id = plan.new_id.unwrap_or_default();
                if !is_started {
                    self.advise(&plan, new_id);
                }
                return self.end(new_id).await;
            }
            match store::lock(&self.data_dir).map_err(Error::from) {
                Err(error) if error.is_in_use() && self.is_well().await? => return Ok(()),
                // The new member's server has the lock before it has a log that says whose it is.
                Err(error) if error.is_in_use() && !patience.passed() => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                lock => break lock.map_err(|error| failure(self.context, &error))?,
            }
        };
        let (cluster_id, members) = self.members().await?;
        let mut plan = self.plan(cluster_id, &members)?;
        if let Some(old) = members.iter().find(|member| member.id == plan.old_id) {
            self.may_remove(&plan, old, &members).await?;
            plan.write(&self.data_dir).map_err(Failure::error)?;
            self.remove(&plan).await?;
        }
        let new_id = self.add(&mut plan).await?;
        self.put_aside(&plan, new_id)?;
        drop(lock);
        self.advise(&plan, new_id);
        self.end(new_id).await
    }

    /// Looks whether the member may be removed, and asks. A person may take long to answer, and the
    /// member may be back by then.
    async fn may_remove(&self, plan: &Rebuild, old: &Member, members: &[Member]) -> Outcome {
        self.refuse_running(plan, old).await?;
        let quorum = self.check_quorum(plan, members).await?;
        self.say(format!(
            "{} of {} voters are healthy without member {:x}; {} are needed",
            quorum.healthy, quorum.voters, plan.old_id, quorum.needed
        ));
        self.explain(plan, members, quorum.store_bytes);
        self.confirm(plan)?;
        if confirm::asks(self.context) {
            self.refuse_running(plan, old).await?;
            let (_, members) = self.members().await?;
            self.check_quorum(plan, &members).await?;
        }
        Ok(())
    }

    /// Says in plain words what is about to happen, and for how long.
    fn explain(&self, plan: &Rebuild, members: &[Member], store_bytes: u64) {
        let Rebuild { old_id, name, .. } = plan;
        let voters = members.iter().filter(|it| !it.is_learner && it.id != *old_id).count();
        let spare = voters.saturating_sub(voters / 2 + 1);
        let more = match spare {
            0 => "none of them may fail".to_owned(),
            spare => format!("{spare} more of them may fail"),
        };
        let seconds = store_bytes.div_ceil(COPY_BYTES_PER_SECOND).max(1);
        self.say(format!(
            "Member {old_id:x} ({name}) is taken out of the cluster, and a new, empty one is added at \
             {}. Once you have started it, it copies {} from the others, which takes some {} at 50 \
             MB/s, and then it gets its vote. The others serve all the while; until the end {more}.",
            plan.peer_urls.join(","),
            size::shown(store_bytes),
            if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
        ));
    }

    fn confirm(&self, plan: &Rebuild) -> Outcome {
        let Rebuild { old_id, name, .. } = plan;
        let kept = match self.data_dir.as_os_str().is_empty() {
            true => "What its disk holds is not used any more.",
            false => "Its files are moved aside and kept.",
        };
        let what = format!("This removes member {old_id:x} ({name}) for good. {kept}");
        confirm::confirm(self.context, what)
    }

    async fn end(&self, new_id: u64) -> Outcome {
        if self.context.flags.bool("no-wait") {
            // The plan in the directory ends with the command that made it.
            self.say(match self.data_dir.as_os_str().is_empty() {
                true => format!("When it has caught up: rusd member promote {new_id:x}"),
                false => "When it has started, give this command again without --no-wait: that \
                          gives it its vote"
                    .to_owned(),
            });
            return Ok(());
        }
        self.promote(new_id).await?;
        match self.data_dir.as_os_str().is_empty() {
            true => Ok(()),
            false => Rebuild::remove(&self.data_dir).map_err(Failure::error),
        }
    }

    /// The plan of an earlier attempt, if only the start or the promotion of the new member is
    /// left, and whether the member has been started. In this state the caller must not lock the
    /// directory: the server may be starting, and needs the lock.
    async fn replaced(&self) -> Result<Option<(Rebuild, bool)>, Failure> {
        let Some(plan) = Rebuild::read(&self.data_dir).map_err(Failure::error)? else {
            return Ok(None);
        };
        let is_started = match plan.progress(&self.data_dir, self.wal_dir()) {
            RebuildProgress::Begun => return Ok(None),
            RebuildProgress::PutAside => false,
            RebuildProgress::Started => true,
        };
        let (_, members) = self.members().await?;
        self.refuse_other(&plan, &members)?;
        // One that has run and has no log has lost what it acknowledged: it may not start again.
        let may_start = |member: &Member| is_started || member.client_ur_ls.is_empty();
        let is_new = |member: &Member| {
            Some(member.id) == plan.new_id && member.is_learner && may_start(member)
        };
        Ok(members.iter().any(is_new).then_some((plan, is_started)))
    }

    /// On a terminal sentences are broken between words; what has several lines has commands.
    fn say(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        match text.contains('\n') {
            true => self.context.printer.line(text),
            false => self.context.printer.sentences(text),
        }
    }

    fn wal_dir(&self) -> Option<&Path> {
        self.wal_dir.as_deref()
    }

    /// The id and the members of the cluster. Without a quorum the list is a single member's, which
    /// is enough for `check_quorum` to refuse.
    async fn members(&self) -> Result<(u64, Vec<Member>), Failure> {
        match self.listed(true).await {
            Ok(list) => Ok(list),
            Err(_) => Ok(self.listed(false).await?),
        }
    }

    async fn listed(&self, linearizable: bool) -> Result<(u64, Vec<Member>), client::Error> {
        let request = MemberListRequest { linearizable };
        let deadline = self.context.deadline();
        let list = self.client.call(&rpc::MEMBER_LIST, request, deadline).await?;
        Ok((list.header.unwrap_or_default().cluster_id, list.members))
    }

    /// The plan of an earlier attempt, or a new one for the directory's member.
    fn plan(&self, cluster_id: u64, members: &[Member]) -> Result<Rebuild, Failure> {
        let owner = owner(&self.data_dir, self.wal_dir());
        if let Some(plan) = Rebuild::read(&self.data_dir).map_err(Failure::error)?
            && !is_over(&plan, owner.map(|(id, _)| id), members)
        {
            same_cluster(plan.cluster_id, cluster_id)?;
            self.refuse_other(&plan, members)?;
            return Ok(plan);
        }
        let named = self.context.flags.string("member");
        let id = match (named, owner) {
            ("", Some((id, of))) => {
                same_cluster(of, cluster_id)?;
                id
            }
            ("", None) => {
                let text = "the log does not say whose it is; name the member with --member ID";
                return Err(Failure::error(text));
            }
            (named, owner) => {
                let id = id_of(named, members)?;
                if let Some((own, _)) = owner.filter(|(own, _)| *own != id) {
                    let text = format!("the log is that of member {own:x}, not {id:x}");
                    return Err(Failure::error(text));
                }
                id
            }
        };
        let Some(member) = members.iter().find(|member| member.id == id) else {
            let text = format!(
                "member {id:x} is not in the cluster; move its files away and add a new member"
            );
            return Err(Failure::error(text));
        };
        let others = members.iter().filter(|member| member.id != id);
        let given = self.peer_urls();
        refuse_taken(&given, others.clone())?;
        Ok(Rebuild {
            cluster_id,
            old_id: id,
            name: member.name.clone(),
            peer_urls: if given.is_empty() { member.peer_ur_ls.clone() } else { given },
            others: others.flat_map(|member| member.peer_ur_ls.clone()).collect(),
            new_id: None,
            is_voter: false,
        })
    }

    /// Fails if the member to be removed answers. A directory without a log does not say whose it
    /// is, so a wrong `--member` may name a healthy one.
    async fn refuse_running(&self, plan: &Rebuild, member: &Member) -> Outcome {
        let Some(url) = self.answering_url(plan, member).await else { return Ok(()) };
        Err(Failure::error(format!(
            "member {:x} ({}) is running: it answers at {url}; nothing was changed. If it is the \
             member to be rebuilt, stop it first; if not, give the directory or the --member of \
             the damaged one",
            member.id, member.name
        )))
    }

    async fn answering_url<'a>(&self, plan: &Rebuild, member: &'a Member) -> Option<&'a String> {
        for url in &member.client_ur_ls {
            let is_there = match self.ask_status(url).await {
                Ok(status) => is_of(&status, member),
                Err(failure) => failure.cause.is_some_and(|error| is_somebody(&error)),
            };
            if is_there {
                return Some(url);
            }
        }
        let files = self.config.tls.files();
        for url in &member.peer_ur_ls {
            if peer::answers(url, plan.cluster_id, &files, self.context.deadline()).await {
                return Some(url);
            }
        }
        None
    }

    /// Fails unless a quorum of the present voters is healthy without this member. The removal
    /// needs that quorum, and the rest needs no more than that.
    async fn check_quorum(&self, plan: &Rebuild, members: &[Member]) -> Result<Quorum, Failure> {
        let voters: Vec<&Member> = members.iter().filter(|member| !member.is_learner).collect();
        let others = voters.iter().filter(|voter| voter.id != plan.old_id);
        let stores = join_all(others.map(|voter| self.store_of_healthy(voter))).await;
        let stores: Vec<u64> = stores.into_iter().flatten().collect();
        let (healthy, voters) = (stores.len(), voters.len());
        let needed = voters / 2 + 1;
        if healthy < needed {
            return Err(Failure::error(format!(
                "without member {:x} only {healthy} of {voters} voters are healthy, and {needed} are \
                 needed; nothing was changed. Bring the other members back first; if they are lost \
                 for good, see the handbook, \"Lost quorum\"",
                plan.old_id
            )));
        }
        let store_bytes = stores.into_iter().max().unwrap_or_default();
        Ok(Quorum { voters, healthy, needed, store_bytes })
    }

    /// The size in bytes of a member's store; None if the member is not healthy.
    async fn store_of_healthy(&self, member: &Member) -> Option<u64> {
        for url in &member.client_ur_ls {
            if let Some(status) = self.status(url).await {
                return is_healthy(&status, member)
                    .then(|| u64::try_from(status.db_size).unwrap_or_default());
            }
        }
        None
    }

    async fn status(&self, url: &str) -> Option<StatusResponse> {
        self.ask_status(url).await.ok()
    }

    async fn ask_status(&self, url: &str) -> Result<StatusResponse, Failure> {
        let client = self.context.connect(single(&self.config, url)).await?;
        let deadline = self.context.deadline();
        Ok(client.call(&rpc::STATUS, StatusRequest::default(), deadline).await?)
    }

    async fn remove(&self, plan: &Rebuild) -> Outcome {
        let request = MemberRemoveRequest { id: plan.old_id };
        self.client.call(&rpc::MEMBER_REMOVE, request, self.context.deadline()).await?;
        self.say(format!("Removed member {:x} ({}) from the cluster", plan.old_id, plan.name));
        Ok(())
    }

    /// Adds the new member, unless an earlier attempt has added it.
    async fn add(&self, plan: &mut Rebuild) -> Result<u64, Failure> {
        let (_, members) = self.members().await?;
        let is_new = |member: &&Member| {
            Some(member.id) == plan.new_id
                || member.is_learner
                    && member.id != plan.old_id
                    && member.peer_ur_ls == plan.peer_urls
        };
        if let Some(member) = members.iter().find(is_new) {
            plan.new_id = Some(member.id);
            self.note(plan)?;
            self.say(format!("Member {:x} is there in its place", member.id));
            return Ok(member.id);
        }
        let request = MemberAddRequest { peer_ur_ls: plan.peer_urls.clone(), is_learner: true };
        let mut attempts = 1;
        let added = loop {
            let deadline = self.context.deadline();
            match self.client.call(&rpc::MEMBER_ADD, request.clone(), deadline).await {
                Err(error)
                    if error.is("etcdserver: unhealthy cluster") && attempts < ADD_ATTEMPTS_MAX =>
                {
                    attempts += 1;
                    tokio::time::sleep(ADD_RETRY).await;
                }
                added => break added?,
            }
        };
        let id = added.member.unwrap_or_default().id;
        plan.new_id = Some(id);
        self.note(plan)?;
        let urls = plan.peer_urls.join(",");
        self.say(format!("Added member {id:x} as a learner, with the peer URLs {urls}"));
        Ok(id)
    }

    /// Writes the plan to the directory, if there is one.
    fn note(&self, plan: &Rebuild) -> Outcome {
        match self.data_dir.as_os_str().is_empty() {
            true => Ok(()),
            false => plan.write(&self.data_dir).map_err(Failure::error),
        }
    }

    fn peer_urls(&self) -> Vec<String> {
        let urls = self.context.flags.strings("peer-urls");
        urls.into_iter().filter(|url| !url.is_empty()).collect()
    }

    fn put_aside(&self, plan: &Rebuild, new_id: u64) -> Outcome {
        if owner(&self.data_dir, self.wal_dir()).is_some_and(|(id, _)| id == new_id) {
            // It has started already.
            return Ok(());
        }
        let moved = put_aside(&self.data_dir, self.wal_dir(), plan.old_id);
        for (from, to) in moved.map_err(Failure::error)? {
            self.say(format!("Moved {} to {}", from.display(), to.display()));
        }
        Ok(())
    }

    fn advise(&self, plan: &Rebuild, new_id: u64) {
        self.say(format!(
            "Now start the server as before:\n\n  rusd serve --name {} --data-dir {}{} ...\n\nIts \
             other flags stay as they were. It joins as member {new_id:x} and gets everything from \
             the others.",
            quoted(&plan.name),
            quoted(&self.data_dir.display().to_string()),
            self.wal_dir()
                .map(|dir| format!(" --wal-dir {}", quoted(&dir.display().to_string())))
                .unwrap_or_default()
        ));
    }

    /// A bar for what the new member has received: its directory, against another member's store.
    async fn bar(&self) -> Option<Progress> {
        if !self.context.printer.errors_on_screen() || self.data_dir.as_os_str().is_empty() {
            return None;
        }
        let deadline = self.context.deadline();
        let status =
            self.client.call(&rpc::STATUS, StatusRequest::default(), deadline).await.ok()?;
        let total = status.db_size_in_use.unsigned_abs();
        Some(self.context.printer.progress(total, Unit::Bytes, "received", OnSignal::End))
    }

    /// Tries to promote the new member until it has caught up. There is no end: it may have to
    /// receive the whole state first.
    async fn promote(&self, id: u64) -> Outcome {
        self.say(
            "Waiting until it has caught up, to give it its vote (if interrupted, run this again)",
        );
        let bar = self.bar().await;
        loop {
            if let Some(bar) = &bar {
                // Not the whole directory: what was put aside lies there as well.
                bar.set(growth::taken(&self.data_dir.join("member")));
            }
            let request = MemberPromoteRequest { id };
            let deadline = Deadline::after(self.context.flags.duration("command-timeout"));
            let promoted = self.client.call(&rpc::MEMBER_PROMOTE, request, deadline).await;
            if promoted.is_ok() {
                break;
            }
            // The call may have succeeded although its answer was lost, so the list of members
            // decides, as a quorum has it: a member that is behind may not know the new one yet.
            if let Ok((_, members)) = self.listed(true).await {
                match members.iter().find(|member| member.id == id) {
                    Some(member) if !member.is_learner => break,
                    Some(_) => {}
                    None => return Err(Failure::error(format!("member {id:x} was removed"))),
                }
            }
            tokio::time::sleep(PROMOTE_RETRY).await;
        }
        drop(bar);
        self.say(format!("Member {id:x} has caught up and votes"));
        Ok(())
    }
}

/// The id of the member with this name, or else the id that the text is.
fn id_of(named: &str, members: &[Member]) -> Result<u64, Failure> {
    let mut namesakes = members.iter().filter(|member| member.name == named);
    match (namesakes.next(), namesakes.next()) {
        (Some(member), None) => return Ok(member.id),
        (Some(_), Some(_)) => {
            let text = format!("several members are named {named}; name one by its id");
            return Err(Failure::arguments(text));
        }
        _ => {}
    }
    go::parse_uint(named, 16).map_err(|reason| {
        let text = format!("bad --member: no member has this name, and it is no id ({reason})");
        Failure::arguments(text)
    })
}

/// Whether an earlier plan is over: its new member, added as a learner by `rebuild` and as a voter
/// by `join`, has run, and is no learner with its log, for which only the promotion is left. One
/// that has run and has no log any more has lost what it acknowledged, and needs another id itself.
fn is_over(plan: &Rebuild, owner: Option<u64>, members: &[Member]) -> bool {
    let new = members.iter().find(|member| Some(member.id) == plan.new_id);
    new.is_some_and(|new| {
        let (has_run, has_log) = (!new.client_ur_ls.is_empty(), owner == plan.new_id);
        has_run && !(new.is_learner && has_log)
    })
}

/// Whether an error tells of a server that runs and refuses this client, by TLS or by its login.
fn is_somebody(error: &client::Error) -> bool {
    match error {
        client::Error::Unreachable(all) => {
            all.iter().any(|it| matches!(it.cause, Cause::Tls(_) | Cause::SpeaksTls))
        }
        error => error.code().is_some_and(|code| code != Code::Unavailable),
    }
}

/// Whether a member can be counted on. Each member's status names the alarms of all.
fn is_healthy(status: &StatusResponse, member: &Member) -> bool {
    let alarm = format!("memberID:{} alarm:CORRUPT", member.id);
    is_of(status, member) && status.leader != 0 && !status.errors.contains(&alarm)
}

/// Fails if another member has one of these URLs.
fn refuse_taken<'a>(urls: &[String], others: impl Iterator<Item = &'a Member>) -> Outcome {
    for member in others {
        if let Some(url) = member.peer_ur_ls.iter().find(|url| urls.contains(url)) {
            let text = format!(
                "{url} of --peer-urls is that of member {:x} ({}); nothing was changed",
                member.id, member.name
            );
            return Err(Failure::arguments(text));
        }
    }
    Ok(())
}

fn is_of(status: &StatusResponse, member: &Member) -> bool {
    status.header.as_ref().is_some_and(|header| header.member_id == member.id)
}

fn same_cluster(own: u64, theirs: u64) -> Outcome {
    if own == theirs {
        return Ok(());
    }
    let text = format!("the directory belongs to cluster {own:x}, the endpoints to {theirs:x}");
    Err(Failure::error(text))
}
