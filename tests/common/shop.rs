//! Certificates of every kind, made on the spot.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

pub type Authority = Issuer<'static, KeyPair>;

/// A directory of files by their names: `NAME.crt`, `NAME.key`.
pub struct Shop {
    pub dir: TempDir,
    pub authority: Authority,
    pub foreign: Authority,
}

/// How a private key is written down.
#[derive(Clone, Copy)]
pub enum Form {
    Pkcs8,
    Pkcs1,
    Sec1,
}

impl Shop {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ca, authority) = root("ca");
        let (other, foreign) = root("other");
        fs::write(dir.path().join("ca.crt"), ca).unwrap();
        fs::write(dir.path().join("other.crt"), other).unwrap();
        let shop = Self { dir, authority, foreign };
        shop.sell("server", |_| {});
        shop.sell("client", |_| {});
        shop
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// A certificate of the usual authority, changed before it is signed.
    pub fn sell(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let pair = KeyPair::generate().unwrap();
        self.sell_by(name, &self.authority, &pair, Form::Pkcs8, change);
    }

    pub fn sell_by(
        &self,
        name: &str,
        issuer: &Authority,
        pair: &KeyPair,
        form: Form,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let certificate = params(name, change).signed_by(pair, issuer).unwrap();
        self.write(&format!("{name}.crt"), certificate.pem());
        self.write(&format!("{name}.key"), key(pair, form));
    }

    /// One that has signed itself.
    pub fn forge(&self, name: &str) {
        let pair = KeyPair::generate().unwrap();
        let certificate = params(name, |_| {}).self_signed(&pair).unwrap();
        self.write(&format!("{name}.crt"), certificate.pem());
        self.write(&format!("{name}.key"), pair.serialize_pem());
    }

    /// One that has signed itself, may sign others, and is listed among the authorities.
    pub fn list_own(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let pair = KeyPair::generate().unwrap();
        let mut params = params(name, change);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&pair).unwrap().pem();
        let authorities = fs::read_to_string(self.path("ca.crt")).unwrap();
        self.write("ca.crt", authorities + &certificate);
        self.write(&format!("{name}.crt"), certificate);
        self.write(&format!("{name}.key"), pair.serialize_pem());
    }

    /// One by an authority in between, shown with it and, as `NAME-alone`, without.
    pub fn sell_through(&self, name: &str) {
        let between = KeyPair::generate().unwrap();
        let params = authority_params("between");
        let certificate = params.signed_by(&between, &self.authority).unwrap();
        let issuer = Issuer::new(params, between);
        let pair = KeyPair::generate().unwrap();
        self.sell_by(name, &issuer, &pair, Form::Pkcs8, |_| {});
        let leaf = fs::read_to_string(self.path(&format!("{name}.crt"))).unwrap();
        self.write(&format!("{name}-alone.crt"), &leaf);
        self.write(&format!("{name}-alone.key"), pair.serialize_pem());
        self.write(&format!("{name}.crt"), leaf + &certificate.pem());
    }

    /// Sells one with an RSA key.
    pub fn sell_rsa(&self, name: &str, form: Form) {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        self.sell_by(name, &self.authority, &pair, form, |_| {});
    }

    /// A list that revokes these serial numbers, in DER and in PEM.
    pub fn list(&self, issuer: &Authority, serials: &[u64]) -> (Vec<u8>, String) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(issuer).unwrap();
        (list.der().to_vec(), list.pem().unwrap())
    }
}

fn params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A root authority and its certificate.
pub fn root(name: &str) -> (String, Authority) {
    root_of(name, KeyPair::generate().unwrap())
}

/// A root authority with this key, and its certificate.
pub fn root_of(name: &str, pair: KeyPair) -> (String, Authority) {
    let params = authority_params(name);
    (params.self_signed(&pair).unwrap().pem(), Issuer::new(params, pair))
}

/// A private key as its file has it.
pub fn key(pair: &KeyPair, form: Form) -> String {
    let der = pair.serialize_der();
    // PKCS #8 is a version, an algorithm and, as bytes, the older form.
    let (_, fields, _) = field(&der);
    let (_, _, rest) = field(fields);
    let (_, _, rest) = field(rest);
    let (_, inner, _) = field(rest);
    match form {
        Form::Pkcs8 => pair.serialize_pem(),
        Form::Pkcs1 => pem("RSA PRIVATE KEY", inner),
        Form::Sec1 => {
            // With the name of the curve P-256, as tools write it.
            const CURVE: [u8; 12] = [0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
            let (_, fields, _) = field(inner);
            let (head, tail) = fields.split_at(3 + 34);
            let length = u8::try_from(fields.len() + CURVE.len()).unwrap();
            pem("EC PRIVATE KEY", &[&[0x30, length][..], head, &CURVE, tail].concat())
        }
    }
}

/// The first field of DER: its tag, its content, and what follows.
fn field(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, start) = match der[1] {
        short if short < 0x80 => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length =
                der[2..2 + bytes].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, 2 + bytes)
        }
    };
    (der[0], &der[start..start + length], &der[start + length..])
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
