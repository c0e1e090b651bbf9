//! Asks a cluster: first for the list of its members, then all members at once, then those who have
//! answered for alarms and users; each question within `DOCTOR_PATIENCE`. An answer that does not come is a fact as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::facts::{Auth, Cluster, Expiring, Facts, Member, Unreached, Why};
use super::http::{self, Told};
use crate::cert::{self, Item};
use crate::cli::commands::alarm;
use crate::cli::commands::endpoint::single;
use crate::client::{Address, Client, Config, Deadline, Error, Event, LogSink, Target, rpc};
use crate::clock::SystemClock;
use crate::limits::{DOCTOR_PATIENCE, DOCTOR_PLACES_MAX};
use crate::pb::{
    self, AlarmType, AuthStatusRequest, AuthUserGetRequest, AuthUserListRequest, MemberListRequest,
    MemberListResponse, StatusRequest, StatusResponse,
};
use crate::tls::{self, CertificateDer, Shown};

/// Flags that members should have in common, as etcd's command line names them, and their defaults.
const SETTINGS: [(&str, i64); 5] = [
    ("election-timeout", 1000),
    ("heartbeat-interval", 100),
    ("max-learners", 1),
    ("max-request-bytes", 1_572_864),
    ("max-txn-ops", 128),
];

/// Takes the client's log lines: what they say is said by a finding.
struct Silence;

impl LogSink for Silence {
    fn event(&self, _: &Event<'_>) {}
}

pub(super) struct Asker {
    pub config: Config,
    pub clock: Arc<SystemClock>,
}

/// What one URL has answered.
struct Probed {
    url: String,
    status: Result<StatusResponse, Unreached>,
    told: Told,
    /// The certificates of a server that refused, or that was refused.
    chain: Vec<CertificateDer<'static>>,
}

impl Asker {
    pub(super) async fn ask(&self, facts: &mut Facts) {
        let mut cluster = Cluster::default();
        let endpoints = self.config.endpoints.clone();
        let list = match self.list(&endpoints).await.and_then(believed) {
            Ok(list) => list,
            Err(why) => {
                cluster.list_error = Some(why);
                MemberListResponse::default()
            }
        };
        // An endpoint that is a member's URL without its scheme is no second address.
        let listed = list.members.iter().flat_map(|member| member.client_ur_ls.clone());
        let listed: Vec<String> = listed.collect();
        let mut urls = endpoints;
        let is_tls = self.config.tls.is_default();
        urls.retain(|url| !is_tls || !listed.iter().any(|other| is_short_for(url, other)));
        urls.extend(listed);
        let mut seen = std::collections::BTreeSet::new();
        urls.retain(|url| seen.insert(plain(url).to_owned()));
        let peers = list.members.iter().flat_map(|member| {
            member.peer_ur_ls.iter().map(|url| (member.name.clone(), url.clone()))
        });
        let (probed, peers) = tokio::join!(
            join_all(urls.iter().map(|url| self.probe(url))),
            join_all(peers.map(|(name, url)| self.peer_certificates(name, url))),
        );
        facts.certificates.extend(peers.into_iter().flatten());
        // What is of the cluster is asked of those of its voters who have answered: one that hangs
        // would take the time of the others.
        let is_voter = |probe: &&Probed| {
            let status = probe.status.as_ref().ok();
            let id = status.and_then(|status| Some(status.header.as_ref()?.member_id));
            let listed = list.members.iter().find(|member| Some(member.id) == id);
            id.is_some() && listed.map_or(list.members.is_empty(), |member| !member.is_learner)
        };
        let answer = probed.iter().filter(is_voter);
        let answer: Vec<String> = answer.map(|probe| probe.url.clone()).collect();
        let voters = Config {
            endpoints: if answer.is_empty() { self.config.endpoints.clone() } else { answer },
            ..self.config.clone()
        };
        let (alarms, auth) = tokio::join!(self.alarms(&voters), self.auth(&voters));
        cluster.auth = auth;
        self.assemble(&mut cluster, list, probed, facts);
        cluster.alarms = alarms.unwrap_or_else(|| alarms_of_statuses(&cluster));
        facts.cluster = Some(cluster);
        // A port and its file are one certificate.
        let files = facts.certificates.clone();
        facts.certificates.retain(|one| {
            let file = one.what.strip_suffix("peer port").map(|whose| format!("{whose}peer file"));
            file.is_none_or(|file| files.iter().all(|other| other.what != file))
        });
        facts.certificates.extend(self.own_certificates(facts.now));
    }

    async fn client(&self, config: Config) -> Result<Client, Error> {
        let config = Config { dial_timeout: DOCTOR_PATIENCE, ..config };
        Client::connect(config, Arc::new(Silence), self.clock.clone()).await
    }

    /// The list of members of the first endpoint in the order of the flag that answers, so that a
    /// stray endpoint does not stand for the cluster; the reason of the last one if none does. Without a quorum it is what that member knows.
    async fn list(&self, endpoints: &[String]) -> Result<MemberListResponse, String> {
        let ask = async |endpoint: &String| {
            let work = async {
                // A client waits for a server that is away; whether it is shows at once.
                http::reach(&self.config, endpoint).await.map_err(|why| why.text)?;
                let client = self.client(single(&self.config, endpoint)).await;
                let client = client.map_err(|error| error.to_string())?;
                let request = MemberListRequest { linearizable: false };
                let deadline = Deadline::after(DOCTOR_PATIENCE);
                let list = client.call(&rpc::MEMBER_LIST, request, deadline).await;
                list.map_err(|error| error.to_string())
            };
            timeout(DOCTOR_PATIENCE, work).await.map_err(|_| "no answer".to_owned())?
        };
        let (mut lists, mut reasons) = (Vec::new(), Vec::new());
        for answer in join_all(endpoints.iter().map(ask)).await {
            match answer {
                Ok(list) => lists.push(list),
                Err(why) => reasons.push(why),
            }
        }
        lists.into_iter().next().ok_or_else(|| reasons.pop().unwrap_or_default())
    }

    async fn status(&self, url: &str) -> Result<StatusResponse, Error> {
        let client = self.client(single(&self.config, url)).await?;
        client.call(&rpc::STATUS, StatusRequest {}, Deadline::after(DOCTOR_PATIENCE)).await
    }

    /// Asks one URL over gRPC and over HTTP at once.
    async fn probe(&self, url: &str) -> Probed {
        let mut told = Told::default();
        let why = match timeout(DOCTOR_PATIENCE, http::reach(&self.config, url)).await {
            Ok(Err(why)) => {
                return Probed { url: url.to_owned(), status: Err(why), told, chain: Vec::new() };
            }
            Ok(Ok(())) => Why::Silent,
            Err(_) => Why::TimedOut,
        };
        let late = || Unreached { why, text: "no answer within a second".into() };
        let (asked, status) = tokio::join!(
            timeout(DOCTOR_PATIENCE, http::ask(&self.config, url, &mut told)),
            timeout(DOCTOR_PATIENCE, self.status(url)),
        );
        let mut failed = match asked {
            Ok(asked) => asked.err(),
            Err(_) => Some(late()),
        };
        let status = match status {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) if is_denied(&error) => {
                Err(Unreached { why: Why::Login, text: error.to_string() })
            }
            Ok(Err(error)) => Err(failed
                .take()
                .unwrap_or_else(|| Unreached { why: Why::Other, text: error.to_string() })),
            Err(_) => Err(failed.take().unwrap_or_else(late)),
        };
        let mut probed = Probed { url: url.to_owned(), status, told, chain: Vec::new() };
        if let Err(why) = &mut probed.status
            && probed.told.metrics.is_none()
        {
            let target = Target::parse(url, self.config.tls.is_default());
            if target.tls && self.speaks_plain_text(url).await {
                why.why = Why::PlainServer;
                return probed;
            }
            let shown = self.shown(url).await;
            if !target.tls && !shown.chain.is_empty() {
                why.why = Why::TlsServer;
            }
            if let (true, Why::Other | Why::OtherTls, Some(refusal)) =
                (target.tls, why.why, shown.refusal)
            {
                // A request over HTTP/2 is told less of a refusal.
                *why = Unreached { why: http::why_of_tls(&refusal), text: refusal };
            }
            probed.chain = shown.chain;
        }
        probed
    }

    async fn speaks_plain_text(&self, url: &str) -> bool {
        let host = url.strip_prefix("https://").unwrap_or(url);
        let mut told = Told::default();
        let url = format!("http://{host}");
        let asked = http::ask(&self.config, &url, &mut told);
        // What it answers does not matter.
        let _ = timeout(DOCTOR_PATIENCE, asked).await;
        told.metrics.is_some()
    }

    /// The certificates that a server shows to anybody, and why it refuses this client.
    async fn shown(&self, url: &str) -> Shown {
        let target = Target::parse(url, true);
        let (files, host) = (self.config.tls.files(), target.server_name());
        let work = async {
            let shown = match &target.address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await.ok()?;
                    tls::show_certificates(&files, stream, &host).await
                }
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await.ok()?;
                    tls::show_certificates(&files, stream, &host).await
                }
            };
            shown.ok()
        };
        timeout(DOCTOR_PATIENCE, work).await.ok().flatten().unwrap_or_default()
    }

    /// The certificates of a peer port. One that cannot be reached from here is no finding: it may
    /// be open to members alone.
    async fn peer_certificates(&self, name: String, url: String) -> Option<Expiring> {
        if !Target::parse(&url, false).tls {
            return None;
        }
        first_end(format!("{name}'s peer port"), &self.shown(&url).await.chain)
    }

    /// The files of the flags.
    fn own_certificates(&self, now: i64) -> Vec<Expiring> {
        let tls = &self.config.tls;
        let files =
            [("the client's certificate", &tls.cert), ("the authority of --cacert", &tls.ca)];
        let now = u64::try_from(now).unwrap_or_default();
        let of_file = |(what, path): (&str, &Option<std::path::PathBuf>)| {
            let path = path.as_ref()?;
            let items = cert::read(path, now).ok()?;
            let ends = items.into_iter().filter_map(|item| match item {
                Item::Certificate(certificate) => Some(certificate.ends),
                _ => None,
            });
            Some(Expiring { what: format!("{what} ({})", path.display()), ends: ends.min()? })
        };
        files.into_iter().filter_map(of_file).collect()
    }

    async fn alarms(&self, voters: &Config) -> Option<Vec<(u64, AlarmType)>> {
        let work = async {
            let client = self.client(voters.clone()).await.ok()?;
            let deadline = Deadline::after(DOCTOR_PATIENCE);
            let list = client.call(&rpc::ALARM_LIST, alarm::list_request(), deadline).await.ok()?;
            Some(list.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect())
        };
        timeout(DOCTOR_PATIENCE, work).await.ok().flatten()
    }

    async fn auth(&self, voters: &Config) -> Auth {
        timeout(DOCTOR_PATIENCE, self.ask_auth(voters)).await.unwrap_or_default()
    }

    async fn ask_auth(&self, voters: &Config) -> Auth {
        let Ok(client) = self.client(voters.clone()).await else { return Auth::Unknown };
        let deadline = Deadline::after(DOCTOR_PATIENCE);
        let status = match client.call(&rpc::AUTH_STATUS, AuthStatusRequest {}, deadline).await {
            Ok(status) => status,
            Err(error) if is_denied(&error) => return Auth::Hidden,
            Err(_) => return Auth::Unknown,
        };
        let users = client.call(&rpc::USER_LIST, AuthUserListRequest {}, deadline).await;
        let users = match users {
            Ok(users) => users,
            Err(error) if is_denied(&error) => return Auth::Hidden,
            Err(_) => return Auth::Unknown,
        };
        if !status.enabled {
            return Auth::Off { users: users.users.len() };
        }
        let request = AuthUserGetRequest { name: "root".to_owned() };
        let has_root = users.users.iter().any(|user| user == "root");
        let root_has_role = match client.call(&rpc::USER_GET, request, deadline).await {
            Ok(user) => user.roles.iter().any(|role| role == "root"),
            Err(_) if has_root => return Auth::Unknown,
            Err(_) => false,
        };
        Auth::On { has_root, root_has_role }
    }

    fn assemble(
        &self,
        cluster: &mut Cluster,
        list: MemberListResponse,
        mut probed: Vec<Probed>,
        facts: &mut Facts,
    ) {
        let mut listed = list.members;
        listed.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        for listed in listed {
            let mut member = Member {
                id: listed.id,
                name: listed.name,
                is_listed: true,
                is_learner: listed.is_learner,
                client_urls: listed.client_ur_ls,
                peer_urls: listed.peer_ur_ls,
                ..Member::default()
            };
            let is_own = |probe: &Probed| match &probe.status {
                Ok(status) => status.header.as_ref().map(|it| it.member_id) == Some(member.id),
                Err(_) => member.client_urls.iter().any(|url| plain(url) == plain(&probe.url)),
            };
            let (mut own, rest): (Vec<_>, Vec<_>) = probed.into_iter().partition(is_own);
            probed = rest;
            // One URL that answers is enough.
            own.sort_by_key(|probe| (probe.status.is_err(), probe.told.metrics.is_none()));
            if let Some(probe) = own.into_iter().next() {
                take(&mut member, probe, facts);
            } else if member.is_started() {
                member.url = member.client_urls.first().cloned().unwrap_or_default();
                let text = "another member answers there";
                member.unreached = Some(Unreached { why: Why::Stray, text: text.to_owned() });
            }
            cluster.members.push(member);
        }
        for probe in probed {
            let id = probe.status.as_ref().ok().and_then(|status| status.header.as_ref());
            let mut member =
                Member { id: id.map_or(0, |header| header.member_id), ..Member::default() };
            take(&mut member, probe, facts);
            cluster.members.push(member);
        }
    }
}

/// The list, unless it is so long that whoever sent it is no cluster: all of it is asked at once.
fn believed(list: MemberListResponse) -> Result<MemberListResponse, String> {
    let of = |member: &pb::Member| 1 + member.client_ur_ls.len() + member.peer_ur_ls.len();
    match list.members.iter().map(of).sum::<usize>() {
        0..=DOCTOR_PLACES_MAX => Ok(list),
        count => Err(format!("it names {count} members and URLs, and no cluster has so many")),
    }
}

fn is_denied(error: &Error) -> bool {
    let texts = [
        "user name is empty",
        "permission denied",
        "invalid auth token",
        "authentication failed, invalid user ID or password",
    ];
    texts.iter().any(|text| error.message().contains(text))
}

/// A URL without what may be left out.
fn plain(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_prefix("http://").unwrap_or(url)
}

/// Whether an endpoint is this `https` URL without its scheme, as the flags for TLS allow.
fn is_short_for(endpoint: &str, url: &str) -> bool {
    let host = url.trim_end_matches('/').strip_prefix("https://");
    host == Some(endpoint.trim_end_matches('/'))
}

/// Gives a member what was learned at its URL.
fn take(member: &mut Member, probe: Probed, facts: &mut Facts) {
    let Told { metrics, command_line, clock, round_trip, chain } = probe.told;
    member.url = probe.url;
    (member.clock, member.round_trip) = (clock, round_trip);
    match probe.status {
        Ok(status) => member.status = Some(status),
        Err(why) => member.unreached = Some(why),
    }
    if let Some(metrics) = &metrics {
        let settings = metrics.labelled("rusd_setting");
        #[expect(clippy::cast_possible_truncation, reason = "settings are whole numbers")]
        let whole = |value: f64| value as i64;
        member.settings = settings.map(|(name, value)| (name.to_owned(), whole(value))).collect();
    }
    if member.settings.is_empty() {
        member.settings = settings_of(&command_line);
    }
    if let Some(quota) = metrics.as_ref().and_then(|it| it.value("etcd_server_quota_backend_bytes"))
    {
        #[expect(clippy::cast_possible_truncation, reason = "a size in bytes")]
        member.settings.insert("quota-backend-bytes".to_owned(), quota as i64);
    }
    let shown = match member.name.as_str() {
        "" => member.url.clone(),
        name => name.to_owned(),
    };
    let chain = if chain.is_empty() { &probe.chain } else { &chain };
    facts.certificates.extend(first_end(format!("{shown}'s client port"), chain));
    // Those of the other files that the member reads: its authorities, and its port for peers.
    let files = metrics.iter().flat_map(|it| it.labelled("rusd_certificate_expiry_seconds"));
    for (what, left) in files.filter(|(what, _)| *what != "server") {
        #[expect(clippy::cast_possible_truncation, reason = "a time in seconds")]
        let ends = facts.now.saturating_add(left as i64);
        facts.certificates.push(Expiring { what: format!("{shown}'s {what} file"), ends });
    }
    member.metrics = metrics;
}

/// The settings by a command line. None if it is not known, or if a file has some of them.
fn settings_of(command_line: &[String]) -> BTreeMap<String, i64> {
    let is_of_file = |word: &String| word.trim_start_matches('-').starts_with("config-file");
    if command_line.is_empty() || command_line.iter().any(is_of_file) {
        return BTreeMap::new();
    }
    let mut settings: BTreeMap<String, i64> =
        SETTINGS.iter().map(|(name, default)| ((*name).to_owned(), *default)).collect();
    for (at, word) in command_line.iter().enumerate() {
        let name = word.trim_start_matches('-');
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, command_line.get(at + 1).map(String::as_str)),
        };
        if let (true, Some(Ok(value))) =
            (word.starts_with('-') && settings.contains_key(name), value.map(str::parse))
        {
            settings.insert(name.to_owned(), value);
        }
    }
    settings
}

fn first_end(what: String, chain: &[CertificateDer<'static>]) -> Option<Expiring> {
    let ends = chain.iter().filter_map(|one| Some(cert::describe(one, 0)?.ends)).min()?;
    Some(Expiring { what, ends })
}

/// The alarms that members name in their status: `memberID:7 alarm:NOSPACE`.
fn alarms_of_statuses(cluster: &Cluster) -> Vec<(u64, AlarmType)> {
    let statuses = cluster.members.iter().filter_map(|member| member.status.as_ref());
    let mut alarms: Vec<(u64, AlarmType)> =
        statuses.flat_map(|status| &status.errors).filter_map(|text| alarm_of(text)).collect();
    alarms.sort_by_key(|(id, kind)| (*id, *kind as i32));
    alarms.dedup();
    alarms
}

fn alarm_of(text: &str) -> Option<(u64, AlarmType)> {
    let (id, kind) = text.strip_prefix("memberID:")?.split_once(" alarm:")?;
    Some((id.parse().ok()?, AlarmType::from_str_name(kind)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_a_command_line() {
        let words =
            ["etcd", "--election-timeout", "5000", "-heartbeat-interval=500", "--name", "7"];
        let words = words.map(str::to_owned);
        let settings = settings_of(&words);
        assert_eq!(settings.get("election-timeout"), Some(&5000));
        assert_eq!(settings.get("heartbeat-interval"), Some(&500));
        assert_eq!(settings.get("max-txn-ops"), Some(&128), "a default");
        assert_eq!(settings.len(), SETTINGS.len());
        let of_file = ["etcd", "--config-file=/etc/etcd.yaml"].map(str::to_owned);
        assert!(settings_of(&of_file).is_empty() && settings_of(&[]).is_empty());
    }

    #[test]
    fn a_list_that_no_cluster_has_is_not_asked() {
        let of = |count: usize| {
            let members = (0..count).map(|_| pb::Member {
                client_ur_ls: vec!["http://a:1".to_owned()],
                peer_ur_ls: vec!["http://a:2".to_owned()],
                ..pb::Member::default()
            });
            believed(MemberListResponse { members: members.collect(), ..Default::default() })
        };
        assert_eq!(of(9).unwrap().members.len(), 9);
        assert!(of(DOCTOR_PLACES_MAX / 3 + 1).unwrap_err().contains("members and URLs"));
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_the_url_that_it_is_short_for() {
        assert!(is_short_for("127.0.0.1:2379", "https://127.0.0.1:2379/"));
        for (endpoint, url) in [
            ("127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://127.0.0.1:2379", "https://127.0.0.1:2379"),
            ("127.0.0.1:2379", "https://127.0.0.1:23790"),
        ] {
            assert!(!is_short_for(endpoint, url), "{endpoint} {url}");
        }
    }

    #[test]
    fn alarms_stand_in_the_errors_of_a_status() {
        assert_eq!(alarm_of("memberID:7 alarm:NOSPACE"), Some((7, AlarmType::Nospace)));
        assert_eq!(alarm_of("etcdserver: no leader"), None);
    }
}
