//! Error answers of the gateway: the HTTP status of each code, and the bodies.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use tonic::{Code, Status};

use super::write::quote;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How errors are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errors {
    /// Whether bodies are exactly etcd 3.7's, without what etcd up to 3.5 has in them.
    pub(super) are_exact: bool,
}

impl Errors {
    /// The answer to a call that fails before it has answered anything.
    pub(super) fn unary(self, status: &Status) -> Response<Bytes> {
        let (code, message) = (status.code() as i32, quoted(status.message(), false));
        let text = match self.are_exact {
            true => format!(r#"{{"code":{code},"message":{message}}}"#),
            false => format!(r#"{{"error":{message},"code":{code},"message":{message}}}"#),
        };
        let mut answer = Response::new(Bytes::from(text));
        *answer.status_mut() = http_status(status.code());
        answer.headers_mut().insert(CONTENT_TYPE, JSON);
        if status.code() == Code::Unauthenticated
            && let Ok(text) = HeaderValue::from_str(status.message())
        {
            answer.headers_mut().insert(WWW_AUTHENTICATE, text);
        }
        answer
    }

    /// The line of a stream that fails.
    pub(super) fn line(self, status: &Status) -> Bytes {
        let (code, message) = (status.code() as i32, quoted(status.message(), true));
        let older = match self.are_exact {
            true => String::new(),
            false => {
                let status = http_status(status.code());
                let (number, reason) = (status.as_u16(), reason(status));
                format!(r#""grpc_code":{code},"http_code":{number},"http_status":"{reason}","#)
            }
        };
        format!("{{\"error\":{{{older}\"code\":{code},\"message\":{message}}}}}\n").into()
    }
}

fn quoted(text: &str, is_html_safe: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text, is_html_safe, &mut out);
    out
}

/// The status of an answer with this code, as grpc-gateway has it.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // The client has gone; nginx's number for that.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Client Closed Request")
}
