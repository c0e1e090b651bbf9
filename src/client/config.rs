//! The configuration of a client, and its checks. They connect to nothing.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reach::Reach;
use crate::go;
use crate::tls::{self, ClientFiles};

/// How to reach a cluster and log in to it.
#[derive(Clone, Debug)]
pub struct Config {
    pub endpoints: Vec<String>,
    /// How long the login at the start may take; zero means no bound. A new lease's first renewal
    /// must be answered within this and one second. A single dial has as much with
    /// [`Reach::AtOnce`], else `CLIENT_DIAL_TIMEOUT`.
    pub dial_timeout: Duration,
    /// Interval of HTTP/2 pings, raised to `CLIENT_KEEP_ALIVE_MIN` if it is shorter.
    pub keep_alive_time: Duration,
    /// A connection that does not answer a ping within this time is closed.
    pub keep_alive_timeout: Duration,
    /// Largest request in bytes; zero means `CLIENT_SEND_BYTES_MAX`.
    pub send_bytes_max: usize,
    /// Largest response in bytes; zero means `CLIENT_RECEIVE_BYTES_MAX`.
    pub receive_bytes_max: usize,
    pub tls: TlsOptions,
    pub credentials: Credentials,
    pub reach: Reach,
    /// The name of this client's logger in log lines.
    pub logger: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    None,
    Password {
        user: String,
        password: String,
    },
    /// A token, sent as it is in the metadata `token`. It is left out if it holds bytes that no
    /// header may.
    Token(Vec<u8>),
}

#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub insecure_transport: bool,
    pub skip_verify: bool,
    /// The name that the server's certificate must have; empty means the host that is dialled.
    pub server_name: String,
}

impl TlsOptions {
    /// Whether endpoints without a scheme are reached over TLS.
    pub fn is_default(&self) -> bool {
        self.cert.is_some()
            || self.key.is_some()
            || self.ca.is_some()
            || !self.insecure_transport
            || self.skip_verify
            || !self.server_name.is_empty()
    }

    /// The same options in the form that `tls` takes.
    pub fn files(&self) -> ClientFiles {
        ClientFiles {
            cert: self.cert.clone().unwrap_or_default(),
            key: self.key.clone().unwrap_or_default(),
            ca: self.ca.clone().unwrap_or_default(),
            skip_verify: self.skip_verify,
            server_name: self.server_name.clone(),
            protocol: "h2",
            ..ClientFiles::default()
        }
    }

    /// Checks the options before anything is dialled, even if no endpoint uses TLS. Errors are
    /// etcd's texts; they are bytes, since a path need not be UTF-8.
    pub fn validate(&self) -> Result<(), Vec<u8>> {
        let shown = |path: &Option<PathBuf>| -> Vec<u8> {
            path.as_ref().map(|path| path.as_os_str().as_bytes().to_vec()).unwrap_or_default()
        };
        if self.cert.is_some() != self.key.is_some() {
            let (cert, key) = (shown(&self.cert), shown(&self.key));
            let what: &[u8] = b"KeyFile and CertFile must both be present[key: ";
            return Err([what, &key, b", cert: ", &cert, b"]"].concat());
        }
        for path in [&self.cert, &self.key, &self.ca].into_iter().flatten() {
            File::open(path).map_err(|error| open_error(path, &error))?;
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls::check_pair(cert, key)?;
        }
        Ok(())
    }
}

/// The text of Go's error when a file cannot be opened.
fn open_error(path: &Path, error: &std::io::Error) -> Vec<u8> {
    [b"open ", path.as_os_str().as_bytes(), b": ", go::reason(error).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_reported_as_go_does() {
        let tls = TlsOptions { ca: Some("/nonexistent/ca".into()), ..TlsOptions::default() };
        assert_eq!(tls.validate().unwrap_err(), b"open /nonexistent/ca: no such file or directory");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let tls = TlsOptions { cert: Some("c".into()), ..TlsOptions::default() };
        assert_eq!(
            tls.validate().unwrap_err(),
            b"KeyFile and CertFile must both be present[key: , cert: c]"
        );
    }
}
