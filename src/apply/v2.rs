//! Requests of API v2 in the log of an etcd up to 3.5. By them a member publishes its name and
//! client URLs, and the leader sets the cluster's version. These two become the commands that etcd
//! 3.6 makes of them. Requests about v2 keys change nothing, since there is no v2 store.

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

/// A member's name and client URLs, in etcd's JSON.
#[derive(Default, Deserialize)]
struct Said {
    name: Option<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}

/// The request that an entry consists of, if it is one that etcd proposes.
pub(super) fn whole(entry: Bytes) -> Option<Request> {
    // An entry with fields of other types, or with a method that etcd does not propose, is
    // something else.
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

/// The id of the member whose attributes are at a path.
fn member_of(path: &str) -> Option<u64> {
    let id = path.strip_prefix(MEMBERS_PATH)?.strip_suffix(ATTRIBUTES)?;
    let is_hex = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u64::from_str_radix(id, 16).ok() } else { None }
}
