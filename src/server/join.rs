//! What a member without a log asks the others before its first start: whether they know it from
//! before, and who the members of a running cluster are.

use std::time::Duration;

use super::config::{Config, StartedAs};
use super::member_list::MemberUrls;
use super::resolve;
use super::tls::TlsDial;
use super::url::Url;
use crate::apply;
use crate::limits;
use crate::members::Member;
use crate::node::Join;
use crate::offline::Rebuild;
use crate::peer::{ask, is_rusd};
use crate::types::{self, Version};

/// What one member says of its cluster.
struct ClusterAnswer {
    cluster_id: u64,
    is_rusd: bool,
    members: Vec<Member>,
}

/// For a new cluster: fails if one of the others knows this member as one that has run. It then
/// knows client URLs of this member, which a member publishes at its first start.
pub(super) async fn check_new(
    config: &Config,
    cluster: &MemberUrls,
    token: &str,
) -> Result<(), String> {
    let mut own: Vec<String> = Vec::new();
    for (_, urls) in cluster.iter().filter(|(name, _)| *name == config.name) {
        own.clone_from(urls);
    }
    let id = types::member_id(&own, token, None);
    let ids: Vec<u64> =
        cluster.iter().map(|(_, urls)| types::member_id(urls, token, None)).collect();
    let cluster_id = types::cluster_id(&ids);
    let dial = TlsDial::new(&config.tls, config.local_address())?;
    let asked = other_urls(config, cluster)
        .into_iter()
        .map(|url| members_at(&dial, url, limits::BOOTSTRAP_CHECK_TIMEOUT));
    for told in futures_util::future::join_all(asked).await.into_iter().flatten() {
        let mut known = told.members.iter().filter(|member| member.id == id);
        if known.any(|member| !member.client_urls.is_empty()) {
            return Err(format!("member {id:x} has already been bootstrapped"));
        }
        // etcd founds a cluster of its own then, which the others turn away for ever. One that does
        // not know this member may be the stray one itself, and is no reason to refuse.
        if config.started_as == StartedAs::Rusd
            && told.cluster_id != cluster_id
            && let Some(why) = why_not_to_found(&told, &own, cluster_id)
        {
            return Err(why);
        }
    }
    Ok(())
}

/// Why this member cannot found a cluster: another one has it as a member, by its URLs.
fn why_not_to_found(told: &ClusterAnswer, own: &[String], cluster_id: u64) -> Option<String> {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    let theirs = told.cluster_id;
    let mut known = told.members.iter().filter(|it| sorted(&it.peer_urls) == sorted(own));
    let Member { id, client_urls, .. } = known.next()?;
    Some(match client_urls.is_empty() {
        false => format!("member {id:x} has already been bootstrapped, in cluster {theirs:x}"),
        true => format!(
            "the others are of cluster {theirs:x}, which waits for this member as {id:x}; \
             --initial-cluster-state new would found cluster {cluster_id:x}"
        ),
    })
}

/// For a running cluster: asks the others in turn for its members, and finds this one's id by its
/// URLs.
pub(super) async fn existing(config: &Config, cluster: &MemberUrls) -> Result<Join, String> {
    let dial = TlsDial::new(&config.tls, config.local_address())?;
    let told = first_answer(&dial, other_urls(config, cluster)).await?.ok_or(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the \
         given URLs",
    )?;
    if !told.is_rusd {
        return Err(
            "the members of this cluster are not rusd; a cluster of rusd and etcd members is not \
             supported yet"
                .into(),
        );
    }
    let learners = told.members.iter().filter(|member| member.is_learner).count();
    let join = matched(config, cluster, told).await?;
    if learners > config.max_learners {
        return Err("membership: too many learner members in cluster".into());
    }
    Ok(join)
}

/// For a member that replaces a damaged one: `rebuild` says which, and under which id.
pub(super) async fn rebuilt(config: &Config, rebuild: &Rebuild) -> Result<Join, String> {
    let dial = TlsDial::new(&config.tls, config.local_address())?;
    let told = first_answer(&dial, rebuild.others.clone()).await?;
    let told = told.ok_or("none of the members that this one was rebuilt from answers")?;
    let member_id = rebuild.new_id.unwrap_or_default();
    if told.cluster_id != rebuild.cluster_id {
        return Err(format!(
            "this member was rebuilt for cluster {:x}, but {:x} answers",
            rebuild.cluster_id, told.cluster_id
        ));
    }
    let Some(own) = told.members.iter().find(|member| member.id == member_id) else {
        return Err(format!(
            "this directory was rebuilt for member {member_id:x}, which is not in the cluster any \
             more; run `rusd rebuild` again"
        ));
    };
    if !own.client_urls.is_empty() {
        // It may have voted, and have acknowledged entries that were in its log.
        return Err(format!(
            "member {member_id:x} has already been bootstrapped, and this directory has lost its \
             log; run `rusd rebuild` again, or `rusd join --replace`"
        ));
    }
    let local = format!("{member_id:x}");
    if rebuild.old_id == 0 {
        tracing::info!("local-member-id" = local, "joining as a member that was prepared");
    } else {
        tracing::info!(
            "local-member-id" = local,
            "replaced-member-id" = format!("{:x}", rebuild.old_id),
            "joining in the place of a damaged member"
        );
    }
    let members = told.members.into_iter().map(|member| (member.id, member.peer_urls)).collect();
    Ok(Join { cluster_id: told.cluster_id, member_id, members })
}

async fn matched(
    config: &Config,
    cluster: &MemberUrls,
    told: ClusterAnswer,
) -> Result<Join, String> {
    let failed = |why: String| format!("error validating peerURLs: {why}");
    if told.members.len() != cluster.len() {
        return Err(failed("member count is unequal".into()));
    }
    let parse = |urls: &[String]| -> Result<Vec<Url>, String> {
        urls.iter().map(|url| Url::parse(url)).collect()
    };
    let mut member_id = None;
    let mut members = Vec::new();
    for member in &told.members {
        let urls = parse(&member.peer_urls).map_err(failed)?;
        let mut matching = None;
        for named in cluster {
            if resolve::equal(&urls, &parse(&named.1)?).await.is_ok() {
                matching = Some(named);
                break;
            }
        }
        let named = matching.ok_or_else(|| {
            failed(format!(
                "PeerURLs: no match found for existing member ({:x}, {:?})",
                member.id, member.peer_urls
            ))
        })?;
        if named.0 == config.name {
            member_id = Some(member.id);
        }
        members.push((member.id, member.peer_urls.clone()));
    }
    let member_id = member_id.ok_or_else(|| failed("this member is not among them".into()))?;
    Ok(Join { cluster_id: told.cluster_id, member_id, members })
}

fn other_urls(config: &Config, cluster: &MemberUrls) -> Vec<String> {
    let others = cluster.iter().filter(|(name, _)| *name != config.name);
    others.flat_map(|(_, urls)| urls.clone()).collect()
}

/// What the first member says that answers; None if none does. Fails if the version of its cluster is
/// newer than this release: the members may log what this one does not understand.
async fn first_answer(dial: &TlsDial, urls: Vec<String>) -> Result<Option<ClusterAnswer>, String> {
    for url in urls {
        let Some(told) = members_at(dial, url.clone(), limits::JOIN_TIMEOUT).await else {
            continue;
        };
        // Every member answers this question. One that answers only the other is no reason to refuse.
        if let Ok(answered) = ask(dial, &url, "/version", None, limits::JOIN_TIMEOUT).await
            && let Some(version) = cluster_version(&answered.body)
            && let Err(error) = apply::check_cluster_version(version)
        {
            tracing::warn!(
                address = url,
                "remote-member-cluster-version" = version.to_string(),
                "cluster version of remote member is not compatible; too high"
            );
            return Err(format!("incompatible with current running cluster: {error}"));
        }
        return Ok(Some(told));
    }
    Ok(None)
}

/// The cluster's version in an answer to `/version`; None while the cluster has none.
fn cluster_version(answer: &[u8]) -> Option<Version> {
    let versions: serde_json::Value = serde_json::from_slice(answer).ok()?;
    Version::parse(versions.get("etcdcluster")?.as_str()?)
}

async fn members_at(dial: &TlsDial, url: String, limit: Duration) -> Option<ClusterAnswer> {
    let answered = match ask(dial, &url, "/members", None, limit).await {
        Ok(answered) => answered,
        Err(error) => {
            tracing::warn!(address = url, %error, "failed to get cluster response");
            return None;
        }
    };
    let cluster_id = answered.headers.get("x-etcd-cluster-id")?.to_str().ok()?;
    Some(ClusterAnswer {
        cluster_id: u64::from_str_radix(cluster_id, 16).ok()?,
        is_rusd: is_rusd(&answered.headers),
        members: serde_json::from_slice(&answered.body).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::server::config::Source;
    use crate::server::load::load;
    use crate::server::member_list;

    fn told(members: &[(u64, &str)]) -> ClusterAnswer {
        let member = |(id, url): &(u64, &str)| Member {
            id: *id,
            peer_urls: vec![(*url).to_owned()],
            ..Member::default()
        };
        let members = members.iter().map(member).collect();
        ClusterAnswer { cluster_id: 7, is_rusd: true, members }
    }

    #[tokio::test]
    async fn members_of_a_running_cluster_are_found_by_their_urls() {
        let line = "--initial-cluster-state existing --initial-cluster \
                    default=http://localhost:2380,b=http://127.0.0.2:1";
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let config = load(StartedAs::Etcd, &words, &[], &mut Vec::new()).unwrap();
        let Source::Flags(list) = &config.source else { panic!("{:?}", config.source) };
        let cluster = member_list::parse(list).unwrap();
        let join = matched(
            &config,
            &cluster,
            told(&[(1, "http://127.0.0.2:1"), (2, "http://localhost:2380")]),
        );
        let join = join.await.unwrap();
        assert_eq!((join.member_id, join.cluster_id, join.members.len()), (2, 7, 2));
        let refused = async |members: &[(u64, &str)]| {
            matched(&config, &cluster, told(members)).await.unwrap_err()
        };
        assert!(refused(&[(1, "http://127.0.0.2:1")]).await.ends_with("member count is unequal"));
        assert!(
            refused(&[(1, "http://127.0.0.3:1"), (2, "http://localhost:2380")])
                .await
                .contains("no match found for existing member (1, ")
        );
    }

    /// Answers as a member of a cluster of this version does.
    async fn member_of(version: &str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let version = format!(r#"{{"etcdserver":"v3.9.0-rc.1","etcdcluster":"{version}"}}"#);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).await.unwrap();
                let body = match bytes[..count].starts_with(b"GET /version ") {
                    true => version.as_str(),
                    false => r#"[{"id":1,"peerURLs":["http://localhost:2380"]}]"#,
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Etcd-Cluster-ID: 7\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn a_cluster_of_a_later_version_is_not_joined() {
        let config = load(StartedAs::Etcd, &[], &[], &mut Vec::new()).unwrap();
        let dial = TlsDial::new(&config.tls, None).unwrap();
        for (version, refusal) in [
            ("3.7.0", None),
            ("v3.6", None),
            ("not_decided", None),
            ("3.8.0", Some("cluster version 3.8.0")),
            ("v4.0", Some("cluster version 4.0.0")),
        ] {
            let told = first_answer(&dial, vec![member_of(version).await]).await;
            let refused = told.err();
            assert_eq!(refused.is_some(), refusal.is_some(), "{version}: {refused:?}");
            if let (Some(refused), Some(text)) = (refused, refusal) {
                assert!(refused.starts_with("incompatible with current running cluster"));
                assert!(refused.contains(text), "{refused}");
            }
        }
    }
}
