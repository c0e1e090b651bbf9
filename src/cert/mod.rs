//! Certificates: made, shown and checked.
//!
//! ```text
//!   CertRequest ─► make() ─► CA ─► server, peer and client certificates ─► files, all or none
//!   self_signed() ─► fixtures/client, fixtures/peer          for --auto-tls and --peer-auto-tls
//!   read(file) ─► Item{certificate, key, list}               what is in a file
//!   check(Subject) ─► Finding{problem, text}                 why a handshake would fail
//! ```
//!
//! Usages are etcd's and kubeadm's: the certificate of a server or a peer is for both sides of a
//! connection, since members dial each other with it; a client's is for one side. Its common name
//! is the user that it stands for.
//!
//! Files get their final names once all of them are written and synced, so an order that fails
//! before that leaves nothing behind. Files of keys have mode 600 from when they are created.
//!
//! This room makes and looks. Which certificate a connection shows, and which it accepts, is
//! decided in `tls`; `check` uses the same verifiers as a handshake.

mod automatic;
mod check;
mod facts;
mod files;
mod generate;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use automatic::self_signed;
pub use check::{Finding, Subject, check, ending};
pub use facts::{Certificate, Item, Key, List, describe, read};
pub use generate::{CertRequest, Generated, KeyType, make};

use crate::tls;

/// Why there is no certificate, or no fact of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} exists already; --force replaces it", .0.display())]
    Exists(PathBuf),
    #[error(
        "{} exists already; --ca-cert and --ca-key sign with an authority that is there, --force makes \
         another one, which nobody trusts yet",
        .0.display()
    )]
    AuthorityExists(PathBuf),
    #[error("cannot make a certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    #[error("{0}")]
    Tls(#[from] tls::Error),
    #[error("{0}")]
    Request(String),
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Peer,
    Client,
}

impl Purpose {
    pub const ALL: [Self; 3] = [Self::Server, Self::Peer, Self::Client];

    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Peer => "peer",
            Self::Client => "client",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}
