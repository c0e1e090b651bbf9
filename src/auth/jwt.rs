//! JSON Web Tokens: signed by one member, verified by every other with the key alone.
//!
//! A member has one key and one algorithm. A token that names any other algorithm is refused before
//! its signature is verified, so that neither `none` nor an HMAC with the public key as its secret
//! can pass.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use serde_json::{Value, json};

use super::pem::{self, KeyKind, PublicKey};
use super::{Caller, Error, TokenError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Hmac,
    Rsa,
    /// With the only curve that the method allows.
    Ecdsa(KeyKind),
    Ed25519,
}

/// A signing method, with its name in tokens.
#[derive(Clone, Copy, Debug)]
struct Method {
    name: &'static str,
    family: Family,
    /// None for ES512, which jsonwebtoken does not have.
    algorithm: Option<Algorithm>,
}

const fn method(name: &'static str, family: Family, algorithm: Algorithm) -> Method {
    Method { name, family, algorithm: Some(algorithm) }
}

const METHODS: [Method; 13] = [
    method("HS256", Family::Hmac, Algorithm::HS256),
    method("HS384", Family::Hmac, Algorithm::HS384),
    method("HS512", Family::Hmac, Algorithm::HS512),
    method("RS256", Family::Rsa, Algorithm::RS256),
    method("RS384", Family::Rsa, Algorithm::RS384),
    method("RS512", Family::Rsa, Algorithm::RS512),
    method("PS256", Family::Rsa, Algorithm::PS256),
    method("PS384", Family::Rsa, Algorithm::PS384),
    method("PS512", Family::Rsa, Algorithm::PS512),
    method("ES256", Family::Ecdsa(KeyKind::P256), Algorithm::ES256),
    method("ES384", Family::Ecdsa(KeyKind::P384), Algorithm::ES384),
    Method { name: "ES512", family: Family::Ecdsa(KeyKind::P521), algorithm: None },
    method("EdDSA", Family::Ed25519, Algorithm::EdDSA),
];

enum Signer {
    Key(Algorithm, EncodingKey),
    P521(Box<EcdsaKeyPair>),
    /// The key's curve is not the method's: as in etcd, the start succeeds and each login fails.
    WrongCurve,
    /// Only a public key was given, so tokens are verified and not signed.
    None,
}

enum Verifier {
    Key(Algorithm, DecodingKey),
    P521(UnparsedPublicKey<Vec<u8>>),
    /// The key's curve is not the method's: no token is valid.
    WrongCurve,
}

pub(super) struct Jwt {
    method: Method,
    signer: Signer,
    verifier: Verifier,
    ttl: Duration,
}

impl Jwt {
    /// Parses the contents of the key files, of which one may be empty.
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
            let Some(algorithm) = method.algorithm else { return Err(TokenError::InvalidOptions) };
            let signer = Signer::Key(algorithm, EncodingKey::from_secret(private));
            let verifier = Verifier::Key(algorithm, DecodingKey::from_secret(private));
            return Ok(Self { method, signer, verifier, ttl });
        }
        let public = (!public.is_empty()).then(|| parse_public(method, public)).transpose()?;
        if private.is_empty() {
            let public = public.ok_or(TokenError::MissingKey)?;
            return Ok(Self {
                method,
                signer: Signer::None,
                verifier: verifier(method, public),
                ttl,
            });
        }
        let (signer, own) = parse_private(method, private)?;
        if public.is_some_and(|public| public != own) {
            return Err(TokenError::KeyMismatch);
        }
        Ok(Self { method, signer, verifier: verifier(method, own), ttl })
    }

    /// A token for `name`, which expires `ttl` after `unix_nanos`.
    pub(super) fn sign(&self, name: &str, revision: u64, unix_nanos: u64) -> Result<String, Error> {
        let end = unix_nanos.saturating_add(u64::try_from(self.ttl.as_nanos()).unwrap_or(u64::MAX));
        let header = json!({"alg": self.method.name, "typ": "JWT"});
        let claims = json!({"exp": end / 1_000_000_000, "revision": revision, "username": name});
        let text =
            format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.signature(text.as_bytes())?;
        Ok(format!("{text}.{signature}"))
    }

    /// The signature of `text` in base64, as in a token.
    fn signature(&self, text: &[u8]) -> Result<String, Error> {
        match &self.signer {
            Signer::Key(algorithm, key) => {
                crypto::sign(text, key, *algorithm).map_err(|_| Error::InvalidKey)
            }
            Signer::P521(key) => {
                let signature = key.sign(&SystemRandom::new(), text);
                Ok(BASE64.encode(signature.map_err(|_| Error::InvalidKey)?))
            }
            Signer::WrongCurve => Err(Error::InvalidKey),
            Signer::None => Err(Error::VerifyOnly),
        }
    }

    /// The caller that a token names, if its signature is right and its times admit it.
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
        if !self.is_genuine(text.as_bytes(), signature) {
            return None;
        }
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        let now = unix_nanos as f64 / 1e9;
        // As in etcd, a token without times is good for ever, and a time of zero counts as none.
        let time = |name| match claims.get(name) {
            None => Some(None),
            Some(value) => value.as_f64().map(|at| (at != 0.0).then_some(at)),
        };
        if time("exp")?.is_some_and(|end| now >= end) || time("nbf")?.is_some_and(|at| now < at) {
            return None;
        }
        let name = claims.get("username")?.as_str()?;
        let revision = claims.get("revision")?.as_f64()?;
        // JSON numbers are floats: a fraction is cut off, and a number out of range becomes the
        // nearest u64.
        Some(Caller::user(name, revision as u64))
    }

    fn is_genuine(&self, text: &[u8], signature: &str) -> bool {
        match &self.verifier {
            Verifier::Key(algorithm, key) => {
                crypto::verify(signature, text, key, *algorithm).unwrap_or(false)
            }
            Verifier::P521(key) => {
                BASE64.decode(signature).is_ok_and(|signature| key.verify(text, &signature).is_ok())
            }
            Verifier::WrongCurve => false,
        }
    }
}

/// Whether a method signs with keys of this kind.
fn fits(method: Method, kind: KeyKind) -> bool {
    match method.family {
        Family::Hmac => false,
        Family::Rsa => kind == KeyKind::Rsa,
        Family::Ecdsa(curve) => kind == curve,
        Family::Ed25519 => kind == KeyKind::Ed25519,
    }
}

fn verifier(method: Method, key: PublicKey) -> Verifier {
    if !fits(method, key.kind) {
        return Verifier::WrongCurve;
    }
    let Some(algorithm) = method.algorithm else {
        return Verifier::P521(UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, key.bytes));
    };
    let key = match key.kind {
        KeyKind::Rsa => DecodingKey::from_rsa_der(&key.bytes),
        KeyKind::Ed25519 => DecodingKey::from_ed_der(&key.bytes),
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => DecodingKey::from_ec_der(&key.bytes),
    };
    Verifier::Key(algorithm, key)
}

const NO_PEM: TokenError =
    TokenError::Key("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key");

fn parse_public(method: Method, file: &[u8]) -> Result<PublicKey, TokenError> {
    let (_, der) = pem::first_block(file).ok_or(NO_PEM)?;
    let key = pem::public_key(&der);
    let (is_wanted, text): (fn(KeyKind) -> bool, _) = match method.family {
        Family::Ecdsa(_) => (is_ecdsa, "key is not a valid ECDSA public key"),
        Family::Ed25519 => {
            (|kind| kind == KeyKind::Ed25519, "key is not a valid Ed25519 public key")
        }
        _ => (|kind| kind == KeyKind::Rsa, "key is not a valid RSA public key"),
    };
    key.filter(|key| is_wanted(key.kind)).ok_or(TokenError::Key(text))
}

fn is_ecdsa(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::P256 | KeyKind::P384 | KeyKind::P521)
}

/// Parses a private key, so that a bad one is refused at the start. etcd takes either encoding, but
/// jsonwebtoken wants RSA keys in PKCS #1 and all others in PKCS #8.
fn parse_private(method: Method, file: &[u8]) -> Result<(Signer, PublicKey), TokenError> {
    let (_, der) = pem::first_block(file).ok_or(NO_PEM)?;
    let public = |kind, bytes: &[u8]| PublicKey { kind, bytes: bytes.to_vec() };
    match (method.family, method.algorithm) {
        (Family::Ed25519, Some(algorithm)) => {
            let bad = TokenError::Key("key is not a valid Ed25519 private key");
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| bad)?;
            let own = public(KeyKind::Ed25519, key.public_key().as_ref());
            let der = key.to_pkcs8().map_err(|_| bad)?;
            Ok((Signer::Key(algorithm, EncodingKey::from_ed_der(der.as_ref())), own))
        }
        (Family::Rsa, Some(algorithm)) => {
            let bare = pem::inside_pkcs8(&der).unwrap_or(&der);
            let key = RsaKeyPair::from_der(bare)
                .map_err(|_| TokenError::Key("key is not a valid RSA private key"))?;
            let own = public(KeyKind::Rsa, key.public_key().as_ref());
            Ok((Signer::Key(algorithm, EncodingKey::from_rsa_der(bare)), own))
        }
        (_, algorithm) => {
            let bad = TokenError::Key("key is not a valid ECDSA private key");
            let (kind, key) = ecdsa_key(&der).ok_or(bad)?;
            let own = public(kind, key.public_key().as_ref());
            let signer = match algorithm {
                _ if !fits(method, kind) => Signer::WrongCurve,
                None => Signer::P521(Box::new(key)),
                Some(algorithm) => {
                    let der = key.to_pkcs8v1().map_err(|_| bad)?;
                    Signer::Key(algorithm, EncodingKey::from_ec_der(der.as_ref()))
                }
            };
            Ok((signer, own))
        }
    }
}

fn ecdsa_key(der: &[u8]) -> Option<(KeyKind, EcdsaKeyPair)> {
    let curves: [(KeyKind, &'static EcdsaSigningAlgorithm); 3] = [
        (KeyKind::P256, &ECDSA_P256_SHA256_FIXED_SIGNING),
        (KeyKind::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        (KeyKind::P521, &ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    curves.into_iter().find_map(|(kind, algorithm)| {
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der)
            .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der));
        Some((kind, key.ok()?))
    })
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
            Family::Ecdsa(KeyKind::P256) => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Family::Ecdsa(KeyKind::P384) => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Family::Ecdsa(_) => ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Family::Ed25519 => {
                let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
                pem("PRIVATE KEY", der.as_ref())
            }
            Family::Rsa => rsa(),
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
        let point = parse_private(jwt.method, &file).unwrap().1.bytes;
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
        let point = parse_private(jwt.method, &file).unwrap().1.bytes;
        // SubjectPublicKeyInfo of a point on P-384.
        let mut spki = vec![0x30, 0x76, 0x30, 0x10, 0x06, 0x07];
        spki.extend_from_slice(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05]);
        spki.extend_from_slice(&[0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00]);
        spki.extend_from_slice(&point);
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
    fn private_keys_may_come_bare_as_older_tools_write_them() {
        use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
        let file = rsa();
        let (_, der) = pem::first_block(&file).unwrap();
        let bare_rsa = pem("RSA PRIVATE KEY", pem::inside_pkcs8(&der).unwrap());
        let curve = |file: &[u8]| ecdsa_key(&pem::first_block(file).unwrap().1).unwrap().1;
        let bare = |key: &EcdsaKeyPair| {
            let der: EcPrivateKeyRfc5915Der<'_> = key.private_key().as_der().unwrap();
            pem("EC PRIVATE KEY", der.as_ref())
        };
        let (p256, p521) =
            (ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING), ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING));
        for (method, wrapped, bare) in [
            ("RS384", &file, bare_rsa.clone()),
            ("PS256", &file, bare_rsa),
            ("ES256", &p256, bare(&curve(&p256))),
            ("ES512", &p521, bare(&curve(&p521))),
        ] {
            let (wrapped, bare) = (
                Jwt::new(method, wrapped, b"", TTL).unwrap(),
                Jwt::new(method, &bare, b"", TTL).unwrap(),
            );
            let token = bare.sign("ann", 7, NOW).unwrap();
            assert_eq!(wrapped.verify(&token, NOW), Some(Caller::user("ann", 7)), "{method}");
            let token = wrapped.sign("ann", 7, NOW).unwrap();
            assert_eq!(bare.verify(&token, NOW), Some(Caller::user("ann", 7)), "{method}");
        }
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
