//! What flags say of TLS: a port's acceptor, and how peers are dialled.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Uri;

use super::go;
use super::url::Url;
use crate::raft::peer::{Dial, Dialing, Link, TcpDial};
use crate::tls::{self, Acceptor, ClientFiles, Connector, ServerFiles};

/// The TLS of both kinds of port, and of this member towards its peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub client: ServerFiles,
    pub peer: ServerFiles,
    pub dial: ClientFiles,
    /// Take peers whose certificates are not for the addresses that they come from.
    pub skip_peer_names: bool,
}

impl Settings {
    /// Checks what can be told without opening a file.
    pub(super) fn check(
        &self,
        clients: &[Url],
        peers: &[Url],
        metrics: &[Url],
    ) -> Result<(), String> {
        let versions = &self.client.versions;
        versions.check().map_err(|error| error.to_string())?;
        if versions.min == "TLS1.3" && !versions.suites.is_empty() {
            return Err("cipher suites cannot be configured when only TLS1.3 is enabled".into());
        }
        if let Some(url) = clients.iter().find(|url| url.is_tls() && self.client.is_empty()) {
            return Err(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with \
                 HTTPS scheme"
            ));
        }
        if metrics.iter().any(|url| url.is_tls() && self.client.is_empty()) {
            return Err(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics \
                        secure url"
                    .into(),
            );
        }
        if let Some(url) = peers.iter().find(|url| url.is_tls() && self.peer.is_empty()) {
            let (host, port) = url.host_port();
            return Err(format!(
                "cannot listen on TLS for {host}:{port}: KeyFile and CertFile are not presented"
            ));
        }
        let ServerFiles { allowed_names, allowed_hosts, .. } = &self.peer;
        if !allowed_names.is_empty() && !allowed_hosts.is_empty() {
            let (names, hosts) = (quoted(allowed_names), quoted(allowed_hosts));
            return Err(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={names}, \
                 hostnames={hosts})"
            ));
        }
        Ok(())
    }
}

/// A list as Go's `%q` writes it.
fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|word| go::quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// An acceptor for the ports of a kind, if one of them needs it.
pub(super) fn acceptor(urls: &[Url], files: &ServerFiles) -> Result<Option<Arc<Acceptor>>, String> {
    if !urls.iter().any(Url::is_tls) {
        if !files.is_empty() && !urls.is_empty() {
            tracing::warn!(
                "scheme is http or unix while key and cert files are present; ignoring key and cert \
                 files"
            );
        }
        return Ok(None);
    }
    let acceptor = Acceptor::new(files.clone()).map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(acceptor)))
}

/// Dials peers over TLS or without, as their URLs say.
pub(super) struct TlsDial(Connector);

impl TlsDial {
    pub(super) fn new(files: &ClientFiles) -> Result<Self, String> {
        Ok(Self(Connector::new(files.clone()).map_err(|error| error.to_string())?))
    }
}

impl Dial for TlsDial {
    fn dial<'a>(&'a self, url: &'a Uri) -> Dialing<'a> {
        Box::pin(async move {
            let plain = match url.scheme_str() {
                Some("https") => "http",
                Some("unixs") => "unix",
                _ => return TcpDial.dial(url).await,
            };
            let mut parts = url.clone().into_parts();
            parts.scheme = Some(plain.parse().map_err(io::Error::other)?);
            let link = TcpDial.dial(&Uri::from_parts(parts).map_err(io::Error::other)?).await?;
            let host = if plain == "http" { url.host().unwrap_or_default() } else { "localhost" };
            Ok(Box::new(self.0.connect(link, host).await?) as Box<dyn Link>)
        })
    }
}

/// Whether a peer's certificate is for the address that the peer comes from. As in etcd, one
/// without names is for all, and names are looked up. A name with a wildcard cannot be.
pub(super) async fn check_address(
    certificate: &tls::CertificateDer<'_>,
    from: SocketAddr,
) -> Result<(), String> {
    let (names, addresses) = tls::alternative_names(certificate);
    let ip = from.ip().to_canonical();
    if (names.is_empty() && addresses.is_empty()) || addresses.contains(&ip) {
        return Ok(());
    }
    if names.is_empty() {
        let list: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        return Err(format!("x509: certificate is valid for {}, not {ip}", list.join(", ")));
    }
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await;
        if found.is_ok_and(|mut found| found.any(|address| address.ip().to_canonical() == ip)) {
            return Ok(());
        }
    }
    if names.iter().any(|name| name.starts_with("*.")) {
        return Ok(());
    }
    Err(format!("tls: \"{ip}\" does not match any of DNSNames {names:?}"))
}
