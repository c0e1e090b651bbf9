//! Addresses that follow from each other, under the name rusd: a member of a cluster needs `--name`
//! and `--initial-cluster`, and one alone needs no flag.
//!
//! | not given | follows from |
//! |---|---|
//! | `--initial-advertise-peer-urls` | this member's URLs in `--initial-cluster`, unless it listens on another member's; else the peer URLs that it listens on |
//! | `--listen-peer-urls` | the advertised peer URLs; where the host is a name, all addresses at that port |
//! | `--advertise-client-urls` | the client URLs that it listens on; else the host of the advertised peer URLs, at port 2379 if the peer port is 2380, else at the port below the peer port; https if the member has a certificate for clients |
//! | `--listen-client-urls` | the advertised client URLs, as for peers |
//! | `--initial-cluster` | this member alone, at its advertised peer URLs |
//!
//! What is given, by a flag, a variable or the configuration file, always counts. With discovery
//! nothing follows: it names the members itself. etcd has fixed defaults instead, which fit one
//! member on its own machine alone.

use std::net::{IpAddr, UdpSocket};

use super::flags::{self, Given};
use super::url::Url;
use super::values::Values;

const CLUSTER: &str = "initial-cluster";
const ADVERTISE_PEER: &str = "initial-advertise-peer-urls";
const LISTEN_PEER: &str = "listen-peer-urls";
const ADVERTISE_CLIENT: &str = "advertise-client-urls";
const LISTEN_CLIENT: &str = "listen-client-urls";

/// Sets what follows and was not given; the flags and their values.
pub(super) fn follow(given: &mut Given) -> Vec<(&'static str, String)> {
    if given.given().any(|(flag, _)| flag.name.starts_with("discovery-")) {
        return Vec::new();
    }
    let mut follows = Vec::new();
    let mut set = |given: &mut Given, name: &'static str, urls: &[Url]| {
        let text = urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",");
        set(given, &mut follows, name, text);
    };
    let (advertised, listened) = (urls_of(given, ADVERTISE_PEER), urls_of(given, LISTEN_PEER));
    let peers = match advertised.is_empty() {
        false => advertised,
        true if is_anothers(given, &listened) => Vec::new(),
        true => own(given),
    };
    let peers = if !peers.is_empty() { peers } else { reachable(&listened, None) };
    set(given, ADVERTISE_PEER, &peers);
    set(given, LISTEN_PEER, &bindable(&peers));

    let listened = urls_of(given, LISTEN_CLIENT);
    let clients = if listened.is_empty() {
        clients_of(given, &peers)
    } else {
        reachable(&listened, peers.first().map(|url| url.host_port().0))
    };
    set(given, ADVERTISE_CLIENT, &clients);
    let clients = urls_of(given, ADVERTISE_CLIENT);
    set(given, LISTEN_CLIENT, &bindable(&clients));
    if !given.is_set(CLUSTER) && !peers.is_empty() {
        let name = given.text("name");
        let list: Vec<String> = peers.iter().map(|url| format!("{name}={url}")).collect();
        let list = list.join(",");
        self::set(given, &mut follows, CLUSTER, list);
    }
    follows
}

/// The client URLs to listen on among flags that follow, if others than this machine reach them
/// without TLS: nobody asked for that.
pub(super) fn exposed(follows: &[(&'static str, String)]) -> Vec<String> {
    let texts = follows.iter().filter(|(name, _)| *name == LISTEN_CLIENT);
    let urls = texts.flat_map(|(_, text)| text.split(','));
    let is_exposed = |url: &Url| {
        let (host, _) = url.host_port();
        let is_own = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
        !url.is_unix() && !url.is_tls() && !is_own
    };
    let urls = urls.filter_map(|text| Url::parse(text).ok()).filter(is_exposed);
    urls.map(|url| url.to_string()).collect()
}

/// Sets a flag that was not given, if there is something to set it to.
fn set(
    given: &mut Given,
    follows: &mut Vec<(&'static str, String)>,
    name: &'static str,
    text: String,
) {
    if text.is_empty() || given.is_set(name) {
        return;
    }
    // A value that the flag does not take stays unset: the default is then refused with a reason.
    if let Some(flag) = flags::find(name)
        && given.set(flag, &text).is_ok()
    {
        follows.push((name, text));
    }
}

/// The URLs that were given; none if the flag was not.
fn urls_of(given: &Given, name: &str) -> Vec<Url> {
    if given.is_set(name) { Values(given).urls(name) } else { Vec::new() }
}

/// The URLs that `--initial-cluster` has for this member.
fn own(given: &Given) -> Vec<Url> {
    listed(given, |name| name == given.text("name"))
}

/// The URLs that `--initial-cluster` has for members of such names.
fn listed(given: &Given, is_wanted: impl Fn(&str) -> bool) -> Vec<Url> {
    if !given.is_set(CLUSTER) {
        return Vec::new();
    }
    let entries = given.text(CLUSTER).split(',').filter_map(|entry| entry.trim().split_once('='));
    let wanted = entries.filter(|(name, _)| is_wanted(name.trim()));
    wanted.filter_map(|(_, url)| Url::parse(url.trim()).ok()).collect()
}

/// Whether this member listens where another one of the list is: a command line that was copied
/// from that one's, or to it, with one of its flags forgotten. Advertised as the list has it, this
/// member would take the other one's place.
fn is_anothers(given: &Given, listened: &[Url]) -> bool {
    let own = own(given);
    let others = listed(given, |name| name != given.text("name"));
    listened.iter().any(|url| others.contains(url) && !own.contains(url))
}

/// Where to listen for what is advertised: a name may stand for several addresses, and none of them
/// need be this machine's, so all addresses are listened on.
fn bindable(urls: &[Url]) -> Vec<Url> {
    let mut bindable: Vec<Url> = Vec::new();
    for url in urls {
        let (host, port) = url.host_port();
        let is_name = super::url::check_bind(std::slice::from_ref(url)).is_err();
        let url =
            if is_name && !host.is_empty() { url.with_host("0.0.0.0", port) } else { url.clone() };
        if !bindable.contains(&url) {
            bindable.push(url);
        }
    }
    bindable
}

/// What others may be told of where this member listens: instead of all addresses, `host`, or the
/// address that this machine would use to reach others.
fn reachable(urls: &[Url], host: Option<&str>) -> Vec<Url> {
    let is_any = |host: &str| matches!(host, "0.0.0.0" | "::" | "");
    let reachable = urls.iter().map(|url| {
        let (listened, port) = url.host_port();
        if url.is_unix() || !is_any(listened) {
            return url.clone();
        }
        let host = host.filter(|host| !is_any(host)).map(str::to_owned).or_else(default_host);
        url.with_host(host.as_deref().unwrap_or("localhost"), port)
    });
    reachable.collect()
}

/// The address that this machine would use to reach others. Connecting a UDP socket sends nothing.
pub(super) fn default_host() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then(|| ip.to_string())
}

/// The client URLs beside these peer URLs.
fn clients_of(given: &Given, peers: &[Url]) -> Vec<Url> {
    let is_secured = !given.text("cert-file").is_empty() || Values(given).bool("auto-tls");
    let scheme = if is_secured { "https" } else { "http" };
    let mut clients: Vec<Url> = Vec::new();
    for peer in peers.iter().filter(|url| !url.is_unix()) {
        let (host, port) = peer.host_port();
        let port = match port.parse::<u16>() {
            Ok(2380) => 2379,
            Ok(port @ 2..) => port - 1,
            _ => continue,
        };
        let place = peer.with_host(host, &port.to_string()).to_string();
        let url =
            place.split_once("://").map(|(_, rest)| Url::parse(&format!("{scheme}://{rest}")));
        clients.extend(url.and_then(Result::ok).filter(|url| !clients.contains(url)));
    }
    clients
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer URLs advertised and listened on, the client URLs advertised and listened on, and
    /// the first cluster.
    fn followed(line: &str) -> [String; 5] {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut given = flags::parse(&words).unwrap();
        follow(&mut given);
        [ADVERTISE_PEER, LISTEN_PEER, ADVERTISE_CLIENT, LISTEN_CLIENT, CLUSTER]
            .map(|name| given.text(name).to_owned())
    }

    #[test]
    fn a_member_needs_its_name_and_the_list() {
        let list = "m1=http://127.0.0.1:12380,m2=http://127.0.0.1:22380";
        assert_eq!(
            followed(&format!("--name m2 --initial-cluster {list}")),
            [
                "http://127.0.0.1:22380",
                "http://127.0.0.1:22380",
                "http://127.0.0.1:22379",
                "http://127.0.0.1:22379",
                list
            ]
        );
        let list = "a=https://a.example:2380,b=https://b.example:2380";
        assert_eq!(
            followed(&format!("--name a --cert-file x --key-file y --initial-cluster {list}")),
            [
                "https://a.example:2380",
                "https://0.0.0.0:2380",
                "https://a.example:2379",
                "https://0.0.0.0:2379",
                list
            ]
        );
    }

    #[test]
    fn one_alone_keeps_etcds_defaults() {
        let [peer, client] = ["http://localhost:2380", "http://localhost:2379"];
        assert_eq!(followed(""), [peer, peer, client, client, "default=http://localhost:2380"]);
        let words = ["--name".to_owned(), "m1".to_owned()];
        assert_eq!(follow(&mut flags::parse(&words).unwrap()), []);
    }

    #[test]
    fn what_is_given_counts() {
        let list = "m1=http://127.0.0.1:12380";
        assert_eq!(
            followed(&format!(
                "--name m1 --initial-cluster {list} --listen-peer-urls http://0.0.0.0:1 \
                 --listen-client-urls http://0.0.0.0:2"
            )),
            [
                "http://127.0.0.1:12380",
                "http://0.0.0.0:1",
                "http://127.0.0.1:2",
                "http://0.0.0.0:2",
                list
            ]
        );
        assert_eq!(
            followed("--listen-client-urls http://127.0.0.1:7")[2..4],
            ["http://127.0.0.1:7", "http://127.0.0.1:7"]
        );
        assert_eq!(
            followed("--name m1 --listen-peer-urls http://127.0.0.1:5"),
            [
                "http://127.0.0.1:5",
                "http://127.0.0.1:5",
                "http://127.0.0.1:4",
                "http://127.0.0.1:4",
                "m1=http://127.0.0.1:5"
            ]
        );
    }

    /// The start then ends with etcd's words, since the list names another URL for this member.
    #[test]
    fn who_listens_where_another_member_does_is_not_advertised_as_the_list_has_it() {
        let list = "m1=http://127.0.0.1:1,m2=http://127.0.0.1:2,m2=http://127.0.0.2:2";
        for (name, listened, advertised) in [
            ("m1", "http://127.0.0.1:2", "http://127.0.0.1:2"),
            ("m1", "http://127.0.0.1:1", "http://127.0.0.1:1"),
            ("m1", "http://0.0.0.0:2", "http://127.0.0.1:1"),
            ("m2", "http://127.0.0.1:2", "http://127.0.0.1:2,http://127.0.0.2:2"),
        ] {
            let line =
                format!("--name {name} --initial-cluster {list} --listen-peer-urls {listened}");
            assert_eq!(followed(&line)[0], advertised, "{line}");
        }
    }

    #[test]
    fn a_client_port_that_nobody_asked_for_is_told() {
        for (line, is_told) in [
            ("--name a --initial-cluster a=http://a.example:2380", true),
            ("--listen-peer-urls http://0.0.0.0:2380", true),
            ("--name a --initial-cluster a=http://192.0.2.1:2380", true),
            ("--name a --initial-cluster a=http://127.0.0.9:2380", false),
            ("--name a --initial-cluster a=http://[::1]:2380", false),
            ("--name a --cert-file x --initial-cluster a=https://a.example:2380", false),
            ("--listen-peer-urls http://0.0.0.0:2380 --listen-client-urls http://0.0.0.0:1", false),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let follows = follow(&mut flags::parse(&words).unwrap());
            assert_eq!(!exposed(&follows).is_empty(), is_told, "{line}: {follows:?}");
        }
    }

    #[test]
    fn nothing_follows_from_discovery_or_from_nonsense() {
        for line in [
            "--discovery-srv example.com --listen-client-urls http://127.0.0.1:7",
            "--name m3 --initial-cluster m1=http://127.0.0.1:12380",
            "--initial-cluster nonsense",
            "--name m1 --initial-cluster m1=ftp://x",
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(follow(&mut flags::parse(&words).unwrap()), [], "{line}");
        }
    }
}
