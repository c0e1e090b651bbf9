//! What is wrong with a TLS connection, as far as a person can mend it.

use std::error::Error as StdError;
use std::fmt;

use rustls::{AlertDescription as Alert, CertificateError, Error};

use super::words;
use crate::go;

/// Why a client and a server do not come to terms. The first five are found by the client in the
/// server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    UnknownAuthority,
    /// Since when, in Unix seconds, if that is known.
    Expired(Option<u64>),
    /// From when on it is valid, in Unix seconds, if that is known.
    NotYetValid(Option<u64>),
    /// The name that was wanted, empty if it is not known, and those that it has.
    WrongName(String, Vec<String>),
    WrongUsage,
    /// What the server sends is not TLS.
    NotTls,
    /// The server wants a certificate, and the client has shown none.
    CertificateRequired,
    /// The server says that the client's certificate has expired.
    ClientExpired,
    /// The server does not know the authority of the client's certificate.
    ClientUnknown,
    /// The server refuses the client's certificate, and does not say more than this.
    ClientRefused(&'static str),
    /// Anything else, in Go's words.
    Other(String),
}

/// The fault in an error of TLS; None if the error is of another kind, such as an end of the
/// connection.
pub fn fault(error: &(dyn StdError + 'static)) -> Option<Fault> {
    let mut at = error;
    loop {
        if let Some(found) = words::of_tls(at) {
            return Some(of(found));
        }
        at = at.source()?;
    }
}

fn of(error: &Error) -> Fault {
    use CertificateError as Found;
    match error {
        Error::InvalidCertificate(found) => match found {
            // Another authority of the same name has signed it.
            Found::UnknownIssuer | Found::BadSignature => Fault::UnknownAuthority,
            Found::Expired => Fault::Expired(None),
            Found::ExpiredContext { not_after, .. } => Fault::Expired(Some(not_after.as_secs())),
            Found::NotValidYet => Fault::NotYetValid(None),
            Found::NotValidYetContext { not_before, .. } => {
                Fault::NotYetValid(Some(not_before.as_secs()))
            }
            Found::NotValidForName => Fault::WrongName(String::new(), Vec::new()),
            Found::NotValidForNameContext { expected, presented } => {
                let wanted = expected.to_str().into_owned();
                Fault::WrongName(wanted, presented.iter().map(|name| bare(name)).collect())
            }
            Found::InvalidPurpose | Found::InvalidPurposeContext { .. } => Fault::WrongUsage,
            _ => Fault::Other(words::words(error)),
        },
        Error::InvalidMessage(_) => Fault::NotTls,
        Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => Fault::CertificateRequired,
            Alert::CertificateExpired => Fault::ClientExpired,
            Alert::UnknownCA => Fault::ClientUnknown,
            Alert::BadCertificate => Fault::ClientRefused("bad certificate"),
            Alert::UnsupportedCertificate => Fault::ClientRefused("unsupported certificate"),
            Alert::CertificateRevoked => Fault::ClientRefused("revoked certificate"),
            Alert::CertificateUnknown => Fault::ClientRefused("unknown certificate"),
            Alert::AccessDenied => Fault::ClientRefused("access denied"),
            _ => Fault::Other(words::words(error)),
        },
        _ => Fault::Other(words::words(error)),
    }
}

/// The name within rustls's `DnsName("a.example")` or `IpAddress(10.0.0.1)`.
fn bare(shown: &str) -> String {
    let inner = shown.split_once('(').map_or(shown, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"').to_owned()
}

impl fmt::Display for Fault {
    /// The fault in plain words, the server as "it".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = |at: &Option<u64>, words: &str| match at {
            Some(seconds) => format!(" {words} {}", day(*seconds)),
            None => String::new(),
        };
        match self {
            Self::UnknownAuthority => {
                f.write_str("its certificate is signed by an unknown authority")
            }
            Self::Expired(at) => write!(f, "its certificate has expired{}", when(at, "on")),
            Self::NotYetValid(at) => {
                write!(f, "its certificate is not valid yet{}", when(at, "but from"))
            }
            Self::WrongName(wanted, names) => {
                let wanted = if wanted.is_empty() { "this name" } else { wanted };
                match names.as_slice() {
                    [] => write!(f, "its certificate is not for {wanted}"),
                    names => {
                        let names = names.join(", ");
                        write!(f, "its certificate is not for {wanted} but for {names}")
                    }
                }
            }
            Self::WrongUsage => f.write_str("its certificate is not one for servers"),
            Self::NotTls => f.write_str("it does not speak TLS"),
            Self::CertificateRequired => f.write_str("it wants a client certificate"),
            // The alert is the same for both.
            Self::ClientExpired => {
                f.write_str("it says that the client certificate has expired or is not valid yet")
            }
            Self::ClientUnknown => {
                f.write_str("it does not know the authority of the client certificate")
            }
            Self::ClientRefused(why) => write!(f, "it refuses the client certificate ({why})"),
            Self::Other(text) => write!(f, "no TLS connection ({text})"),
        }
    }
}

/// A time in Unix seconds as a date.
fn day(seconds: u64) -> String {
    let text = go::timestamp(seconds.saturating_mul(1_000_000_000));
    text.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_their_kind() {
        assert_eq!(bare("DnsName(\"a.example\")"), "a.example");
        assert_eq!(bare("IpAddress(10.0.0.1)"), "10.0.0.1");
        assert_eq!(bare("a"), "a");
        let fault = Fault::WrongName("b".into(), vec!["a".into(), "10.0.0.1".into()]);
        assert!(fault.to_string().ends_with("is not for b but for a, 10.0.0.1"), "{fault}");
        let fault = Fault::Expired(Some(86_400 * 365));
        assert_eq!(fault.to_string(), "its certificate has expired on 1971-01-01");
    }
}
