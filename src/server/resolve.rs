//! Whether two lists of URLs mean the same places, when one has names and the other addresses.

use std::net::SocketAddr;
use std::time::Duration;

use super::url::Url;
use crate::clock;
use crate::go;
use crate::limits;

/// Pause between two attempts: containers often start a little before their names are known.
const RETRY: Duration = Duration::from_secs(1);

/// The first address behind a URL.
pub(super) async fn address(url: &Url) -> Result<SocketAddr, String> {
    let (host, port) = url.host_port();
    let host = host.trim_end_matches('.');
    let port = port.parse().map_err(|_| format!("address {port}: invalid port"))?;
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> =
        found.map_err(|error| format!("lookup {host}: {error}"))?.collect();
    // If there are both kinds, Go takes IPv4.
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().ok_or_else(|| format!("lookup {host}: no such host"))
}

/// The URL with its host as an address; `localhost` and paths of unix sockets stay as they are.
/// Tries again for `limits::RESOLVE_TIMEOUT`.
async fn resolved(url: &Url) -> Result<Url, String> {
    let (host, port) = url.host_port();
    if url.is_unix() || host == "localhost" {
        return Ok(url.clone());
    }
    let until = clock::instant() + limits::RESOLVE_TIMEOUT;
    loop {
        match address(url).await {
            Ok(address) => return Ok(url.with_host(&address.ip().to_string(), port)),
            Err(error) if clock::instant() >= until => {
                let url = go::quote(url.to_string());
                return Err(format!("failed to resolve {url} ({error})"));
            }
            Err(error) => {
                tracing::warn!(%url, host, "retry-interval" = go::duration(RETRY), error, "failed to resolve URL Host");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Compares two lists as sets, first as they stand, then with their hosts resolved. The error says
/// how they differ.
pub(super) async fn equal(mine: &[Url], others: &[Url]) -> Result<(), String> {
    let quoted = |urls: &[Url]| {
        let quoted: Vec<String> = urls.iter().map(|url| go::quote(url.to_string())).collect();
        format!("[{}]", quoted.join(" "))
    };
    if mine.len() != others.len() {
        return Err(format!("len({}) != len({})", quoted(mine), quoted(others)));
    }
    let sorted = |urls: &[Url]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    if sorted(mine) == sorted(others) {
        return Ok(());
    }
    let resolve = async |urls: &[Url]| -> Result<Vec<Url>, String> {
        let found = futures_util::future::try_join_all(urls.iter().map(resolved)).await?;
        Ok(sorted(&found))
    };
    let (mine, others) = (resolve(mine).await?, resolve(others).await?);
    match mine.iter().zip(&others).find(|(mine, other)| mine != other) {
        None => Ok(()),
        Some((mine, other)) => {
            let (mine, other) = (go::quote(mine.to_string()), go::quote(other.to_string()));
            Err(format!("resolved urls: {mine} != {other}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(list: &str) -> Vec<Url> {
        Url::parse_list(list).unwrap()
    }

    #[tokio::test]
    async fn names_and_addresses_of_one_place_are_equal() {
        let same = async |mine: &str, others: &str| equal(&urls(mine), &urls(others)).await;
        assert_eq!(same("http://a:1,http://b:2", "http://b:2,http://a:1").await, Ok(()));
        assert_eq!(same("http://127.0.0.1:1", "http://127.0.0.1.:1").await, Ok(()));
        assert_eq!(
            same("http://127.0.0.1:1", "http://127.0.0.1:2").await.unwrap_err(),
            "resolved urls: \"http://127.0.0.1:1\" != \"http://127.0.0.1:2\""
        );
        assert_eq!(
            same("http://a:1", "http://a:1,http://b:1").await.unwrap_err(),
            "len([\"http://a:1\"]) != len([\"http://a:1\" \"http://b:1\"])"
        );
    }
}
