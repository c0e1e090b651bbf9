//! Every table and key name, and how small buckets are keyed and checked.
//!
//! Buckets and their keys have etcd's names, so that a snapshot copies them as they are. What only
//! rusd needs is in a table of its own, `rusd`, which is not part of a snapshot.

use sha2::{Digest, Sha256};

use crate::types::Revision;

/// The small buckets. etcd's bucket `key` is not among them: it is the tables `rev` and `blob`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    Meta,
    Lease,
    Alarm,
    Cluster,
    Members,
    MembersRemoved,
    Auth,
    AuthUsers,
    AuthRoles,
}

impl Bucket {
    /// All buckets, at the positions of their discriminants.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Lease,
        Self::Alarm,
        Self::Cluster,
        Self::Members,
        Self::MembersRemoved,
        Self::Auth,
        Self::AuthUsers,
        Self::AuthRoles,
    ];

    /// The table's name in LMDB and the bucket's name in etcd's file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Lease => "lease",
            Self::Alarm => "alarm",
            Self::Cluster => "cluster",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Auth => "auth",
            Self::AuthUsers => "authUsers",
            Self::AuthRoles => "authRoles",
        }
    }
}

/// Table of records by revision.
pub(super) const REV: &str = "rev";
/// Table of the chunks of records that are too large for one value.
pub(super) const BLOB: &str = "blob";
/// Table of what only rusd keeps.
pub(super) const OWN: &str = "rusd";

/// Keys of `meta`.
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub const TERM: &[u8] = b"term";
pub const CONF_STATE: &[u8] = b"confState";
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
/// Keys of `cluster`.
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
pub const DOWNGRADE: &[u8] = b"downgrade";
/// Keys of `auth`.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
pub const AUTH_REVISION: &[u8] = b"authRevision";

/// Keys of `rusd`.
pub(super) const FORMAT: &[u8] = b"format";
pub(super) const ID: &[u8] = b"id";

/// The format that this build writes, and the only one that it reads.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Longest name that is used as an LMDB key unchanged. LMDB's limit is 511 bytes.
const NAME_BYTES_MAX: usize = 480;
/// Length of the key that replaces a longer name, or the empty one, which LMDB does not accept: the
/// name's SHA-256 and as much of the name as fits. It is one byte longer than any name that is used
/// unchanged, so the two never collide.
const HASHED_NAME_BYTES: usize = NAME_BYTES_MAX + 1;
const HASH_BYTES: usize = 32;

pub(super) fn is_hashed(name: &[u8]) -> bool {
    name.is_empty() || name.len() > NAME_BYTES_MAX
}

/// The LMDB key of a small bucket's key.
pub(super) fn name_key(name: &[u8]) -> Vec<u8> {
    if !is_hashed(name) {
        return name.to_vec();
    }
    let mut key = Sha256::digest(name).to_vec();
    key.extend_from_slice(&name[..name.len().min(HASHED_NAME_BYTES - HASH_BYTES)]);
    key.resize(HASHED_NAME_BYTES, 0);
    key
}

/// The stored value of a small bucket: CRC-32C over table name, name and value; if the key is only
/// the name's hash, the name's length and the name; the value.
pub(super) fn small_value(table: &str, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = small_crc(table, name, value).to_le_bytes().to_vec();
    if is_hashed(name) {
        stored.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        stored.extend_from_slice(name);
    }
    stored.extend_from_slice(value);
    stored
}

/// The name and the value of a stored pair, whose checksum is verified; the error says what is
/// wrong.
pub(super) fn small_parse<'a>(
    table: &str,
    key: &'a [u8],
    stored: &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), &'static str> {
    let (crc, rest) = stored.split_first_chunk::<4>().ok_or("the value is too short")?;
    let (name, value) = if key.len() == HASHED_NAME_BYTES {
        let (size, rest) = rest.split_first_chunk::<4>().ok_or("the value is too short")?;
        rest.split_at_checked(u32::from_le_bytes(*size) as usize)
            .ok_or("the name is longer than the value")?
    } else {
        (key, rest)
    };
    if small_crc(table, name, value) != u32::from_le_bytes(*crc) {
        return Err("the checksum does not match");
    }
    Ok((name, value))
}

fn small_crc(table: &str, name: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(table.as_bytes());
    let crc = crc32c::crc32c_append(crc, &(name.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, name), value)
}

/// Key of `rev`: main and sub, big-endian, so that byte order is revision order.
pub(super) type RevKey = [u8; 12];

/// The key of a revision; None for numbers that no store can hold.
pub(super) fn rev_key(rev: Revision) -> Option<RevKey> {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&u64::try_from(rev.main).ok()?.to_be_bytes());
    key[8..].copy_from_slice(&u32::try_from(rev.sub).ok()?.to_be_bytes());
    Some(key)
}

/// The key for the bound of a range. A revision that no store can hold becomes the nearest one that
/// it can.
pub(super) fn bound_key(rev: Revision) -> RevKey {
    if rev.main < 0 {
        return [0; 12];
    }
    let sub = rev.sub.clamp(0, i64::from(u32::MAX));
    rev_key(Revision::new(rev.main, sub)).unwrap_or([0xff; 12])
}

/// The revision of a key of `rev`; None if the bytes are not such a key.
pub(super) fn rev_of(key: &[u8]) -> Option<Revision> {
    let (main, sub) = key.split_first_chunk::<8>()?;
    let main = i64::try_from(u64::from_be_bytes(*main)).ok()?;
    Some(Revision::new(main, i64::from(u32::from_be_bytes(sub.try_into().ok()?))))
}

/// Key of `blob`: the record's key and the chunk's number.
pub(super) fn blob_key(rev: &RevKey, chunk: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..12].copy_from_slice(rev);
    key[12..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// etcd's encoding of a revision as a value: main, `_`, sub.
pub fn revision_bytes(rev: Revision) -> [u8; 17] {
    let mut bytes = [b'_'; 17];
    bytes[..8].copy_from_slice(&rev.main.to_be_bytes());
    bytes[9..].copy_from_slice(&rev.sub.to_be_bytes());
    bytes
}

/// Decodes a revision from etcd's encoding; None if the bytes are not one.
pub fn revision_parse(bytes: &[u8]) -> Option<Revision> {
    let bytes: &[u8; 17] = bytes.try_into().ok()?;
    let main = i64::from_be_bytes(bytes[..8].try_into().ok()?);
    let sub = i64::from_be_bytes(bytes[9..].try_into().ok()?);
    (bytes[8] == b'_').then_some(Revision::new(main, sub))
}

/// A row's key in etcd's bucket `key`: main, `_`, sub, and `t` for a tombstone; and the number of
/// bytes of the array that belong to it.
pub fn row_key(rev: Revision, tombstone: bool) -> ([u8; 18], usize) {
    let mut key = [b't'; 18];
    key[..17].copy_from_slice(&revision_bytes(rev));
    (key, if tombstone { 18 } else { 17 })
}

/// The revision in a row's key, and whether the row is a tombstone.
pub fn row_key_parse(key: &[u8]) -> Option<(Revision, bool)> {
    let tombstone = match key {
        [_, .., b't'] if key.len() == 18 => true,
        _ if key.len() == 17 => false,
        _ => return None,
    };
    let rev = revision_parse(&key[..17]).filter(|rev| rev.main > 0 && rev.sub >= 0)?;
    Some((rev, tombstone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_keep_any_name_and_notice_a_flipped_bit() {
        let names = [vec![], vec![b'a'], vec![b'b'; 480], vec![b'c'; 481], vec![b'd'; 5000]];
        for name in names {
            let key = name_key(&name);
            assert!(!key.is_empty() && key.len() <= 511);
            let stored = small_value("authUsers", &name, b"value");
            let parsed = small_parse("authUsers", &key, &stored);
            assert_eq!(parsed, Ok((name.as_slice(), b"value".as_slice())));
            assert!(small_parse("authRoles", &key, &stored).is_err());
            for bit in 0..stored.len() * 8 {
                let mut flipped = stored.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(small_parse("authUsers", &key, &flipped).is_err());
            }
        }
    }

    #[test]
    fn revision_keys_sort_as_revisions() {
        let revs =
            [(0, 0), (1, 255), (1, 256), (2, 0), (1 << 40, 3)].map(|(m, s)| Revision::new(m, s));
        let keys = revs.map(|rev| rev_key(rev).unwrap());
        assert!(keys.is_sorted());
        for (rev, key) in revs.iter().zip(&keys) {
            assert_eq!(rev_of(key), Some(*rev));
            assert_eq!(revision_parse(&revision_bytes(*rev)), Some(*rev));
        }
        assert_eq!(rev_key(Revision::new(-1, 0)), None);
    }
}
