//! What a client is built from. Nothing is dialled while a configuration is checked.

use std::fs::File;
use std::time::Duration;

use crate::tls::ClientFiles;

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
    Token(String),
}

#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    pub cert: String,
    pub key: String,
    pub ca: String,
    pub insecure_transport: bool,
    pub skip_verify: bool,
}

impl TlsOptions {
    /// Whether an endpoint without a scheme is to be spoken to over TLS.
    pub fn wanted(&self) -> bool {
        !self.cert.is_empty()
            || !self.key.is_empty()
            || !self.ca.is_empty()
            || !self.insecure_transport
            || self.skip_verify
    }

    pub(super) fn files(&self) -> ClientFiles {
        ClientFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            skip_verify: self.skip_verify,
            protocol: "h2",
            ..ClientFiles::default()
        }
    }

    /// Checks what was given, in etcd's words, before anything is dialled.
    pub fn validate(&self) -> Result<(), String> {
        if self.cert.is_empty() != self.key.is_empty() {
            return Err(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                self.key, self.cert
            ));
        }
        for path in [&self.cert, &self.key, &self.ca] {
            if !path.is_empty() {
                File::open(path).map_err(|error| open_error(path, &error))?;
            }
        }
        Ok(())
    }
}

/// A failed open in Go's words, whose texts are the C library's in lower case.
fn open_error(path: &str, error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let lower = chars.next().map(|first| first.to_lowercase().to_string() + chars.as_str());
    format!("open {path}: {}", lower.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_reported_as_go_does() {
        let tls = TlsOptions { ca: "/nonexistent/ca".into(), ..TlsOptions::default() };
        assert_eq!(tls.validate().unwrap_err(), "open /nonexistent/ca: no such file or directory");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let tls = TlsOptions { cert: "c".into(), ..TlsOptions::default() };
        assert_eq!(
            tls.validate().unwrap_err(),
            "KeyFile and CertFile must both be present[key: , cert: c]"
        );
    }
}
