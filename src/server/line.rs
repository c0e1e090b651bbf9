//! An HTTP/1.1 client's connection, which also tells when the client hangs up.
//!
//! hyper does not read while an answer is on its way, since a client may close its side after its
//! request and still wait for the answer. For a watch that would be for ever: its answer ends only
//! when the client goes. So the answer of a stream asks here, which reads ahead a little; hyper
//! gets those bytes later.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::outbox::Account;
use crate::gateway::Line;
use crate::limits::LINE_AHEAD_BYTES_MAX;

/// One handle is hyper's, others belong to the answers.
pub(super) struct ClientLine<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    /// Hears what the client takes.
    account: Arc<Account>,
    /// What was read and hyper has not seen.
    ahead: BytesMut,
    has_ended: bool,
}

impl<S> Clone for ClientLine<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> ClientLine<S> {
    pub(super) fn new(stream: S, account: Arc<Account>) -> Self {
        let ahead = BytesMut::new();
        Self(Arc::new(Mutex::new(Inner { stream, account, ahead, has_ended: false })))
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

impl<S: AsyncRead + Unpin> AsyncRead for ClientLine<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if !inner.ahead.is_empty() {
            let bytes = inner.ahead.len().min(out.remaining());
            out.put_slice(&inner.ahead[..bytes]);
            inner.ahead.advance(bytes);
            return Poll::Ready(Ok(()));
        }
        if inner.has_ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut inner.stream).poll_read(context, out)
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
        Pin::new(&mut self.0.lock().stream).poll_shutdown(context)
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
