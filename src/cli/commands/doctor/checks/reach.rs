//! Members that do not answer, and why.

use super::super::facts::{Facts, Member, Unreached, Why};
use super::super::finding::{Finding, Section, Severity};
use crate::cli::shell::quoted;

pub(super) fn list(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let Some(why) = &cluster.list_error else { return Vec::new() };
    if cluster.reached().next().is_none() {
        // That no endpoint answers is said of each.
        return Vec::new();
    }
    let cause =
        format!("the list of members cannot be read ({why}); only the endpoints are checked");
    let (section, command) = match cluster.members.iter().any(needs_login) {
        true => (Section::LoginNeeded, facts.command("doctor --user root")),
        false => (Section::RequestTimedOut, facts.command("member list")),
    };
    vec![Finding::new(Severity::Warning, "cluster", cause, command, section)]
}

fn needs_login(member: &Member) -> bool {
    member.unreached.as_ref().is_some_and(|unreached| unreached.why == Why::Login)
}

pub(super) fn members(facts: &Facts) -> Vec<Finding> {
    let members = facts.cluster.iter().flat_map(|cluster| &cluster.members);
    let missing = members.filter(|member| !member.is_reached());
    let missing = missing.filter_map(|member| Some((member, member.unreached.as_ref()?)));
    let urls = urls(facts);
    let finding = |(member, why): (&Member, &Unreached)| match &urls {
        Some(urls) if leads_nowhere(member, why.why) => not_listed(facts, member, why, urls),
        _ => finding(facts, member, why),
    };
    missing.map(finding).collect()
}

/// The client URLs of all members; None if these are not known, as of a member that never started.
fn urls(facts: &Facts) -> Option<String> {
    let cluster = facts.cluster.as_ref().filter(|cluster| cluster.list_error.is_none())?;
    let listed = cluster.members.iter().filter(|member| member.is_listed);
    let urls: Vec<&[String]> = listed.map(|member| member.client_urls.as_slice()).collect();
    let are_known = !urls.is_empty() && urls.iter().all(|urls| !urls.is_empty());
    are_known.then(|| urls.concat().join(","))
}

/// Whether an endpoint is no member's, and nothing of a member is behind it either.
fn leads_nowhere(member: &Member, why: Why) -> bool {
    let is_nobody =
        matches!(why, Why::Refused | Why::UnknownHost | Why::TimedOut | Why::Silent | Why::Other);
    member.id == 0 && !member.is_listed && is_nobody
}

/// An endpoint that does not answer and that no member has: most likely a mistyped one.
fn not_listed(facts: &Facts, member: &Member, unreached: &Unreached, urls: &str) -> Finding {
    let (what, _, section) = advice(facts, &member.url, unreached);
    let cause = format!("{what}; no member has this URL");
    let command = format!("leave it out, or correct it: the members are at {urls}");
    Finding::new(Severity::Warning, member.shown(), cause, command, section)
}

fn finding(facts: &Facts, member: &Member, unreached: &Unreached) -> Finding {
    let (what, command, section) = advice(facts, &member.url, unreached);
    let cause = match member.id {
        // The subject has the URL.
        0 => what,
        _ => format!("no answer at {}: {what}", member.url),
    };
    Finding::new(Severity::Error, member.shown(), cause, command, section)
}

/// What is wrong, what to do, and where to read on.
type Advice = (String, String, Section);

fn advice(facts: &Facts, url: &str, unreached: &Unreached) -> Advice {
    if let (Why::UnknownHost, Some((what, command))) = (unreached.why, malformed(url)) {
        return (what, command, Section::UnknownHost);
    }
    match unreached.why {
        Why::Refused
        | Why::UnknownHost
        | Why::TimedOut
        | Why::Silent
        | Why::Login
        | Why::Stray
        | Why::Other => of_network(facts, url, unreached),
        _ => of_tls(facts, url, unreached),
    }
}

/// What is wrong with a URL that leads nowhere on any machine, and how it is written.
fn malformed(url: &str) -> Option<(String, String)> {
    let written = |as_is: &str| format!("write it as {}", quoted(as_is));
    match url.split_once("://") {
        // A path has no port.
        Some(("unix" | "unixs", _)) => None,
        Some((scheme, host)) if !["http", "https"].contains(&scheme) => {
            let what = format!("nothing is known of the scheme {scheme}");
            Some((what, written(&format!("http://{host}")) + ", or with https"))
        }
        _ => {
            let url = url.trim_end_matches('/');
            let host = host_of(url);
            let behind_address = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
            match behind_address.rsplit_once(':') {
                None => Some(("it has no port".to_owned(), written(&format!("{url}:2379")))),
                Some((_, port)) if port.parse::<u16>().is_err() => {
                    let name = url.strip_suffix(port).unwrap_or(url);
                    let what = format!("its port, {port}, is no number up to 65535");
                    Some((what, written(&format!("{name}2379"))))
                }
                Some(_) => None,
            }
        }
    }
}

fn of_network(facts: &Facts, url: &str, Unreached { why, text }: &Unreached) -> Advice {
    let (what, command, section) = match why {
        Why::Refused => (
            "nothing listens there".to_owned(),
            "start the member, or see why it ended: journalctl -u rusd".to_owned(),
            Section::ConnectionRefused,
        ),
        Why::UnknownHost => (
            format!("the name is not known ({text})"),
            format!("getent hosts {}", quoted(name_of(host_of(url)))),
            Section::UnknownHost,
        ),
        Why::TimedOut => (
            "no connection within a second".to_owned(),
            "see whether its machine runs and has this address; look for a firewall between"
                .to_owned(),
            Section::MemberUnreachable,
        ),
        Why::Silent => (
            "it takes connections, and nothing came within a second".to_owned(),
            "see what it waits for: journalctl -u rusd. A member that was started answers only once \
             there is a quorum; if its log names nothing that is missing, it hangs"
                .to_owned(),
            Section::MemberUnreachable,
        ),
        Why::Login => (
            format!("it wants a login ({text})"),
            facts.command("doctor --user root"),
            Section::LoginNeeded,
        ),
        Why::Stray => (
            text.clone(),
            "start it with an --advertise-client-urls that leads to it alone".to_owned(),
            Section::MemberUnreachable,
        ),
        _ => {
            let command = format!(
                "see that it is a client URL, and not that of peers: rusd endpoint health \
                 --endpoints {}",
                quoted(url)
            );
            let what = text.strip_prefix(url).and_then(|text| text.strip_prefix(": "));
            (what.unwrap_or(text).to_owned(), command, Section::MemberUnreachable)
        }
    };
    (what, command, section)
}

fn of_tls(facts: &Facts, url: &str, Unreached { why, text }: &Unreached) -> Advice {
    let host = quoted(host_of(url));
    let check = facts.command(&format!("cert check {host}"));
    let (what, command, section) = match why {
        Why::PlainServer => (
            "the server speaks plain text, and was asked with TLS",
            format!("rusd doctor --endpoints http://{host}"),
            Section::PlainText,
        ),
        Why::TlsServer => (
            "the server wants TLS, and was asked in plain text",
            format!("rusd doctor --endpoints https://{host} --cacert ca.crt"),
            Section::PlainText,
        ),
        Why::UnknownAuthority => {
            ("its certificate is signed by an unknown authority", check, Section::UnknownAuthority)
        }
        Why::Expired => {
            ("its certificate has expired, or is not valid yet", check, Section::CertificateExpires)
        }
        Why::WrongName => ("its certificate is for another name", check, Section::UnknownAuthority),
        Why::CertificateRequired => {
            let what = "it does not accept this client's certificate, or wants one";
            (what, check, Section::CertificateRequired)
        }
        _ => {
            let what = format!("the TLS handshake fails: {text}");
            return (what, check, Section::MemberUnreachable);
        }
    };
    (what.to_owned(), command, section)
}

/// The name without the port.
fn name_of(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Host and port of a URL.
fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host)
}
