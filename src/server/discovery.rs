//! etcd's v3 discovery: members that do not know each other meet in another cluster's keys.
//!
//! Under `/_etcd/registry/<token>/` an operator has put the size of the new cluster; each member
//! adds a key of its own, and the first ones, by the revision that made their keys, are the
//! cluster. Each member waits until there are enough. A service that does not answer ends no start:
//! the member asks again, with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use super::member_list;
use crate::client::{
    Client, Config, Credentials, Deadline, Event, LogSink, Reach, TlsOptions, WatchSpec, Watcher,
    prefix_end, rpc,
};
use crate::clock::SystemClock;
use crate::go;
use crate::limits;
use crate::pb::{KeyValue, PutRequest, RangeRequest, RangeResponse};

#[derive(Clone, Debug)]
pub(super) struct Discovery {
    pub endpoints: Vec<String>,
    pub token: String,
    pub dial_timeout: Duration,
    pub request_timeout: Duration,
    pub keep_alive_time: Duration,
    pub keep_alive_timeout: Duration,
    pub tls: TlsOptions,
    pub user: String,
    pub password: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("discovery: size key not found")]
    SizeNotFound,
    #[error("discovery: size key is bad")]
    BadSize,
    #[error("discovery: cluster is full")]
    Full,
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    /// The client for the service cannot be made.
    #[error("{0}")]
    Client(String),
}

/// Registers this member and returns the cluster, in the form of `--initial-cluster`.
pub(super) async fn join(config: &Discovery, id: u64, own: &str) -> Result<String, Error> {
    let outcome = Registry::join(config, id, own).await;
    let (token, endpoints) = (config.token.as_str(), config.endpoints.join(","));
    match &outcome {
        Ok(cluster) => tracing::info!(
            "discovery-token" = token,
            "discovery-endpoints" = endpoints,
            cluster,
            "discovery joined cluster successfully"
        ),
        Err(error) => tracing::error!(
            "discovery-token" = token,
            "discovery-endpoints" = endpoints,
            %error,
            "discovery failed to join cluster"
        ),
    }
    outcome
}

/// The members of one token, oldest first.
#[derive(Debug, Default)]
struct RegisteredMembers(Vec<Registered>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registered {
    created: i64,
    key: String,
    /// One `name=url` or more, separated by commas.
    urls: String,
}

impl RegisteredMembers {
    /// Adds a registration, unless it is malformed or its key is known.
    fn add(&mut self, kv: &KeyValue) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (key, urls) = (text(&kv.key), text(&kv.value));
        let refused = if !urls.contains('=') {
            "invalid peer info returned from discovery service"
        } else if self.0.iter().any(|known| known.key == key) {
            "found duplicate peer from discovery service"
        } else {
            tracing::info!(memberKey = key, memberInfo = urls, "found peer from discovery service");
            self.0.push(Registered { created: kv.create_revision, key, urls });
            self.0.sort_by_key(|registered| registered.created);
            return;
        };
        tracing::warn!(memberKey = key, memberInfo = urls, "{refused}");
    }

    /// Whether the cluster has its `size` members without the owner of `key`.
    fn is_full_for(&self, key: &str, size: usize) -> bool {
        self.0.len() >= size && !self.0.iter().take(size).any(|registered| registered.key == key)
    }

    fn cluster(&self, size: usize) -> Result<String, Error> {
        let first: Vec<&str> = self.0.iter().take(size).map(|it| it.urls.as_str()).collect();
        let text = first.join(",");
        member_list::parse(&text).map_err(|_| Error::InvalidUrl)?;
        Ok(text)
    }
}

/// The keys of one token, through a client of the service.
struct Registry<'a> {
    config: &'a Discovery,
    client: Client,
    prefix: String,
    /// Pauses since the last answer; each one makes the next longer.
    failures: u32,
}

/// Logs the client's own lines at debug level alone: they repeat what is logged here.
struct Quiet;

impl LogSink for Quiet {
    fn event(&self, event: &Event<'_>) {
        let line = event.json().unwrap_or_else(|| event.words());
        tracing::debug!(line, "discovery client");
    }
}

fn credentials(config: &Discovery) -> Credentials {
    match config.user.as_str() {
        "" => Credentials::None,
        user => Credentials::Password { user: user.into(), password: config.password.clone() },
    }
}

impl<'a> Registry<'a> {
    async fn join(config: &'a Discovery, id: u64, own: &str) -> Result<String, Error> {
        let settings = Config {
            endpoints: config.endpoints.clone(),
            dial_timeout: config.dial_timeout,
            keep_alive_time: config.keep_alive_time,
            keep_alive_timeout: config.keep_alive_timeout,
            send_bytes_max: 0,
            receive_bytes_max: 0,
            tls: config.tls.clone(),
            credentials: credentials(config),
            reach: Reach::UntilDeadline,
            logger: "etcd-client",
        };
        let client = Client::connect(settings, Arc::new(Quiet), Arc::new(SystemClock::new()));
        let client = client.await.map_err(|error| Error::Client(error.to_string()))?;
        let prefix = format!("/_etcd/registry/{}", config.token);
        let mut registry = Self { config, client, prefix, failures: 0 };
        let key = format!("{}/members/{id:x}", registry.prefix);
        registry.look(&key).await?;
        registry.register(&key, own).await;
        let (mut found, size, mut revision) = registry.look(&key).await?;
        while found.0.len() < size {
            registry.wait(&mut found, size, revision).await;
            if found.0.len() < size {
                registry.pause("waiting for peers").await;
                (found, _, revision) = registry.look(&key).await?;
            }
        }
        found.cluster(size)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.config.request_timeout)
    }

    /// Waits 2 s at first and twice as long each time, up to a bound.
    async fn pause(&mut self, reason: &str) {
        self.failures = (self.failures + 1).min(limits::DISCOVERY_BACKOFFS_MAX);
        let backoff = Duration::from_secs(1 << self.failures);
        tracing::warn!(
            reason,
            backoff = go::duration(backoff),
            "retry connecting to discovery service"
        );
        tokio::time::sleep(backoff).await;
    }

    async fn get(&self, key: String, range_end: Vec<u8>) -> Result<RangeResponse, String> {
        let request =
            RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
        let answered = self.client.call(&rpc::RANGE, request, self.deadline()).await;
        answered.map_err(|error| error.to_string())
    }

    /// The members so far, the size of the cluster, and the revision of the answer. Asks until the
    /// service answers. Fails if the cluster is full without the owner of `key`.
    async fn look(&mut self, key: &str) -> Result<(RegisteredMembers, usize, i64), Error> {
        loop {
            match self.look_once().await {
                Ok(looked) => {
                    self.failures = 0;
                    let (found, size, revision) = looked?;
                    if found.is_full_for(key, size) {
                        return Err(Error::Full);
                    }
                    return Ok((found, size, revision));
                }
                Err(error) => {
                    tracing::warn!(error, "failed to get cluster from discovery service");
                    self.pause("cluster status check").await;
                }
            }
        }
    }

    async fn look_once(&self) -> Result<Result<(RegisteredMembers, usize, i64), Error>, String> {
        let sizes = self.get(format!("{}/_config/size", self.prefix), Vec::new()).await?;
        let Some(kv) = sizes.kvs.first() else { return Ok(Err(Error::SizeNotFound)) };
        let size = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse::<i64>().ok());
        let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        let Some(size) = size else { return Ok(Err(Error::BadSize)) };
        let members = self.members();
        let end = prefix_end(members.as_bytes());
        let listed = self.get(members, end).await?;
        let mut found = RegisteredMembers::default();
        listed.kvs.iter().for_each(|kv| found.add(kv));
        Ok(Ok((found, size, listed.header.unwrap_or_default().revision)))
    }

    fn members(&self) -> String {
        format!("{}/members", self.prefix)
    }

    async fn register(&mut self, key: &str, own: &str) {
        loop {
            let (key, value) = (key.to_owned().into(), own.to_owned().into());
            let put = PutRequest { key, value, ..PutRequest::default() };
            match self.client.call(&rpc::PUT, put, self.deadline()).await {
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "failed to register members itself to the discovery service"
                    );
                    self.pause("register member itself").await;
                }
            }
        }
        self.failures = 0;
        tracing::info!(memberKey = key, memberInfo = own, "register member itself successfully");
    }

    /// Follows registrations until there are enough, or until the watch breaks.
    async fn wait(&self, found: &mut RegisteredMembers, size: usize, revision: i64) {
        let before = found.0.len();
        tracing::info!(
            clusterSize = size,
            "found-peers" = before,
            "waiting for peers from discovery service"
        );
        let mut watcher = Watcher::new(&self.client, false);
        let key = self.members();
        let range_end = prefix_end(key.as_bytes()).into();
        let revision = revision + 1;
        watcher.add(WatchSpec { key: key.into(), range_end, revision, ..WatchSpec::default() });
        while found.0.len() < size {
            let Some(batch) = watcher.next().await else { break };
            for event in &batch.events {
                let Some(kv) = event.kv.as_ref() else { continue };
                found.add(kv);
            }
            if let Some(error) = batch.error() {
                tracing::warn!(error, "the watch of the discovery service ended");
                break;
            }
        }
        if found.0.len() >= size {
            tracing::info!(
                clusterSize = size,
                "found-peers" = found.0.len(),
                "found all needed peers from discovery service"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, create_revision: i64) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision,
            ..KeyValue::default()
        }
    }

    #[test]
    fn the_oldest_registrations_are_the_cluster() {
        let mut found = RegisteredMembers::default();
        for kv in [
            kv("c", "c=http://c:1", 9),
            kv("a", " a=http://a:1,a=http://a:2 ", 7),
            kv("a", "x=http://x:1", 10),
            kv("junk", "no url", 1),
            kv("b", "b=http://b:1", 8),
        ] {
            found.add(&kv);
        }
        assert_eq!(found.0.len(), 3);
        assert_eq!(found.cluster(2).unwrap(), "a=http://a:1,a=http://a:2,b=http://b:1");
        assert!(!found.is_full_for("b", 2));
        assert!(found.is_full_for("c", 2));
        assert!(!found.is_full_for("new", 4));
        let mut found = RegisteredMembers::default();
        found.add(&kv("a", "a=a:1", 1));
        assert_eq!(found.cluster(1), Err(Error::InvalidUrl));
    }
}
