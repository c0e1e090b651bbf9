//! A TCP socket whose connection can be cut.
//!
//! Over HTTP/1.0 a document of unknown length ends with its connection. If such an answer breaks off,
//! a connection that is closed in order would make what has come look whole, so it is reset. With TLS
//! the farewell (close_notify) is held back as well, since this socket takes no more bytes then.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Tells a connection's socket, from within its answers, that it has to be cut.
#[derive(Clone, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct Socket {
    stream: TcpStream,
    cut: Cut,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, cut: Cut) -> Self {
        Self { stream, cut }
    }

    fn plain(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }

    /// The stream for a write. Fails once the connection is cut.
    fn writer(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match self.cut.is_set() {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(self.plain()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.cut.is_set() {
            // A failure leaves an end in order, which is all that can be done then.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.plain().poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.plain().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.writer() {
            Ok(stream) => stream.poll_shutdown(context),
            // The reset comes when the socket is dropped.
            Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
