//! Connections to a peer's URL, over TCP or a Unix socket. `server` adds TLS.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// A connection to a peer.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

/// The future of a dial: a connection, or why there is none.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Link>>> + Send + 'a>>;

/// Connects to a peer's URL, with TLS or without.
pub trait Dial: Send + Sync {
    fn dial<'a>(&'a self, url: &'a Uri) -> Dialing<'a>;
}

/// Connects without TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial {
    /// The local address to connect from; None leaves it to the system.
    pub local: Option<IpAddr>,
}

impl TcpDial {
    async fn connect(self, authority: &str) -> io::Result<TcpStream> {
        let Some(local) = self.local else { return TcpStream::connect(authority).await };
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for to in tokio::net::lookup_host(authority).await? {
            if to.is_ipv4() != local.is_ipv4() {
                continue;
            }
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind((local, 0).into())?;
            match socket.connect(to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, url: &'a Uri) -> Dialing<'a> {
        Box::pin(async move {
            let authority = url.authority().ok_or(io::ErrorKind::InvalidInput)?;
            match url.scheme_str() {
                Some("http") => {}
                Some("unix") => {
                    // The path of a Unix socket is everything after `unix://`, as in etcd.
                    let path = format!("{authority}{}", url.path().trim_end_matches('/'));
                    let stream = UnixStream::connect(path).await?;
                    return Ok(Box::new(stream) as Box<dyn Link>);
                }
                _ => return Err(io::Error::other("peers are reached over http and unix only")),
            }
            let stream = self.connect(authority.as_str()).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Link>)
        })
    }
}
