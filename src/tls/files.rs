//! Reads certificates, keys and revocation lists, and notices when their files change.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::{CertificateError, RootCertStore};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::Error;

/// How a PEM file begins.
const PEM: &[u8] = b"-----BEGIN";

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Open { path: path.to_owned(), source })
}

fn malformed(path: &Path, what: impl ToString) -> Error {
    Error::File { path: path.to_owned(), what: what.to_string() }
}

/// A chain of certificates, the leaf first.
pub fn chain(path: impl AsRef<Path>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let path = path.as_ref();
    let bytes = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| malformed(path, error))?;
    if chain.is_empty() {
        return Err(malformed(path, "tls: failed to find any PEM data in certificate input"));
    }
    Ok(chain)
}

/// A private key in PKCS #1, SEC 1 or PKCS #8.
pub fn key(path: impl AsRef<Path>) -> Result<PrivateKeyDer<'static>, Error> {
    let path = path.as_ref();
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| malformed(path, error))
}

/// The authorities in a file; without a file, those of the system.
pub fn roots<P: AsRef<Path>>(path: Option<P>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let Some(path) = path else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let path = path.as_ref();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| malformed(path, error))?;
    }
    Ok(roots)
}

/// Serial numbers that revocation lists in DER or PEM name. As in etcd, the issuer does not count.
pub fn revoked(path: impl AsRef<Path>) -> Result<HashSet<Vec<u8>>, Error> {
    let path = path.as_ref();
    let bytes = read(path)?;
    let lists: Vec<Vec<u8>> = if bytes.trim_ascii_start().starts_with(PEM) {
        CertificateRevocationListDer::pem_slice_iter(&bytes)
            .map(|list| list.map(|list| list.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| malformed(path, error))?
    } else {
        vec![bytes]
    };
    if lists.is_empty() {
        return Err(malformed(path, "x509: malformed crl"));
    }
    let mut serials = HashSet::new();
    for list in lists {
        let parsed = CertificateRevocationList::from_der(&list);
        let (rest, list) = parsed.map_err(|_| malformed(path, "x509: malformed crl"))?;
        if !rest.is_empty() {
            return Err(malformed(path, "x509: trailing data after the crl"));
        }
        serials.extend(list.iter_revoked_certificates().map(|one| number(one.raw_serial())));
    }
    Ok(serials)
}

/// A serial number without DER's leading zeros.
fn number(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

/// The serial number by which a revocation list names this certificate.
pub fn serial(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(number(parsed.raw_serial()))
}

/// Why a certificate cannot be used for what `allows` asks at `now`, in seconds since 1970; None if
/// it can. Its signature and its names are not checked.
pub(super) fn unfit(
    certificate: &CertificateDer<'_>,
    allows: impl FnOnce(&ExtendedKeyUsage<'_>) -> bool,
    now: u64,
) -> Option<CertificateError> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Some(CertificateError::BadEncoding);
    };
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Some(CertificateError::NotValidYet);
    }
    if now > parsed.validity().not_after.timestamp() {
        return Some(CertificateError::Expired);
    }
    let usages = parsed.extended_key_usage().ok().flatten();
    let is_fit = usages.is_none_or(|usages| usages.value.any || allows(usages.value));
    (!is_fit).then_some(CertificateError::InvalidPurpose)
}

/// The last common name of a certificate's subject, which is the one that Go takes.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().last()?;
    text_of(name.attr_value())
}

/// A string of a name, in any of the encodings that Go reads. Like Go, takes T.61 for Latin-1.
fn text_of(value: &Any<'_>) -> Option<String> {
    const RESERVED: std::ops::RangeInclusive<u32> = 0xfdd0..=0xfdef;
    match value.tag() {
        Tag::T61String => Some(value.data.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let (pairs, rest) = value.data.as_chunks::<2>();
            let pairs = pairs.strip_suffix(&[[0, 0]]).unwrap_or(pairs);
            let points = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair)));
            let text = points.map(|point| match point {
                0xfffe | 0xffff => None,
                point if RESERVED.contains(&point) => None,
                point => char::from_u32(point),
            });
            text.collect::<Option<String>>().filter(|_| rest.is_empty())
        }
        Tag::NumericString | Tag::PrintableString | Tag::Utf8String | Tag::Ia5String => {
            std::str::from_utf8(value.data).ok().map(str::to_owned)
        }
        _ => None,
    }
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

fn stamp(path: &Path) -> Option<Stamp> {
    // Follows links: Kubernetes rotates a mounted secret by changing a link.
    let meta = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: (meta.mtime(), meta.mtime_nsec()),
        bytes: meta.len(),
        inode: meta.ino(),
    })
}

type Stamps = Vec<Option<Stamp>>;

/// A value made from files, and made again when one of them changes.
pub(super) struct Reloaded<T> {
    paths: Vec<PathBuf>,
    state: Mutex<(Stamps, Arc<T>)>,
}

impl<T> Reloaded<T> {
    pub(super) fn new(
        paths: Vec<PathBuf>,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let mut paths = paths;
        paths.retain(|path| !path.as_os_str().is_empty());
        // Taken before the files are read, so that a change meanwhile is seen the next time.
        let stamps = paths.iter().map(|path| stamp(path)).collect();
        Ok(Self { paths, state: Mutex::new((stamps, Arc::new(make()?))) })
    }

    /// The value made from the files as they are, or the previous one if they cannot be used.
    pub(super) fn get(&self, make: impl FnOnce() -> Result<T, Error>) -> Arc<T> {
        let now: Stamps = self.paths.iter().map(|path| stamp(path)).collect();
        let mut state = self.state.lock();
        if state.0 == now {
            return Arc::clone(&state.1);
        }
        state.0 = now;
        match make() {
            Ok(made) => {
                tracing::info!(files = ?self.paths, "TLS files have changed and are in use");
                state.1 = Arc::new(made);
            }
            Err(error) => tracing::warn!(
                files = ?self.paths, %error,
                "TLS files have changed and cannot be used; the ones before stay in use"
            ),
        }
        Arc::clone(&state.1)
    }
}

/// The DNS names and the addresses that a certificate is for.
pub fn alternative_names(certificate: &CertificateDer<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return (names, addresses);
    };
    let extension = parsed.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                addresses.extend(address.map(|address| address.to_canonical()).ok());
            }
            _ => {}
        }
    }
    (names, addresses)
}
