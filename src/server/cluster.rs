//! The members of the first cluster: as the flags list them, as DNS names them, or as a discovery
//! service collects them.

use std::net::SocketAddr;

use super::config::{Config, Source};
use super::member_list::{MemberUrls, parse, text_of};
use super::refusal::Refusal;
use super::url::Url;
use super::{discovery, join, resolve};
use crate::clock::SystemClock;
use crate::dns::{self, Resolver, Service};
use crate::go;
use crate::node::Join;
use crate::offline::Rebuild;
use crate::types;
use crate::upkeep::CorruptionError;

/// What a member's first start is given.
#[derive(Debug)]
pub(super) struct FirstStart {
    pub members: MemberUrls,
    /// Part of what the cluster's and the members' ids are computed from.
    pub token: String,
    pub join: Option<Join>,
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Bootstrap(String),
    /// The discovery service refuses this member or cannot be used.
    #[error("failed to join discovery cluster ({0})")]
    Discovery(discovery::Error),
    /// What is in the way is known; shown as etcd words it.
    #[error("{}", .0.error)]
    Refused(Box<Refusal>),
    #[error("{0}")]
    Corruption(#[from] CorruptionError),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self::Bootstrap(text)
    }
}

/// The first members as the settings name them.
#[derive(Clone, Debug, Default)]
pub(super) struct PlannedMembers {
    pub members: MemberUrls,
    pub token: String,
    /// Set if this member replaces one that has lost its data.
    rebuild: Option<Rebuild>,
}

impl PlannedMembers {
    /// The members as etcd prints them.
    pub(super) fn text(&self) -> String {
        text_of(&self.members)
    }
}

/// Reads the list of members, or asks DNS for it. With a discovery service, only this member is
/// known yet.
pub(super) async fn planned(config: &Config) -> Result<PlannedMembers, Error> {
    let rebuild = Rebuild::read(&config.data_dir).map_err(|error| error.to_string())?;
    let token = config.token.clone();
    if let Some(rebuild) = rebuild.filter(|rebuild| rebuild.new_id.is_some()) {
        let members = vec![(config.name.clone(), rebuild.peer_urls.clone())];
        return Ok(PlannedMembers { members, token, rebuild: Some(rebuild) });
    }
    let members = match &config.source {
        Source::Flags(list) => parse(list),
        Source::Domain { domain, service } => by_domain(config, domain, service.as_deref()).await,
        Source::Discovery => {
            let urls = config.advertise_peer_urls.iter().map(Url::to_string).collect();
            let members = vec![(config.name.clone(), urls)];
            return Ok(PlannedMembers {
                members,
                token: config.discovery.token.clone(),
                rebuild: None,
            });
        }
    };
    let members = members.map_err(|why| format!("error setting up initial cluster: {why}"))?;
    Ok(PlannedMembers { members, token, rebuild: None })
}

/// Finds the members and checks that this one may start among them.
pub(super) async fn first(config: &Config, planned: PlannedMembers) -> Result<FirstStart, Error> {
    let PlannedMembers { members, token, rebuild } = planned;
    if let Some(rebuild) = rebuild {
        let join = Some(join::rebuilt(config, &rebuild).await?);
        return Ok(FirstStart { members, token, join });
    }
    let mine = own(&config.name, &members)?.to_vec();
    if !config.new_cluster {
        check_double(&members, "initial")?;
        if matches!(config.source, Source::Discovery) {
            let text = "discovery URL should not be set when joining existing initial cluster";
            return Err(text.to_owned().into());
        }
        let join = Some(join::existing(config, &members).await?);
        return Ok(FirstStart { members, token, join });
    }
    check_advertised(&config.name, &config.advertise_peer_urls, &mine).await?;
    check_double(&members, "initial")?;
    join::check_new(config, &members, &token).await?;
    if !matches!(config.source, Source::Discovery) {
        return Ok(FirstStart { members, token, join: None });
    }
    tracing::info!("Bootstrapping cluster using v3 discovery.");
    let id = member_id(&mine, &token);
    let found = discovery::join(&config.discovery, id, &text_of(&members)).await;
    let members = parse(&found.map_err(Error::Discovery)?)?;
    check_double(&members, "discovery")?;
    if !members.iter().any(|(_, urls)| member_id(urls, &token) == id) {
        let text = text_of(&members);
        return Err(format!("discovery cluster {text} has two members of one name").into());
    }
    Ok(FirstStart { members, token, join: None })
}

fn member_id(urls: &[String], token: &str) -> u64 {
    let mut urls = urls.to_vec();
    urls.sort();
    types::member_id(&urls, token, None)
}

/// The members that a list names. The URLs of the one with this name must be those that it
/// advertises.
pub(super) async fn listed(
    name: &str,
    list: &str,
    advertised: &[Url],
) -> Result<MemberUrls, String> {
    let members = parse(list)?;
    check_advertised(name, advertised, own(name, &members)?).await?;
    check_double(&members, "initial")?;
    Ok(members)
}

fn own<'a>(name: &str, members: &'a MemberUrls) -> Result<&'a [String], String> {
    let mine = members.iter().find(|(found, _)| found == name);
    mine.map(|(_, urls)| urls.as_slice()).ok_or_else(|| {
        format!("couldn't find local name {} in the initial cluster configuration", go::quote(name))
    })
}

fn check_double(members: &MemberUrls, which: &str) -> Result<(), String> {
    let mut urls: Vec<&String> = members.iter().flat_map(|(_, urls)| urls).collect();
    urls.sort();
    if urls.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("{which} cluster {} has duplicate url", text_of(members)));
    }
    Ok(())
}

/// Fails if the URLs that this member advertises are not those that the list, which the others go
/// by, gives it.
async fn check_advertised(name: &str, advertised: &[Url], mine: &[String]) -> Result<(), String> {
    let parsed = mine.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>()?;
    let Err(why) = resolve::equal(advertised, &parsed).await else {
        return Ok(());
    };
    let advertised: Vec<String> = advertised.iter().map(Url::to_string).collect();
    let missing: Vec<String> = mine
        .iter()
        .filter(|url| !advertised.contains(url))
        .map(|url| format!("{name}={url}"))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({why})",
            missing.join(","),
            advertised.join(",")
        ));
    }
    let extra: Vec<&str> =
        advertised.iter().filter(|url| !mine.contains(url)).map(String::as_str).collect();
    if !extra.is_empty() {
        let own = text_of(&[(name.to_owned(), advertised.clone())]);
        let extra = extra.join(",");
        return Err(format!(
            "--initial-advertise-peer-urls has {extra} but missing from --initial-cluster={own}"
        ));
    }
    let own = text_of(&[(name.to_owned(), advertised.clone())]);
    let advertised = advertised.join(",");
    Err(format!("failed to resolve {advertised} to match --initial-cluster={own} ({why})"))
}

/// The members that SRV records name, with TLS and without. This one is known by its address; the
/// others get numbers as names, since no id is computed from a name.
async fn by_domain(
    config: &Config,
    domain: &str,
    service: Option<&str>,
) -> Result<MemberUrls, String> {
    let resolver = Resolver::new(std::env::var_os(dns::VARIABLE));
    let clock = SystemClock::new();
    let suffix = service.map(|name| format!("-{name}")).unwrap_or_default();
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = format!("{service}{suffix}");
        let named = match resolver.services(&clock, &service, domain).await {
            Ok(services) => named(config, scheme, &service, &services).await,
            Err(error) => Err(error.to_string()),
        };
        let named =
            named.map_err(|why| format!("error querying DNS SRV records for _{service} {why}"));
        tracing::info!(
            "service-scheme" = scheme,
            "service-name" = service,
            "server-name" = config.name,
            "discovery-srv" = domain,
            "found-cluster" = ?named.as_deref().unwrap_or_default(),
            error = named.as_ref().err().map_or("", String::as_str),
            "get cluster for etcd-server SRV"
        );
        match named {
            Ok(named) => found.extend(named),
            Err(why) => errors.push(why),
        }
    }
    if !errors.is_empty() {
        tracing::warn!(error = errors.join("\n"), "failed to resolve during SRV discovery");
    }
    if found.is_empty() {
        return Err(errors.join("\n"));
    }
    for node in &found {
        tracing::info!(node, "got bootstrap from DNS for etcd-server");
    }
    if found.iter().any(|node| node.contains("https://"))
        && config.tls.dial.ca.as_os_str().is_empty()
    {
        config.tls.domain.get_or_init(|| domain.to_owned());
    }
    let members = parse(&found.join(","))?;
    if !members.iter().any(|(name, _)| *name == config.name) {
        let name = go::quote(&config.name);
        return Err(format!("cannot find local etcd member {name} in SRV records"));
    }
    Ok(members)
}

/// `name=url` for each record whose host has an address. If there is none, the error is the last
/// record's.
async fn named(
    config: &Config,
    scheme: &str,
    service: &str,
    services: &[Service],
) -> Result<Vec<String>, String> {
    let mut own: Vec<(SocketAddr, &Url)> = Vec::new();
    for url in config.advertise_peer_urls.iter().filter(|url| !url.is_unix()) {
        own.push((resolve::address(url).await?, url));
    }
    let (mut found, mut unnamed, mut last) = (Vec::new(), 0, String::new());
    for Service { host, port, .. } in services {
        let host = host.trim_end_matches('.');
        let url = Url::parse(&format!("{scheme}://{host}:{port}"))?;
        let address = match resolve::address(&url).await {
            Ok(address) => address,
            Err(why) => {
                last = why;
                continue;
            }
        };
        match own.iter().find(|(own, _)| *own == address) {
            Some((_, expected)) if expected.scheme() != url.scheme() => {
                last = format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected \
                     peer {expected}"
                );
            }
            Some(_) => found.push(format!("{}={url}", config.name)),
            None => {
                found.push(format!("{unnamed}={url}"));
                unnamed += 1;
            }
        }
    }
    if found.is_empty() { Err(last) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::StartedAs;
    use crate::server::load::load;

    async fn of(line: &str) -> Result<FirstStart, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let config = load(StartedAs::Etcd, &words, &[], &mut Vec::new()).unwrap();
        let planned = planned(&config).await.map_err(|error| error.to_string())?;
        first(&config, planned).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_member_alone_is_its_cluster() {
        let first = of("--name m1").await.unwrap();
        assert_eq!(first.members, [("m1".to_owned(), vec!["http://localhost:2380".to_owned()])]);
        assert!(first.join.is_none());
    }

    #[tokio::test]
    async fn errors_name_both_sides() {
        let refused = async |line: &str| of(line).await.unwrap_err();
        assert_eq!(
            refused("--initial-cluster b=http://localhost:2380").await,
            "couldn't find local name \"default\" in the initial cluster configuration"
        );
        assert_eq!(
            refused("--initial-cluster default=http://localhost:1").await,
            "--initial-cluster has default=http://localhost:1 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \
             \"http://localhost:2380\" != \"http://localhost:1\")"
        );
        assert_eq!(
            refused(
                "--initial-cluster default=http://localhost:2380 \
                 --initial-advertise-peer-urls http://localhost:2380,http://localhost:2"
            )
            .await,
            "--initial-advertise-peer-urls has http://localhost:2 but missing from \
             --initial-cluster=default=http://localhost:2,default=http://localhost:2380"
        );
        assert_eq!(
            refused("--initial-cluster default=http://localhost:2380,b=http://localhost:2380")
                .await,
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url"
        );
    }
}
