//! Single questions to other members, over a connection of their own.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::dial::Dial;
use crate::limits;

/// What a member answered.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Url(#[from] http::uri::InvalidUri),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("no answer in time")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Asks the member at a peer URL: a GET without a body, a POST with one.
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
    // It ends with the sender, and its errors are the request's.
    let connection = tokio::spawn(connection);
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::builder().uri(path).header(http::header::HOST, host);
    if body.is_some() {
        request = request
            .method(Method::POST)
            .header(http::header::CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    }
    let request = request.body(Full::new(body.unwrap_or_default()))?;
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, limits::PEER_ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(AskError::Body)?.to_bytes();
    connection.abort();
    Ok(Answered { status: parts.status, headers: parts.headers, body })
}
