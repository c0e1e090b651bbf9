//! Files for TLS. An input's parts become sections of a PEM file, or are the file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusd::cert::{self, Purpose, Subject};
use rusd::tls;

use super::{Notes, Shape, Target, file, scratch};
use crate::mutate::{Part, join, parts};

/// Kinds of parts: the labels in this order, then bytes as they are.
const LABELS: [&str; 5] =
    ["CERTIFICATE", "PRIVATE KEY", "X509 CRL", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
const KINDS: u8 = 6;
/// Within the validity of the seeds, whenever that is.
const NOW: u64 = 1_800_000_000;

pub struct Tls {
    dir: tempfile::TempDir,
}

impl Tls {
    pub fn new() -> Self {
        Self { dir: scratch() }
    }
}

fn assemble(input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts(input) {
        match LABELS.get(usize::from(part.kind % KINDS)) {
            Some(label) => {
                let body = STANDARD.encode(&part.bytes);
                bytes.extend(format!("-----BEGIN {label}-----\n").bytes());
                for line in body.as_bytes().chunks(64) {
                    bytes.extend(line);
                    bytes.push(b'\n');
                }
                bytes.extend(format!("-----END {label}-----\n").bytes());
            }
            None => bytes.extend(&part.bytes),
        }
    }
    bytes
}

fn revocations(issuer: &rcgen::Issuer<'_, &rcgen::KeyPair>) -> Vec<u8> {
    let revoked = rcgen::RevokedCertParams {
        serial_number: rcgen::SerialNumber::from(vec![0, 9, 9]),
        revocation_time: rcgen::date_time_ymd(2024, 1, 1),
        reason_code: Some(rcgen::RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2034, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().der().to_vec()
}

impl Target for Tls {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256]
        {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let mut params =
                rcgen::CertificateParams::new(["a.test".to_owned(), "10.0.0.1".to_owned()])
                    .unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1));
            params.key_usages =
                vec![rcgen::KeyUsagePurpose::CrlSign, rcgen::KeyUsagePurpose::KeyCertSign];
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            let certificate = params.self_signed(&key).unwrap();
            let certificate = certificate.der().to_vec();
            let list = revocations(&rcgen::Issuer::new(params, &key));
            seeds.push(join(&[
                Part::new(0, certificate.clone()),
                Part::new(1, key.serialize_der()),
            ]));
            seeds.push(join(&[Part::new(2, list.clone())]));
            seeds.push(join(&[Part::new(5, list)]));
            seeds.push(join(&[Part::new(5, certificate)]));
        }
        seeds
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|_| false)
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            b"-----BEGIN CERTIFICATE-----\n",
            b"-----END CERTIFICATE-----\n",
            b"-----BEGIN ",
            &[0x30, 0x82],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x02, 0x01],
            &[0x06, 0x03, 0x55, 0x04, 0x03],
            &[0x17, 0x0d],
            &[0x18, 0x0f],
            &[0xa3],
            &[0x55, 0x1d, 0x11],
            &[0x55, 0x1d, 0x25],
            &[0x55, 0x1d, 0x13],
            &[0x87, 0x04],
            &[0x82, 0x06],
            b"991231235959Z",
            b"99991231235959Z",
        ]
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        let path = file(self.dir.path(), "file.pem", &assemble(input));
        let path = path.to_str().unwrap();
        let items = cert::read(path.as_ref(), NOW);
        notes.result("items", &items);
        if let Ok(items) = &items {
            notes.number("items", items.len() as u64);
            serde_json::to_string(items).expect("it can be shown");
        }
        let chain = tls::chain(path);
        notes.result("chain", &chain);
        let key = tls::key(path);
        notes.result("key", &key);
        let roots = tls::roots(Some(path));
        notes.result("roots", &roots);
        let revoked = tls::revoked(path);
        notes.result("revoked", &revoked);
        let chain = chain.unwrap_or_default();
        for certificate in &chain {
            let (names, addresses) = tls::alternative_names(certificate);
            notes.number("names", (names.len() + addresses.len()) as u64);
            let _ = (tls::serial(certificate), tls::common_name(certificate));
        }
        let subject = Subject {
            chain,
            key: key.ok(),
            roots: roots.ok(),
            revoked: revoked.unwrap_or_default(),
            host: Some("a.test".to_owned()),
            purposes: Purpose::parse("server").into_iter().collect(),
            now: NOW,
        };
        for finding in cert::check(&subject) {
            notes.text(finding.problem);
        }
    }
}
