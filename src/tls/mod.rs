//! TLS from files: certificates, keys, authorities and revocation lists, as they are now.
//!
//! ```text
//!   ServerFiles ─► Acceptor ─► accept(stream) ─► Accepted{stream, common name}
//!   ClientFiles ─► Connector ─► connect(stream, host)
//! ```
//!
//! Whenever a connection is made, the time, length and inode of each file are compared with those
//! of the last reading. If one has changed, all files are read again, authorities and revocation
//! lists included. If their content does not fit together, as in the middle of a rotation, the
//! previous one stays in use, and the log says so once for each state of the files.
//!
//! A handshake has a time limit, and the number of handshakes under way a bound, so that clients
//! that send nothing hold neither sockets nor memory for long. Certificates of clients are verified
//! against the authorities, then against the revocation lists (by serial number, as etcd does) and
//! the allowed names.
//!
//! The cryptography is aws-lc's, as it is for tokens.

mod client;
mod fault;
mod files;
mod pair;
mod replay;
mod server;
#[cfg(test)]
mod tests;
mod words;

pub use client::{ClientFiles, Connector, Shown, show_certificates};
pub use fault::{Fault, fault};
pub use files::{alternative_names, chain, common_name, key, revoked, roots, serial};
pub use pair::check_pair;
pub use replay::Replay;
pub use server::{Accepted, Acceptor, ServerFiles};
pub use words::cause;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::go;
pub use rustls::pki_types::CertificateDer;

/// Why TLS cannot be set up. The texts are Go's or etcd's where these have one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open {}: {}", path.display(), go::reason(source))]
    Open { path: PathBuf, source: io::Error },
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error(
        "KeyFile and CertFile must both be present[key: {}, cert: {}]",
        key.display(),
        cert.display()
    )]
    Pair { cert: PathBuf, key: PathBuf },
    #[error("unexpected TLS cipher suite {0:?}")]
    Suite(String),
    #[error("unexpected TLS version {0:?} (must be one of: TLS1.2, TLS1.3)")]
    Version(String),
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
    Other(String),
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// TLS 1.2 suites that Go has and this provider does not: without forward secrecy or with CBC. They
/// may be listed beside one of `HTTP2_SUITES`, and have no effect.
const OLD_SUITES: [&str; 13] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];
/// Go's HTTP/2 server demands one of these if TLS 1.2 is allowed.
const HTTP2_SUITES: [&str; 2] =
    ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];

/// Versions and suites by the names that flags have for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// `TLS1.2` or `TLS1.3`; empty for the lowest, or highest, that there is.
    pub min: String,
    pub max: String,
    /// TLS 1.2 suites by their IANA names; empty for all.
    pub suites: Vec<String>,
}

impl Versions {
    /// Checks the names, and that they leave a version and a suite to use.
    pub fn check(&self) -> Result<(), Error> {
        self.allowed()?;
        self.provider().map(|_| ())
    }

    fn allowed(&self) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, Error> {
        let number = |text: &str, default| match text {
            "" => Ok(default),
            "TLS1.2" => Ok(2),
            "TLS1.3" => Ok(3),
            other => Err(Error::Version(other.to_owned())),
        };
        let (min, max) = (number(&self.min, 2)?, number(&self.max, 3)?);
        if min > max {
            return Err(Error::Other(format!(
                "min version ({}) is greater than max version ({})",
                self.min, self.max
            )));
        }
        let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
        let allowed = all.into_iter().filter(|(version, _)| (min..=max).contains(version));
        Ok(allowed.map(|(_, version)| version).collect())
    }

    fn provider(&self) -> Result<Arc<CryptoProvider>, Error> {
        let mut provider = provider();
        if self.suites.is_empty() {
            return Ok(Arc::new(provider));
        }
        let name_of = |suite: &rustls::SupportedCipherSuite| {
            // rustls has its own names for TLS 1.3's suites.
            format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
        };
        let known: Vec<String> = provider.cipher_suites.iter().map(name_of).collect();
        // Go's old names of two suites.
        let current = |name: &str| match name {
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
                format!("{name}_SHA256")
            }
            other => other.to_owned(),
        };
        let wanted: Vec<String> = self.suites.iter().map(|name| current(name)).collect();
        for (given, name) in self.suites.iter().zip(&wanted) {
            if !known.contains(name) && !OLD_SUITES.contains(&name.as_str()) {
                return Err(Error::Suite(given.clone()));
            }
        }
        let has_2 = self.allowed()?.contains(&&rustls::version::TLS12);
        if has_2 && !wanted.iter().any(|name| HTTP2_SUITES.contains(&name.as_str())) {
            return Err(Error::Other(format!(
                "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 \
                 cipher (need at least one of {})",
                HTTP2_SUITES.join(" or ")
            )));
        }
        provider.cipher_suites.retain(|suite| {
            suite.version().version == rustls::ProtocolVersion::TLSv1_3
                || wanted.contains(&name_of(suite))
        });
        Ok(Arc::new(provider))
    }
}
