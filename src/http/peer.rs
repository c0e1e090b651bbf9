//! What members ask each other over the peer port, but for what is below `/raft`.

use http::{HeaderValue, Method, Request, StatusCode};

use super::{Answer, Http, JSON, error, not_allowed, typed};
use crate::pb::Member;

impl Http {
    pub async fn answer_peer<B>(&self, request: Request<B>) -> Answer {
        let get = request.method() == Method::GET;
        let mut answer = match (request.uri().path(), get) {
            ("/version" | "/members", false) => not_allowed(),
            ("/version", _) => self.version(),
            ("/members", _) => typed(StatusCode::OK, JSON, &members_json(&self.node.members())),
            _ => error(StatusCode::NOT_FOUND, "404 page not found"),
        };
        let cluster = format!("{:x}", self.node.cluster_id());
        if let Ok(cluster) = HeaderValue::from_str(&cluster) {
            answer.headers_mut().insert("x-etcd-cluster-id", cluster);
        }
        answer
    }
}

/// The members as etcd's peers read them.
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
