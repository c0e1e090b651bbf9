//! Names that only the cluster knows: keys, members, users, roles, leases, endpoints.
//!
//! A person waits for the answer with a finger on the key, so all of it ends with
//! `COMPLETION_TIMEOUT`, and nothing is said of why there is none. Nobody is asked for a password.
//! A name that a shell or a terminal might take for something else than text is not offered, nor
//! one that the command would read as a flag.

use std::cell::RefCell;
use std::env;
use std::os::unix::ffi::OsStrExt as _;

use clap::Command;

use super::Choices;
use crate::cli::argv::{Flags, Word};
use crate::cli::context::Context;
use crate::cli::exit::Failure;
use crate::cli::printer::Printer;
use crate::cli::spec::Program;
use crate::client::{Client, Deadline, prefix_end, rpc};
use crate::limits::{
    COMPLETION_KEYS_PAGE, COMPLETION_NAMES_MAX, COMPLETION_PAGES_MAX, COMPLETION_TIMEOUT,
};
use crate::pb::{
    AuthRoleListRequest, AuthUserListRequest, LeaseLeasesRequest, MemberListRequest, RangeRequest,
};

/// What an argument or the value of a flag is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Keys,
    /// Their ids, and their names as descriptions.
    Members,
    Users,
    Roles,
    Leases,
    Endpoints,
    /// For the shell to complete.
    Files,
    /// Some fixed words.
    Words(Vec<String>),
    /// What nobody can know.
    None,
}

impl Names {
    pub(super) fn of_flag(name: &str) -> Option<Self> {
        Some(match name {
            "lease" => Self::Leases,
            "member" => Self::Members,
            "user" => Self::Users,
            "endpoints" | "compare" => Self::Endpoints,
            "prefix" => Self::Keys,
            _ => return None,
        })
    }

    /// The argument at this place, by its placeholder in the command's usage line.
    pub(super) fn of_argument(command: &Command, at: usize) -> Self {
        let line = command.get_overridden_usage().map(ToString::to_string).unwrap_or_default();
        let Some(placeholder) = placeholders(&line).nth(at) else { return Self::None };
        match placeholder.to_lowercase().as_str() {
            "key" | "key or prefix" | "range_end" | "endkey" | "lockname" | "election-name" => {
                Self::Keys
            }
            "memberid" | "transferee-member-id" => Self::Members,
            "user name" => Self::Users,
            // What is added is a new name.
            "role name" if command.get_name() != "add" => Self::Roles,
            "leaseid" => Self::Leases,
            "destination" | "host:port" => Self::Endpoints,
            "permission type" => Self::Words(["read", "readwrite", "write"].map(Into::into).into()),
            text if ["file", "dir", "path", "exec-command"].iter().any(|it| text.contains(it)) => {
                Self::Files
            }
            _ if placeholder.contains('|') => {
                Self::Words(placeholder.split('|').map(str::to_owned).collect())
            }
            _ => Self::None,
        }
    }
}

/// What stands in brackets for arguments in a usage line.
fn placeholders(line: &str) -> impl Iterator<Item = &str> {
    line.split(['<', '[']).skip(1).filter_map(|rest| rest.split(['>', ']']).next()).filter(|text| {
        let is_flag = text.starts_with('-') || matches!(*text, "options" | "flags");
        !is_flag
    })
}

/// The names that begin with `last`, of the cluster that the words and the environment name.
pub(super) fn ask(names: Names, path: &[&Command], words: &[Word], last: &str) -> Choices {
    let read = |words: &[Word]| {
        let mut flags = Flags::of(path);
        flags.parse(words).ok().map(|args| (flags, args))
    };
    // The last word may be a flag whose value is being typed.
    let without_last = || read(words.split_last()?.1);
    let Some((flags, args)) = read(words).or_else(without_last) else { return Choices::new() };
    if needs_password(&flags) {
        return Choices::new();
    }
    let context = Context::new(Program::Rusd, flags, args, words.to_vec(), Printer::silent());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Choices::new();
    };
    // What was found when the time is over counts.
    let found = RefCell::new(Choices::new());
    let asked = fill(names, context, last, &found);
    // Neither is an error shown, nor that time was over.
    let _ = runtime.block_on(async { tokio::time::timeout(COMPLETION_TIMEOUT, asked).await });
    // A look-up of a name may still be under way in a thread.
    runtime.shutdown_background();
    found.into_inner()
}

/// Whether a login would ask for a password.
fn needs_password(flags: &Flags) -> bool {
    let given = |name: &str| {
        let variable = || env::var_os(format!("ETCDCTL_{}", name.to_uppercase().replace('-', "_")));
        match flags.bytes(name) {
            b"" => variable().map(|value| value.as_bytes().to_vec()).unwrap_or_default(),
            value => value.to_vec(),
        }
    };
    let user = given("user");
    let is_whole = user.is_empty() || user.contains(&b':') || !given("password").is_empty();
    !is_whole && given("auth-jwt-token").is_empty()
}

async fn fill(
    names: Names,
    mut context: Context,
    last: &str,
    found: &RefCell<Choices>,
) -> Result<(), Failure> {
    let client = context.client().await?;
    let deadline = Deadline::after(COMPLETION_TIMEOUT);
    let offer = |name: String, told: String| {
        let mut found = found.borrow_mut();
        let is_new = found.last().is_none_or(|(before, _)| *before != name);
        let is_fit = name.starts_with(last) && is_plain(&name) && !name.starts_with('-');
        if is_new && is_fit && found.len() < COMPLETION_NAMES_MAX {
            let told = if is_plain(&told) { told } else { String::new() };
            found.push((name, told));
        }
    };
    match names {
        Names::Keys => keys(&client, last, deadline, &offer).await?,
        Names::Members => {
            for member in members(&client, deadline).await? {
                let told = format!("{} {}", member.name, member.client_ur_ls.join(","));
                offer(format!("{:x}", member.id), told.trim().to_owned());
            }
        }
        Names::Endpoints => {
            for member in members(&client, deadline).await? {
                for url in &member.client_ur_ls {
                    // With or without its scheme, as it is typed.
                    let bare = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                    let is_whole =
                        !last.is_empty() && url.starts_with(last) || url.starts_with("https");
                    let name = if is_whole { url.as_str() } else { bare };
                    offer(name.to_owned(), member.name.clone());
                }
            }
        }
        Names::Users => {
            let response = client.call(&rpc::USER_LIST, AuthUserListRequest {}, deadline).await?;
            response.users.into_iter().for_each(|name| offer(name, String::new()));
        }
        Names::Roles => {
            let response = client.call(&rpc::ROLE_LIST, AuthRoleListRequest {}, deadline).await?;
            response.roles.into_iter().for_each(|name| offer(name, String::new()));
        }
        Names::Leases => {
            let response = client.call(&rpc::LEASE_LEASES, LeaseLeasesRequest {}, deadline).await?;
            let ids = response.leases.into_iter().map(|lease| format!("{:016x}", lease.id));
            ids.for_each(|id| offer(id, String::new()));
        }
        Names::Files | Names::Words(_) | Names::None => {}
    }
    Ok(())
}

async fn members(client: &Client, deadline: Deadline) -> Result<Vec<crate::pb::Member>, Failure> {
    // Any member's answer will do, also one without a quorum.
    let request = MemberListRequest { linearizable: false };
    Ok(client.call(&rpc::MEMBER_LIST, request, deadline).await?.members)
}

/// Offers keys to their next slash. What lies behind it is passed over, so that a million keys
/// below one prefix cost one page.
async fn keys(
    client: &Client,
    last: &str,
    deadline: Deadline,
    offer: &impl Fn(String, String),
) -> Result<(), Failure> {
    let range_end = prefix_end(last.as_bytes());
    let mut from = if last.is_empty() { vec![0] } else { last.as_bytes().to_vec() };
    for _ in 0..COMPLETION_PAGES_MAX {
        let request = RangeRequest {
            key: from.into(),
            range_end: range_end.clone().into(),
            limit: COMPLETION_KEYS_PAGE,
            serializable: true,
            keys_only: true,
            ..RangeRequest::default()
        };
        let page = client.call(&rpc::RANGE, request, deadline).await?;
        let mut level: &[u8] = b"";
        for pair in &page.kvs {
            level = to_next_slash(&pair.key, last.len());
            if let Ok(name) = std::str::from_utf8(level) {
                offer(name.to_owned(), String::new());
            }
        }
        let ended = if level.ends_with(b"/") { prefix_end(level) } else { [level, b"\0"].concat() };
        if !page.more || ended == b"\0" {
            break;
        }
        from = ended;
    }
    Ok(())
}

/// The key up to the first slash behind what is typed, or all of it.
fn to_next_slash(key: &[u8], typed: usize) -> &[u8] {
    let rest = key.get(typed..).unwrap_or_default();
    let slash = rest.iter().position(|byte| *byte == b'/');
    &key[..slash.map_or(key.len(), |at| typed + at + 1)]
}

/// Letters and what a keyboard has: nothing that a terminal obeys or that turns the direction of
/// writing.
fn is_plain(text: &str) -> bool {
    text.chars().all(|letter| matches!(letter, ' '..='~') || letter.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::argv::find;
    use crate::cli::spec::root;

    fn of(path: &str, at: usize) -> Names {
        let root = root(Program::Rusd);
        let words: Vec<Word> = path.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        Names::of_argument(find(&root, &words).command(), at)
    }

    #[test]
    fn arguments_are_what_the_usage_line_says() {
        for (path, at, names) in [
            ("get", 0, Names::Keys),
            ("get", 1, Names::Keys),
            ("get", 2, Names::None),
            ("put", 0, Names::Keys),
            ("put", 1, Names::None),
            ("del", 0, Names::Keys),
            ("watch", 0, Names::Keys),
            ("watch", 1, Names::Keys),
            ("lock", 0, Names::Keys),
            ("lock", 1, Names::Files),
            ("member remove", 0, Names::Members),
            ("member add", 0, Names::None),
            ("move-leader", 0, Names::Members),
            ("lease revoke", 0, Names::Leases),
            ("lease grant", 0, Names::None),
            ("user grant-role", 0, Names::Users),
            ("user grant-role", 1, Names::Roles),
            ("user add", 0, Names::None),
            ("role add", 0, Names::None),
            ("role get", 0, Names::Roles),
            ("role grant-permission", 2, Names::Keys),
            ("role grant-permission", 3, Names::Keys),
            ("make-mirror", 0, Names::Endpoints),
            ("snapshot save", 0, Names::Files),
            ("export", 0, Names::Files),
            ("cert show", 0, Names::Files),
        ] {
            assert_eq!(of(path, at), names, "{path} {at}");
        }
    }

    #[test]
    fn a_level_ends_with_its_slash() {
        for (key, typed, level) in [
            ("/registry/pods/a", "", "/"),
            ("/registry/pods/a", "/", "/registry/"),
            ("/registry/pods/a", "/registry", "/registry/"),
            ("/registry/pods/a", "/registry/pods/", "/registry/pods/a"),
            ("plain", "pl", "plain"),
        ] {
            assert_eq!(
                to_next_slash(key.as_bytes(), typed.len()),
                level.as_bytes(),
                "{key} {typed}"
            );
        }
    }

    #[test]
    fn what_is_no_plain_text_is_not_offered() {
        for text in ["a\x1b[2J", "a\nb", "a\tb", "\u{202e}a", "\u{9b}1m", "\x7f"] {
            assert!(!is_plain(text), "{text:?}");
        }
        assert!(is_plain("/registry/pods/kube-system:a b") && is_plain("grün 漢字"));
    }
}
