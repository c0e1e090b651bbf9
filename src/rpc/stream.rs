//! The messages of a stream as the body of its answer: framed, counted, and ended in time.
//!
//! Messages that are there together share a frame, whose memory is its own but for long values: a
//! stream that waits for days does not hold the memory of the last message that it sent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BufMut as _;
use http_body::Frame;
use prost::Message;
use tonic::{Code, Status};

use super::encoded::{PREFIX_BYTES, prefix, trailers};
use super::parts::{Joined, Parts};
use super::spans;
use crate::limits::JOINED_MESSAGES_BYTES;
use crate::metrics;
use crate::trace::Span;

/// Resolves, with the status for the client, when a stream must end although its client still
/// reads.
pub(super) type Ending = Pin<Box<dyn Future<Output = Status> + Send>>;

/// A server stream. It ends early when the server stops, when its deadline is over, or when its
/// client asked for a leader and there is none for long.
pub struct Stream {
    /// None once the stream has ended.
    messages: Option<Pin<Box<dyn Messages>>>,
    /// How the messages have ended, until those before the end are taken.
    status: Option<Status>,
    ending: Ending,
    method: &'static metrics::Method,
    start: Instant,
    span: Span,
}

/// A stream of messages of some type.
trait Messages: Send {
    /// Encodes the next message behind those that are joined already. An error is the end, also
    /// with the code Ok.
    fn poll_join(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        joined: &mut Joined,
    ) -> Poll<Result<(), Status>>;
}

impl<S, M> Messages for S
where
    S: futures_core::Stream<Item = Result<M, Status>> + Send,
    M: Message,
{
    fn poll_join(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        joined: &mut Joined,
    ) -> Poll<Result<(), Status>> {
        self.poll_next(context).map(|next| {
            let message = next.unwrap_or_else(|| Err(Status::ok("")))?;
            let length = message.encoded_len();
            let prefix = prefix(length)?;
            joined.expect(PREFIX_BYTES + length);
            joined.put_slice(&prefix);
            message.encode_raw(joined);
            Ok(())
        })
    }
}

impl Stream {
    pub(super) fn new<S, M>(
        messages: S,
        ending: Ending,
        method: &'static metrics::Method,
        start: Instant,
        span: Span,
    ) -> Self
    where
        S: futures_core::Stream<Item = Result<M, Status>> + Send + 'static,
        M: Message + 'static,
    {
        Self { messages: Some(Box::pin(messages)), status: None, ending, method, start, span }
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Parts>, Status>>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        if let Poll::Ready(status) = self.ending.as_mut().poll(context) {
            return self.end(&status);
        }
        let mut joined = Joined::default();
        while self.status.is_none() && joined.len() < JOINED_MESSAGES_BYTES {
            let before = joined.len();
            match messages.as_mut().poll_join(context, &mut joined) {
                Poll::Ready(Ok(())) => {
                    self.method.sent.inc();
                    let bytes = joined.len() - before - PREFIX_BYTES;
                    metrics::client_sent_bytes().inc_by(bytes as u64);
                }
                Poll::Ready(Err(status)) => self.status = Some(status),
                Poll::Pending if joined.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        match self.status.take() {
            Some(status) if joined.is_empty() => self.end(&status),
            status => {
                self.status = status;
                Poll::Ready(Some(Ok(Frame::data(joined.finish()))))
            }
        }
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Parts>, Status>>> {
        // Before the span of the call, as the spans within it are: those of watchers.
        self.messages = None;
        self.count_end(status);
        Poll::Ready(Some(Ok(Frame::trailers(trailers(status)))))
    }

    fn count_end(&mut self, status: &Status) {
        let code = status.code();
        self.method.handled(code as usize, self.start.elapsed().as_secs_f64());
        spans::end(std::mem::take(&mut self.span), code, || status.message().to_owned());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(messages) = self.messages.take() {
            drop(messages);
            self.count_end(&Status::new(Code::Cancelled, ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use bytes::{Buf as _, Bytes};
    use futures_util::{FutureExt as _, StreamExt as _, stream};

    use super::*;
    use crate::metrics::{CallKind, Method};
    use crate::pb::PutRequest;

    /// A method of one test, so that nobody else moves its series.
    fn method(name: &'static str) -> &'static Method {
        Box::leak(Box::new(Method::new("test", name, CallKind::ServerStream)))
    }

    fn handled(name: &str, code: &str) -> bool {
        let line = format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{name}\",\
             grpc_service=\"test\",grpc_type=\"server_stream\"}} 1"
        );
        metrics::render().lines().any(|have| have == line)
    }

    fn body<S>(messages: S, ending: Ending, method: &'static Method) -> Stream
    where
        S: futures_core::Stream<Item = Result<PutRequest, Status>> + Send + 'static,
    {
        Stream::new(messages, ending, method, crate::clock::instant(), Span::default())
    }

    async fn frame(body: &mut Stream) -> Option<Frame<Parts>> {
        poll_fn(|context| body.poll(context)).await.map(Result::unwrap)
    }

    fn put(bytes: usize) -> PutRequest {
        PutRequest { value: vec![7; bytes].into(), ..Default::default() }
    }

    #[tokio::test]
    async fn messages_are_joined_and_the_status_comes_last() {
        let items = [Ok(put(10)), Ok(put(20)), Err(Status::aborted("why"))];
        let method = method("Joined");
        let mut body = body(stream::iter(items), Box::pin(pending()), method);
        let first = frame(&mut body).await.unwrap().into_data().unwrap();
        assert_eq!(first.remaining(), 2 * 5 + put(10).encoded_len() + put(20).encoded_len());
        let last = frame(&mut body).await.unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&last).unwrap().code(), Code::Aborted);
        assert!(frame(&mut body).await.is_none());
        drop(body);
        assert_eq!(method.sent.get(), 2);
        assert!(handled("Joined", "Aborted") && !handled("Joined", "Canceled"));
    }

    #[tokio::test]
    async fn a_stream_that_must_end_says_why_and_one_that_is_dropped_counts_as_cancelled() {
        let always = || stream::repeat_with(|| Ok(put(1)));
        let ending = Box::pin(async { Status::unavailable("stopped") });
        let mut ended = body(always(), ending, method("Ended"));
        let last = frame(&mut ended).await.unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&last).unwrap().message(), "stopped");
        drop(ended);
        assert!(handled("Ended", "Unavailable") && !handled("Ended", "Canceled"));

        let mut left = body(always(), Box::pin(pending()), method("Left"));
        assert!(frame(&mut left).await.unwrap().is_data());
        drop(left);
        assert!(handled("Left", "Canceled"));
    }

    #[tokio::test]
    async fn a_large_message_goes_alone_and_what_waits_is_not_held_up() {
        let large = put(100_000);
        let length = large.encoded_len();
        let items = stream::iter([Ok(large.clone()), Ok(put(1))]).chain(stream::pending());
        let mut body = body(items, Box::pin(pending()), method("Large"));
        for expected in [length, put(1).encoded_len()] {
            let data = frame(&mut body).await.unwrap().into_data().unwrap();
            assert_eq!(data.remaining(), 5 + expected);
            // A long value is not copied. Nobody else holds the memory of the rest.
            let of_value = |part: &&Bytes| part.as_ptr() == large.value.as_ptr();
            let shared = data.iter().filter(|part| !part.is_unique());
            assert_eq!(shared.filter(of_value).count(), usize::from(expected == length));
            assert_eq!(data.iter().filter(of_value).count(), usize::from(expected == length));
        }
        assert!(frame(&mut body).now_or_never().is_none());
    }
}
