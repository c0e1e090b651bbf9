//! A connection that ends once its other end takes nothing for a while.
//!
//! A peer whose machine is gone without a word acknowledges nothing, and the kernel would try for a
//! quarter of an hour. Until then its streams would hold a queue of messages that nobody gets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

pub(super) struct WriteLimit<S> {
    inner: S,
    patience: Duration,
    /// The end of the time in which something must be taken; None while nothing waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteLimit<S> {
    pub(super) fn new(inner: S, patience: Duration) -> Self {
        Self { inner, patience, deadline: None }
    }

    /// What becomes of an attempt to write: an error if the attempts before it have waited too long.
    fn limited<T>(
        &mut self,
        context: &mut Context<'_>,
        attempt: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.deadline = None;
            return attempt;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        deadline.as_mut().poll(context).map(|()| {
            let text = "the peer takes nothing of what is written to it";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteLimit<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.limited(context, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.limited(context, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.inner).poll_flush(context);
        self.limited(context, attempt)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.inner).poll_shutdown(context);
        self.limited(context, attempt)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_connection_ends_when_its_other_end_takes_nothing_and_not_when_it_is_slow() {
        let (near, mut far) = duplex(10);
        let mut limited = WriteLimit::new(near, Duration::from_secs(3600));
        for _ in 0..2 {
            limited.write_all(&[1; 10]).await.unwrap();
            assert!(poll_immediate(limited.write(&[1])).await.is_none());
            assert!(limited.deadline.is_some());
            far.read_exact(&mut [0; 10]).await.unwrap();
            limited.write_all(&[1; 10]).await.unwrap();
            assert!(limited.deadline.is_none(), "what was taken begins a new time");
            far.read_exact(&mut [0; 10]).await.unwrap();
        }
        limited.patience = Duration::from_millis(1);
        limited.write_all(&[1; 10]).await.unwrap();
        let written = tokio::time::timeout(Duration::from_secs(60), limited.write_all(&[1])).await;
        assert_eq!(written.expect("it waits").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
