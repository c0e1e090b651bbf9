//! Errors of TLS in Go's words, which operators know from etcd's logs.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription as Alert, CertificateError, Error, PeerIncompatible};

/// The text of an error's innermost cause; for an error of TLS, what Go would have said.
pub fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut at = error;
    loop {
        if let Some(error) = of_tls(at) {
            return words(error);
        }
        match at.source() {
            Some(source) => at = source,
            None => return plain(at),
        }
    }
}

pub(super) fn of_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let within = || error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
    error.downcast_ref().or_else(within)
}

fn plain(error: &(dyn StdError + 'static)) -> String {
    match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        Some(error) if error.raw_os_error().is_some() => crate::go::reason(error),
        _ => error.to_string(),
    }
}

pub(super) fn words(error: &Error) -> String {
    let verify = |what: &str| format!("tls: failed to verify certificate: x509: {what}");
    match error {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            verify("certificate signed by unknown authority")
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => verify("certificate has expired or is not yet valid"),
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => verify("certificate specifies an incompatible key usage"),
        // A client has no host name to verify: here this error means that the client's certificate
        // has none of the allowed names.
        Error::InvalidCertificate(CertificateError::NotValidForName) => {
            "client certificate authentication failed".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => {
            verify(&format!("certificate is not valid for this name ({error})"))
        }
        Error::InvalidCertificate(CertificateError::Revoked) => {
            "transport: certificate revoked".to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "tls: client offered only unsupported versions".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server".to_owned()
        }
        Error::NoApplicationProtocol => {
            "tls: client requested unsupported application protocols".to_owned()
        }
        Error::InvalidMessage(_) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Error::AlertReceived(alert) => match of_alert(*alert) {
            Some(text) => format!("remote error: tls: {text}"),
            None => format!("remote error: tls: alert({})", u8::from(*alert)),
        },
        other => format!("tls: {other}"),
    }
}

fn of_alert(alert: Alert) -> Option<&'static str> {
    Some(match alert {
        Alert::CloseNotify => "close notify",
        Alert::UnexpectedMessage => "unexpected message",
        Alert::BadRecordMac => "bad record MAC",
        Alert::HandshakeFailure => "handshake failure",
        Alert::BadCertificate => "bad certificate",
        Alert::UnsupportedCertificate => "unsupported certificate",
        Alert::CertificateRevoked => "revoked certificate",
        Alert::CertificateExpired => "expired certificate",
        Alert::CertificateUnknown => "unknown certificate",
        Alert::IllegalParameter => "illegal parameter",
        Alert::UnknownCA => "unknown certificate authority",
        Alert::AccessDenied => "access denied",
        Alert::DecodeError => "error decoding message",
        Alert::DecryptError => "error decrypting message",
        Alert::ProtocolVersion => "protocol version not supported",
        Alert::InsufficientSecurity => "insufficient security level",
        Alert::InternalError => "internal error",
        Alert::UserCanceled => "user canceled",
        Alert::MissingExtension => "missing extension",
        Alert::UnsupportedExtension => "unsupported extension",
        Alert::UnrecognisedName => "unrecognized name",
        Alert::CertificateRequired => "certificate required",
        Alert::NoApplicationProtocol => "no application protocol",
        _ => return None,
    })
}
