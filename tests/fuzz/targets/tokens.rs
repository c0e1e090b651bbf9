//! Tokens and the keys that sign them. Most tokens are signed right, or nothing in them counts.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rusd::auth;
use rusd::clock::SystemClock;

use super::{Notes, Shape, Target, file, scratch};
use crate::mutate::{Part, join, parts};

/// Kinds of parts.
const SPEC: u8 = 0;
const PRIVATE: u8 = 1;
const PUBLIC: u8 = 2;
const TOKEN: u8 = 3;
const HEADER: u8 = 4;
const CLAIMS: u8 = 5;
const PRIVATE_DER: u8 = 6;
const PUBLIC_DER: u8 = 7;
const KINDS: u8 = 8;

const SECRET: &[u8] = b"secret";

pub struct Tokens {
    dir: tempfile::TempDir,
    known: auth::Tokens,
    simple: auth::Tokens,
}

fn tokens(spec: &str) -> Result<auth::Tokens, auth::TokenError> {
    auth::Tokens::new(spec, Duration::from_secs(60), Arc::new(SystemClock::new()))
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
}

impl Tokens {
    pub fn new() -> Self {
        let dir = scratch();
        let secret = file(dir.path(), "secret", SECRET);
        let known = tokens(&format!("jwt,sign-method=HS256,priv-key={}", secret.display()));
        let simple = tokens("simple").unwrap();
        simple.assign("ann", "abcdefghijklmnop", 7);
        Self { dir, known: known.unwrap(), simple }
    }

    fn resolve(&self, tokens: &auth::Tokens, token: &str, notes: &mut Notes) {
        let caller = tokens.resolve(token, 3);
        notes.result("resolved", &caller);
        let _ = tokens.index_of(token);
        if let Ok(caller) = caller {
            let (name, revision) = caller.header();
            notes.number("revision", revision);
            // Who is known gets a token that says the same, if the number is one that JSON holds.
            let token = tokens.finish(String::new(), name, revision).unwrap();
            if revision < 1 << 53 && !token.is_empty() {
                let again = tokens.resolve(&token, 3).expect("its own token");
                assert_eq!(again.header(), (name, revision));
            }
        }
    }
}

/// Signed with the known secret.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

impl Target for Tokens {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let mut seeds = Vec::new();
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let method = match key.serialize_der().len() {
                ..100 => "EdDSA",
                100..160 => "ES256",
                160..200 => "ES384",
                200..300 => "ES512",
                _ => "PS256",
            };
            let public = rcgen::PublicKeyData::subject_public_key_info(&key);
            let certificate = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
            let certificate = certificate.self_signed(&key).unwrap();
            let spec = |kind, bytes: &[u8]| {
                let private = key.serialize_der();
                join(&[
                    Part::new(SPEC, format!("sign-method={method},ttl=1h2.5m,")),
                    Part::new(PRIVATE_DER, private),
                    Part::new(kind, bytes),
                    Part::new(TOKEN, "a.b.c"),
                ])
            };
            seeds.push(spec(PUBLIC_DER, &public));
            seeds.push(spec(PUBLIC, certificate.pem().as_bytes()));
        }
        let claims = br#"{"username":"ann","revision":7,"exp":9999999999,"nbf":1.5}"#;
        seeds.push(join(&[
            Part::new(HEADER, *br#"{"alg":"HS256","typ":"JWT"}"#),
            Part::new(CLAIMS, *claims),
            Part::new(CLAIMS, *br#"{"username":"bo","revision":-1e300}"#),
        ]));
        seeds.push(join(&[Part::new(TOKEN, "abcdefghijklmnop.7"), Part::new(TOKEN, "a.1.2")]));
        seeds
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|_| false)
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            b"HS256",
            b"RS256",
            b"RS384",
            b"RS512",
            b"PS256",
            b"PS384",
            b"PS512",
            b"ES256",
            b"ES384",
            b"ES512",
            b"EdDSA",
            b"none",
            b"sign-method=",
            b"ttl=",
            b"\"alg\"",
            b"\"exp\":",
            b"\"nbf\":",
            b"\"username\":",
            b"\"revision\":",
            b"1e308",
            b"-----BEGIN ",
            b"-----END ",
            b"-----",
            b"PUBLIC KEY",
            b"\n",
            b": ",
            b"[[[[[[[[",
            b"{\"a\":",
            b"\\ud800",
            &[0x30, 0x82],
            &[0x03, 0x81],
            &[0x30, 0x84],
        ]
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        let mut header = br#"{"alg":"HS256"}"#.to_vec();
        let (mut spec, mut private, mut public) = (None, Vec::new(), Vec::new());
        for Part { kind, bytes } in parts(input) {
            match kind % KINDS {
                SPEC => spec = Some(bytes),
                PRIVATE => private = bytes,
                PUBLIC => public = bytes,
                PRIVATE_DER => private = pem("PRIVATE KEY", &bytes),
                PUBLIC_DER => public = pem("PUBLIC KEY", &bytes),
                HEADER => header = bytes,
                CLAIMS => self.resolve(&self.known, &signed(&header, &bytes), notes),
                _ => {
                    let token = String::from_utf8_lossy(&bytes);
                    self.resolve(&self.known, &token, notes);
                    self.resolve(&self.simple, &token, notes);
                }
            }
        }
        let Some(spec) = spec else { return };
        let mut spec = format!("jwt,{}", String::from_utf8_lossy(&spec));
        for (option, bytes) in [("priv-key", private), ("pub-key", public)] {
            if !bytes.is_empty() {
                let path = file(self.dir.path(), option, &bytes);
                spec = format!("{spec},{option}={}", path.display()).replace(",,", ",");
            }
        }
        let made = tokens(&spec);
        notes.result("made", &made);
        let Ok(made) = made else { return };
        let token = made.finish(String::new(), "ann", 7);
        notes.result("signed", &token);
        if let Ok(token) = token {
            notes.result("own", &made.resolve(&token, 1));
        }
    }
}
