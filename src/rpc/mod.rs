//! The gRPC services: what comes over the wire, checked, and handed to the node.
//!
//! ```text
//!   path ─► method ─► decode ─► admit (learner, metadata, leader, rule) ─► check ─► node ─► encode
//! ```
//!
//! One file per service. [`Server::call`] finds the method by its path; unary calls run through
//! `grpc` directly and the answers of streams through tonic's codec. `error` is the one table of codes
//! and texts, and `check` the shape of requests; both are pure. This room knows no store, no log and
//! no socket: listeners belong to `server`.
//!
//! Every handler gets the credentials that its call came with and hands them to the node. A method
//! has a rule in `auth`; without one it is root's alone.
//!
//! A stream ends before its client wants it when the server stops, and, if the client asked for a
//! leader with the metadata `hasleader`, when there was none for three election timeouts.

mod auth;
mod check;
mod cluster;
mod election;
mod error;
mod grpc;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod metadata;
mod recipe;
mod space;
mod watch;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method as Verb, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use prost::Message;
use tokio::sync::watch as latest;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use self::grpc::{Answers, Encode, Encoded, Requests};
use self::metadata::Deadline;
use crate::auth::Credentials;
use crate::clock;
use crate::metrics::{self, METHODS, Method};
use crate::node::Node;
use crate::pb::tolerant::{self, Malformed, Shaped};

pub use auth::CommonName;
pub use error::{Error, status};
pub use grpc::{Body, BoxError};

/// What the services need to know of the configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest encoded proposal; a message may be larger by gRPC's overhead allowance.
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    pub election_timeout: Duration,
    /// A unary request that takes longer is logged.
    pub warning_duration: Duration,
    /// Between two progress notifications of a watcher.
    pub watch_progress_interval: Duration,
}

impl Config {
    /// Largest message that is received.
    pub fn message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(crate::limits::GRPC_OVERHEAD_BYTES)
    }
}

/// Why running streams end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    stopped: bool,
    leaderless: bool,
}

/// All services of one member.
pub struct Server {
    node: Node,
    config: Config,
    leader: latest::Receiver<u64>,
    ends: latest::Sender<Ends>,
}

const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");
const CLIENT_VERSION: HeaderName = HeaderName::from_static("client-api-version");

/// Leaderless election timeouts after which streams that need a leader end.
const LEADERLESS_TIMEOUTS: u32 = 3;

/// The place of a method in `METHODS`, found at compile time.
const fn index(service: &str, name: &str) -> usize {
    let mut at = 0;
    while at < METHODS.len() {
        if equal(METHODS[at].0, service) && equal(METHODS[at].1, name) {
            return at;
        }
        at += 1;
    }
    panic!("unknown method")
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    a.len() == b.len()
}

macro_rules! method {
    ($service:literal, $name:literal) => {
        metrics::method(const { index($service, $name) })
    };
}

type Ending = Pin<Box<dyn Future<Output = Status> + Send>>;
pub type Output = Response<Body>;

impl Server {
    pub fn new(node: Node, config: Config) -> Arc<Self> {
        let leader = node.leader();
        let ends = latest::channel(Ends::default()).0;
        Arc::new(Self { node, config, leader, ends })
    }

    /// Follows the leader until the server stops.
    pub async fn watch_leader(self: Arc<Self>) {
        let mut ends = self.ends.subscribe();
        let mut leaderless = 0;
        while !ends.borrow().stopped {
            tokio::select! {
                () = tokio::time::sleep(self.config.election_timeout) => {}
                _ = ends.changed() => continue,
            }
            leaderless = if self.has_leader() { 0 } else { leaderless + 1 };
            let gone = leaderless >= LEADERLESS_TIMEOUTS;
            self.ends
                .send_if_modified(|ends| std::mem::replace(&mut ends.leaderless, gone) != gone);
        }
    }

    /// Largest message that is received.
    pub fn message_bytes_max(&self) -> usize {
        self.config.message_bytes_max()
    }

    /// Ends all streams now.
    pub fn stop(&self) {
        self.ends.send_modify(|ends| ends.stopped = true);
    }

    fn has_leader(&self) -> bool {
        *self.leader.borrow() != 0
    }

    /// Answers one request, whatever it is. What a call has before its message has come is small: each
    /// async function would have room of its own for what it is given, so there are few of them here, and
    /// what comes after the message has a place of its own.
    pub fn call<B>(self: Arc<Self>, request: Request<B>) -> impl Future<Output = Output> + Send
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send + Sync,
    {
        let (mut parts, body) = request.into_parts();
        async move {
            let mut answer = match (refuse(&mut parts), path(&parts)) {
                (Some(refusal), _) => refusal,
                (None, "/etcdserverpb.KV/Range") => {
                    let method = method!("etcdserverpb.KV", "Range");
                    self.unary(method, &parts, body, Self::range).await
                }
                (None, "/etcdserverpb.KV/Txn") => {
                    let method = method!("etcdserverpb.KV", "Txn");
                    self.unary_of(kv::decoded_txn, method, &parts, body, Self::txn).await
                }
                (None, "/etcdserverpb.KV/Put") => {
                    let method = method!("etcdserverpb.KV", "Put");
                    self.unary(method, &parts, body, Self::put).await
                }
                (None, "/etcdserverpb.KV/DeleteRange") => {
                    let method = method!("etcdserverpb.KV", "DeleteRange");
                    self.unary(method, &parts, body, Self::delete_range).await
                }
                (None, _) => Box::pin(self.rare(&parts, body)).await,
            };
            if let Some(content_type) = grpc::repeated_type(&parts.headers) {
                answer.headers_mut().insert(CONTENT_TYPE, content_type);
            }
            answer
        }
    }

    async fn rare<B>(self: Arc<Self>, parts: &Parts, body: B) -> Output
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send + Sync,
    {
        macro_rules! unary {
            ($service:literal, $name:literal, $handler:expr) => {
                self.unary(method!($service, $name), parts, body, $handler).await
            };
        }
        let path = path(parts);
        let Some((service, name)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'))
        else {
            return grpc::failure(&Status::unimplemented(format!(
                "malformed method name: {path:?}"
            )));
        };
        match (service, name) {
            ("etcdserverpb.KV", "Compact") => unary!("etcdserverpb.KV", "Compact", Self::compact),
            ("etcdserverpb.Lease", "LeaseGrant") => {
                unary!("etcdserverpb.Lease", "LeaseGrant", Self::lease_grant)
            }
            ("etcdserverpb.Lease", "LeaseRevoke") => {
                unary!("etcdserverpb.Lease", "LeaseRevoke", Self::lease_revoke)
            }
            ("etcdserverpb.Lease", "LeaseTimeToLive") => {
                unary!("etcdserverpb.Lease", "LeaseTimeToLive", Self::lease_time_to_live)
            }
            ("etcdserverpb.Lease", "LeaseLeases") => {
                unary!("etcdserverpb.Lease", "LeaseLeases", Self::lease_leases)
            }
            ("etcdserverpb.Cluster", "MemberList") => {
                unary!("etcdserverpb.Cluster", "MemberList", Self::member_list)
            }
            ("etcdserverpb.Cluster", "MemberAdd") => {
                unary!("etcdserverpb.Cluster", "MemberAdd", Self::member_add)
            }
            ("etcdserverpb.Cluster", "MemberRemove") => {
                unary!("etcdserverpb.Cluster", "MemberRemove", Self::member_remove)
            }
            ("etcdserverpb.Cluster", "MemberUpdate") => {
                unary!("etcdserverpb.Cluster", "MemberUpdate", Self::member_update)
            }
            ("etcdserverpb.Cluster", "MemberPromote") => {
                unary!("etcdserverpb.Cluster", "MemberPromote", Self::member_promote)
            }
            ("etcdserverpb.Maintenance", name) if name != "Snapshot" => {
                self.maintenance(name, parts, body).await
            }
            ("v3lockpb.Lock", "Lock") => unary!("v3lockpb.Lock", "Lock", Self::lock),
            ("v3lockpb.Lock", "Unlock") => unary!("v3lockpb.Lock", "Unlock", Self::unlock),
            ("v3electionpb.Election", "Campaign") => {
                unary!("v3electionpb.Election", "Campaign", Self::campaign)
            }
            ("v3electionpb.Election", "Proclaim") => {
                unary!("v3electionpb.Election", "Proclaim", Self::proclaim)
            }
            ("v3electionpb.Election", "Leader") => {
                unary!("v3electionpb.Election", "Leader", Self::election_leader)
            }
            ("v3electionpb.Election", "Resign") => {
                unary!("v3electionpb.Election", "Resign", Self::resign)
            }
            ("rusdpb.Space", "Report") => unary!("rusdpb.Space", "Report", Self::space),
            ("grpc.health.v1.Health", "Check") => {
                unary!("grpc.health.v1.Health", "Check", Self::health_check)
            }
            ("grpc.health.v1.Health", "List") => {
                unary!("grpc.health.v1.Health", "List", Self::health_list)
            }
            ("etcdserverpb.Auth", name) => self.auth(name, parts, body).await,
            _ => self.streams(service, name, parts, body).await,
        }
    }

    async fn auth<B>(self: &Arc<Self>, name: &str, parts: &Parts, body: B) -> Output
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send + Sync,
    {
        macro_rules! unary {
            ($name:literal, $handler:expr) => {
                self.unary(method!("etcdserverpb.Auth", $name), parts, body, $handler).await
            };
        }
        match name {
            "AuthEnable" => unary!("AuthEnable", Self::auth_enable),
            "AuthDisable" => unary!("AuthDisable", Self::auth_disable),
            "AuthStatus" => unary!("AuthStatus", Self::auth_status),
            "Authenticate" => unary!("Authenticate", Self::authenticate),
            "UserAdd" => unary!("UserAdd", Self::user_add),
            "UserGet" => unary!("UserGet", Self::user_get),
            "UserList" => unary!("UserList", Self::user_list),
            "UserDelete" => unary!("UserDelete", Self::user_delete),
            "UserChangePassword" => unary!("UserChangePassword", Self::user_change_password),
            "UserGrantRole" => unary!("UserGrantRole", Self::user_grant_role),
            "UserRevokeRole" => unary!("UserRevokeRole", Self::user_revoke_role),
            "RoleAdd" => unary!("RoleAdd", Self::role_add),
            "RoleGet" => unary!("RoleGet", Self::role_get),
            "RoleList" => unary!("RoleList", Self::role_list),
            "RoleDelete" => unary!("RoleDelete", Self::role_delete),
            "RoleGrantPermission" => unary!("RoleGrantPermission", Self::role_grant_permission),
            "RoleRevokePermission" => unary!("RoleRevokePermission", Self::role_revoke_permission),
            _ => unknown("etcdserverpb.Auth", name),
        }
    }

    async fn maintenance<B>(self: &Arc<Self>, name: &str, parts: &Parts, body: B) -> Output
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send + Sync,
    {
        macro_rules! unary {
            ($name:literal, $handler:expr) => {
                self.unary(method!("etcdserverpb.Maintenance", $name), parts, body, $handler).await
            };
        }
        match name {
            "Alarm" => unary!("Alarm", Self::alarm),
            "Status" => unary!("Status", Self::status),
            "Defragment" => unary!("Defragment", Self::defragment),
            "Hash" => unary!("Hash", Self::hash),
            "HashKV" => unary!("HashKV", Self::hash_kv),
            "MoveLeader" => unary!("MoveLeader", Self::move_leader),
            "Downgrade" => unary!("Downgrade", Self::downgrade),
            _ => unknown("etcdserverpb.Maintenance", name),
        }
    }

    async fn streams<B>(
        self: &Arc<Self>,
        service: &str,
        name: &str,
        parts: &Parts,
        body: B,
    ) -> Output
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send + Sync,
    {
        match (service, name) {
            ("etcdserverpb.KV", "RangeStream") => {
                let method = method!("etcdserverpb.KV", "RangeStream");
                self.server_stream(method, parts, body, Self::range_stream).await
            }
            ("etcdserverpb.Maintenance", "Snapshot") => {
                let method = method!("etcdserverpb.Maintenance", "Snapshot");
                self.server_stream(method, parts, body, Self::snapshot).await
            }
            ("v3electionpb.Election", "Observe") => {
                let method = method!("v3electionpb.Election", "Observe");
                self.server_stream(method, parts, body, Self::observe).await
            }
            ("grpc.health.v1.Health", "Watch") => {
                let method = method!("grpc.health.v1.Health", "Watch");
                self.server_stream(method, parts, body, Self::health_watch).await
            }
            ("etcdserverpb.Watch", "Watch") => {
                let method = method!("etcdserverpb.Watch", "Watch");
                self.bidi_stream(method, parts, body, Self::watch).await
            }
            ("etcdserverpb.Lease", "LeaseKeepAlive") => {
                let method = method!("etcdserverpb.Lease", "LeaseKeepAlive");
                self.bidi_stream(method, parts, body, Self::lease_keep_alive).await
            }
            _ => unknown(service, name),
        }
    }

    fn unary<M, R, B, F>(
        self: &Arc<Self>,
        method: &'static Method,
        parts: &Parts,
        body: B,
        handler: F,
    ) -> impl Future<Output = Output>
    where
        M: Message + Default + Shaped,
        R: Encode,
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        F: AsyncFnOnce(Arc<Self>, Credentials, M) -> Result<R, Status>,
    {
        self.unary_of(tolerant::message, method, parts, body, handler)
    }

    /// Runs a unary call whose message is decoded like this. A message that cannot be read is not
    /// counted as a call, as in etcd.
    async fn unary_of<M, R, B, F>(
        self: &Arc<Self>,
        decoded: fn(Bytes) -> Result<M, Malformed>,
        method: &'static Method,
        parts: &Parts,
        mut body: B,
        handler: F,
    ) -> Output
    where
        R: Encode,
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        F: AsyncFnOnce(Arc<Self>, Credentials, M) -> Result<R, Status>,
    {
        let (headers, bytes_max) = (&parts.headers, self.config.message_bytes_max());
        let request = grpc::decode(Answers::One, headers, &mut body, bytes_max, decoded).await;
        // What comes after the message is not kept.
        drop(body);
        let request = match request {
            Ok(request) => request,
            Err(status) => return grpc::failure(&status),
        };
        let mut call = Call::start(method);
        method.received.inc();
        // A place of its own, which a call takes only once its message has come.
        let answer = Box::pin(async {
            self.admit(&parts.headers, method)?;
            let who = self.identify(parts, method).await?;
            handler(Arc::clone(self), who, request).await?.encoded()
        });
        let answer = match stated_limit(parts) {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .unwrap_or_else(|_| Err(Error::DeadlineExceeded.into())),
        };
        call.finish(&answer, self.config.warning_duration);
        match answer {
            Ok(message) => grpc::success(message),
            Err(status) => grpc::failure(&status),
        }
    }

    async fn server_stream<M, R, S, B, F>(
        self: &Arc<Self>,
        method: &'static Method,
        parts: &Parts,
        body: B,
        handler: F,
    ) -> Output
    where
        M: Message + Default + Shaped + 'static,
        R: Message + Default + 'static,
        S: futures_core::Stream<Item = Result<R, Status>> + Send + 'static,
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        F: AsyncFnOnce(Arc<Self>, Credentials, M) -> Result<S, Status>,
    {
        let (headers, bytes_max) = (&parts.headers, self.config.message_bytes_max());
        let request =
            grpc::decode(Answers::Stream, headers, body, bytes_max, tolerant::message::<M>);
        let request = match request.await {
            Ok(request) => request,
            Err(status) => return grpc::failure(&status),
        };
        let start = self.start_stream(method);
        method.received.inc();
        let stream = Box::pin(async {
            self.admit(&parts.headers, method)?;
            let who = self.identify(parts, method).await?;
            handler(Arc::clone(self), who, request).await
        });
        match stream.await {
            Ok(stream) => self.stream_body::<R, M, S>(method, parts, start, stream).await,
            Err(status) => {
                method.handled(status.code() as usize, start.elapsed().as_secs_f64());
                grpc::failure(&status)
            }
        }
    }

    async fn bidi_stream<M, R, S, B, F>(
        self: &Arc<Self>,
        method: &'static Method,
        parts: &Parts,
        body: B,
        handler: F,
    ) -> Output
    where
        M: Message + Default + Shaped + 'static,
        R: Message + Default + 'static,
        S: futures_core::Stream<Item = Result<R, Status>> + Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send + Sync,
        F: FnOnce(Arc<Self>, Credentials, Requests<M>) -> S,
    {
        let bytes_max = self.config.message_bytes_max();
        let requests = match Requests::new(method, &parts.headers, body, bytes_max) {
            Ok(requests) => requests,
            Err(status) => return grpc::failure(&status),
        };
        let start = self.start_stream(method);
        let admitted = self.admit(&parts.headers, method).map_err(Status::from);
        let who = match admitted {
            Ok(()) => self.identify(parts, method).await,
            Err(status) => Err(status),
        };
        let who = match who {
            Ok(who) => who,
            Err(status) => {
                method.handled(status.code() as usize, start.elapsed().as_secs_f64());
                return grpc::failure(&status);
            }
        };
        let stream = handler(Arc::clone(self), who, requests);
        self.stream_body::<R, M, S>(method, parts, start, stream).await
    }

    fn start_stream(&self, method: &'static Method) -> Instant {
        method.started.inc();
        clock::instant()
    }

    async fn stream_body<R, M, S>(
        &self,
        method: &'static Method,
        parts: &Parts,
        start: Instant,
        stream: S,
    ) -> Output
    where
        R: Message + Default + 'static,
        M: Message + Default + 'static,
        S: futures_core::Stream<Item = Result<R, Status>> + Send + 'static,
    {
        let codec = ProstCodec::<R, M>::default();
        let encoder = tonic::codec::Codec::encoder(&mut { codec });
        let body =
            tonic::codec::EncodeBody::new_server(encoder, stream, None, Default::default(), None);
        let ending = self.ending(parts);
        let stream = grpc::Stream::new(tonic::body::Body::new(body), ending, method, start);
        grpc::stream(stream)
    }

    /// Resolves when a stream with this metadata must end. grpc-go resets one whose deadline is over.
    fn ending(&self, parts: &Parts) -> Ending {
        let needs_leader = needs_leader(&parts.headers);
        let mut ends = self.ends.subscribe();
        let limit = stated_limit(parts);
        Box::pin(async move {
            let mut late = pin!(async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            });
            loop {
                let now = *ends.borrow_and_update();
                if now.stopped {
                    return Error::Stopped.into();
                }
                if needs_leader && now.leaderless {
                    return Error::NoLeader.into();
                }
                let changed = tokio::select! {
                    changed = ends.changed() => changed,
                    () = &mut late => return Error::DeadlineExceeded.into(),
                };
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
    }

    /// What holds for any call: the learner's rule and the client's metadata.
    fn admit(&self, headers: &HeaderMap, method: &Method) -> Result<(), Error> {
        if self.node.is_learner() && !serves_as_learner(method) {
            return Err(Error::NotSupportedForLearner);
        }
        let version = match headers.get(CLIENT_VERSION) {
            None => None,
            Some(value) => Some(
                std::str::from_utf8(value.as_bytes())
                    .map_err(|_| Error::InvalidClientApiVersion)?,
            ),
        };
        metrics::client_requests(method.kind, version).inc();
        if needs_leader(headers) && !self.has_leader() {
            return Err(Error::NoLeader);
        }
        Ok(())
    }
}

fn needs_leader(headers: &HeaderMap) -> bool {
    headers.get(HAS_LEADER).is_some_and(|value| value == "true")
}

/// Range is on the list for its serializable form; its handler refuses the other.
fn serves_as_learner(method: &Method) -> bool {
    matches!(method.name, "Status" | "Snapshot")
        || (method.name == "Range" && method.service == "etcdserverpb.KV")
}

/// Counts a unary call, also when its client goes away first.
struct Call {
    method: &'static Method,
    start: Instant,
    finished: bool,
}

impl Call {
    fn start(method: &'static Method) -> Self {
        method.started.inc();
        Self { method, start: clock::instant(), finished: false }
    }

    fn finish(&mut self, answer: &Result<Encoded, Status>, warning: Duration) {
        self.finished = true;
        let took = self.start.elapsed();
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        if code == Code::Ok {
            self.method.sent.inc();
        }
        self.method.handled(code as usize, took.as_secs_f64());
        if took > warning {
            tracing::warn!(
                "time spent" = %format!("{took:?}"),
                "response type" = %format!("/{}/{}", self.method.service, self.method.name),
                "response size" = answer.as_ref().map_or(0, |Encoded(bytes)| bytes.len()),
                "request stats"
            );
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.finished {
            self.method.handled(Code::Cancelled as usize, self.start.elapsed().as_secs_f64());
        }
    }
}

/// The answer to a call that finds no room.
pub fn too_many_requests() -> Output {
    grpc::failure(&Error::TooManyRequests.into())
}

/// In the place of the rest of a request's message, for which there is no room any more.
pub fn message_given_up() -> BoxError {
    let text = "the rest of the request's message did not come while others needed the room";
    Status::resource_exhausted(text).into()
}

/// A method's name as the client sent it: a question mark begins no query here, as in grpc-go.
fn path(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", PathAndQuery::as_str)
}

/// The time that a call that was not refused states for itself.
fn stated_limit(parts: &Parts) -> Option<Duration> {
    parts.extensions.get().and_then(|Deadline(limit)| *limit)
}

/// What is not gRPC is told so in HTTP's terms. The deadline of what is goes into its extensions.
fn refuse(parts: &mut Parts) -> Option<Output> {
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let deadline = metadata::read(&parts.headers);
    if parts.method == Verb::POST
        && is_grpc(content_type)
        && let Ok(deadline) = deadline
    {
        if deadline == Deadline(Some(Duration::ZERO)) {
            return Some(grpc::failure(&Error::DeadlineExceeded.into()));
        }
        if deadline.0.is_some() {
            parts.extensions.insert(deadline);
        }
        return None;
    }
    let fault = deadline.err().filter(|_| is_grpc(content_type));
    let (code, status) = if let Some(text) = fault {
        (StatusCode::BAD_REQUEST, Status::internal(text))
    } else if is_grpc(content_type) {
        let verb = parts.method.as_str();
        let text = format!("Received a HEADERS frame with :method {verb:?} which should be POST");
        (StatusCode::METHOD_NOT_ALLOWED, Status::internal(text))
    } else {
        let text = String::from_utf8_lossy(content_type);
        let status =
            Status::invalid_argument(format!("invalid gRPC request content-type {text:?}"));
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, status)
    };
    let mut response = grpc::failure(&status);
    *response.status_mut() = code;
    Some(response)
}

fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

/// A method that is known and not served yet says so; it is never a pretended success.
fn unknown(service: &str, name: &str) -> Output {
    let status = if METHODS.iter().any(|&(known, method, _)| known == service && method == name) {
        Status::unimplemented(format!("rusd does not support {service}.{name} yet"))
    } else if METHODS.iter().any(|&(known, ..)| known == service) {
        Status::unimplemented(format!("unknown method {name} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    };
    grpc::failure(&status)
}
