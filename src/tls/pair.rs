//! Whether a certificate and a key belong together, in the words of Go's `tls.X509KeyPair`.

use std::path::Path;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error as TlsError, SignatureAlgorithm};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files;

/// Checks two files. The error is the text that etcd's client prints.
pub fn check_pair(cert: &Path, key: &Path) -> Result<(), String> {
    let read = |path| files::read(path).map_err(|error| error.to_string());
    let (cert, key) = (read(cert)?, read(key)?);
    let (cert_kinds, key_kinds) = (kinds(&cert), kinds(&key));
    let is_key = |kind: &String| kind == "PRIVATE KEY" || kind.ends_with(" PRIVATE KEY");
    if !cert_kinds.iter().any(|kind| kind == "CERTIFICATE") {
        return Err(match cert_kinds.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".into(),
            [kind] if is_key(kind) => "tls: failed to find certificate PEM data in certificate \
                                       input, but did find a private key; PEM inputs may have been \
                                       switched"
                .into(),
            kinds => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping \
                 PEM blocks of the following types: [{}]",
                kinds.join(" ")
            ),
        });
    }
    if !key_kinds.iter().any(is_key) {
        return Err(match key_kinds.as_slice() {
            [] => "tls: failed to find any PEM data in key input".into(),
            [kind] if kind == "CERTIFICATE" => {
                "tls: found a certificate rather than a key in the PEM for the private key".into()
            }
            kinds => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input \
                 after skipping PEM blocks of the following types: [{}]",
                kinds.join(" ")
            ),
        });
    }
    let malformed = || "x509: malformed certificate".to_owned();
    let cert = CertificateDer::from_pem_slice(&cert).map_err(|_| malformed())?;
    let (_, parsed) = X509Certificate::from_der(&cert).map_err(|_| malformed())?;
    let unread = || "tls: failed to parse private key".to_owned();
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| unread())?;
    let key = any_supported_type(&key).map_err(|_| unread())?;
    let algorithm = match parsed.public_key().algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => SignatureAlgorithm::RSA,
        "1.2.840.10045.2.1" => SignatureAlgorithm::ECDSA,
        "1.3.101.112" => SignatureAlgorithm::ED25519,
        _ => return Err("tls: unknown public key algorithm".into()),
    };
    if algorithm != key.algorithm() {
        return Err("tls: private key type does not match public key type".into());
    }
    let certified = rustls::sign::CertifiedKey::new(vec![cert.clone()], key);
    match certified.keys_match() {
        Err(TlsError::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err("tls: private key does not match public key".into())
        }
        _ => Ok(()),
    }
}

/// The labels of the blocks in a PEM file, in their order.
fn kinds(pem: &[u8]) -> Vec<String> {
    pem.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let kind = line.trim_ascii().strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----")?;
            String::from_utf8(kind.to_vec()).ok()
        })
        .collect()
}
