//! Small values that every room shares: revisions, key ranges, member and cluster ids.

mod authority;
mod near;
mod obeyed;
mod units;
mod version;

pub use authority::parse_authority;
pub use near::{distance, nearest};
pub use obeyed::is_obeyed;
pub use units::{parse_seconds, parse_size, parse_time};
pub use version::Version;

use std::fmt;

use bytes::Bytes;
use sha1::{Digest, Sha1};

/// A signed number whose hexadecimal form is Go's, a sign and a magnitude. Lease ids are signed,
/// and other programs read them in keys and texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHex(pub i64);

impl fmt::LowerHex for SignedHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad_integral(self.0 >= 0, "0x", &format!("{:x}", self.0.unsigned_abs()))
    }
}

/// The place of one change in history: the number of its transaction (`main`, etcd's revision), and
/// the number of the change within that (`sub`).
///
/// An empty store is at `main` 1; the first write is (2, 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
}

impl Revision {
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// A revision that is not below any change of a transaction: `sub` has 32 bits in the store.
    pub const fn last_of(main: i64) -> Self {
        Self { main, sub: u32::MAX as i64 }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// The keys that a request names, in etcd's encoding: an empty `end` stands for the one key, an
/// `end` of one zero byte for every key from `key` on, any other for the half-open interval [key,
/// end).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    pub key: Bytes,
    pub end: Bytes,
}

impl KeyRange {
    pub fn new(key: Bytes, end: Bytes) -> Self {
        Self { key, end }
    }

    pub fn single(key: Bytes) -> Self {
        Self { key, end: Bytes::new() }
    }

    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    /// Whether the range has no upper bound (the end is one zero byte).
    pub fn is_open(&self) -> bool {
        self.end.as_ref() == [0]
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() {
            return key == self.key.as_ref();
        }
        key >= self.key.as_ref() && (self.is_open() || key < self.end.as_ref())
    }
}

/// The first eight bytes of a SHA-1 as a big-endian number, which is etcd's form of an id.
fn id_of(hasher: Sha1) -> u64 {
    let digest = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// A member's id: SHA-1 over its sorted peer URLs, the cluster token, and, for a member added at
/// run time, the decimal Unix seconds of the addition.
pub fn member_id(peer_urls: &[String], token: &str, unix_seconds: Option<i64>) -> u64 {
    let mut sorted = peer_urls.to_vec();
    sorted.sort();
    let mut hasher = Sha1::new();
    for url in &sorted {
        hasher.update(url.as_bytes());
    }
    hasher.update(token.as_bytes());
    if let Some(seconds) = unix_seconds {
        hasher.update(seconds.to_string().as_bytes());
    }
    id_of(hasher)
}

/// A cluster's id: SHA-1 over the sorted ids of its first members.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut sorted = member_ids.to_vec();
    sorted.sort_unstable();
    let mut hasher = Sha1::new();
    for id in sorted {
        hasher.update(id.to_be_bytes());
    }
    id_of(hasher)
}

/// Whether these can be the URLs of a member: at least one, and each of them `http` or `https` with
/// host and port and without a path, or `unix` or `unixs` with the path of a socket.
pub fn are_member_urls(urls: &[String]) -> bool {
    let is_one = |url: &String| match url.split_once("://") {
        Some(("http" | "https", rest)) => {
            let is_plain =
                !rest.contains(['/', '?', '#', '@', ' ']) && parse_authority(rest).is_ok();
            let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            is_plain && port.is_some_and(|port| port.is_ok())
        }
        Some(("unix" | "unixs", rest)) => !rest.is_empty() && authority_after_scheme(rest).is_ok(),
        _ => false,
    };
    let is_printed = |url: &String| !url.bytes().any(|byte| byte.is_ascii_control());
    !urls.is_empty() && urls.iter().all(|url| is_printed(url) && is_one(url))
}

/// The authority of a URL, from the text after `//`.
fn authority_after_scheme(rest: &str) -> Result<String, String> {
    parse_authority(rest.split(['/', '?', '#']).next().unwrap_or_default())
}

/// A member's URL in the form that etcd stores, which is the one that Go's net/url writes.
pub fn normalized_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let length = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = parse_authority(&rest[..length]).unwrap_or_else(|_| rest[..length].to_owned());
    format!("{scheme}://{host}{}", &rest[length..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_are_sign_and_magnitude() {
        for (number, plain, padded) in [
            (-5, "-5", "-000000000000005"),
            (i64::MIN, "-8000000000000000", "-8000000000000000"),
            (0x1234, "1234", "0000000000001234"),
            (i64::MAX, "7fffffffffffffff", "7fffffffffffffff"),
        ] {
            let hex = SignedHex(number);
            assert_eq!(
                (format!("{hex:x}").as_str(), format!("{hex:016x}").as_str()),
                (plain, padded)
            );
        }
    }

    #[test]
    fn ids_of_the_default_configuration_are_etcds() {
        let member = member_id(&["http://localhost:2380".into()], "etcd-cluster", None);
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn ranges_follow_etcds_encoding() {
        let range = |key: &'static str, end: &'static [u8]| {
            KeyRange::new(Bytes::from_static(key.as_bytes()), Bytes::from_static(end))
        };
        assert!(range("a", b"").contains(b"a"));
        assert!(!range("a", b"").contains(b"ab"));
        assert!(range("a", b"\0").contains(b"zz"));
        assert!(!range("b", b"\0").contains(b"a"));
        assert!(range("a", b"c").contains(b"b"));
        assert!(!range("a", b"c").contains(b"c"));
        assert!(!range("c", b"a").contains(b"b"));
    }

    #[test]
    fn member_urls_have_a_scheme_a_host_and_a_port() {
        let good = |url: &str| are_member_urls(&[url.to_owned()]);
        assert!(good("http://a:1") && good("https://[::1]:2380") && good("unix://a:1"));
        for url in ["", "a:1", "http://a", "http://a:1/", "http://a:1/p", "ftp://a:1", "http://a:x"]
        {
            assert!(!good(url), "{url}");
        }
        assert!(!are_member_urls(&[]));
    }
}
