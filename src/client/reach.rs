//! How long a client tries to reach an endpoint, and why it cannot.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::go;
use crate::tls::Fault;

/// How long a client tries to reach an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Each call dials until its deadline, as etcd's client does.
    #[default]
    UntilDeadline,
    /// The client connects when it is made, and fails once a dial of each endpoint has failed. Only
    /// what passes by itself, as a server that is still starting, is waited for, and for this long.
    /// A client that was connected once waits for the cluster as etcd's does.
    AtOnce { wait: Duration },
}

/// Why an endpoint cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    Refused,
    /// There is no socket at the endpoint's path.
    NoSocket,
    UnknownHost,
    /// No name server has answered within the time of a dial.
    NameSilent(Duration),
    NoRoute,
    /// No connection came about, and nobody has refused one.
    Unconnected(Duration),
    /// The endpoint takes connections and says nothing.
    Silent(Duration),
    /// The connection was closed before the server said anything.
    Closed,
    /// The server answers a request in clear with TLS.
    SpeaksTls,
    /// The server answers with another protocol than HTTP/2.
    NotGrpc,
    Tls(Fault),
    /// The endpoint is none: this is missing or wrong.
    BadAddress,
    Other(String),
}

impl Cause {
    /// The cause of an error of the system. `is_dial` says that no connection was there yet.
    pub(super) fn of_io(error: &io::Error, is_dial: bool) -> Self {
        use rustix::io::Errno;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::CONNREFUSED) => Self::Refused,
            Some(Errno::NOENT) => Self::NoSocket,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL) => {
                Self::NoRoute
            }
            Some(Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED) => Self::Closed,
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None if is_dial && error.kind() == io::ErrorKind::InvalidInput => Self::BadAddress,
            _ => Self::Other(go::reason(error)),
        }
    }

    /// Whether it may pass by itself, as when a server is still starting.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused
            | Self::NoSocket
            | Self::UnknownHost
            | Self::NameSilent(_)
            | Self::NoRoute
            | Self::Unconnected(_)
            | Self::Silent(_)
            | Self::Closed => true,
            Self::SpeaksTls | Self::NotGrpc | Self::Tls(_) | Self::BadAddress | Self::Other(_) => {
                false
            }
        }
    }
}

impl fmt::Display for Cause {
    /// The cause in plain words, the server as "it".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::NoSocket => f.write_str("there is no socket with this path"),
            Self::UnknownHost => f.write_str("unknown host"),
            Self::NameSilent(time) => {
                write!(f, "no name server answers within {}", go::duration(*time))
            }
            Self::NoRoute => f.write_str("no route to it"),
            Self::Unconnected(time) => write!(f, "no connection within {}", go::duration(*time)),
            Self::Silent(time) => {
                write!(f, "it takes connections, but no answer within {}", go::duration(*time))
            }
            Self::Closed => f.write_str("it closes the connection without an answer"),
            Self::SpeaksTls => f.write_str("it speaks TLS, and the connection is in clear"),
            Self::NotGrpc => f.write_str("it is no etcd: what it speaks is not gRPC"),
            Self::Tls(fault) => fault.fmt(f),
            Self::BadAddress => f.write_str("it is no HOST:PORT"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// An endpoint that cannot be reached, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    pub endpoint: String,
    pub cause: Cause,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.cause)
    }
}

/// Endpoints and causes in one line.
pub(super) fn listed(all: &[Unreached]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A dial that failed: in Go's words for the log of etcd's client, and its cause.
#[derive(Clone, Debug)]
pub(super) struct Undialled {
    pub text: String,
    pub cause: Cause,
}
