//! Whether a member listens to its peers.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::client::{Address, Deadline, Target};
use crate::tls::{self, ClientFiles};

/// Bytes of an answer that are read: the head comes first and has few lines.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Whether a member of the cluster answers at a peer URL. Over TLS whoever shakes hands does: what
/// peers show each other is seldom what clients have.
pub(super) async fn answers(
    url: &str,
    cluster_id: u64,
    files: &ClientFiles,
    deadline: Deadline,
) -> bool {
    let target = Target::parse(url, false);
    let look = async {
        match &target.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await.ok()?;
                Some(asked(stream, &target, cluster_id, files).await)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.ok()?;
                Some(asked(stream, &target, cluster_id, files).await)
            }
        }
    };
    deadline.bound(look).await.flatten().unwrap_or(false)
}

async fn asked<S>(mut stream: S, target: &Target, cluster_id: u64, files: &ClientFiles) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if target.tls {
        let shown = tls::look(files, stream, &target.server_name()).await;
        return shown.is_ok_and(|shown| !shown.chain.is_empty());
    }
    let authority = &target.authority;
    let request =
        format!("GET /members HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    // What came before an error may say enough.
    let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
    answer.make_ascii_lowercase();
    let header = format!("x-etcd-cluster-id: {cluster_id:x}");
    let lines = answer.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    lines.take_while(|line| !line.is_empty()).any(|line| line == header.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_peer_port_of_the_same_cluster_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 12];
                stream.read_exact(&mut asked).await.unwrap();
                assert_eq!(&asked, b"GET /members");
                let answer = b"HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: ab\r\n\r\n[]";
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
