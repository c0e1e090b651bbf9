//! Single calls and streams: the choice of an endpoint, the wait for one, retries, and the login.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::uri::PathAndQuery;
use parking_lot::{Mutex, RwLock};
use prost::{DecodeError, Message};
use tokio::time::{Instant, sleep};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::config::{Config, Credentials};
use super::deadline::Deadline;
use super::encoded::{Answers, EncodedCodec, encode, undecodable};
use super::endpoint::{Addresses, Target};
use super::error::{Error, rpc_text};
use super::log::{Event, FailedAttempt, LogSink, NoEndpoint};
use super::methods::{Method, rpc};
use super::nodes::{Node, Nodes};
use super::reach::Reach;
use crate::clock::Clock;
use crate::limits;
use crate::pb::AuthenticateRequest;
use crate::tls::Connector;

/// The API version that etcd's own client of this release announces.
const API_VERSION: &str = "3.7";

/// A client of one cluster. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    nodes: Nodes,
    token: RwLock<Vec<u8>>,
    log: Arc<dyn LogSink>,
    clock: Arc<dyn Clock>,
    /// The target that log lines name, as etcd's client does: a made-up id and the first endpoint.
    target: String,
    /// Whether the log was told that no endpoint is there any more.
    is_away: AtomicBool,
}

/// A unary call, of any method.
struct Call<'a> {
    path: &'static str,
    repeatable: bool,
    request: Bytes,
    deadline: Deadline,
    /// Gets the encoded answer.
    take: &'a mut (dyn FnMut(Bytes) -> Result<(), DecodeError> + Send),
}

/// A failed attempt, with what its log line says.
struct Failed {
    error: Error,
    logged: String,
    addresses: Option<Addresses>,
}

impl Client {
    /// Checks the configuration, and logs in if it has a password. Without one it connects to
    /// nothing: the first call does. With [`Reach::AtOnce`] it connects in any case.
    pub async fn connect(
        config: Config,
        log: Arc<dyn LogSink>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let (send, receive) = (config.send_bytes_max, config.receive_bytes_max);
        if config.endpoints.is_empty() {
            return Err(Error::Other("etcdclient: no available endpoints".into()));
        }
        if receive > 0 && send > receive {
            return Err(Error::Other(format!(
                "gRPC message recv limit ({receive} bytes) must be greater than send limit \
                 ({send} bytes)"
            )));
        }
        let wanted = config.tls.is_default();
        let targets: Vec<_> =
            config.endpoints.iter().map(|endpoint| Target::parse(endpoint, wanted)).collect();
        let tls = match targets.iter().any(|target| target.tls) {
            true => {
                let connector = Connector::new(config.tls.files());
                Some(Arc::new(connector.map_err(|error| Error::Tls(error.to_string()))?))
            }
            false => None,
        };
        let id = clock.random() & 0xffff_ffff_ff00;
        let target = format!("etcd-endpoints://{id:#x}/{}", targets[0].shown());
        let nodes = config.endpoints.iter().zip(targets);
        let nodes = nodes
            .map(|(name, target)| {
                let tls = tls.clone().filter(|_| target.tls);
                Node::new(&config, name, target, tls)
            })
            .collect();
        let client = Self {
            inner: Arc::new(Inner {
                nodes: Nodes::new(nodes),
                token: RwLock::default(),
                log,
                clock,
                target,
                config,
                is_away: AtomicBool::new(false),
            }),
        };
        if let Reach::AtOnce { wait } = client.inner.config.reach {
            client.reach(wait).await?;
        }
        let wait = client.inner.config.dial_timeout;
        let deadline = if wait.is_zero() { Deadline::NONE } else { Deadline::after(wait) };
        client.log_in(deadline).await?;
        Ok(client)
    }

    /// Connects to an endpoint. Fails once a dial of each has failed, unless what is wrong may pass
    /// within `wait`.
    async fn reach(&self, wait: Duration) -> Result<(), Error> {
        let end = Deadline::after(wait);
        let mut is_told = false;
        loop {
            let Err(failures) = self.inner.nodes.connect_once().await else { return Ok(()) };
            let may_pass = failures.iter().any(|failure| failure.cause.may_pass());
            if wait.is_zero() || end.passed() || !may_pass {
                return Err(Error::Unreachable(failures));
            }
            if !is_told {
                self.inner.log.event(&Event::Waiting(&failures, wait));
                is_told = true;
            }
            // Not beyond the end, at which every endpoint is dialled once more.
            let _ = end.bound(sleep(limits::CLIENT_RECONNECT_WAIT)).await;
        }
    }

    pub fn endpoints(&self) -> &[String] {
        &self.inner.config.endpoints
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub fn dial_timeout(&self) -> Duration {
        self.inner.config.dial_timeout
    }

    /// Calls a unary method. Each failed attempt is logged. The call is repeated where that is
    /// safe, with a pause after each quorum of endpoints, for up to `CLIENT_ATTEMPTS_MAX` attempts.
    pub async fn call<Q, R>(
        &self,
        method: &Method<Q, R>,
        request: Q,
        deadline: Deadline,
    ) -> Result<R, Error>
    where
        Q: Message,
        R: Message + Default,
    {
        let (path, repeatable, mut response) = (method.path, method.repeatable, R::default());
        let mut call = Call {
            path,
            repeatable,
            request: encode(&request),
            deadline,
            take: &mut |encoded| {
                response = R::decode(encoded)?;
                Ok(())
            },
        };
        drop(request);
        self.call_encoded(&mut call).await?;
        Ok(response)
    }

    /// The same for all methods. Boxed, so that the futures of commands stay small.
    fn call_encoded<'a>(&'a self, call: &'a mut Call<'_>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.call_until_answered(call))
    }

    async fn call_until_answered(&self, call: &mut Call<'_>) -> Result<(), Error> {
        let quorum = self.inner.nodes.len() / 2 + 1;
        let deadline = call.deadline;
        let (mut attempt, mut refusals) = (0, 0);
        loop {
            if attempt > 0 && (attempt as usize).is_multiple_of(quorum) {
                let pause = sleep(limits::CLIENT_RETRY_WAIT);
                deadline.bound(pause).await.ok_or(Error::Deadline)?;
            }
            let failed = match self.attempt(call).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            self.log_failure(call.path, attempt, &failed);
            attempt += 1;
            if attempt >= limits::CLIENT_ATTEMPTS_MAX {
                return Err(failed.error);
            }
            if call.path != rpc::AUTHENTICATE.path && self.may_log_in_and_repeat(&failed.error) {
                self.log_in(deadline).await?;
                continue;
            }
            // A learner refuses before it does anything, so the call is safe to repeat; the next
            // endpoint may be a voter.
            let is_learner = failed.error.is("etcdserver: rpc not supported for learner");
            let is_elsewhere = is_learner && self.inner.nodes.len() > 1;
            let code = failed.error.code();
            let is_away = code == Some(Code::Unavailable);
            // The server gave up before the caller's deadline, as a rule for want of a leader. etcd's
            // client repeats such a call even if it is not repeatable (client/v3/retry_interceptor.go).
            let has_given_up = matches!(code, Some(Code::DeadlineExceeded | Code::Cancelled));
            let may_go_on = has_given_up && !deadline.passed();
            if !(is_elsewhere || may_go_on || call.repeatable && is_away) {
                return Err(failed.error);
            }
            if is_elsewhere {
                // Connected endpoints come first. Once all have refused, another is connected; that
                // comes last, since an endpoint that is down costs a dial until its timeout.
                refusals += 1;
                if usize::is_multiple_of(refusals, self.inner.nodes.connected().len()) {
                    deadline.bound(self.inner.nodes.connect_another()).await;
                }
            }
        }
    }

    async fn attempt(&self, call: &mut Call<'_>) -> Result<(), Failed> {
        let deadline = call.deadline;
        let unconnected = |(error, logged)| Failed { error, logged, addresses: None };
        let (node, mut grpc) = self.ready(deadline).await.map_err(unconnected)?;
        let outcome = match self.check_size(call.request.len()) {
            Ok(()) => {
                let request = self.with_metadata(call.request.clone(), deadline, false);
                let path = PathAndQuery::from_static(call.path);
                let work = async {
                    grpc.ready().await.map_err(not_ready)?;
                    grpc.unary(request, path, EncodedCodec).await
                };
                deadline.bound(work).await
            }
            Err(status) => Some(Err(status)),
        };
        let taken = outcome
            .map(|outcome| (call.take)(outcome?.into_inner()).map_err(|error| undecodable(&error)));
        let error = match taken {
            Some(Ok(())) => return Ok(()),
            Some(Err(status)) => self.classify(node, status, deadline),
            None => Error::Deadline,
        };
        let logged = match &error {
            Error::Status(status) => rpc_text(status),
            other => format!("rpc error: code = DeadlineExceeded desc = {other}"),
        };
        Err(Failed { error, logged, addresses: node.addresses() })
    }

    /// Opens a stream in both directions. The server may still refuse it: the refusal is then an
    /// error here or the stream's first item.
    pub async fn stream<Q, R>(
        &self,
        method: &Method<Q, R>,
        requests: BoxStream<'static, Q>,
        require_leader: bool,
        deadline: Deadline,
    ) -> Result<Answers<R>, Error>
    where
        Q: Message + 'static,
        R: Message + Default,
    {
        let requests = requests.map(|request| encode(&request)).boxed();
        let opened = self.stream_encoded(method.path, requests, require_leader, deadline);
        opened.await.map(Answers::new)
    }

    async fn stream_encoded(
        &self,
        path: &'static str,
        requests: BoxStream<'static, Bytes>,
        require_leader: bool,
        deadline: Deadline,
    ) -> Result<Streaming<Bytes>, Error> {
        // The token may have expired since the last stream was opened. A stream cannot be repeated
        // as a call can, so it logs in anew.
        self.log_in(deadline).await?;
        let (node, mut grpc) = self.ready(deadline).await.map_err(|(error, _)| error)?;
        let request = self.with_metadata(requests, deadline, require_leader);
        let path = PathAndQuery::from_static(path);
        let opened = async {
            grpc.ready().await.map_err(not_ready)?;
            grpc.streaming(request, path, EncodedCodec).await
        };
        match deadline.bound(opened).await {
            Some(Ok(response)) => Ok(response.into_inner()),
            Some(Err(status)) => Err(self.classify(node, status, deadline).into_stream()),
            None => Err(Error::Deadline),
        }
    }

    /// The next message of a stream; None when the server ends it with success.
    pub async fn next<R: Message + Default>(
        &self,
        stream: &mut Answers<R>,
        deadline: Deadline,
    ) -> Result<Option<R>, Error> {
        match deadline.bound(stream.message()).await {
            Some(Ok(message)) => Ok(message),
            Some(Err(status)) if is_local(&status) => {
                // A stream does not know its node, so all connections are forgotten. The next call
                // connects again to those that work.
                self.inner.nodes.forget();
                Err(Error::Stream(connection_lost()))
            }
            Some(Err(status)) => Err(Error::Stream(status)),
            None => Err(Error::Deadline),
        }
    }

    /// A channel of the next connected node, or of the first that connects. An error comes with the
    /// text for the log.
    async fn ready(&self, deadline: Deadline) -> Result<(&Node, Grpc<Channel>), (Error, String)> {
        let last = Mutex::new(String::new());
        let picked = match deadline.at() {
            Some(_) => deadline.bound(self.inner.nodes.pick(&last)).await,
            None if self.is_prompt() => Some(self.pick_and_tell(&last).await),
            None => Some(self.pick_without_deadline(&last).await),
        };
        match picked {
            Some((node, channel)) => Ok((node, self.grpc(channel))),
            None => {
                let failures = self.inner.nodes.failures().filter(|_| self.is_prompt());
                let error = failures.map_or(Error::Deadline, Error::Unreachable);
                let reason = match last.into_inner() {
                    empty if empty.is_empty() => "context deadline exceeded".to_string(),
                    text => format!("latest balancer error: connection error: desc = \"{text}\""),
                };
                let logged = format!("rpc error: code = DeadlineExceeded desc = {reason}");
                Err((error, logged))
            }
        }
    }

    /// Waits for an endpoint without a deadline, and logs one line after `CLIENT_SILENCE_MAX`:
    /// commands such as `watch` wait out any failure of the cluster, and their users should see why
    /// they are silent.
    async fn pick_without_deadline(&self, last: &Mutex<String>) -> (&Node, Channel) {
        let mut pick = std::pin::pin!(self.inner.nodes.pick(last));
        tokio::select! {
            picked = &mut pick => return picked,
            () = sleep(limits::CLIENT_SILENCE_MAX) => {}
        }
        let waiting = NoEndpoint {
            unix_nanos: self.inner.clock.unix_nanos(),
            logger: self.inner.config.logger,
            target: &self.inner.target,
            error: &last.lock().clone(),
        };
        self.inner.log.event(&Event::NoEndpoint(waiting));
        pick.await
    }

    fn is_prompt(&self) -> bool {
        self.inner.config.reach != Reach::UntilDeadline
    }

    /// Waits for an endpoint without a deadline, and tells once that none is there, and once that
    /// one is back, however many calls wait.
    async fn pick_and_tell(&self, last: &Mutex<String>) -> (&Node, Channel) {
        let inner = &self.inner;
        let mut pick = std::pin::pin!(inner.nodes.pick(last));
        let picked = loop {
            tokio::select! {
                picked = &mut pick => break picked,
                () = sleep(limits::CLIENT_RECONNECT_WAIT) => {}
            }
            if let Some(failures) = inner.nodes.failures()
                && !inner.is_away.swap(true, Ordering::Relaxed)
            {
                inner.log.event(&Event::Lost(&failures));
            }
        };
        if inner.is_away.swap(false, Ordering::Relaxed) {
            inner.log.event(&Event::Back(&picked.0.name));
        }
        picked
    }

    fn grpc(&self, channel: Channel) -> Grpc<Channel> {
        let receive = match self.inner.config.receive_bytes_max {
            0 => limits::CLIENT_RECEIVE_BYTES_MAX,
            bytes => bytes,
        };
        Grpc::new(channel).max_decoding_message_size(receive).max_encoding_message_size(usize::MAX)
    }

    fn check_size(&self, bytes: usize) -> Result<(), Status> {
        let limit = match self.inner.config.send_bytes_max {
            0 => limits::CLIENT_SEND_BYTES_MAX,
            bytes => bytes,
        };
        if bytes > limit {
            return Err(Status::resource_exhausted(format!(
                "trying to send message larger than max ({bytes} vs. {limit})"
            )));
        }
        Ok(())
    }

    fn with_metadata<T>(&self, message: T, deadline: Deadline, require_leader: bool) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(at) = deadline.at() {
            request.set_timeout(at.saturating_duration_since(Instant::now()));
        }
        let metadata = request.metadata_mut();
        metadata.insert("client-api-version", MetadataValue::from_static(API_VERSION));
        if require_leader {
            metadata.insert("hasleader", MetadataValue::from_static("true"));
        }
        // A token that no header can hold cannot be valid. The call goes without it, and the server
        // refuses the call.
        if let Ok(token) = MetadataValue::<Ascii>::try_from(self.inner.token.read().as_slice())
            && !token.is_empty()
        {
            metadata.insert("token", token);
        }
        request
    }

    /// Turns the status of a failed call into an error in etcd's words. If the connection failed,
    /// the node forgets it.
    fn classify(&self, node: &Node, status: Status, deadline: Deadline) -> Error {
        if deadline.passed() || status.message() == "Timeout expired" {
            return Error::Deadline;
        }
        if is_local(&status) {
            node.forget();
            return Error::Status(connection_lost());
        }
        if let Some(sizes) =
            status.message().strip_prefix("Error, decoded message length too large: found ")
        {
            let sizes = sizes.replace(" bytes, the limit is: ", " vs. ").replace(" bytes", "");
            return Error::Status(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({sizes})"
            )));
        }
        Error::Status(status)
    }

    fn log_failure(&self, method: &str, attempt: u32, failed: &Failed) {
        let peer = match &failed.addresses {
            Some(addresses) => format!(
                "Peer{{Addr: '{}', LocalAddr: '{}', AuthInfo: '{}'}}",
                addresses.peer, addresses.local, addresses.security
            ),
            None => "Peer{Addr: <nil>, LocalAddr: <nil>, AuthInfo: <nil>}".into(),
        };
        let failed = FailedAttempt {
            unix_nanos: self.inner.clock.unix_nanos(),
            logger: self.inner.config.logger,
            target: &self.inner.target,
            peer: &peer,
            method,
            attempt,
            error: &failed.logged,
        };
        self.inner.log.event(&Event::Attempt(failed));
    }

    /// Whether a call is repeated after a refusal of its caller; a client with a password logs in
    /// again first. A client with a certificate repeats the call as it is, since users and roles
    /// may have changed between the check of its rights and the apply. A client with a given token
    /// has no other token and does not repeat, as etcd's client does not.
    fn may_log_in_and_repeat(&self, error: &Error) -> bool {
        let is_old = error.is("etcdserver: invalid auth token")
            || error.is("etcdserver: revision of auth store is old");
        match &self.inner.config.credentials {
            Credentials::Token(_) => false,
            Credentials::Password { user, password }
                if !user.is_empty() && !password.is_empty() =>
            {
                is_old || error.is("etcdserver: user name is empty")
            }
            Credentials::Password { .. } | Credentials::None => is_old,
        }
    }

    /// Gets a token if the configuration has a name and a password. While auth is disabled, it
    /// clears the token.
    async fn log_in(&self, deadline: Deadline) -> Result<(), Error> {
        let (name, password) = match &self.inner.config.credentials {
            Credentials::None => return Ok(()),
            Credentials::Token(token) => {
                *self.inner.token.write() = token.clone();
                return Ok(());
            }
            Credentials::Password { password, .. } if password.is_empty() => return Ok(()),
            Credentials::Password { user, .. } if user.is_empty() => return Ok(()),
            Credentials::Password { user, password } => (user.clone(), password.clone()),
        };
        let request = AuthenticateRequest { name, password };
        let token = match self.call(&rpc::AUTHENTICATE, request, deadline).await {
            Ok(response) => response.token.into(),
            Err(error) if error.is("etcdserver: authentication is not enabled") => Vec::new(),
            Err(error) => return Err(error),
        };
        *self.inner.token.write() = token;
        Ok(())
    }
}

impl Error {
    /// The error as streams word it: etcd's client does not translate the errors of streams.
    fn into_stream(self) -> Self {
        match self {
            Self::Status(status) => Self::Stream(status),
            other => other,
        }
    }
}

/// Whether a status was made by tonic for a broken connection, and not sent by the server.
fn is_local(status: &Status) -> bool {
    status.source().is_some()
}

fn not_ready(error: tonic::transport::Error) -> Status {
    Status::from_error(Box::new(error))
}

fn connection_lost() -> Status {
    Status::unavailable("error reading from server: EOF")
}

#[cfg(test)]
mod tests;
