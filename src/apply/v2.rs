//! Requests of API v2 in the log of an etcd up to 3.5: there a member says so who it is, and the
//! leader which version the cluster has. These two become what etcd 3.6 makes of them; requests about
//! v2 keys change nothing, since there is no store for them.

use bytes::Bytes;
use prost::Message;
use serde::Deserialize;

use super::command::{Command, Error};
use crate::pb::Request;
use crate::pb::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};

/// The methods that etcd proposes.
const METHODS: [&[u8]; 5] = [b"PUT", b"POST", b"DELETE", b"QGET", b"SYNC"];

const VERSION_PATH: &str = "/0/version";
const MEMBERS_PATH: &str = "/0/members/";
const ATTRIBUTES: &str = "/attributes";

/// What a member says of itself, in etcd's JSON.
#[derive(Default, Deserialize)]
struct Said {
    name: Option<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}

/// A request that is all of an entry, as etcd proposes it.
pub(super) fn whole(entry: Bytes) -> Option<Request> {
    // Fields of other types, or a method that no etcd proposes, make it something else.
    let request = Request::decode(entry).ok()?;
    METHODS.contains(&&request.method[..]).then_some(request)
}

/// The command that etcd 3.6 makes of a request.
pub(super) fn command(request: Request) -> Result<Command, Error> {
    let path = String::from_utf8_lossy(&request.path);
    if &request.method[..] != b"PUT" {
        return Ok(Command::V2(request));
    }
    let not_read = |what: String| Error::V2 { path: path.clone().into_owned(), what };
    if path == VERSION_PATH {
        let ver = String::from_utf8(request.val.to_vec());
        let ver = ver.map_err(|error| not_read(error.to_string()))?;
        return Ok(Command::ClusterVersionSet(ClusterVersionSetRequest { ver }));
    }
    let Some(member_id) = member_of(&path) else { return Ok(Command::V2(request)) };
    let said: Said =
        serde_json::from_slice(&request.val).map_err(|error| not_read(error.to_string()))?;
    let attributes = Attributes {
        name: said.name.unwrap_or_default(),
        client_urls: said.client_urls.unwrap_or_default(),
    };
    let member_attributes = Some(attributes);
    Ok(Command::ClusterMemberAttrSet(ClusterMemberAttrSetRequest { member_id, member_attributes }))
}

/// The member whose attributes stand at a path.
fn member_of(path: &str) -> Option<u64> {
    let id = path.strip_prefix(MEMBERS_PATH)?.strip_suffix(ATTRIBUTES)?;
    let is_hex = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u64::from_str_radix(id, 16).ok() } else { None }
}
