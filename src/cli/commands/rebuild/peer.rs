//! Whether a member answers on its peer port.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::client::{Address, Deadline, Target};
use crate::limits;
use crate::peer::{CLUSTER_ID, TcpDial, ask};
use crate::tls::{self, ClientFiles};

/// Whether a member of the cluster answers at a peer URL. Over plain HTTP the answer must name the
/// cluster. Over TLS any server that sends a certificate counts: a client seldom has the
/// certificate that peers demand of each other, so it gets no further than the handshake.
pub(super) async fn answers(
    url: &str,
    cluster_id: u64,
    files: &ClientFiles,
    deadline: Deadline,
) -> bool {
    let target = Target::parse(url, false);
    let look = async {
        if !target.tls {
            return is_of_cluster(url, cluster_id).await;
        }
        match &target.address {
            Address::Tcp(address) => {
                shakes_hands(TcpStream::connect(address), &target, files).await
            }
            Address::Unix(path) => shakes_hands(UnixStream::connect(path), &target, files).await,
        }
    };
    deadline.bound(look).await.flatten().unwrap_or(false)
}

async fn is_of_cluster(url: &str, cluster_id: u64) -> Option<bool> {
    let limit = limits::CLIENT_DIAL_TIMEOUT;
    let answered = ask(&TcpDial::default(), url, "/members", None, limit).await.ok()?;
    let told = answered.headers.get(CLUSTER_ID)?.to_str().ok()?;
    Some(u64::from_str_radix(told, 16).ok()? == cluster_id)
}

async fn shakes_hands<S>(
    connecting: impl Future<Output = io::Result<S>>,
    target: &Target,
    files: &ClientFiles,
) -> Option<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shown = tls::show_certificates(files, connecting.await.ok()?, &target.server_name()).await;
    Some(shown.is_ok_and(|shown| !shown.chain.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_peer_port_of_the_same_cluster_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut asked).await.unwrap();
                }
                assert!(asked.starts_with(b"GET /members"));
                let answer =
                    b"HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: ab\r\nContent-Length: 2\r\n\r\n[]";
                stream.write_all(answer).await.unwrap();
            }
        };
        let files = ClientFiles::default();
        let ask = async {
            assert!(answers(&url, 0xab, &files, Deadline::NONE).await);
            assert!(!answers(&url, 0xabc, &files, Deadline::NONE).await);
        };
        tokio::select! { () = ask => {}, () = serve => {} }
        drop(listener);
        assert!(!answers(&url, 0xab, &files, Deadline::NONE).await);
    }
}
