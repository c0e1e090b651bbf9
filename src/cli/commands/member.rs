//! `member`: lists members and changes the membership.

use super::get::is_serializable;
use crate::cli::argv::Word;
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::client::{Client, Deadline, rpc};
use crate::go;
use crate::pb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest, StatusRequest,
};
use crate::types;

pub(super) async fn list(mut context: Context) -> Outcome {
    // etcdctl reports the value of `get`'s flag here, which is always the default.
    let linearizable = !is_serializable(context.flags.bytes("consistency"), b"l")?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response =
        client.call(&rpc::MEMBER_LIST, MemberListRequest { linearizable }, deadline).await?;
    let leader = match context.display.names_leader() {
        true => leader(&client, deadline).await,
        false => 0,
    };
    context.display.member_list(&response, leader)
}

/// The id of the leader, 0 if the member that was asked knows none.
async fn leader(client: &Client, deadline: Deadline) -> u64 {
    let status = client.call(&rpc::STATUS, StatusRequest {}, deadline).await;
    status.map_or(0, |status| status.leader)
}

pub(super) async fn add(mut context: Context) -> Outcome {
    let name = context.arg(0).to_vec();
    match context.args.len() {
        0 => return Err(Failure::arguments("member name not provided")),
        1 => {}
        _ => {
            let is_url = |word: &&Word| word.to_ascii_lowercase().starts_with(b"http");
            let meant = context.args.iter().filter(is_url);
            let meant = meant.flat_map(|url| [b", did you mean --peer-urls=", url.as_slice()]);
            let text = [b"too many arguments".as_slice()].into_iter().chain(meant);
            let text: Vec<u8> = text.flatten().copied().collect();
            return Err(Failure::bytes(Exit::BadArguments, text));
        }
    }
    let peers = peer_urls(&context)?;
    let deadline = context.deadline();
    let client = context.client().await?;
    check_urls(&peers)?;
    let request =
        MemberAddRequest { peer_ur_ls: split(&peers), is_learner: context.flags.bool("learner") };
    let response = client.call(&rpc::MEMBER_ADD, request, deadline).await?;
    context.display.member_add(&response)?;
    if context.display.format == Format::Simple {
        context.printer.out(settings(&name, &peers, &response));
    }
    Ok(())
}

/// Environment variables with which the new member starts.
fn settings(name: &[u8], peers: &str, response: &MemberAddResponse) -> String {
    let added = response.member.as_ref().map_or(0, |member| member.id);
    let cluster: Vec<_> = response
        .members
        .iter()
        .flat_map(|member| {
            let name = if member.id == added { name } else { member.name.as_bytes() };
            let named = move |url: &String| [name, b"=", url.as_bytes()].concat();
            member.peer_ur_ls.iter().map(named)
        })
        .collect();
    let quoted = |text: &[u8]| go::quote(text);
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quoted(name),
        quoted(&cluster.join(&b',')),
        quoted(peers.as_bytes())
    )
}

pub(super) async fn remove(mut context: Context) -> Outcome {
    let id = member_id(&context)?;
    let deadline = context.deadline();
    let client = context.client().await?;
    if confirm::asks(&context) {
        confirm::confirm(&context, removal(&client, id, deadline).await?)?;
    }
    // Not counted: how long a person thinks.
    let deadline = context.deadline();
    let response = client.call(&rpc::MEMBER_REMOVE, MemberRemoveRequest { id }, deadline).await?;
    let (header, members) = (&response.header, &response.members);
    context.display.member_changed(id, "removed from", &response, header, members)
}

/// What the removal of a member will do.
async fn removal(client: &Client, id: u64, deadline: Deadline) -> Result<String, Failure> {
    let request = MemberListRequest { linearizable: true };
    let members = client.call(&rpc::MEMBER_LIST, request, deadline).await?.members;
    let Some(member) = members.iter().find(|member| member.id == id) else {
        return Ok(format!("Member {id:x} is not in the cluster."));
    };
    let role = match leader(client, deadline).await {
        _ if member.is_learner => "a learner",
        _ if member.name.is_empty() => "a voter that has not started",
        leader if leader == id => "the leader",
        _ => "a voter",
    };
    let name = match member.name.as_str() {
        "" => member.peer_ur_ls.join(","),
        name => name.to_owned(),
    };
    let voters = members.iter().filter(|other| !other.is_learner && other.id != id).count();
    let rest = match voters {
        0 => "No voter remains, so the server will refuse.".to_owned(),
        voters => {
            let needed = voters / 2 + 1;
            let remain = match voters {
                1 => "1 voter remains".to_owned(),
                voters => format!("{voters} voters remain"),
            };
            match voters - needed {
                0 => format!("{remain}, and the cluster stops as soon as one of them fails."),
                spare => format!("{remain}, of which {spare} may fail."),
            }
        }
    };
    Ok(format!("This removes member {id:x} ({name}), {role}, for good. {rest}"))
}

pub(super) async fn update(mut context: Context) -> Outcome {
    let id = member_id(&context)?;
    let peers = peer_urls(&context)?;
    let deadline = context.deadline();
    let client = context.client().await?;
    check_urls(&peers)?;
    let request = MemberUpdateRequest { id, peer_ur_ls: split(&peers) };
    let response = client.call(&rpc::MEMBER_UPDATE, request, deadline).await?;
    let (header, members) = (&response.header, &response.members);
    context.display.member_changed(id, "updated in", &response, header, members)
}

pub(super) async fn promote(mut context: Context) -> Outcome {
    let id = member_id(&context)?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = client.call(&rpc::MEMBER_PROMOTE, MemberPromoteRequest { id }, deadline).await?;
    let (header, members) = (&response.header, &response.members);
    context.display.member_changed(id, "promoted in", &response, header, members)
}

fn member_id(context: &Context) -> Result<u64, Failure> {
    if context.args.len() != 1 {
        return Err(Failure::arguments("member ID is not provided"));
    }
    go::parse_uint(context.arg(0), 16).map_err(|reason| {
        Failure::arguments(format!("bad member ID arg ({reason}), expecting ID in Hex"))
    })
}

fn peer_urls(context: &Context) -> Result<String, Failure> {
    match context.flags.bytes("peer-urls") {
        b"" => Err(Failure::arguments("member peer urls not provided")),
        _ => context.flags.text("peer-urls"),
    }
}

fn split(urls: &str) -> Vec<String> {
    urls.split(',').map(str::to_string).collect()
}

/// Refuses URLs that etcd's client refuses before it calls the server.
fn check_urls(urls: &str) -> Outcome {
    for url in urls.split(',') {
        let url = url.trim();
        if let Some((_, rest)) = url.split_once("://") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let refused = |why| format!("parse {}: {why}", go::quote(url.as_bytes()));
            types::parse_authority(host).map_err(refused).map_err(Failure::error)?;
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            let quoted = go::quote(url.as_bytes());
            return Err(Failure::error(match url.split_once(':') {
                Some((scheme, _)) if scheme.parse::<std::net::IpAddr>().is_ok() => {
                    format!("parse {quoted}: first path segment in URL cannot contain colon")
                }
                _ => format!("URL scheme must be http, https, unix, or unixs: {url}"),
            }));
        };
        if !["http", "https", "unix", "unixs"].contains(&scheme) {
            let text = format!("URL scheme must be http, https, unix, or unixs: {url}");
            return Err(Failure::error(text));
        }
        if scheme.starts_with("http") {
            let host = rest.split('/').next().unwrap_or_default();
            if host.rsplit_once(':').is_none_or(|(_, port)| port.contains(']')) {
                let text = format!("URL address does not have the form \"host:port\": {url}");
                return Err(Failure::error(text));
            }
            if rest.contains('/') {
                return Err(Failure::error(format!("URL must not contain a path: {url}")));
            }
        }
    }
    Ok(())
}
