//! A rebuild without the old directory: its disk is lost, and the new member may start anywhere.

use super::{Command, id_of, is_of, refuse_taken};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::shell::quoted;
use crate::offline::Rebuild;
use crate::pb::Member;

impl Command<'_> {
    pub(super) async fn run_without_directory(&self) -> Outcome {
        let named = self.context.flags.string("member");
        let (cluster_id, members) = self.members().await?;
        let id = id_of(named, &members);
        let old = id.as_ref().ok().and_then(|id| members.iter().find(|it| it.id == *id));
        let Some(old) = old else { return self.go_on(cluster_id, &members, id).await };
        if old.is_learner && old.name.is_empty() {
            // It was added by an earlier attempt, and named by the id that this has printed.
            return self.finish(&mut of_member(cluster_id, old, &members), old).await;
        }
        let mut plan = Rebuild { new_id: None, ..of_member(cluster_id, old, &members) };
        let given = self.peer_urls();
        if !given.is_empty() {
            refuse_taken(&given, members.iter().filter(|it| it.id != old.id))?;
            plan.peer_urls = given;
        }
        if old.is_learner && self.is_running(old).await {
            self.say(format!("Member {:x} ({}) is there in its place", old.id, old.name));
            return self.end(old.id).await;
        }
        self.may_remove(&plan, old, &members).await?;
        self.remove(&plan).await?;
        self.finish(&mut plan, old).await
    }

    async fn is_running(&self, member: &Member) -> bool {
        for url in &member.client_ur_ls {
            if self.status(url).await.is_some_and(|status| is_of(&status, member)) {
                return true;
            }
        }
        false
    }

    /// Goes on after an attempt that was interrupted once it had removed the old member, which the
    /// list no longer has.
    async fn go_on(
        &self,
        cluster_id: u64,
        members: &[Member],
        id: Result<u64, Failure>,
    ) -> Outcome {
        let (named, given) = (self.context.flags.string("member"), self.peer_urls());
        let mut waiting = members.iter().filter(|member| {
            let is_wanted = given.is_empty() || member.peer_ur_ls == given;
            member.is_learner && member.name.is_empty() && is_wanted
        });
        let name = if id.is_ok() { String::new() } else { named.to_owned() };
        match (waiting.next(), waiting.next()) {
            (Some(new), None) => {
                let plan = of_member(cluster_id, new, members);
                self.finish(&mut Rebuild { name, ..plan }, new).await
            }
            (None, _) if !given.is_empty() => {
                let lost = Member { name, peer_ur_ls: given, ..Member::default() };
                let mut plan = Rebuild { new_id: None, ..of_member(cluster_id, &lost, members) };
                self.finish(&mut plan, &lost).await
            }
            (None, _) => Err(Failure::error(format!(
                "the cluster has no member {named}; if an earlier attempt has removed it, give the \
                 URLs that it has printed with --peer-urls"
            ))),
            (Some(_), Some(_)) => Err(Failure::error(
                "several learners were added and never started; name the right one with --member ID",
            )),
        }
    }

    /// Adds the new member, says how to start it, and waits for it.
    async fn finish(&self, plan: &mut Rebuild, old: &Member) -> Outcome {
        let new_id = self.add(plan).await?;
        let (_, members) = self.members().await?;
        let clients = match old.client_ur_ls.is_empty() {
            true => {
                "the client URLs are a guess, since the old member's are no longer known: put in \
                 those that clients know"
            }
            false => "compare the client URLs with those that clients know",
        };
        self.say(format!(
            "Now start the new member, with an empty directory, on any machine that has these \
             addresses:\n\n{}\n\nOther flags, such as those of TLS, are those of the other members; \
             {clients}. \
             It joins as member {new_id:x} and gets everything from them.",
            serve_command(plan, old, new_id, &members)
        ));
        self.end(new_id).await
    }
}

fn of_member(cluster_id: u64, member: &Member, members: &[Member]) -> Rebuild {
    let others = members.iter().filter(|other| other.id != member.id);
    Rebuild {
        cluster_id,
        old_id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_ur_ls.clone(),
        others: others.flat_map(|member| member.peer_ur_ls.clone()).collect(),
        new_id: Some(member.id),
        is_voter: false,
    }
}

/// The command that starts the new member. Names that nobody has told are made up of the ids.
fn serve_command(plan: &Rebuild, old: &Member, new_id: u64, members: &[Member]) -> String {
    let made_up = |id: u64| format!("m{id:x}");
    let name = if plan.name.is_empty() { made_up(new_id) } else { plan.name.clone() };
    let of = |member: &Member| {
        let name = match member.name.as_str() {
            _ if member.id == new_id => name.clone(),
            "" => made_up(member.id),
            name => name.to_owned(),
        };
        member.peer_ur_ls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    let cluster: Vec<String> = members.iter().flat_map(of).collect();
    let peers = plan.peer_urls.join(",");
    let clients = match old.client_ur_ls.as_slice() {
        [] => likely_clients(plan, members),
        urls => urls.join(","),
    };
    let flags = [
        ("name", name.clone()),
        ("data-dir", format!("{name}.etcd")),
        ("initial-cluster-state", "existing".to_owned()),
        ("initial-cluster", cluster.join(",")),
        ("initial-advertise-peer-urls", peers.clone()),
        ("listen-peer-urls", listening(&peers)),
        ("advertise-client-urls", clients.clone()),
        ("listen-client-urls", listening(&clients)),
    ];
    let lines = flags.iter().map(|(flag, value)| format!("    --{flag} {}", quoted(value)));
    let lines: Vec<String> = lines.collect();
    format!("  rusd serve \\\n{}", lines.join(" \\\n"))
}

/// The client URLs of a member that an earlier attempt has removed, and with it what was known of
/// them: its host is that of its peer URLs, scheme and port are most likely those of another member.
fn likely_clients(plan: &Rebuild, members: &[Member]) -> String {
    let host = plan.peer_urls.iter().find_map(|url| Some(parts(url)?.1));
    let mut others = members.iter().flat_map(|member| &member.client_ur_ls);
    let (scheme, _, port) = others.find_map(|url| parts(url)).unwrap_or(("http", "", "2379"));
    format!("{scheme}://{}:{}", host.unwrap_or("127.0.0.1"), port.trim_end_matches('/'))
}

/// Scheme, host and port.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, port) = rest.rsplit_once(':')?;
    Some((scheme, host, port))
}

/// Where to listen for these URLs: a member listens at addresses, and is advertised by names, too.
fn listening(urls: &str) -> String {
    let one = |url: &str| {
        let Some((scheme, host, port)) = parts(url) else { return url.to_owned() };
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_kept = scheme.starts_with("unix")
            || host == "localhost"
            || address.parse::<std::net::IpAddr>().is_ok();
        if is_kept { url.to_owned() } else { format!("{scheme}://0.0.0.0:{port}") }
    };
    urls.split(',').map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_all_members_and_can_be_pasted() {
        let member = |id, name: &str, url: &str| Member {
            id,
            name: name.to_owned(),
            peer_ur_ls: vec![url.to_owned()],
            ..Member::default()
        };
        let members =
            [member(1, "a b", "http://a"), member(7, "", "http://c"), member(9, "", "http://d")];
        let plan = Rebuild {
            name: "c".to_owned(),
            peer_urls: vec!["http://c".to_owned()],
            ..Rebuild::default()
        };
        let text = serve_command(&plan, &Member::default(), 7, &members);
        assert!(
            text.contains("--initial-cluster 'a b=http://a,c=http://c,m9=http://d' \\\n"),
            "{text}"
        );
        assert!(text.starts_with("  rusd serve \\\n    --name c \\\n"), "{text}");
        let known = Member {
            client_ur_ls: vec!["https://127.0.0.12:44579".to_owned()],
            ..member(1, "a", "http://127.0.0.12:44580")
        };
        let plan = Rebuild { peer_urls: vec!["http://127.0.0.13:44580".to_owned()], ..plan };
        let text = serve_command(&plan, &Member::default(), 7, &[known]);
        let guess = "https://127.0.0.13:44579";
        assert!(text.contains(&format!("--advertise-client-urls {guess} \\\n")), "{text}");
        let urls = "https://m1.example.org:2379,http://[::1]:1,http://10.0.0.1:2";
        let listened = "https://0.0.0.0:2379,http://[::1]:1,http://10.0.0.1:2";
        assert_eq!(listening(urls), listened);
    }
}
