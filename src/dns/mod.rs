//! SRV records: which hosts and ports a domain names for a service. And PTR records: which names an
//! address has.
//!
//! ```text
//!   lookup(etcd-server, example.org) ─► _etcd-server._tcp.example.org. ─► each name server in turn
//!                                       and with each search suffix       UDP; TCP if it was cut
//! ```
//!
//! Only these kinds of records are asked for here, since the standard library does not offer them;
//! hosts are resolved by the system. The name servers are those of `resolv.conf`. What is left out:
//! EDNS, caching, DNSSEC, and following an alias that the server does not follow itself. Answers
//! come from the network: every length and pointer in them is checked, and what does not match the
//! question is passed over until the time is up.

mod conf;
pub mod message;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::clock::{self, Clock};
use crate::limits;
use conf::Conf;
pub use message::Service;
use message::{Answer, QuestionKind, Records, Reply};

/// Why there are no records; its text is Go's, which operators know from etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("lookup {0}: no such host")]
    NotFound(String),
    #[error("lookup {name} on {server}: {why}")]
    Failed { name: String, server: SocketAddr, why: String },
    #[error("lookup {0}: no name server is known")]
    NoServer(String),
}

/// Asks the name servers of a `resolv.conf`.
#[derive(Clone, Debug)]
pub struct Resolver {
    conf: Conf,
}

/// Environment variable that names another file than the system's `resolv.conf`, for tests and for
/// machines whose file is not meant for servers. A name server in the file may have a port.
pub const VARIABLE: &str = "RUSD_RESOLV_CONF";
const SYSTEM: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Why one server gave no answer.
enum Unanswered {
    Io(io::Error),
    Timeout,
    /// The server's response code, which says that it could not or would not answer.
    Refused(u8),
}

impl Resolver {
    /// Reads `other`, or the system's file. Without a name server in it, the one on this machine is
    /// asked.
    pub fn new(other: Option<OsString>) -> Self {
        let path = other.unwrap_or_else(|| SYSTEM.into());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self { conf: Conf::parse(&text) }
    }

    /// The SRV records of `_service._tcp.domain`, sorted by priority; never empty.
    pub async fn services(
        &self,
        clock: &dyn Clock,
        service: &str,
        domain: &str,
    ) -> Result<Vec<Service>, Error> {
        let shown = format!("_{service}._tcp.{domain}");
        // `invalid` has no names below it (RFC 6761), so no server is asked.
        if domain.trim_end_matches('.').rsplit('.').next() == Some("invalid") {
            return Err(Error::NotFound(shown));
        }
        let mut worst = Error::NotFound(shown.clone());
        for name in self.conf.names(&shown) {
            match self.ask(clock, &shown, &name, QuestionKind::Services).await {
                Ok(Records { mut services, .. }) if !services.is_empty() => {
                    services.sort_by_key(|service| service.priority);
                    return Ok(services);
                }
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }

    /// The names of an address, with or without a final dot: those in the system's `hosts`, or else
    /// those that name servers know.
    pub async fn names_of(&self, clock: &dyn Clock, address: IpAddr) -> Result<Vec<String>, Error> {
        let names = conf::names_in(&std::fs::read_to_string(HOSTS).unwrap_or_default(), address);
        if !names.is_empty() {
            return Ok(names);
        }
        let name = reverse(address);
        Ok(self.ask(clock, &address.to_string(), &name, QuestionKind::Names).await?.names)
    }

    /// Asks each server in turn, `attempts` times, until one has the records or knows that there is
    /// no such name. `shown` is the name for errors.
    async fn ask(
        &self,
        clock: &dyn Clock,
        shown: &str,
        name: &str,
        kind: QuestionKind,
    ) -> Result<Records, Error> {
        let mut worst = Error::NoServer(shown.to_owned());
        for _ in 0..self.conf.attempts {
            for server in &self.conf.servers {
                let id = u16::try_from(clock.random() & 0xffff).unwrap_or_default();
                let Some(question) = message::question(id, name, kind) else {
                    return Err(Error::NotFound(shown.to_owned()));
                };
                let asked = exchange(*server, &question);
                let limit = self.conf.timeout;
                let answered = clock::timeout(clock, limit, asked).await;
                let why = match answered.unwrap_or(Err(Unanswered::Timeout)) {
                    Ok(Answer::Records(records)) => return Ok(records),
                    Ok(Answer::NoSuchName) => return Err(Error::NotFound(shown.to_owned())),
                    Err(Unanswered::Io(error)) => error.to_string(),
                    Err(Unanswered::Timeout) => format!("no answer in {limit:?}"),
                    Err(Unanswered::Refused(code)) => {
                        format!("server misbehaving (response code {code})")
                    }
                };
                worst = Error::Failed { name: shown.to_owned(), server: *server, why };
            }
        }
        Err(worst)
    }
}

/// The name whose PTR records name an address (RFC 1035, 3.5, and RFC 3596, 2.5).
fn reverse(address: IpAddr) -> String {
    let mut name = String::new();
    match address {
        IpAddr::V4(address) => {
            let bytes = address.octets().into_iter().rev();
            bytes.for_each(|byte| name.push_str(&format!("{byte}.")));
            name.push_str("in-addr.arpa.");
        }
        IpAddr::V6(address) => {
            let bytes = address.octets().into_iter().rev();
            bytes.for_each(|byte| name.push_str(&format!("{:x}.{:x}.", byte & 15, byte >> 4)));
            name.push_str("ip6.arpa.");
        }
    }
    name
}

/// Asks one server, over TCP if the answer does not fit into a datagram. The caller limits the
/// time.
async fn exchange(server: SocketAddr, question: &[u8]) -> Result<Answer, Unanswered> {
    let from: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(from).await.map_err(Unanswered::Io)?;
    socket.connect(server).await.map_err(Unanswered::Io)?;
    socket.send(question).await.map_err(Unanswered::Io)?;
    let mut buffer = [0; limits::DNS_DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(Unanswered::Io)?;
        match message::read(question, &buffer[..length]) {
            Some(Reply::Answer(answer)) => return Ok(answer),
            Some(Reply::Refused(code)) => return Err(Unanswered::Refused(code)),
            Some(Reply::Cut) => return exchange_by_stream(server, question).await,
            // Not an answer to this question, but a late or a forged one.
            None => {}
        }
    }
}

async fn exchange_by_stream(server: SocketAddr, question: &[u8]) -> Result<Answer, Unanswered> {
    let read = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(question).await?;
        let length = usize::from(stream.read_u16().await?);
        let mut buffer = vec![0; length];
        stream.read_exact(&mut buffer).await?;
        Ok(buffer)
    };
    let answer = read.await.map_err(Unanswered::Io)?;
    match message::read(question, &answer) {
        Some(Reply::Answer(answer)) => Ok(answer),
        Some(Reply::Refused(code)) => Err(Unanswered::Refused(code)),
        _ => Err(Unanswered::Io(io::Error::other("malformed answer"))),
    }
}

#[cfg(test)]
mod tests;
