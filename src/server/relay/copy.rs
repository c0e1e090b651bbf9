//! Bytes both ways between two connections, until both ways have ended or one side is gone.
//!
//! ```text
//!   one end sends no more ─► the other is told ─► what it still sends passes for a while ─► closed
//!   one end takes nothing ─► once the other has closed, a look now and then ─► closed
//! ```
//!
//! Without these ends a connection would stay for ever: one side that is gone is noticed only by
//! whoever reads from it, and nobody does while the other side takes nothing. An end that waits
//! behind bytes for which there is no room is seen when the kernel of that side gives up, after some
//! minutes.

use std::io;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::limits::{RELAY_BUFFER_BYTES, RELAY_LINGER};

/// Copies until it is over. Errors end it as a close does.
pub(super) async fn both(client: &TcpStream, remote: &TcpStream) {
    both_within(client, remote, RELAY_LINGER).await;
}

async fn both_within(client: &TcpStream, remote: &TcpStream, linger: Duration) {
    let there = std::pin::pin!(one_way(client, remote, linger));
    let back = std::pin::pin!(one_way(remote, client, linger));
    let (ended, rest) = match select(there, back).await {
        Either::Left((ended, back)) => (ended, Either::Left(back)),
        Either::Right((ended, there)) => (ended, Either::Right(there)),
    };
    if ended.is_ok() {
        let _ = tokio::time::timeout(linger, rest).await;
    }
}

/// Copies one way until its end, which is passed on. An error if the other side takes nothing for
/// `linger` although this one has closed.
async fn one_way(from: &TcpStream, to: &TcpStream, linger: Duration) -> io::Result<()> {
    let mut buffer = vec![0; RELAY_BUFFER_BYTES];
    loop {
        from.readable().await?;
        let bytes = match from.try_read(&mut buffer) {
            Ok(0) => {
                rustix::net::shutdown(to, Shutdown::Write)?;
                return Ok(());
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..bytes];
        while !rest.is_empty() {
            match tokio::time::timeout(linger, to.writable()).await {
                Ok(ready) => ready?,
                Err(_) if has_closed(from) => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => continue,
            }
            match to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether the other end has closed, also if there is something left to read.
fn has_closed(stream: &TcpStream) -> bool {
    let ready = stream.ready(Interest::READABLE).now_or_never();
    matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// A pair of which the first side can send some kilobytes that the second does not take.
    async fn narrow_pair() -> (TcpStream, TcpStream) {
        let (listener, near) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        listener.set_recv_buffer_size(4096).unwrap();
        near.set_send_buffer_size(4096).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let near = near.connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn an_end_is_passed_on_and_the_answer_still_comes() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let copying = tokio::spawn(async move { both_within(&near, &far, LONG).await });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        server.write_all(&[7; 1 << 20]).await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), 1 << 20);
        copying.await.unwrap();
    }

    #[tokio::test]
    async fn a_side_that_takes_or_says_nothing_does_not_keep_the_other_for_ever() {
        // The server closes, the client does not.
        let ((client, near), (far, server)) = (pair().await, pair().await);
        drop(server);
        tokio::time::timeout(LONG, both_within(&near, &far, SHORT)).await.unwrap();
        drop(client);
        // The client is gone while the server takes nothing.
        let ((mut client, near), (far, server)) = (pair().await, narrow_pair().await);
        let copying = tokio::spawn(async move { both_within(&near, &far, SHORT).await });
        // More than the way to the server takes, and less than its own: the end must still arrive.
        client.write_all(&[7; 60 << 10]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!copying.is_finished(), "the client is there");
        drop(client);
        tokio::time::timeout(LONG, copying).await.unwrap().unwrap();
        drop(server);
    }
}
