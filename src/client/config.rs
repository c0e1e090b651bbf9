//! What a client is built from. Nothing is dialled while a configuration is checked.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::go;
use crate::tls::{self, ClientFiles};

/// How to reach and enter a cluster.
#[derive(Clone, Debug)]
pub struct Config {
    pub endpoints: Vec<String>,
    /// Bounds the login only; zero means no bound.
    pub dial_timeout: Duration,
    pub keep_alive_time: Duration,
    pub keep_alive_timeout: Duration,
    /// Largest request in bytes; zero means the default.
    pub send_bytes_max: usize,
    /// Largest response in bytes; zero means the default.
    pub receive_bytes_max: usize,
    pub tls: TlsOptions,
    pub credentials: Credentials,
    /// The name in log lines.
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
    /// What goes into the header as it is; it may be any bytes that a header can hold.
    Token(Vec<u8>),
}

#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub insecure_transport: bool,
    pub skip_verify: bool,
    /// Whom a server must be; empty: the host that is dialled.
    pub server_name: String,
}

impl TlsOptions {
    /// Whether an endpoint without a scheme is to be spoken to over TLS.
    pub fn wanted(&self) -> bool {
        self.cert.is_some()
            || self.key.is_some()
            || self.ca.is_some()
            || !self.insecure_transport
            || self.skip_verify
            || !self.server_name.is_empty()
    }

    /// The files, as TLS reads them.
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

    /// Checks what was given, in etcd's words, before anything is dialled and whether or not an
    /// endpoint will be spoken to over TLS.
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

/// A failed open in Go's words.
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
