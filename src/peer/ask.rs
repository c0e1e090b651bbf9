//! Single questions to other members, each over a connection of its own.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::connection::host;
use super::dial::Dial;
use crate::{limits, tls};

/// The answer of a member to a question.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why a member gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{}", tls::cause(.0))]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Url(#[from] http::uri::InvalidUri),
    #[error("{}", tls::cause(.0))]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it is no member of rusd in this cluster")]
    Stranger,
    #[error("no answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// The path below which a member answers with a hash of its history.
pub const HASH_KV_PATH: &str = "/members/hashkv";

/// The method and the content type of a question. A question with a body is a POST, except for the
/// hash of history, which etcd asks for by a GET with a body.
pub fn method_of(path: &str, has_body: bool) -> (Method, &'static str) {
    match has_body {
        true if path == HASH_KV_PATH => (Method::GET, "application/json"),
        true => (Method::POST, "application/protobuf"),
        false => (Method::GET, ""),
    }
}

/// Asks the member at one peer URL, for `limit` at most.
pub async fn ask(
    dial: &dyn Dial,
    url: &str,
    path: &str,
    body: Option<Bytes>,
    limit: Duration,
) -> Result<Answered, AskError> {
    timeout(limit, ask_at_leisure(dial, url, path, body)).await?
}

async fn ask_at_leisure(
    dial: &dyn Dial,
    url: &str,
    path: &str,
    body: Option<Bytes>,
) -> Result<Answered, AskError> {
    let uri: Uri = url.parse()?;
    let link = dial.dial(&uri).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(link)).await?;
    let host = host(&uri)?;
    let (method, content_type) = method_of(path, body.is_some());
    let mut request = Request::builder().method(method).uri(path).header(http::header::HOST, host);
    if body.is_some() {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    let request = request.body(Full::new(body.unwrap_or_default()))?;
    let answer = pin!(async {
        let response = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, limits::PEER_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(AskError::Body)?.to_bytes();
        Ok(Answered { status: parts.status, headers: parts.headers, body })
    });
    match select(answer, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // The connection ended first. Bytes of the answer that arrived before can still be read,
        // and an error of the connection is also the request's.
        Either::Right((_, answer)) => answer.await,
    }
}
