//! A member with TLS on both ports, and what its clients get.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use rusd::tls::{ClientFiles, Connector};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::member::{Process, alone, flags, serve};
use super::ports;
use super::shop::Shop;

/// What nothing needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Client,
    Peer,
}

pub const BOTH: [Port; 2] = [Port::Client, Port::Peer];

/// A running member; dropped, it is killed.
pub struct Server {
    child: Process,
    client: u16,
    peer: u16,
    log: PathBuf,
    _root: TempDir,
}

impl Server {
    /// A process with these flags more; URLs have the scheme.
    pub fn spawn(scheme: &str, flags: &[String]) -> Self {
        Self::spawn_with(scheme, flags, "/etc/resolv.conf")
    }

    /// One that asks the name servers in a file.
    pub fn spawn_with(scheme: &str, more: &[String], resolv_conf: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("log");
        let (client, peer) = (ports::free(), ports::free());
        let [client_url, peer_url] =
            [client, peer].map(|port| format!("{scheme}://127.0.0.1:{port}"));
        let mut command = serve();
        command.args(flags("one", &root.path().join("data"), &client_url, &peer_url));
        if !more.iter().any(|flag| flag.starts_with("--discovery")) {
            command.args(alone("one", &peer_url));
        }
        command.args(more).env("RUSD_RESOLV_CONF", resolv_conf);
        let child = Process::start(&mut command, File::create(&log).unwrap());
        Self { child, client, peer, log, _root: root }
    }

    /// One that serves.
    pub async fn start(scheme: &str, flags: &[String]) -> Self {
        Self::spawn(scheme, flags).ready().await
    }

    /// Waits until it serves.
    pub async fn ready(self) -> Self {
        let mut server = self;
        for _ in 0..PATIENCE.as_millis() / 20 {
            assert!(server.child.try_wait().unwrap().is_none(), "no start:\n{}", server.log());
            if server.log().contains("ready to serve client requests") {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no start:\n{}", server.log());
    }

    /// What a process says that must not serve.
    pub async fn refused(scheme: &str, flags: &[String]) -> String {
        let mut server = Self::spawn(scheme, flags);
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = server.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(1), "{}", server.log());
                return server.log();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it serves with {flags:?}:\n{}", server.log());
    }

    /// Waits until the log has a text: a client may know that it is refused before it is logged.
    pub async fn says(&self, text: &str) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.log().contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no {text} in:\n{}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.log.with_file_name("data")
    }

    pub fn client_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client)
    }

    pub async fn dial(&self, port: Port) -> TcpStream {
        let number = if port == Port::Client { self.client } else { self.peer };
        dial(number).await
    }

    /// A handshake and a request over it; why not, if one of them fails.
    pub async fn meet(&self, port: Port, files: &ClientFiles, host: &str) -> Result<(), String> {
        let connector = Connector::new(files.clone()).map_err(|error| error.to_string())?;
        self.ask(port, &connector, host).await
    }

    pub async fn ask(&self, port: Port, connector: &Connector, host: &str) -> Result<(), String> {
        Self::ask_by(self.dial(port).await, connector, host).await
    }

    /// A handshake on the peer port, and a request over it, from another address of this machine.
    pub async fn meet_from(&self, from: [u8; 4], files: &ClientFiles) -> Result<(), String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], self.peer).into()).await.unwrap();
        let connector = Connector::new(files.clone()).map_err(|error| error.to_string())?;
        Self::ask_by(stream, &connector, "localhost").await
    }

    pub async fn ask_by(
        stream: TcpStream,
        connector: &Connector,
        host: &str,
    ) -> Result<(), String> {
        let talk = async {
            let stream = connector.connect(stream, host).await?;
            request(stream).await
        };
        let answer = timeout(PATIENCE, talk).await.map_err(|_| "it hangs".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.contains("etcdserver") {
            true => Ok(()),
            false => Err(format!("an answer of {} bytes: {answer}", answer.len())),
        }
    }
}

pub async fn dial(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Asks for the version over HTTP/1.1.
pub async fn request<S>(mut stream: S) -> std::io::Result<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream
        .write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"}") {
        match stream.read(&mut piece).await? {
            0 => break,
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Flags with the files of a shop: `server` on both ports, and clients of `ca` only.
pub fn mutual(shop: &Shop) -> Vec<String> {
    let mut flags = one_sided(shop, "server");
    flags.extend([
        format!("--trusted-ca-file={}", shop.path("ca.crt")),
        "--client-cert-auth".to_owned(),
        format!("--peer-trusted-ca-file={}", shop.path("ca.crt")),
        "--peer-client-cert-auth".to_owned(),
    ]);
    flags
}

/// Flags that show a certificate on both ports.
pub fn one_sided(shop: &Shop, name: &str) -> Vec<String> {
    let file = |end: &str| shop.path(&format!("{name}.{end}"));
    vec![
        format!("--cert-file={}", file("crt")),
        format!("--key-file={}", file("key")),
        format!("--peer-cert-file={}", file("crt")),
        format!("--peer-key-file={}", file("key")),
    ]
}

/// A client that shows a certificate; an empty name is none.
pub fn client(shop: &Shop, name: &str) -> ClientFiles {
    let file = |end: &str| match name {
        "" => String::new(),
        name => shop.path(&format!("{name}.{end}")),
    };
    ClientFiles {
        cert: file("crt").into(),
        key: file("key").into(),
        ca: shop.path("ca.crt").into(),
        protocol: "http/1.1",
        ..ClientFiles::default()
    }
}
