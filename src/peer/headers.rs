//! The headers by which members identify themselves in requests and answers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// This member's identity, and its URLs for peers.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    pub id: u64,
    pub cluster_id: u64,
    /// The URLs at which peers reach this member.
    pub urls: Vec<String>,
    /// The etcd version whose protocol this member speaks.
    pub version: String,
    /// The longest silence of a peer's stream before this member hangs up.
    pub read_timeout: Duration,
}

pub(super) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(super) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(super) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
/// The least version of etcd's protocol between members that is understood, as etcd says of itself.
pub(super) const MINIMUM_VERSION: &str = "3.0.0";
pub const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(super) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");
pub(super) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
/// Sent by rusd only: members without it are etcd's, and are refused.
pub const RUSD_VERSION: HeaderName = HeaderName::from_static("x-rusd-version");
/// The headers of a request to the peer `to`, or of an answer, which names no receiver.
pub(super) fn headers(config: &PeersConfig, to: Option<u64>) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::new();
    let mut put = |name, value: &str| -> Result<(), http::Error> {
        headers.insert(name, HeaderValue::from_str(value)?);
        Ok(())
    };
    put(SERVER_VERSION, &config.version)?;
    put(MIN_CLUSTER_VERSION, MINIMUM_VERSION)?;
    put(CLUSTER_ID, &format!("{:x}", config.cluster_id))?;
    put(RUSD_VERSION, env!("CARGO_PKG_VERSION"))?;
    if let Some(to) = to {
        put(SERVER_FROM, &format!("{:x}", config.id))?;
        put(RAFT_TO, &format!("{to:x}"))?;
        put(PEER_URLS, &config.urls.join(","))?;
    }
    Ok(headers)
}

/// Whether the headers come from a member of rusd, and of this cluster.
pub(super) fn is_fellow(headers: &HeaderMap, config: &PeersConfig) -> bool {
    is_rusd(headers) && is_of_cluster(headers, config)
}

/// Whether the headers name this cluster.
pub(super) fn is_of_cluster(headers: &HeaderMap, config: &PeersConfig) -> bool {
    let cluster = headers.get(CLUSTER_ID).and_then(|id| id.to_str().ok());
    cluster == Some(format!("{:x}", config.cluster_id).as_str())
}

/// Whether the headers come from a member of rusd.
pub fn is_rusd(headers: &HeaderMap) -> bool {
    headers.contains_key(RUSD_VERSION)
}
