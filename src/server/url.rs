//! The URLs that etcd takes: http, https, unix and unixs, with host and port or a path.

use std::fmt;
use std::net::IpAddr;

use crate::types;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

/// A listen or advertise URL, kept in the words it was given in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Url {
    text: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// A list as flags give it, separated by commas; sorted here, without duplicates.
    pub(super) fn parse_list(list: &str) -> Result<Vec<Self>, String> {
        let mut urls =
            list.split(',').map(|url| Self::parse(url.trim())).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(format!("parse {text:?}: net/url: invalid control character in URL"));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("URL scheme must be http, https, unix, or unixs: {text}"));
        };
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if scheme.is_empty() {
            return Err(format!("parse {text:?}: missing protocol scheme"));
        }
        if !scheme.as_bytes()[0].is_ascii_alphabetic() || !scheme.bytes().all(valid) {
            return Err(format!("parse {text:?}: first path segment in URL cannot contain colon"));
        }
        let scheme = scheme.to_ascii_lowercase();
        if let Some(rest) = rest.strip_prefix("//") {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            types::parse_authority(host).map_err(|why| format!("parse {text:?}: {why}"))?;
        }
        let url = Self { text: types::normalized_url(&format!("{scheme}:{rest}")) };
        match scheme.as_str() {
            "unix" | "unixs" => Ok(url),
            "http" | "https" => {
                if split_host_port(url.authority()).is_none() {
                    return Err(format!(
                        "URL address does not have the form \"host:port\": {text}"
                    ));
                }
                if !url.path().is_empty() {
                    return Err(format!("URL must not contain a path: {text}"));
                }
                Ok(url)
            }
            _ => Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        }
    }

    pub(super) fn scheme(&self) -> Scheme {
        match self.text.split(':').next() {
            Some("https") => Scheme::Https,
            Some("unix") => Scheme::Unix,
            Some("unixs") => Scheme::Unixs,
            _ => Scheme::Http,
        }
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.scheme(), Scheme::Unix | Scheme::Unixs)
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.scheme(), Scheme::Https | Scheme::Unixs)
    }

    /// What stands between `//` and the path, without a user.
    fn authority(&self) -> &str {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = &rest[..end];
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }

    fn path(&self) -> &str {
        let rest = match self.text.split_once("://") {
            Some((_, rest)) => rest.find(['/', '?', '#']).map_or("", |at| &rest[at..]),
            None => self.text.split_once(':').map_or("", |(_, path)| path),
        };
        rest.split(['?', '#']).next().unwrap_or("")
    }

    /// Host and port; brackets of an IPv6 address are taken off.
    pub(super) fn host_port(&self) -> (&str, &str) {
        split_host_port(self.authority()).unwrap_or((self.authority(), ""))
    }

    /// What a listener binds: URLs with the same text share a port.
    pub(super) fn place(&self) -> String {
        self.socket_path()
    }

    /// Where a unix socket lies.
    pub(super) fn socket_path(&self) -> String {
        format!("{}{}", self.authority(), self.path())
    }

    /// The same scheme at another host and port.
    pub(super) fn with_host(&self, host: &str, port: &str) -> Self {
        let scheme = self.text.split(':').next().unwrap_or("http");
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self { text: format!("{scheme}://{host}:{port}") }
    }
}

fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return Some((host, port.strip_prefix(':')?));
    }
    let (host, port) = authority.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

/// Refuses listen URLs whose host is neither an address nor `localhost`: a name could mean several.
pub(super) fn check_bind(urls: &[Url]) -> Result<(), String> {
    for url in urls.iter().filter(|url| !url.is_unix()) {
        let (host, _) = url.host_port();
        if host != "localhost"
            && host.split('%').next().is_none_or(|ip| ip.parse::<IpAddr>().is_err())
        {
            return Err(format!("expected IP in URL for binding ({url})"));
        }
    }
    Ok(())
}

/// Refuses advertised URLs without a host.
pub(super) fn check_host(urls: &[Url]) -> Result<(), String> {
    match urls.iter().find(|url| !url.is_unix() && url.host_port().0.is_empty()) {
        Some(url) => Err(format!("unexpected empty host ({url})")),
        None => Ok(()),
    }
}

/// A list as etcd prints it.
pub(super) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_sockets() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(url("http://127.0.0.1:2379").host_port(), ("127.0.0.1", "2379"));
        assert_eq!(url("http://[::1]:2379").host_port(), ("::1", "2379"));
        assert_eq!(url("unix:///tmp/a.sock").socket_path(), "/tmp/a.sock");
        assert_eq!(url("unix:/tmp/a.sock").socket_path(), "/tmp/a.sock");
        assert_eq!(url("unix://localhost:1234").socket_path(), "localhost:1234");
        assert!(url("https://a:1").is_tls() && url("unixs:/a").is_tls());
        assert_eq!(url("http://0.0.0.0:1").with_host("::2", "1").to_string(), "http://[::2]:1");
    }

    #[test]
    fn refusals_have_etcds_texts() {
        let refused = |text: &str| Url::parse(text).unwrap_err();
        assert_eq!(
            refused("http://a"),
            "URL address does not have the form \"host:port\": http://a"
        );
        assert_eq!(refused("http://a:1/"), "URL must not contain a path: http://a:1/");
        assert_eq!(
            refused("ftp://a:1"),
            "URL scheme must be http, https, unix, or unixs: ftp://a:1"
        );
        assert_eq!(
            refused("http://::1:2379"),
            "URL address does not have the form \"host:port\": http://::1:2379"
        );
        assert_eq!(
            check_bind(&Url::parse_list("http://example.com:2379").unwrap()),
            Err("expected IP in URL for binding (http://example.com:2379)".into())
        );
        assert_eq!(
            check_bind(&Url::parse_list("http://localhost:1,http://[::]:2").unwrap()),
            Ok(())
        );
        assert!(check_host(&Url::parse_list("http://:2379").unwrap()).is_err());
    }

    #[test]
    fn lists_are_sorted_without_doubles() {
        let urls = Url::parse_list("http://b:1, http://a:1,http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:1,http://b:1");
    }
}
