//! The length that an HTTP/2 client states for a body. gRPC does not look at it, so h2 does not get
//! to see it (see `hpack`). Go's HTTP server ends the stream of a body that is longer, and of a
//! length that is no number.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::rpc::BoxError;

/// The name that `hpack` gives to the header.
const STATED: &str = "xontent-length";

/// Tells whether a body was longer than stated.
#[derive(Clone, Default)]
pub(super) struct Excess(Arc<AtomicBool>);

/// A body that must not be longer than stated.
pub(super) struct Measured<B> {
    body: B,
    left: Option<u64>,
    excess: Excess,
}

/// What ends a stream.
pub(super) fn reset() -> h2::Error {
    Reason::PROTOCOL_ERROR.into()
}

/// The stated length; None if there is none.
fn stated(headers: &HeaderMap) -> Result<Option<u64>, h2::Error> {
    let Some(stated) = headers.get(STATED) else { return Ok(None) };
    let digits = stated.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse::<i64>().ok()).ok_or_else(reset)?;
    Ok(u64::try_from(length).ok())
}

impl Excess {
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<B> Measured<B> {
    pub(super) fn new(headers: &HeaderMap, body: B, excess: Excess) -> Result<Self, h2::Error> {
        Ok(Self { body, left: stated(headers)?, excess })
    }
}

impl<B> HttpBody for Measured<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => 0,
        };
        if let Some(left) = self.left {
            self.left = left.checked_sub(bytes);
            if self.left.is_none() {
                self.excess.0.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err("the body is longer than stated".into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
