//! An HTTP/1.1 client's connection, which also tells when the client hangs up.
//!
//! hyper does not read while an answer is on its way, since a client may close its side after its
//! request and still wait for the answer. For a watch that would be for ever: its answer ends only
//! when the client goes. So the answer of a stream asks here, which reads ahead a little; hyper
//! gets those bytes later. As long as the request's body comes, hyper reads, and sees its end.
//!
//! What hyper gets passes `heads` first. A request that is refused there looks to hyper like the end
//! of the connection, and its answer is written when hyper has answered all others and closes.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::heads::Heads;
use super::outbox::Account;
use crate::gateway::{Incomplete, Line};
use crate::limits::{self, LINE_AHEAD_BYTES_MAX};
use crate::rpc::BoxError;

/// One handle is hyper's, others belong to the answers.
pub(super) struct ClientLine<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    /// Hears what the client takes.
    account: Arc<Account>,
    /// What was read and hyper has not seen.
    ahead: BytesMut,
    has_ended: bool,
    /// The body of the request at hand has not come whole.
    has_more_body: bool,
    /// Who asked meanwhile whether the client has hung up.
    asking: Option<Waker>,
    heads: Heads,
    /// Counts the bytes of a head that is not complete. Made with the first of them.
    part: Option<Box<dyn Incomplete>>,
    /// The answer to a refused request, as far as it is not written.
    farewell: Bytes,
    has_refused: bool,
}

impl<S> Clone for ClientLine<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> ClientLine<S> {
    /// `is_sniffed` says whether the first line decides if the connection is HTTP at all.
    pub(super) fn new(stream: S, account: Arc<Account>, is_sniffed: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            stream,
            account,
            ahead: BytesMut::new(),
            has_ended: false,
            has_more_body: false,
            asking: None,
            heads: Heads::new(is_sniffed),
            part: None,
            farewell: Bytes::new(),
            has_refused: false,
        })))
    }

    /// What is wrong with the body that was read last, in Go's words.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.0.lock().heads.fault()
    }

    /// A request to change the protocol was answered. `is_through`: what follows is no HTTP.
    pub(super) fn answered(&self, is_through: bool) {
        let reader = self.0.lock().heads.answered(is_through);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<S: AsyncRead + Unpin> ClientLine<S> {
    /// Reads what a client still sends after its request was refused, for a while: it would not
    /// get the answer from a connection that is closed with bytes unread.
    pub(super) async fn linger(&self) {
        if !self.0.lock().has_refused {
            return;
        }
        let end = poll_fn(|context| {
            let inner = &mut *self.0.lock();
            let mut space = [0; 1024];
            loop {
                let mut read = ReadBuf::new(&mut space);
                let outcome = ready!(Pin::new(&mut inner.stream).poll_read(context, &mut read));
                if outcome.is_err() || read.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
        });
        drop(tokio::time::timeout(limits::REFUSED_PATIENCE, end).await);
    }
}

impl<S> Inner<S> {
    /// Counts what was written: nearly all of it is answers.
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.account.took(bytes);
            self.account.took_answer(bytes);
        }
        written
    }
}

impl<S: AsyncRead + Unpin + Send> Line for ClientLine<S> {
    fn poll_hung_up(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.lock();
        if inner.has_more_body {
            inner.asking = Some(context.waker().clone());
            return Poll::Pending;
        }
        let Inner { stream, ahead, has_ended, .. } = &mut *inner;
        while !*has_ended {
            if ahead.len() >= LINE_AHEAD_BYTES_MAX {
                // Whether a client that sends that much behind an endless request is there cannot be
                // seen, so it counts as gone.
                *has_ended = true;
                break;
            }
            let mut space = [0; 1024];
            let mut read = ReadBuf::new(&mut space);
            let outcome = ready!(Pin::new(&mut *stream).poll_read(context, &mut read));
            *has_ended = outcome.is_err() || read.filled().is_empty();
            ahead.extend_from_slice(read.filled());
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> Inner<S> {
    /// Reads from the client, or what was read ahead.
    fn poll_client(
        &mut self,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let bytes = self.ahead.len().min(out.remaining());
            out.put_slice(&self.ahead[..bytes]);
            self.ahead.advance(bytes);
            return Poll::Ready(Ok(()));
        }
        if self.has_ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, out)
    }

    /// Counts the bytes that are held of a head. Fails if others need their room.
    fn count_held(&mut self, context: &Context<'_>) -> io::Result<()> {
        let held = self.heads.held_bytes();
        if held == 0 && self.part.is_none() {
            return Ok(());
        }
        let account = &self.account;
        let part = self.part.get_or_insert_with(|| account.unfinished().incomplete());
        part.set(held);
        if held > 0 && part.is_given_up(context.waker()) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientLine<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            inner.count_held(context)?;
            let most = out.remaining();
            if inner.heads.take_ready(most, |bytes| out.put_slice(bytes)) || inner.heads.is_over() {
                return Poll::Ready(Ok(()));
            }
            if inner.heads.is_full(context.waker()) {
                return Poll::Pending;
            }
            let before = out.filled().len();
            ready!(inner.poll_client(context, out))?;
            if out.filled().len() == before {
                inner.heads.end();
            } else {
                let passed = inner.heads.pass(&out.filled()[before..]);
                out.set_filled(before + passed);
            }
            if out.filled().len() > before {
                inner.count_held(context)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientLine<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let written = Pin::new(&mut inner.stream).poll_write(context, bytes);
        inner.count(written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.lock();
        if let Some(refusal) = inner.heads.take_due_refusal() {
            inner.farewell = refusal.answer().into();
            inner.has_refused = true;
        }
        while !inner.farewell.is_empty() {
            let stream = Pin::new(&mut inner.stream);
            let written = ready!(stream.poll_write(context, &inner.farewell))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            inner.farewell.advance(written);
        }
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let written = Pin::new(&mut inner.stream).poll_write_vectored(context, slices);
        inner.count(written)
    }
}

/// A request's body, whose faults are told in Go's words.
pub(super) struct LineBody<S> {
    body: Incoming,
    line: ClientLine<S>,
}

impl<S> LineBody<S> {
    pub(super) fn new(body: Incoming, line: ClientLine<S>) -> Self {
        line.0.lock().has_more_body = !body.is_end_stream();
        Self { body, line }
    }

    /// What the client sends from now on is not of this body.
    fn end(&self) {
        let asking = {
            let mut inner = self.line.0.lock();
            inner.has_more_body = false;
            inner.asking.take()
        };
        if let Some(asking) = asking {
            asking.wake();
        }
    }

    fn fault(&self, error: hyper::Error) -> BoxError {
        let of_io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let is_cut = of_io.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
        match self.line.fault() {
            Some(fault) => fault.into(),
            None if is_cut => "unexpected EOF".into(),
            None => error.into(),
        }
    }
}

impl<S> Drop for LineBody<S> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<S> HttpBody for LineBody<S> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.end();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| self.fault(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
