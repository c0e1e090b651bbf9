//! Key files: PEM, and as much DER as is needed to find a public key in its wrapping.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The label and the decoded data of a file's first PEM block.
pub(super) fn first_block(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    // Skips headers, which older tools write before the data: each is a line with a colon.
    let lines = body.lines().filter(|line| !line.contains(':'));
    let data: String = lines.flat_map(|line| line.chars().filter(|c| !c.is_whitespace())).collect();
    Some((label.to_owned(), STANDARD.decode(data).ok()?))
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// Tag of a certificate's explicit version.
const VERSION: u8 = 0xa0;

/// The first value, if it has this tag, and the bytes after it.
fn take(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (len, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if len.is_empty() || len.len() > 4 {
                return None;
            }
            (len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
    };
    if *found != tag {
        return None;
    }
    rest.split_at_checked(len)
}

/// The algorithm, or the curve, of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

/// A public key in the form that verifiers take: RSA in PKCS #1, a point on the curve, or the 32
/// bytes of Ed25519.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    pub kind: KeyKind,
    pub bytes: Vec<u8>,
}

/// The public key in a SubjectPublicKeyInfo, in a certificate, or a bare RSA key.
pub(super) fn public_key(der: &[u8]) -> Option<PublicKey> {
    spki(der).or_else(|| certificate(der)).or_else(|| {
        let (inner, _) = take(SEQUENCE, der)?;
        let (_modulus, rest) = take(INTEGER, inner)?;
        take(INTEGER, rest)?;
        Some(PublicKey { kind: KeyKind::Rsa, bytes: der.to_vec() })
    })
}

/// The private key inside PKCS #8, in its algorithm's own encoding.
pub(super) fn inside_pkcs8(der: &[u8]) -> Option<&[u8]> {
    let (inner, _) = take(SEQUENCE, der)?;
    let (_version, rest) = take(INTEGER, inner)?;
    let (_algorithm, rest) = take(SEQUENCE, rest)?;
    Some(take(OCTET_STRING, rest)?.0)
}

fn spki(der: &[u8]) -> Option<PublicKey> {
    let (inner, _) = take(SEQUENCE, der)?;
    let (algorithm, rest) = take(SEQUENCE, inner)?;
    let (bits, _) = take(BIT_STRING, rest)?;
    let (object, parameters) = take(OBJECT, algorithm)?;
    let kind = match object {
        // rsaEncryption
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01] => KeyKind::Rsa,
        // id-Ed25519
        [0x2b, 0x65, 0x70] => KeyKind::Ed25519,
        // id-ecPublicKey
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01] => match take(OBJECT, parameters)?.0 {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] => KeyKind::P256,
            [0x2b, 0x81, 0x04, 0x00, 0x22] => KeyKind::P384,
            [0x2b, 0x81, 0x04, 0x00, 0x23] => KeyKind::P521,
            _ => return None,
        },
        _ => return None,
    };
    // The first byte of a bit string counts the unused bits; keys have none.
    let (0, bytes) = bits.split_first()? else { return None };
    Some(PublicKey { kind, bytes: bytes.to_vec() })
}

fn certificate(der: &[u8]) -> Option<PublicKey> {
    let (certificate, _) = take(SEQUENCE, der)?;
    let (mut rest, _) = take(SEQUENCE, certificate)?;
    if let Some((_, after)) = take(VERSION, rest) {
        rest = after;
    }
    (_, rest) = take(INTEGER, rest)?;
    // Skips the signature algorithm, the issuer, the validity and the subject.
    for _ in 0..4 {
        (_, rest) = take(SEQUENCE, rest)?;
    }
    spki(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_keys_are_no_keys() {
        assert_eq!(first_block(b""), None);
        assert_eq!(first_block(b"-----BEGIN X-----\n!!!\n-----END X-----"), None);
        let (label, bytes) =
            first_block(b"x\n-----BEGIN A B-----\nk: v\nAQI=\n-----END A B-----").unwrap();
        assert_eq!((label.as_str(), bytes.as_slice()), ("A B", &[1, 2][..]));
        for der in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x03, 0x02, 0x01, 0x00],
        ] {
            assert_eq!(public_key(der), None);
        }
    }
}
