//! What members ask each other over the peer port, except below `/raft`.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use prost::Message;

use super::{Answer, Http, JSON, TEXT, error, not_allowed, typed};
use crate::apply;
use crate::limits;
use crate::node::Error;
use crate::pb::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use crate::pb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse, Member, ResponseHeader,
};
use crate::peer::{CLUSTER_ID, HASH_KV_PATH, RUSD_VERSION};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");
const PROMOTE: &str = "/members/promote/";

impl Http {
    pub async fn answer_peer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let get = request.method() == Method::GET;
        let path = request.uri().path().to_owned();
        let mut answer = match path.as_str() {
            "/version" | "/members" | "/downgrade/enabled" if !get => not_allowed(),
            "/version" => self.version(),
            "/members" => typed(StatusCode::OK, JSON, &members_json(&self.node.members())),
            "/downgrade/enabled" => match self.node.barrier().await {
                Ok(()) => typed(StatusCode::OK, TEXT, &self.node.is_downgrading().to_string()),
                Err(why) => {
                    let text = format!("failed linearized read: etcdserver: {why}");
                    error(StatusCode::INTERNAL_SERVER_ERROR, &text)
                }
            },
            HASH_KV_PATH if !get => not_allowed(),
            HASH_KV_PATH => self.history_hash(request).await,
            "/leases" | "/leases/internal" => self.lease(&path, request).await,
            promote if promote.starts_with(PROMOTE) && request.method() != Method::POST => {
                not_allowed()
            }
            promote if promote.starts_with(PROMOTE) => {
                self.promote(&promote[PROMOTE.len()..]).await
            }
            _ => error(StatusCode::NOT_FOUND, "404 page not found"),
        };
        if let Ok(cluster) = HeaderValue::from_str(&format!("{:x}", self.node.cluster_id())) {
            answer.headers_mut().insert(CLUSTER_ID, cluster);
        }
        let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
        answer.headers_mut().insert(RUSD_VERSION, version);
        answer
    }

    /// Answers a member that compares its history with this one's.
    async fn history_hash<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let cluster = format!("{:x}", self.node.cluster_id());
        let asked = request.headers().get(CLUSTER_ID);
        if asked.is_some_and(|asked| !asked.is_empty() && asked.as_bytes() != cluster.as_bytes()) {
            return error(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch");
        }
        let body = Limited::new(request.into_body(), limits::PEER_QUESTION_BYTES_MAX);
        let Ok(body) = Box::pin(body).collect().await else {
            return error(StatusCode::BAD_REQUEST, "error reading body");
        };
        let question: Option<serde_json::Value> = serde_json::from_slice(&body.to_bytes()).ok();
        let revision = question.as_ref().and_then(|question| {
            let revision = question.as_object()?.get("revision");
            revision.map_or(Some(0), serde_json::Value::as_i64)
        });
        let Some(revision) = revision else {
            return error(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.node.history_hash(revision).await {
            Ok(hash) => {
                // As in etcd's JSON, zeros are left out. The revision is never zero.
                let mut json =
                    serde_json::json!({ "header": { "revision": hash.current_revision } });
                let parts = [
                    ("hash", i64::from(hash.hash)),
                    ("compact_revision", hash.compact_revision),
                    ("hash_revision", hash.hash_revision),
                ];
                for (name, value) in parts.into_iter().filter(|(_, value)| *value != 0) {
                    json[name] = value.into();
                }
                typed(StatusCode::OK, JSON, &json.to_string())
            }
            Err(why) => {
                tracing::warn!("requested-revision" = revision, error = %why, "failed to get hashKV");
                error(StatusCode::BAD_REQUEST, &why.to_string())
            }
        }
    }

    /// Promotes a learner for a member that was asked to and is not the leader.
    async fn promote(&self, id: &str) -> Answer {
        let not_found =
            || error(StatusCode::NOT_FOUND, &format!("member {id} not found in cluster"));
        let Ok(number) = id.parse() else { return not_found() };
        match self.node.promote_member_here(number).await {
            Ok(members) => typed(StatusCode::OK, JSON, &members_json(&members)),
            Err(Error::Apply(apply::Error::MemberNotFound)) => not_found(),
            Err(why @ (Error::Apply(apply::Error::MemberNotLearner) | Error::LearnerNotReady)) => {
                error(StatusCode::PRECONDITION_FAILED, &format!("etcdserver: {why}"))
            }
            Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
        }
    }

    /// Renews a lease, or tells its remaining time, for the clients of a member that is not the
    /// leader.
    async fn lease<B>(&self, path: &str, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.method() != Method::POST {
            return not_allowed();
        }
        let body = Limited::new(request.into_body(), limits::PEER_QUESTION_BYTES_MAX);
        let Ok(body) = Box::pin(body).collect().await else {
            return error(StatusCode::BAD_REQUEST, "error reading body");
        };
        let outcome = if path == "/leases" {
            self.renew(body.to_bytes()).await
        } else {
            self.time_to_live(body.to_bytes()).await
        };
        match outcome {
            Ok(Some(bytes)) => {
                let mut answer = Answer::new(Full::new(bytes.into()));
                answer.headers_mut().insert(http::header::CONTENT_TYPE, PROTOBUF);
                answer
            }
            Ok(None) => error(StatusCode::NOT_FOUND, "lease not found"),
            Err(Error::NotLeader) => error(StatusCode::BAD_REQUEST, "not a primary lessor"),
            Err(Error::Timeout | Error::TimeoutWaitAppliedIndex) => error(
                StatusCode::REQUEST_TIMEOUT,
                "waiting for node to catch up its applied index has timed out",
            ),
            Err(why) => error(StatusCode::BAD_REQUEST, &why.to_string()),
        }
    }

    async fn renew(&self, body: Bytes) -> Result<Option<Vec<u8>>, Error> {
        let request = LeaseKeepAliveRequest::decode(body).map_err(|_| malformed())?;
        let ttl = self.node.lease_renew_here(request.id).await?;
        let response = LeaseKeepAliveResponse { header: None, id: request.id, ttl };
        Ok((ttl > 0).then(|| response.encode_to_vec()))
    }

    async fn time_to_live(&self, body: Bytes) -> Result<Option<Vec<u8>>, Error> {
        let request = LeaseInternalRequest::decode(body).map_err(|_| malformed())?;
        let request = request.lease_time_to_live_request.ok_or_else(malformed)?;
        let lease = self.node.lease_time_to_live_here(request.id, request.keys).await?;
        Ok(lease.map(|lease| {
            let response = LeaseTimeToLiveResponse {
                header: Some(ResponseHeader::default()),
                id: request.id,
                ttl: lease.ttl,
                granted_ttl: lease.granted_ttl,
                keys: lease.keys,
            };
            LeaseInternalResponse { lease_time_to_live_response: Some(response) }.encode_to_vec()
        }))
    }
}

fn malformed() -> Error {
    Error::Internal("error unmarshalling request".into())
}

/// The members as JSON, in the form that etcd's peers read.
fn members_json(members: &[Member]) -> String {
    let members: Vec<serde_json::Value> = members
        .iter()
        .map(|member| {
            let mut json = serde_json::json!({ "id": member.id, "peerURLs": member.peer_ur_ls });
            if member.is_learner {
                json["isLearner"] = true.into();
            }
            if !member.name.is_empty() {
                json["name"] = member.name.as_str().into();
            }
            if !member.client_ur_ls.is_empty() {
                json["clientURLs"] = member.client_ur_ls.clone().into();
            }
            json
        })
        .collect();
    format!("{}\n", serde_json::Value::from(members))
}
