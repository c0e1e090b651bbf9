//! Whether a handshake with given certificates would fail, and why.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};
use serde::Serialize;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Purpose, facts};
use crate::tls;

/// What one side would show, and what the other side knows and expects.
#[derive(Default)]
pub struct Subject {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Option<PrivateKeyDer<'static>>,
    /// Authorities of the other side; None if they are not known, and then trust is not checked.
    pub roots: Option<RootCertStore>,
    /// Serial numbers that the other side takes for revoked.
    pub revoked: HashSet<Vec<u8>>,
    /// The host that the other side dials; None if that is not known.
    pub host: Option<String>,
    pub purposes: Vec<Purpose>,
    /// In seconds since 1970.
    pub now: u64,
}

/// One reason why a handshake would fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A word for scripts, such as `expired`.
    pub problem: &'static str,
    pub text: String,
}

fn finding(problem: &'static str, text: impl Into<String>) -> Finding {
    Finding { problem, text: text.into() }
}

/// All reasons why a handshake with these certificates would fail; none if it would not.
pub fn check(subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(leaf) = subject.chain.first() else {
        return vec![finding("no-certificate", "there is no certificate")];
    };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return vec![finding("malformed", "the certificate cannot be read")];
    };
    let now = i64::try_from(subject.now).unwrap_or(i64::MAX);
    // The time at which trust is verified: within all validities, if there is such a time, so that
    // an expired certificate hides no other fault.
    let mut moment = now;
    for certificate in &subject.chain {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            findings.push(finding("malformed", "a certificate of the chain cannot be read"));
            continue;
        };
        let (from, until) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let who = parsed.subject();
        if now > until {
            let days = (now - until) / 86_400;
            let text = format!("{who} expired {days} days ago, on {}", facts::date(until));
            findings.push(finding("expired", text));
            moment = moment.min(until);
        }
        if now < from {
            let text = format!("{who} is not valid before {}", facts::date(from));
            findings.push(finding("not-yet-valid", text));
            moment = moment.max(from);
        }
        if tls::serial(certificate).is_none_or(|serial| subject.revoked.contains(&serial)) {
            let serial = facts::hex(parsed.raw_serial());
            findings.push(finding("revoked", format!("{who}, serial {serial}, is revoked")));
        }
    }
    findings.extend(usages(subject, &parsed));
    findings.extend(host(subject, leaf));
    findings.extend(key(subject, &parsed));
    findings.extend(trust(subject, leaf, moment));
    findings
}

/// The certificates of a chain that last no longer than `days`, each with a text. Those that have
/// ended are findings of [`check`].
pub fn ending(chain: &[CertificateDer<'_>], now: u64, days: i64) -> Vec<Finding> {
    let soon = |certificate: &CertificateDer<'_>| {
        let facts = facts::describe(certificate, now)?;
        let text =
            format!("{} ends in {} days, on {}", facts.subject, facts.days_left, facts.not_after);
        (0..days).contains(&facts.days_left).then(|| finding("ends-soon", text))
    };
    chain.iter().filter_map(soon).collect()
}

fn usages(subject: &Subject, parsed: &X509Certificate<'_>) -> Vec<Finding> {
    let Some(usages) = parsed.extended_key_usage().ok().flatten() else { return Vec::new() };
    let usages = usages.value;
    let has = |purpose: &Purpose, other: Purpose| *purpose == other || *purpose == Purpose::Peer;
    let serves = subject.purposes.iter().any(|it| has(it, Purpose::Server));
    let dials = subject.purposes.iter().any(|it| has(it, Purpose::Client));
    [
        (serves && !usages.server_auth, "server authentication, so clients refuse it"),
        (dials && !usages.client_auth, "client authentication, so servers refuse it"),
    ]
    .into_iter()
    .filter(|(is_missing, _)| *is_missing)
    .map(|(_, what)| finding("missing-usage", format!("the certificate is not for {what}")))
    .collect()
}

fn host(subject: &Subject, leaf: &CertificateDer<'_>) -> Option<Finding> {
    let host = subject.host.as_deref()?;
    let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']'));
    let Ok(name) = name else {
        return Some(finding("wrong-host", format!("{host:?} is neither a name nor an address")));
    };
    let parsed = ParsedCertificate::try_from(leaf).ok()?;
    if rustls::client::verify_server_name(&parsed, &name).is_ok() {
        return None;
    }
    let (names, addresses) = tls::alternative_names(leaf);
    let all: Vec<String> =
        names.into_iter().chain(addresses.iter().map(ToString::to_string)).collect();
    let valid = if all.is_empty() { "no host".to_owned() } else { all.join(", ") };
    Some(finding("wrong-host", format!("the certificate is for {valid}, not for {host}")))
}

fn key(subject: &Subject, parsed: &X509Certificate<'_>) -> Option<Finding> {
    let key = match aws_lc_rs::sign::any_supported_type(subject.key.as_ref()?) {
        Ok(key) => key,
        Err(error) => return Some(finding("bad-key", format!("the key cannot be used: {error}"))),
    };
    let public = key.public_key()?;
    let is_own = public.as_ref() == parsed.public_key().raw;
    (!is_own).then(|| finding("key-mismatch", "the key is not that of the certificate"))
}

/// Verifies with a handshake's verifiers that the authorities have signed the certificate. `moment`
/// is in seconds since 1970.
fn trust(subject: &Subject, leaf: &CertificateDer<'static>, moment: i64) -> Option<Finding> {
    let roots = Arc::new(subject.roots.clone()?);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let moment = Duration::from_secs(u64::try_from(moment).unwrap_or_default());
    let moment = UnixTime::since_unix_epoch(moment);
    let rest = &subject.chain[1..];
    let serves = subject.purposes.iter().any(|it| *it != Purpose::Client);
    let error = if serves {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build().ok()?;
        // Any name of the certificate will do: `host` checks the one that is dialled.
        let (names, addresses) = tls::alternative_names(leaf);
        let name = names.into_iter().find_map(|it| ServerName::try_from(it).ok());
        let name = name.or_else(|| addresses.first().map(|it| ServerName::IpAddress((*it).into())));
        let name = name.or_else(|| ServerName::try_from("localhost").ok())?;
        verifier.verify_server_cert(leaf, rest, &name, &[], moment).err()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().ok()?;
        verifier.verify_client_cert(leaf, rest, moment).err()
    };
    let is_own = |kind: &CertificateError| {
        matches!(
            kind,
            CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. }
                | CertificateError::InvalidPurpose
                | CertificateError::InvalidPurposeContext { .. }
                | CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    };
    match error? {
        // A bad signature: an authority of this name is known, but with another key.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            let issuer = subject.chain.last().and_then(|last| facts::describe(last, 0));
            let issuer = issuer.map(|last| last.issuer).unwrap_or_default();
            let text = format!("signed by an unknown authority, {issuer}");
            Some(finding("unknown-authority", text))
        }
        // Found by the other checks, each in its own words.
        rustls::Error::InvalidCertificate(kind) if is_own(&kind) => None,
        error => Some(finding("refused", error.to_string())),
    }
}
