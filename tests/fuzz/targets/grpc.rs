//! Calls of clients: a method and a message, through decoding, checks, the log and apply.

use bytes::Bytes;
use http::Request;
use http_body::Body as _;
use http_body_util::Full;
use prost::Message as _;
use rusd::pb;
use rusd::rpc::METHODS;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::member::Member;
use super::{Notes, Shape, Target};
use crate::mutate::{Part, join, parts};

/// From this kind on, a part is a body as it stands, without a frame around a message.
const RAW: u8 = 212;
/// A member sees so many inputs, then a new one takes over.
const INPUTS_MAX: usize = 400;
const ANSWER_FRAMES_MAX: usize = 32;

pub struct Grpc {
    member: Member,
    token: Option<String>,
    past: Vec<u8>,
    inputs: usize,
}

/// The kind of a part that calls this method.
pub fn kind(service: &str, name: &str) -> u8 {
    METHODS.iter().position(|method| method.0.ends_with(service) && method.1 == name).unwrap() as u8
}

pub fn call(service: &str, name: &str, message: &impl prost::Message) -> Part {
    Part::new(kind(service, name), message.encode_to_vec())
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn transaction() -> pb::TxnRequest {
    use pb::request_op::Request;
    let inner = pb::TxnRequest {
        success: vec![
            op(Request::RequestPut(put("c", "3"))),
            op(Request::RequestRange(range("a", "z"))),
        ],
        ..pb::TxnRequest::default()
    };
    let delete = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"b"),
        prev_kv: true,
        ..pb::DeleteRangeRequest::default()
    };
    let compare = pb::Compare {
        key: Bytes::from_static(b"a"),
        target_union: Some(pb::compare::TargetUnion::Version(1)),
        ..pb::Compare::default()
    };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestTxn(Box::new(inner)))],
        failure: vec![op(Request::RequestDeleteRange(delete))],
    }
}

/// Transactions in each other, so many that prost alone refuses them, each in two parts.
fn deep_transaction(depth: usize) -> Part {
    let field = |number: u8, parts: &[&[u8]]| {
        let parts = parts.concat();
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(parts.len() as u64, &mut bytes);
        bytes.extend(parts);
        bytes
    };
    let message = (0..depth).fold(transaction().encode_to_vec(), |txn, _| {
        field(2, &[&field(4, &[&txn]), &field(4, &[])])
    });
    Part::new(kind("KV", "Txn"), message)
}

pub fn key_value_calls() -> Vec<Part> {
    let all = pb::RangeRequest { limit: 2, sort_order: 1, sort_target: 3, ..range("a", "\0") };
    let lease = pb::LeaseGrantRequest { id: 77, ttl: 600 };
    vec![
        call("KV", "Put", &put("a", "1")),
        call("KV", "Put", &put("b", "2")),
        call("KV", "Txn", &transaction()),
        call("KV", "Range", &all),
        call("Lease", "LeaseGrant", &lease),
        call("KV", "Put", &pb::PutRequest { lease: 77, prev_kv: true, ..put("d", "4") }),
        call("KV", "Compact", &pb::CompactionRequest { revision: 3, physical: true }),
    ]
}

pub fn auth_calls() -> Vec<Part> {
    let user = |name: &str| pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: "pw".to_owned(),
        ..pb::AuthUserAddRequest::default()
    };
    let permission = pb::authpb::Permission {
        perm_type: 2,
        key: b"a".to_vec().into(),
        range_end: b"c".to_vec().into(),
    };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: Some(permission) };
    let give = |user: &str, role: &str| pb::AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    let login =
        |name: &str| pb::AuthenticateRequest { name: name.to_owned(), password: "pw".to_owned() };
    vec![
        call("Auth", "UserAdd", &user("root")),
        call("Auth", "UserAdd", &user("ann")),
        call("Auth", "RoleAdd", &pb::AuthRoleAddRequest { name: "r".to_owned() }),
        call("Auth", "RoleGrantPermission", &grant),
        call("Auth", "UserGrantRole", &give("root", "root")),
        call("Auth", "UserGrantRole", &give("ann", "r")),
        call("Auth", "AuthEnable", &pb::AuthEnableRequest {}),
        call("Auth", "Authenticate", &login("ann")),
        call("KV", "Put", &put("a", "5")),
        call("KV", "Range", &range("a", "z")),
        call("Auth", "Authenticate", &login("root")),
        call("Auth", "UserList", &pb::AuthUserListRequest {}),
        call("Auth", "AuthDisable", &pb::AuthDisableRequest {}),
    ]
}

fn watch_calls() -> Vec<Part> {
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"z"),
        start_revision: 1,
        prev_kv: true,
        ..pb::WatchCreateRequest::default()
    };
    let union = pb::watch_request::RequestUnion::CreateRequest(create);
    let watch = pb::WatchRequest { request_union: Some(union) };
    let lock = pb::v3lockpb::LockRequest { name: Bytes::from_static(b"l"), lease: 77 };
    vec![
        call("Lease", "LeaseGrant", &pb::LeaseGrantRequest { id: 77, ttl: 600 }),
        call("KV", "Put", &put("a", "1")),
        call("Watch", "Watch", &watch),
        call("Lease", "LeaseKeepAlive", &pb::LeaseKeepAliveRequest { id: 77 }),
        call("Lease", "LeaseTimeToLive", &pb::LeaseTimeToLiveRequest { id: 77, keys: true }),
        call("Lock", "Lock", &lock),
        call("Lease", "LeaseRevoke", &pb::LeaseRevokeRequest { id: 77 }),
        call("Cluster", "MemberList", &pb::MemberListRequest { linearizable: true }),
        call("Maintenance", "Alarm", &pb::AlarmRequest { action: 1, member_id: 0, alarm: 1 }),
        call("Maintenance", "HashKV", &pb::HashKvRequest { revision: 0 }),
        call(
            "Maintenance",
            "Downgrade",
            &pb::DowngradeRequest { action: 0, version: "3.6.0".to_owned() },
        ),
    ]
}

/// A message as gRPC frames it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    body
}

impl Grpc {
    pub fn new() -> Self {
        Self { member: Member::new(1), token: None, past: Vec::new(), inputs: 0 }
    }

    /// Calls a method; the answer's messages, one after the other.
    pub fn call(
        member: &mut Member,
        token: Option<&String>,
        part: &Part,
        notes: &mut Notes,
    ) -> Vec<u8> {
        let (service, name) = METHODS[usize::from(part.kind) % METHODS.len()];
        let body = if part.kind >= RAW { part.bytes.clone() } else { framed(&part.bytes) };
        let mut request = Request::post(format!("/{service}/{name}"))
            .header("content-type", "application/grpc")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            request.headers_mut().insert("token", token);
        }
        let Some(mut answer) = member.wait(Arc::clone(&member.rpc).call(request, None)) else {
            notes.text(&format!("{name} waits"));
            return Vec::new();
        };
        let mut status = answer.headers().get("grpc-status").cloned();
        let mut messages = Vec::new();
        for _ in 0..ANSWER_FRAMES_MAX {
            let polled = {
                let _guard = member.runtime.enter();
                Pin::new(answer.body_mut()).poll_frame(&mut Context::from_waker(Waker::noop()))
            };
            match polled {
                Poll::Ready(None) => break,
                Poll::Ready(Some(frame)) => {
                    let frame = frame.expect("an answer's body does not fail");
                    if let Some(trailers) = frame.trailers_ref() {
                        status = trailers.get("grpc-status").cloned();
                    }
                    messages.extend(frame.into_data().unwrap_or_default().into_bytes());
                }
                Poll::Pending if !member.step() => break,
                Poll::Pending => {}
            }
        }
        let status = status.map(|status| status.to_str().unwrap().to_owned());
        notes.number(&format!("{name} {status:?}"), messages.len() as u64);
        messages
    }
}

impl Target for Grpc {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        vec![
            join(&key_value_calls()),
            join(&auth_calls()),
            join(&watch_calls()),
            // One that is run, and one that is deeper than any may be.
            join(&[deep_transaction(100)]),
            join(&[deep_transaction(300)]),
        ]
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|kind| kind < RAW)
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            b"a",
            b"b",
            b"\0",
            b"z",
            b"",
            b"root",
            b"ann",
            b"r",
            b"pw",
            b"l",
            b"3.6.0",
            b"http://10.0.0.9:1",
        ]
    }

    fn before(&self) -> Vec<u8> {
        self.past.clone()
    }

    fn length_max(&self) -> usize {
        4 << 10
    }

    fn memory_max(&self, length: usize) -> usize {
        (32 << 20) + 512 * length
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        if self.inputs >= INPUTS_MAX || self.member.is_over() {
            *self = Self::new();
        }
        let calls = parts(input);
        self.inputs += 1;
        for part in &calls {
            let messages = Self::call(&mut self.member, self.token.as_ref(), part, notes);
            if part.kind == kind("Auth", "Authenticate")
                && let Some(message) = messages.get(5..)
            {
                let answer = pb::AuthenticateResponse::decode(message).unwrap();
                self.token = Some(answer.token);
            }
        }
        self.member.settle();
        let fatal = self.member.node.fatal().borrow().clone();
        assert_eq!(fatal, None, "no client ends a member");
        self.past.extend(join(&calls));
    }
}
