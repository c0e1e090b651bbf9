//! What each user may do, key by key: a model that knows single keys only. The universe has so few
//! keys that ranges are sets.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use rusd::pb::authpb::Permission;
use rusd::pb::authpb::permission::Type;

pub type Keys = BTreeSet<Bytes>;

/// What each user may do, key by key.
#[derive(Default)]
pub struct Model {
    pub grants: BTreeMap<&'static str, Vec<Permission>>,
    pub held: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl Model {
    pub fn may(&self, user: &str, kind: Type) -> Keys {
        let roles = self.held.get(user).into_iter().flatten();
        let perms = roles.filter_map(|role| self.grants.get(role)).flatten();
        let counts = |perm: &&Permission| {
            perm.perm_type == kind as i32 || perm.perm_type == Type::Readwrite as i32
        };
        perms.filter(counts).flat_map(|perm| named(&perm.key, &perm.range_end)).collect()
    }
}

/// Keys that a request reads and writes, however it goes.
#[derive(Debug, Default)]
pub struct Uses {
    pub reads: Keys,
    pub writes: Keys,
    /// Whether it names single keys only, so that the model knows its whole demand.
    pub is_exact: bool,
}

/// All keys of one or two letters, and the smallest key, with which ranges may begin.
pub fn universe() -> Keys {
    let letters = [b'a', b'b', b'c'];
    let mut keys = Keys::from([Bytes::from_static(b"\0")]);
    for first in letters {
        keys.insert(Bytes::copy_from_slice(&[first]));
        for second in letters {
            keys.insert(Bytes::copy_from_slice(&[first, second]));
        }
    }
    keys
}

/// Keys of the universe that a request's key and range end name, by etcd's documentation alone.
pub fn named(key: &[u8], end: &[u8]) -> Keys {
    let is_named = |other: &Bytes| match end {
        [] => other == key,
        [0] => other.as_ref() >= key,
        end => other.as_ref() >= key && other.as_ref() < end,
    };
    universe().into_iter().filter(is_named).collect()
}
