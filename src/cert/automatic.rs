//! Makes and keeps the certificates of `--auto-tls` and `--peer-auto-tls`.

use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P521_SHA512,
};

use super::files::{Draft, make_dir, place};
use super::generate::{after, alternative_names, random_serial, set_validity};
use super::{Error, facts};
use crate::clock::Clock;
use crate::files;

/// File names, which are etcd's.
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Paths of a self-signed certificate and its key: those in the directory if both are there, else
/// new ones for these hosts, valid for `years` of 365 days.
pub fn self_signed(
    dir: &Path,
    hosts: &[String],
    years: u64,
    clock: &dyn Clock,
) -> Result<(PathBuf, PathBuf), Error> {
    if years == 0 {
        let text = "selfSignedCertValidity is invalid,it should be greater than 0";
        return Err(Error::Request(text.into()));
    }
    let dir =
        std::path::absolute(dir).map_err(|source| Error::Io { path: dir.to_path_buf(), source })?;
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    for path in [&certificate, &key] {
        files::check(path).map_err(|source| Error::Io { path: path.clone(), source })?;
    }
    if certificate.exists() && key.exists() {
        warn_if_over(&certificate, clock);
        return Ok((certificate, key));
    }
    make_dir(&dir, true)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.serial_number = Some(random_serial(clock)?);
    let now = clock.unix_nanos() / 1_000_000_000;
    let not_after = after(now, years.saturating_mul(365))?;
    set_validity(&mut params, now, not_after);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = alternative_names(hosts)?;
    tracing::warn!(
        "certificate-validity-bound-not-after" = %facts::date(i64::try_from(not_after).unwrap_or(i64::MAX)),
        "automatically generate certificates"
    );
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512)?;
    let made = params.self_signed(&pair)?;
    let drafts = [
        Draft { path: certificate.clone(), text: made.pem(), is_secret: false },
        Draft { path: key.clone(), text: sec1(&pair)?, is_secret: true },
    ];
    // Placed together, since one without the other is of no use.
    place(&drafts, true)?;
    tracing::info!(path = %certificate.display(), "created cert file");
    tracing::info!(path = %key.display(), "created key file");
    Ok((certificate, key))
}

/// The key in SEC 1, the form that etcd writes.
fn sec1(pair: &KeyPair) -> Result<String, Error> {
    const LINE: usize = 64;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_ASN1_SIGNING, pair.serialized_der());
    let key = key.map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    let der: Result<EcPrivateKeyRfc5915Der<'_>, _> = key.private_key().as_der();
    let body = STANDARD.encode(der.map_err(|_| rcgen::Error::CouldNotParseKeyPair)?.as_ref());
    let mut text = "-----BEGIN EC PRIVATE KEY-----\n".to_owned();
    for (place, letter) in body.chars().enumerate() {
        if place > 0 && place % LINE == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text += "\n-----END EC PRIVATE KEY-----\n";
    Ok(text)
}

/// As in etcd, a kept certificate is used whatever its age; an expired one is at least logged.
fn warn_if_over(path: &Path, clock: &dyn Clock) {
    let now = clock.unix_nanos() / 1_000_000_000;
    let found = facts::read(path, now).unwrap_or_default();
    for item in found {
        if let facts::Item::Certificate(certificate) = item
            && certificate.days_left < 0
        {
            tracing::warn!(
                path = %path.display(),
                "not-after" = certificate.not_after,
                "the kept certificate has expired; remove its directory to have a new one made"
            );
        }
    }
}
