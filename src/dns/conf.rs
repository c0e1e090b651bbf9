//! `resolv.conf`: name servers, timeout, attempts and search suffixes. And `hosts`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::limits;

const PORT: u16 = 53;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conf {
    pub servers: Vec<SocketAddr>,
    /// Suffixes that are tried for names without a final dot.
    search: Vec<String>,
    /// A name with at least so many dots is asked for without a suffix first.
    ndots: usize,
    pub timeout: Duration,
    pub attempts: usize,
}

/// The names that a `hosts` file gives an address.
pub(super) fn names_in(hosts: &str, address: IpAddr) -> Vec<String> {
    let mut names = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let first = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if first.is_some_and(|first| first.to_canonical() == address) {
            names.extend(words.map(str::to_owned));
        }
    }
    names
}

impl Conf {
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: limits::DNS_TIMEOUT,
            attempts: limits::DNS_ATTEMPTS,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // An address may have a port.
                    let server = words.next().and_then(|word| {
                        let alone = word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
                        alone.ok().or_else(|| word.parse().ok())
                    });
                    conf.servers.extend(server);
                }
                Some("search" | "domain") => {
                    conf.search = words.map(|word| word.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf.servers.truncate(limits::DNS_SERVERS_MAX);
        conf.search.truncate(limits::DNS_SEARCH_MAX);
        if conf.servers.is_empty() {
            conf.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let Some((name, Ok(value))) =
            word.split_once(':').map(|(name, value)| (name, value.parse::<u32>()))
        else {
            return;
        };
        match name {
            "ndots" => self.ndots = usize::try_from(value).unwrap_or(self.ndots).min(15),
            "timeout" => {
                let timeout = Duration::from_secs(u64::from(value.max(1)));
                self.timeout = timeout.min(limits::DNS_TIMEOUT_MAX);
            }
            "attempts" => {
                let attempts = usize::try_from(value.max(1)).unwrap_or(1);
                self.attempts = attempts.min(limits::DNS_ATTEMPTS_MAX);
            }
            _ => {}
        }
    }

    /// The complete names to ask for, in order.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|suffix| format!("{name}.{suffix}.")).collect();
        let is_complete = name.matches('.').count() >= self.ndots;
        names.insert(if is_complete { 0 } else { names.len() }, format!("{name}."));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_suffixes_and_options_are_read() {
        let conf = Conf::parse(
            "# made by hand\nnameserver 10.0.0.1 ; one\nnameserver ::1\nnameserver nonsense\n\
             nameserver 127.0.0.1:5353\nsearch a.test b.test.\noptions ndots:3 timeout:1 attempts:99\n",
        );
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "127.0.0.1:5353"]);
        assert_eq!((conf.timeout, conf.attempts), (Duration::from_secs(1), 5));
        assert_eq!(conf.names("x.y"), ["x.y.a.test.", "x.y.b.test.", "x.y."]);
        assert_eq!(
            conf.names("_s._tcp.x.y"),
            ["_s._tcp.x.y.", "_s._tcp.x.y.a.test.", "_s._tcp.x.y.b.test."]
        );
        assert_eq!(conf.names("x.y."), ["x.y."]);
        assert_eq!(Conf::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }
}
