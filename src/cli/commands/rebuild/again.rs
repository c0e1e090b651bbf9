//! The command given again: to a directory whose rebuild is over, or where another one was begun.

use super::{Command, id_of, same_cluster};
use crate::cli::exit::{Failure, Outcome};
use crate::offline::{Rebuild, owner};
use crate::pb::Member;

impl Command<'_> {
    /// Whether the directory is that of a member that runs, votes and answers, as after the end of an
    /// earlier attempt; says so.
    pub(super) async fn is_well(&self) -> Result<bool, Failure> {
        if Rebuild::read(&self.data_dir).map_err(Failure::error)?.is_some() {
            return Ok(false);
        }
        let Some((id, of)) = owner(&self.data_dir, self.wal_dir()) else { return Ok(false) };
        let (cluster_id, members) = self.members().await?;
        same_cluster(of, cluster_id)?;
        let Some(member) = members.iter().find(|it| it.id == id && !it.is_learner) else {
            return Ok(false);
        };
        let named = self.context.flags.string("member");
        if !named.is_empty() && id_of(named, &members)? != id {
            let text = format!("the directory is that of member {id:x} ({})", member.name);
            return Err(Failure::error(format!("{text}, and --member names another one")));
        }
        let is_well = self.store_of_healthy(member).await.is_some();
        if is_well {
            self.say(format!(
                "Member {id:x} ({}) runs, is healthy and votes: there is nothing to rebuild. To \
                 rebuild it all the same, stop it first",
                member.name
            ));
        }
        Ok(is_well)
    }

    /// Fails if `--member` names another member than the one whose rebuild was begun here.
    pub(super) fn refuse_other(&self, plan: &Rebuild, members: &[Member]) -> Outcome {
        let named = self.context.flags.string("member");
        if named.is_empty() || named == plan.name {
            return Ok(());
        }
        let id = id_of(named, members)?;
        if id == plan.old_id || Some(id) == plan.new_id {
            return Ok(());
        }
        Err(Failure::error(format!(
            "in {} a rebuild of member {:x} ({}) was begun, and --member names another one: leave it \
             out to go on with that, or give the directory of the other one",
            self.data_dir.display(),
            plan.old_id,
            plan.name
        )))
    }
}
