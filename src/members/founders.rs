//! The first members of a cluster.

use super::Member;
use crate::types;

/// Members that exist before the log names them. etcd derives their ids from the peer URLs and the
/// cluster's token, so each member computes the same ids.
#[derive(Clone, Debug)]
pub struct Founders {
    pub cluster_id: u64,
    /// Sorted by id.
    pub members: Vec<Member>,
}

impl Founders {
    /// `cluster` has the name and the peer URLs of each member.
    pub fn new(cluster: &[(String, Vec<String>)], token: &str) -> Self {
        let member = |(name, peer_urls): &(String, Vec<String>)| {
            let mut peer_urls = peer_urls.clone();
            peer_urls.sort();
            let id = types::member_id(&peer_urls, token, None);
            Member { id, peer_urls, name: name.clone(), ..Member::default() }
        };
        let mut members: Vec<Member> = cluster.iter().map(member).collect();
        members.sort_unstable_by_key(|member| member.id);
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        Self { cluster_id: types::cluster_id(&ids), members }
    }

    /// The founder of this name.
    pub fn named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}
