//! What is in a file of certificates, keys or revocation lists.

use std::fs;
use std::path::Path;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::Error;
use crate::tls;

/// One thing that a file holds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    Certificate(Box<Certificate>),
    Key(Key),
    RevocationList(List),
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    pub dns_names: Vec<String>,
    pub addresses: Vec<String>,
    /// Extended key usages; none means any.
    pub usages: Vec<String>,
    pub is_authority: bool,
    pub is_self_signed: bool,
    pub key: String,
    pub not_before: String,
    pub not_after: String,
    /// `not_after` in seconds since 1970.
    #[serde(skip)]
    pub ends: i64,
    /// Whole days until `not_after`; negative after it.
    pub days_left: i64,
    pub sha256: String,
    pub sha1: String,
    /// SHA-256 of the public key in DER, which a certificate and its private key have in common.
    pub key_sha256: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Key {
    pub kind: String,
    pub key_sha256: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct List {
    pub issuer: String,
    pub this_update: String,
    pub next_update: String,
    /// Serial numbers of the certificates that it revokes.
    pub revoked: Vec<String>,
}

/// Everything in a PEM file, or the one thing in a DER file. `now` is in seconds since 1970.
pub fn read(path: &Path, now: u64) -> Result<Vec<Item>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let malformed = |what: &str| Error::Request(format!("{}: {what}", path.display()));
    let mut items = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        let (kind, der) = section.map_err(|error| malformed(&error.to_string()))?;
        let item = match kind {
            SectionKind::Certificate => certificate(&CertificateDer::from(der), now),
            SectionKind::RsaPrivateKey => key("PKCS #1", PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::EcPrivateKey => key("SEC 1", PrivateKeyDer::Sec1(der.into())),
            SectionKind::PrivateKey => key("PKCS #8", PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::Crl => list(&der),
            _ => continue,
        };
        items.push(item.ok_or_else(|| malformed("a section cannot be read"))?);
    }
    if items.is_empty() {
        let der = CertificateDer::from(bytes.as_slice());
        let item = certificate(&der, now).or_else(|| list(&bytes));
        let text = "neither a certificate, nor a key or a revocation list, in PEM or DER";
        items.push(item.ok_or_else(|| malformed(text))?);
    }
    Ok(items)
}

/// What a certificate says of itself; None if it cannot be read. `now` is in seconds since 1970.
pub fn describe(certificate: &CertificateDer<'_>, now: u64) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let (dns_names, addresses) = tls::alternative_names(certificate);
    let validity = parsed.validity();
    let left = validity.not_after.timestamp().saturating_sub(i64::try_from(now).ok()?);
    Some(Certificate {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: hex(parsed.raw_serial()),
        dns_names,
        addresses: addresses.iter().map(ToString::to_string).collect(),
        usages: usages(&parsed),
        is_authority: parsed.is_ca(),
        is_self_signed: parsed.subject() == parsed.issuer(),
        key: key_name(&parsed),
        not_before: date(validity.not_before.timestamp()),
        not_after: date(validity.not_after.timestamp()),
        ends: validity.not_after.timestamp(),
        days_left: left.div_euclid(86_400),
        sha256: hex(&Sha256::digest(certificate)),
        sha1: hex(&Sha1::digest(certificate)),
        key_sha256: hex(&Sha256::digest(parsed.public_key().raw)),
    })
}

fn certificate(certificate: &CertificateDer<'_>, now: u64) -> Option<Item> {
    Some(Item::Certificate(Box::new(describe(certificate, now)?)))
}

fn usages(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Some(usages) = parsed.extended_key_usage().ok().flatten() else { return Vec::new() };
    let usages = usages.value;
    let known = [
        (usages.any, "any"),
        (usages.server_auth, "server"),
        (usages.client_auth, "client"),
        (usages.code_signing, "code signing"),
        (usages.email_protection, "e-mail"),
        (usages.time_stamping, "time stamping"),
        (usages.ocsp_signing, "OCSP signing"),
    ];
    let mut names: Vec<String> =
        known.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| (*name).to_owned()).collect();
    names.extend(usages.other.iter().map(ToString::to_string));
    names
}

fn key_name(parsed: &X509Certificate<'_>) -> String {
    match parsed.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        // Coordinates are whole bytes, so the size of P-521 is rounded up.
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size().min(521)),
        _ => parsed.public_key().algorithm.algorithm.to_string(),
    }
}

fn key(form: &str, der: PrivateKeyDer<'_>) -> Option<Item> {
    let key = any_supported_type(&der).ok()?;
    let public = key.public_key()?;
    let kind = format!("{:?}, {form}", key.algorithm());
    Some(Item::Key(Key { kind, key_sha256: hex(&Sha256::digest(&public)) }))
}

fn list(der: &[u8]) -> Option<Item> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    let next = list.next_update().map(|time| date(time.timestamp()));
    Some(Item::RevocationList(List {
        issuer: list.issuer().to_string(),
        this_update: date(list.last_update().timestamp()),
        next_update: next.unwrap_or_default(),
        revoked: list.iter_revoked_certificates().map(|one| hex(one.raw_serial())).collect(),
    }))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970 as `2006-01-02T15:04:05Z`.
pub(super) fn date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the first of March of the year 0: leap days come last in a year.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let year = year + era * 400 + next;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
