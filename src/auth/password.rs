//! Passwords: bcrypt, as etcd stores them. Each call takes as long as its cost demands, some 60 ms
//! at cost 10, so callers run it on threads that serve nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Error;

/// etcd's default cost, which also replaces a cost that bcrypt does not have.
pub const COST: u32 = 10;
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// bcrypt ignores what follows; etcd refuses to hash a longer password.
const PASSWORD_BYTES_MAX: usize = 72;

/// The part of a password that a comparison uses.
pub fn significant(password: &str) -> &[u8] {
    &password.as_bytes()[..password.len().min(PASSWORD_BYTES_MAX)]
}

/// The cost to hash with: `wanted`, or the default if bcrypt does not have that.
pub fn cost(wanted: u32) -> u32 {
    if COSTS.contains(&wanted) { wanted } else { COST }
}

/// The hash of a password in the form that requests carry: bcrypt's text in base64.
pub fn hash(password: &str, cost: u32, salt: [u8; 16]) -> Result<String, Error> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Error::PasswordTooLong);
    }
    let parts = bcrypt::hash_with_salt(password, cost, salt).map_err(|_| Error::AuthFailed)?;
    Ok(STANDARD.encode(parts.format_for_version(bcrypt::Version::TwoA)))
}

/// Whether a stored hash is this password's. If the stored value is no bcrypt hash, takes as long
/// as a hash of `cost`, so that the time does not tell.
pub fn matches(password: &[u8], stored: &[u8], cost: u32) -> bool {
    let stored = std::str::from_utf8(stored).unwrap_or_default();
    bcrypt::verify(password, stored).unwrap_or_else(|_| {
        match_nothing(password, cost);
        false
    })
}

/// Takes as long as a comparison with a hash of this cost. For a user that does not exist: the time
/// must not tell that.
pub fn match_nothing(password: &[u8], cost: u32) {
    let _ = bcrypt::hash_with_salt(password, cost, [0; 16]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_gos_and_gos_are_ours() {
        // Made by Go's golang.org/x/crypto/bcrypt.
        let gos = b"$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        assert!(matches(b"allmine", gos, 4));
        assert!(!matches(b"allmin", gos, 4));
        let ours = hash("secret", 4, [7; 16]).unwrap();
        let ours = STANDARD.decode(ours).unwrap();
        assert!(ours.starts_with(b"$2a$04$"));
        assert_eq!(ours.len(), 60);
        assert!(matches(b"secret", &ours, 4));
        assert!(!matches(b"", &ours, 4));
    }

    #[test]
    fn odd_passwords_and_hashes_are_no_match_and_no_panic() {
        assert_eq!(hash(&"x".repeat(73), 4, [0; 16]), Err(Error::PasswordTooLong));
        let long = STANDARD.decode(hash(&"x".repeat(72), 4, [0; 16]).unwrap()).unwrap();
        assert!(matches(&[b'x'; 72], &long, 4));
        assert!(!matches(&[b'x'; 71], &long, 4));
        let nul = STANDARD.decode(hash("a\0b", 4, [0; 16]).unwrap()).unwrap();
        assert!(!matches(b"a", &nul, 4));
        for stored in [
            &b""[..],
            b"$2a$",
            b"\xff\xff",
            b"$2a$99$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga",
        ] {
            assert!(!matches(b"", stored, 4));
        }
        assert_eq!((cost(3), cost(32), cost(31)), (COST, COST, 31));
    }
}
