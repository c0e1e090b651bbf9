//! JSON Web Tokens: signed here, known anywhere by their signature.
//!
//! One key and one algorithm belong to a member. A token that names any other algorithm is refused
//! before its signature is looked at, so that neither `none` nor a public key taken for a secret
//! can pass.

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use super::pem::{self, Kind, PublicKey};
use super::tokens::TokenError;
use super::{Caller, Error};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Hmac,
    RsaPkcs1,
    RsaPss,
    Ecdsa,
    Ed25519,
}

/// A signing method by its name in tokens.
#[derive(Clone, Copy, Debug)]
struct Method {
    name: &'static str,
    family: Family,
    bits: usize,
}

const METHODS: [Method; 13] = [
    Method { name: "HS256", family: Family::Hmac, bits: 256 },
    Method { name: "HS384", family: Family::Hmac, bits: 384 },
    Method { name: "HS512", family: Family::Hmac, bits: 512 },
    Method { name: "RS256", family: Family::RsaPkcs1, bits: 256 },
    Method { name: "RS384", family: Family::RsaPkcs1, bits: 384 },
    Method { name: "RS512", family: Family::RsaPkcs1, bits: 512 },
    Method { name: "PS256", family: Family::RsaPss, bits: 256 },
    Method { name: "PS384", family: Family::RsaPss, bits: 384 },
    Method { name: "PS512", family: Family::RsaPss, bits: 512 },
    Method { name: "ES256", family: Family::Ecdsa, bits: 256 },
    Method { name: "ES384", family: Family::Ecdsa, bits: 384 },
    Method { name: "ES512", family: Family::Ecdsa, bits: 512 },
    Method { name: "EdDSA", family: Family::Ed25519, bits: 512 },
];

impl Method {
    /// One of three, by the size of the hash.
    fn of<T: Copy>(self, by_size: [T; 3]) -> T {
        match self.bits {
            256 => by_size[0],
            384 => by_size[1],
            _ => by_size[2],
        }
    }
}

enum Signer {
    Hmac(Box<hmac::Key>),
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    /// The key is on another curve than the method's.
    Unfit,
    /// There is only a public key.
    None,
}

pub(super) struct Jwt {
    method: Method,
    signer: Signer,
    /// None for HMAC, whose one key does both, and for a key that fits no signature.
    public: Option<PublicKey>,
    ttl: Duration,
}

impl Jwt {
    /// A key pair from the contents of key files; either may be empty.
    pub(super) fn new(
        method: &str,
        private: &[u8],
        public: &[u8],
        ttl: Duration,
    ) -> Result<Self, TokenError> {
        if method == "none" {
            return Err(TokenError::Key("unsupported signing method: *jwt.signingMethodNone"));
        }
        let method = METHODS.into_iter().find(|known| known.name == method);
        let method = method.ok_or(TokenError::InvalidOptions)?;
        if method.family == Family::Hmac {
            if private.is_empty() {
                return Err(TokenError::MissingKey);
            }
            let algorithm = method.of([&hmac::HMAC_SHA256, &hmac::HMAC_SHA384, &hmac::HMAC_SHA512]);
            let signer = Signer::Hmac(Box::new(hmac::Key::new(*algorithm, private)));
            return Ok(Self { method, signer, public: None, ttl });
        }
        let public = (!public.is_empty()).then(|| parse_public(method, public)).transpose()?;
        if private.is_empty() {
            let public = Some(public.ok_or(TokenError::MissingKey)?);
            return Ok(Self { method, signer: Signer::None, public, ttl });
        }
        let (signer, own) = parse_private(method, private)?;
        if public.is_some_and(|public| public != own) {
            return Err(TokenError::KeyMismatch);
        }
        let signer = if fits(method, own.kind) { signer } else { Signer::Unfit };
        Ok(Self { method, signer, public: Some(own), ttl })
    }

    pub(super) fn sign(&self, name: &str, revision: u64, unix_nanos: u64) -> Result<String, Error> {
        let end = unix_nanos.saturating_add(u64::try_from(self.ttl.as_nanos()).unwrap_or(u64::MAX));
        let header = json!({"alg": self.method.name, "typ": "JWT"});
        let claims = json!({"exp": end / 1_000_000_000, "revision": revision, "username": name});
        let text =
            format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.signature(text.as_bytes())?;
        Ok(format!("{text}.{}", BASE64.encode(signature)))
    }

    fn signature(&self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Hmac(key) => Ok(hmac::sign(key, text).as_ref().to_vec()),
            Signer::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match self.method.family {
                    Family::RsaPss => match self.method.bits {
                        256 => &RSA_PSS_SHA256,
                        384 => &RSA_PSS_SHA384,
                        _ => &RSA_PSS_SHA512,
                    },
                    _ => match self.method.bits {
                        256 => &RSA_PKCS1_SHA256,
                        384 => &RSA_PKCS1_SHA384,
                        _ => &RSA_PKCS1_SHA512,
                    },
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, text, &mut signature).map_err(|_| Error::InvalidKey)?;
                Ok(signature)
            }
            Signer::Ecdsa(key) => {
                let signature = key.sign(&random, text).map_err(|_| Error::InvalidKey)?;
                Ok(signature.as_ref().to_vec())
            }
            Signer::Ed25519(key) => Ok(key.sign(text).as_ref().to_vec()),
            Signer::Unfit => Err(Error::InvalidKey),
            Signer::None => Err(Error::VerifyOnly),
        }
    }

    /// Who a token names, if it is genuine and its time has not passed.
    pub(super) fn verify(&self, token: &str, unix_nanos: u64) -> Option<Caller> {
        let (text, signature) = token.rsplit_once('.')?;
        let (header, claims) = text.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header: Value = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        if header.get("alg")?.as_str()? != self.method.name {
            return None;
        }
        let signature = BASE64.decode(signature).ok()?;
        if !self.is_genuine(text.as_bytes(), &signature) {
            return None;
        }
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        let now = unix_nanos as f64 / 1e9;
        // As in etcd, a token without times is good forever, and zero is no time.
        let time = |name| match claims.get(name) {
            None => Some(None),
            Some(value) => value.as_f64().map(|at| (at != 0.0).then_some(at)),
        };
        if time("exp")?.is_some_and(|end| now >= end) || time("nbf")?.is_some_and(|at| now < at) {
            return None;
        }
        let name = claims.get("username")?.as_str()?;
        let revision = claims.get("revision")?.as_f64()?;
        // A revision is no fraction, and one that is out of range is as good as the nearest.
        Some(Caller::user(name, revision as u64))
    }

    fn is_genuine(&self, text: &[u8], signature: &[u8]) -> bool {
        if let Signer::Hmac(key) = &self.signer {
            return hmac::verify(key, text, signature).is_ok();
        }
        let Some(public) = self.public.as_ref().filter(|key| fits(self.method, key.kind)) else {
            return false;
        };
        let method = self.method;
        let algorithm: &'static dyn VerificationAlgorithm = match (method.family, method.bits) {
            (Family::RsaPkcs1, 256) => &RSA_PKCS1_2048_8192_SHA256,
            (Family::RsaPkcs1, 384) => &RSA_PKCS1_2048_8192_SHA384,
            (Family::RsaPkcs1, _) => &RSA_PKCS1_2048_8192_SHA512,
            (Family::RsaPss, 256) => &RSA_PSS_2048_8192_SHA256,
            (Family::RsaPss, 384) => &RSA_PSS_2048_8192_SHA384,
            (Family::RsaPss, _) => &RSA_PSS_2048_8192_SHA512,
            (Family::Ecdsa, 256) => &ECDSA_P256_SHA256_FIXED,
            (Family::Ecdsa, 384) => &ECDSA_P384_SHA384_FIXED,
            (Family::Ecdsa, _) => &ECDSA_P521_SHA512_FIXED,
            (Family::Ed25519, _) => &ED25519,
            (Family::Hmac, _) => return false,
        };
        UnparsedPublicKey::new(algorithm, &public.bytes).verify(text, signature).is_ok()
    }
}

/// Whether a method signs with keys of this kind.
fn fits(method: Method, kind: Kind) -> bool {
    match method.family {
        Family::Hmac => false,
        Family::RsaPkcs1 | Family::RsaPss => kind == Kind::Rsa,
        Family::Ecdsa => kind == method.of([Kind::P256, Kind::P384, Kind::P521]),
        Family::Ed25519 => kind == Kind::Ed25519,
    }
}

const NO_PEM: TokenError =
    TokenError::Key("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key");

fn parse_public(method: Method, file: &[u8]) -> Result<PublicKey, TokenError> {
    let (_, der) = pem::first_block(file).ok_or(NO_PEM)?;
    let key = pem::public_key(&der);
    let (is_wanted, text): (fn(Kind) -> bool, _) = match method.family {
        Family::Ecdsa => (is_ecdsa, "key is not a valid ECDSA public key"),
        Family::Ed25519 => (|kind| kind == Kind::Ed25519, "key is not a valid Ed25519 public key"),
        _ => (|kind| kind == Kind::Rsa, "key is not a valid RSA public key"),
    };
    key.filter(|key| is_wanted(key.kind)).ok_or(TokenError::Key(text))
}

fn is_ecdsa(kind: Kind) -> bool {
    matches!(kind, Kind::P256 | Kind::P384 | Kind::P521)
}

fn parse_private(method: Method, file: &[u8]) -> Result<(Signer, PublicKey), TokenError> {
    let (_, der) = pem::first_block(file).ok_or(NO_PEM)?;
    let public = |kind, bytes: &[u8]| PublicKey { kind, bytes: bytes.to_vec() };
    match method.family {
        Family::Ecdsa => {
            let curves: [(Kind, &'static EcdsaSigningAlgorithm); 3] = [
                (Kind::P256, &ECDSA_P256_SHA256_FIXED_SIGNING),
                (Kind::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
                (Kind::P521, &ECDSA_P521_SHA512_FIXED_SIGNING),
            ];
            for (kind, algorithm) in curves {
                let key = EcdsaKeyPair::from_pkcs8(algorithm, &der)
                    .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, &der));
                if let Ok(key) = key {
                    let own = public(kind, key.public_key().as_ref());
                    return Ok((Signer::Ecdsa(Box::new(key)), own));
                }
            }
            Err(TokenError::Key("key is not a valid ECDSA private key"))
        }
        Family::Ed25519 => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
                .map_err(|_| TokenError::Key("key is not a valid Ed25519 private key"))?;
            let own = public(Kind::Ed25519, key.public_key().as_ref());
            Ok((Signer::Ed25519(Box::new(key)), own))
        }
        _ => {
            let key = RsaKeyPair::from_der(&der)
                .or_else(|_| RsaKeyPair::from_pkcs8(&der))
                .map_err(|_| TokenError::Key("key is not a valid RSA private key"))?;
            let own = public(Kind::Rsa, key.public_key().as_ref());
            Ok((Signer::Rsa(Box::new(key)), own))
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{EcdsaSigningAlgorithm, Ed25519KeyPair};
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;
    const TTL: Duration = Duration::from_secs(60);

    fn pem(label: &str, der: &[u8]) -> Vec<u8> {
        let body = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
    }

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        pem("PRIVATE KEY", der.as_ref())
    }

    fn rsa() -> Vec<u8> {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        pem("PRIVATE KEY", der.as_ref())
    }

    fn keys(method: Method) -> Vec<u8> {
        match method.family {
            Family::Hmac => b"secret".to_vec(),
            Family::Ecdsa => ecdsa(method.of([
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                &ECDSA_P521_SHA512_FIXED_SIGNING,
            ])),
            Family::Ed25519 => {
                let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
                pem("PRIVATE KEY", der.as_ref())
            }
            _ => rsa(),
        }
    }

    #[test]
    fn every_method_knows_its_own_tokens_until_they_end() {
        for method in METHODS {
            let name = method.name;
            let jwt = Jwt::new(name, &keys(method), b"", TTL).unwrap();
            let token = jwt.sign("ann", 7, NOW).unwrap();
            assert_eq!(jwt.verify(&token, NOW), Some(Caller::user("ann", 7)), "{name}");
            assert_eq!(jwt.verify(&token, NOW + 61_000_000_000), None, "{name}");
            let other = Jwt::new(name, &other_keys(method), b"", TTL).unwrap();
            assert_eq!(other.verify(&token, NOW), None, "{name}: another key");
            let (text, signature) = token.rsplit_once('.').unwrap();
            let (header, _) = text.split_once('.').unwrap();
            let claims = BASE64.encode(json!({"username": "root", "revision": 7}).to_string());
            for forged in [
                format!("{header}.{claims}.{signature}"),
                format!("{text}."),
                format!("{text}.AAAA"),
                text.to_owned(),
                token[..token.len() - 4].to_owned(),
                format!("{token}.x"),
                String::new(),
                "..".to_owned(),
            ] {
                assert_eq!(jwt.verify(&forged, NOW), None, "{name}: {forged}");
            }
        }
    }

    fn other_keys(method: Method) -> Vec<u8> {
        if method.family == Family::Hmac { b"other".to_vec() } else { keys(method) }
    }

    #[test]
    fn a_token_may_not_choose_its_algorithm() {
        let file = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let jwt = Jwt::new("ES256", &file, b"", TTL).unwrap();
        let point = jwt.public.as_ref().unwrap().bytes.clone();
        let confused = Jwt::new("HS256", &point, b"", TTL).unwrap().sign("root", 1, NOW).unwrap();
        assert_eq!(jwt.verify(&confused, NOW), None);
        let header = BASE64.encode(json!({"alg": "none", "typ": "JWT"}).to_string());
        let claims = BASE64.encode(json!({"username": "root", "revision": 1}).to_string());
        assert_eq!(jwt.verify(&format!("{header}.{claims}."), NOW), None);
    }

    #[test]
    fn a_public_key_verifies_and_does_not_sign() {
        let file = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING);
        let jwt = Jwt::new("ES384", &file, b"", TTL).unwrap();
        let point = &jwt.public.as_ref().unwrap().bytes;
        // SubjectPublicKeyInfo of a point on P-384.
        let mut spki = vec![0x30, 0x76, 0x30, 0x10, 0x06, 0x07];
        spki.extend_from_slice(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05]);
        spki.extend_from_slice(&[0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00]);
        spki.extend_from_slice(point);
        let public = pem("PUBLIC KEY", &spki);
        let verifier = Jwt::new("ES384", b"", &public, TTL).unwrap();
        let token = jwt.sign("ann", 7, NOW).unwrap();
        assert_eq!(verifier.verify(&token, NOW), Some(Caller::user("ann", 7)));
        assert_eq!(verifier.sign("ann", 7, NOW), Err(Error::VerifyOnly));
        assert!(Jwt::new("ES384", &file, &public, TTL).is_ok());
        let other = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING);
        assert_eq!(Jwt::new("ES384", &other, &public, TTL).err(), Some(TokenError::KeyMismatch));
        let unfit = Jwt::new("ES256", &file, b"", TTL).unwrap();
        assert_eq!(unfit.sign("ann", 7, NOW), Err(Error::InvalidKey));
        assert_eq!(unfit.verify(&token, NOW), None);
    }

    #[test]
    fn files_that_are_no_keys_are_refused() {
        let text = |method, private: &[u8], public: &[u8]| {
            Jwt::new(method, private, public, TTL).err().map(|error| error.to_string())
        };
        let ecdsa = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let no_rsa = Some("key is not a valid RSA private key".to_owned());
        assert_eq!(text("RS256", &ecdsa, b""), no_rsa);
        assert_eq!(text("PS512", b"", b"x"), Some(NO_PEM.to_string()));
        let missing = Some("auth: missing key data".to_owned());
        for method in ["RS256", "ES512", "EdDSA", "HS384"] {
            assert_eq!(text(method, b"", b""), missing);
        }
        let garbage = pem("PUBLIC KEY", &[0x30, 0x03, 0x01, 0x01, 0xff]);
        assert_eq!(
            text("EdDSA", b"", &garbage),
            Some("key is not a valid Ed25519 public key".to_owned())
        );
    }
}
