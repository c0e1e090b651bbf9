//! Makes an authority and the certificates that it signs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::{Draft, make_dir, place};
use super::{Error, Purpose, facts};
use crate::clock::Clock;
use crate::tls;

/// Kinds of keys by the names that the command line gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    P256,
    P384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

impl KeyType {
    pub const NAMES: &'static [&'static str] =
        &["ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096"];

    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::P256, Self::P384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];
        Self::NAMES.iter().zip(all).find(|(known, _)| **known == name).map(|(_, it)| it)
    }

    fn generate(self) -> Result<KeyPair, Error> {
        Ok(match self {
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        }?)
    }
}

/// What to make, and where.
#[derive(Clone, Debug)]
pub struct CertRequest {
    pub dir: PathBuf,
    /// DNS names and addresses of the members.
    pub hosts: Vec<String>,
    /// Common names of clients; each gets a certificate in a file of its name.
    pub clients: Vec<String>,
    pub purposes: Vec<Purpose>,
    /// Certificate and key of an existing authority; None makes one.
    pub ca: Option<(PathBuf, PathBuf)>,
    pub days: u64,
    pub ca_days: u64,
    pub key_type: KeyType,
    pub replaces: bool,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Generated {
    pub ca: PathBuf,
    /// Files in the order they were made in, and what each is.
    pub files: Vec<(PathBuf, String)>,
    /// Whether certificates end earlier than ordered, because the authority's does.
    pub is_cut_short: bool,
}

/// How far a clock may be behind and still accept a new certificate.
const LEEWAY_SECONDS: u64 = 300;

/// Makes and places all that was ordered.
pub fn make(order: &CertRequest, clock: &dyn Clock) -> Result<Generated, Error> {
    check(order)?;
    let now = clock.unix_nanos() / 1_000_000_000;
    let mut drafts = Vec::new();
    let mut files = Vec::new();
    let (authority, ca) = match &order.ca {
        Some((certificate, key)) => (Authority::read(certificate, key, now)?, certificate.clone()),
        None => {
            let path = order.dir.join("ca.crt");
            let authority = Authority::make(order, now, &path, &mut drafts, clock)?;
            files.push((path.clone(), "certificate of the authority".to_owned()));
            files.push((order.dir.join("ca.key"), "its key; keep it off the servers".to_owned()));
            (authority, path)
        }
    };
    let mut wanted: Vec<(Purpose, &str, &str)> = Vec::new();
    let first = order.hosts.first().map_or("", String::as_str);
    for purpose in Purpose::ALL.into_iter().filter(|it| order.purposes.contains(it)) {
        match purpose {
            Purpose::Client => {
                wanted.extend(order.clients.iter().map(|name| (purpose, name.as_str(), &**name)));
            }
            _ => wanted.push((purpose, purpose.name(), first)),
        }
    }
    let not_after = after(now, order.days)?;
    let is_cut_short = not_after > authority.not_after;
    for (purpose, file, common_name) in wanted {
        let mut params = leaf(order, purpose, common_name, clock)?;
        set_validity(
            &mut params,
            now - LEEWAY_SECONDS.min(now),
            not_after.min(authority.not_after),
        );
        let pair = order.key_type.generate()?;
        let certificate = params.signed_by(&pair, &authority.issuer)?;
        let what = match purpose {
            Purpose::Client => format!("of the client {common_name}"),
            _ => format!("of the {}, for {}", purpose.name(), order.hosts.join(", ")),
        };
        let (crt, key) =
            (order.dir.join(format!("{file}.crt")), order.dir.join(format!("{file}.key")));
        files.push((crt.clone(), format!("certificate {what}")));
        files.push((key.clone(), "its key".to_owned()));
        drafts.push(Draft { path: crt, text: certificate.pem(), is_secret: false });
        drafts.push(Draft { path: key, text: pair.serialize_pem(), is_secret: true });
    }
    make_dir(&order.dir, false)?;
    place(&drafts, order.replaces).map_err(|error| match error {
        Error::Exists(path) if path == ca => Error::AuthorityExists(path),
        other => other,
    })?;
    Ok(Generated { ca, files, is_cut_short })
}

fn check(order: &CertRequest) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Request(text));
    let has = |purpose| order.purposes.contains(&purpose);
    if order.purposes.is_empty()
        || (order.purposes == [Purpose::Client] && order.clients.is_empty())
    {
        return refuse("nothing to make".into());
    }
    if order.hosts.is_empty() && (has(Purpose::Server) || has(Purpose::Peer)) {
        return refuse("a server needs a name or an address, given with --hosts".into());
    }
    if order.days == 0 || order.ca_days == 0 {
        return refuse("a certificate has to be valid for a day at least".into());
    }
    for (at, name) in order.clients.iter().enumerate() {
        let is_file = !name.is_empty()
            && !name.starts_with(['.', '-'])
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
            && name.len() <= CLIENT_NAME_BYTES_MAX;
        if !is_file || ["ca", "server", "peer"].contains(&name.as_str()) {
            return refuse(format!(
                "{name:?} cannot name a client: its files could not be named so"
            ));
        }
        if order.clients[..at].contains(name) {
            return refuse(format!("the client {name} is listed twice"));
        }
    }
    for host in &order.hosts {
        let is_name = |host: &str| {
            let host = host.strip_prefix("*.").unwrap_or(host);
            rustls::pki_types::DnsName::try_from(host.to_owned()).is_ok()
        };
        if host.parse::<IpAddr>().is_err() && !is_name(host) {
            return refuse(format!("{host:?} is neither an address nor a DNS name"));
        }
    }
    Ok(())
}

/// X.509's upper bound of a common name.
const CLIENT_NAME_BYTES_MAX: usize = 64;

fn leaf(
    order: &CertRequest,
    purpose: Purpose,
    common_name: &str,
    clock: &dyn Clock,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    if purpose != Purpose::Client {
        params.subject_alt_names = alternative_names(&order.hosts)?;
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(random_serial(clock)?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = match purpose {
        Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        _ => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    Ok(params)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// In seconds since 1970.
    not_after: u64,
}

impl Authority {
    fn make(
        order: &CertRequest,
        now: u64,
        path: &Path,
        drafts: &mut Vec<Draft>,
        clock: &dyn Clock,
    ) -> Result<Self, Error> {
        let pair = order.key_type.generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "rusd-ca");
        params.serial_number = Some(random_serial(clock)?);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let not_after = after(now, order.ca_days)?;
        set_validity(&mut params, now - LEEWAY_SECONDS.min(now), not_after);
        let certificate = params.self_signed(&pair)?;
        drafts.push(Draft { path: path.into(), text: certificate.pem(), is_secret: false });
        let key = order.dir.join("ca.key");
        drafts.push(Draft { path: key, text: pair.serialize_pem(), is_secret: true });
        Ok(Self { issuer: Issuer::new(params, pair), not_after })
    }

    /// Reads an existing authority, which must be allowed to sign, be valid, and have this key.
    fn read(certificate: &Path, key: &Path, now: u64) -> Result<Self, Error> {
        let refuse = |what: &str| Err(Error::Request(format!("{}: {what}", certificate.display())));
        let chain = tls::chain(certificate)?;
        let pair = KeyPair::try_from(&tls::key(key)?)?;
        let Some(Ok((_, parsed))) = chain.first().map(|first| X509Certificate::from_der(first))
        else {
            return refuse("the certificate cannot be read");
        };
        if !parsed.is_ca() {
            return refuse("this is not the certificate of an authority");
        }
        let usage = parsed.key_usage().ok().flatten();
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return refuse("this authority may not sign certificates");
        }
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return refuse(&format!("the key in {} is not its own", key.display()));
        }
        let not_after = parsed.validity().not_after.timestamp();
        let not_after = u64::try_from(not_after).unwrap_or_default();
        if not_after <= now {
            let over = facts::date(parsed.validity().not_after.timestamp());
            return refuse(&format!("the authority has expired, on {over}"));
        }
        let issuer = Issuer::from_ca_cert_der(&chain[0], pair)?;
        Ok(Self { issuer, not_after })
    }
}

/// The last second that a certificate can name, 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The second `days` days after `second`; an error if it is later than a certificate can name.
pub(super) fn after(second: u64, days: u64) -> Result<u64, Error> {
    let second = days.checked_mul(86_400).and_then(|span| second.checked_add(span));
    second.filter(|second| *second <= LAST_SECOND).ok_or_else(|| {
        Error::Request(format!("{days} days from now are more than a certificate can name"))
    })
}

/// Sets the validity; both ends are in seconds since 1970.
pub(super) fn set_validity(params: &mut CertificateParams, from: u64, until: u64) {
    let start = date_time_ymd(1970, 1, 1);
    params.not_before = start + Duration::from_secs(from.min(LAST_SECOND));
    params.not_after = start + Duration::from_secs(until.min(LAST_SECOND));
}

/// A serial number of 16 bytes that nobody can guess, positive and never shorter.
pub(super) fn random_serial(clock: &dyn Clock) -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    let filled = clock.secret(&mut bytes);
    filled.map_err(|error| Error::Request(format!("no random bytes: {error}")))?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Hosts as a certificate names them.
pub(super) fn alternative_names(hosts: &[String]) -> Result<Vec<SanType>, Error> {
    let name = |host: &String| {
        Ok(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        })
    };
    hosts.iter().map(name).collect()
}
