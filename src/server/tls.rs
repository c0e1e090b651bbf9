//! TLS as the flags set it: the ports' acceptors, and how peers are dialled.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use http::Uri;

use super::flags::Given;
use super::url::Url;
use super::values::Values;
use crate::cert;
use crate::clock::SystemClock;
use crate::dns::{self, Resolver};
use crate::go;
use crate::peer::{Dial, Dialing, Link, TcpDial};
use crate::tls::{self, Acceptor, ClientFiles, Connector, ServerFiles, Versions};

/// The TLS of client and peer ports, and of this member when it dials peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub client: ServerFiles,
    pub peer: ServerFiles,
    pub dial: ClientFiles,
    /// Files of a certificate and its key that are used for dialling alone.
    pub dial_pair: (String, String),
    /// The domain whose SRV records named peers with TLS, set once that is known and unless there
    /// is an authority for peers. Peers must then show a certificate for this domain: anybody may
    /// have a certificate for a host of their own that a public authority signed.
    pub domain: Arc<OnceLock<String>>,
    /// Accept peers whose certificates are not for the addresses that they connect from.
    pub skip_peer_addresses: bool,
    /// Make certificates for client ports, or peer ports, if none are given.
    pub makes_client: bool,
    pub makes_peer: bool,
    pub validity_years: u64,
}

impl Settings {
    /// Checks what can be checked without opening a file. Errors are etcd's texts where it has
    /// them.
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
        let (has_client, has_peer) = (
            self.makes_client || !self.client.is_empty(),
            self.makes_peer || !self.peer.is_empty(),
        );
        if let Some(url) = clients.iter().find(|url| url.is_tls() && !has_client) {
            return Err(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with \
                 HTTPS scheme"
            ));
        }
        if metrics.iter().any(|url| url.is_tls() && !has_client) {
            return Err(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics \
                        secure url"
                    .into(),
            );
        }
        if let Some(url) = peers.iter().find(|url| url.is_tls() && !has_peer) {
            let (host, port) = url.host_port();
            return Err(format!(
                "cannot listen on TLS for {host}:{port}: KeyFile and CertFile are not presented"
            ));
        }
        let demands = self.peer.demands_certificates || !self.peer.ca.is_empty();
        if self.makes_peer && self.peer.is_empty() && demands {
            return Err(
                "--peer-auto-tls makes certificates that no authority has signed, so that peers \
                 cannot meet --peer-client-cert-auth or --peer-trusted-ca-file"
                    .into(),
            );
        }
        let (cert, key) = &self.dial_pair;
        if !self.peer.is_empty() && cert.is_empty() != key.is_empty() {
            return Err(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, \
                 cert: {cert}]"
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

    /// Makes the certificates that `--auto-tls` and `--peer-auto-tls` ask for, or takes those of an
    /// earlier start. A member with a made peer certificate verifies none of its peers: no
    /// authority has signed theirs.
    pub(super) fn make(
        &mut self,
        data_dir: &Path,
        clients: &[Url],
        peers: &[Url],
    ) -> Result<(), String> {
        if self.makes_peer && self.peer.is_empty() {
            (self.peer.cert, self.peer.key) = self.made(data_dir, "peer", peers)?;
            self.dial.skip_verify = true;
            if self.dial.cert.as_os_str().is_empty() {
                let (cert, key) = (&self.peer.cert, &self.peer.key);
                (self.dial.cert, self.dial.key) = (cert.into(), key.into());
            }
        } else if self.makes_peer {
            tracing::warn!("ignoring peer auto TLS since certs given");
        }
        if self.makes_client && self.client.is_empty() {
            (self.client.cert, self.client.key) = self.made(data_dir, "client", clients)?;
        } else if self.makes_client {
            tracing::warn!("ignoring client auto TLS since certs given");
        }
        Ok(())
    }

    fn made(&self, data_dir: &Path, kind: &str, urls: &[Url]) -> Result<(String, String), String> {
        let dir = data_dir.join("fixtures").join(kind);
        let hosts = urls.iter().filter(|url| !url.is_unix());
        let hosts: Vec<String> = hosts.map(|url| url.host_port().0.to_owned()).collect();
        let made = cert::self_signed(&dir, &hosts, self.validity_years, &SystemClock::new());
        let (certificate, key) = made.map_err(|error| {
            let error = error.to_string();
            tracing::warn!(error, "cannot generate cert");
            error
        })?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Ok((text(certificate), text(key)))
    }
}

/// Reads the settings from the flags.
pub(super) fn settings(given: &Given) -> Settings {
    let values = Values(given);
    let text = |name: &str| given.text(name).to_owned();
    // Peers are dialled with the certificate for dialling, else with that of the peer port. If the
    // peer port has none, the certificate for dialling is ignored.
    let is_secured = !text("peer-cert-file").is_empty()
        || !text("peer-key-file").is_empty()
        || values.bool("peer-auto-tls");
    let or = |name: &str, other: &str| {
        if text(name).is_empty() || !is_secured { text(other) } else { text(name) }
    };
    let versions = Versions {
        min: text("tls-min-version"),
        max: text("tls-max-version"),
        suites: values.words("cipher-suites"),
    };
    Settings {
        client: ServerFiles {
            cert: text("cert-file"),
            key: text("key-file"),
            ca: text("trusted-ca-file"),
            crl: text("client-crl-file"),
            demands_certificates: values.bool("client-cert-auth"),
            allowed_names: Vec::new(),
            allowed_hosts: values.words("client-cert-allowed-hostname"),
            versions: versions.clone(),
        },
        peer: ServerFiles {
            cert: text("peer-cert-file"),
            key: text("peer-key-file"),
            ca: text("peer-trusted-ca-file"),
            crl: text("peer-crl-file"),
            demands_certificates: values.bool("peer-client-cert-auth"),
            allowed_names: values.words("peer-cert-allowed-cn"),
            allowed_hosts: values.words("peer-cert-allowed-hostname"),
            versions: versions.clone(),
        },
        dial: ClientFiles {
            cert: or("peer-client-cert-file", "peer-cert-file").into(),
            key: or("peer-client-key-file", "peer-key-file").into(),
            ca: text("peer-trusted-ca-file").into(),
            protocol: "http/1.1",
            versions,
            ..ClientFiles::default()
        },
        dial_pair: (text("peer-client-cert-file"), text("peer-client-key-file")),
        domain: Arc::default(),
        skip_peer_addresses: values.bool("peer-skip-client-san-verification"),
        makes_client: values.bool("auto-tls"),
        makes_peer: values.bool("peer-auto-tls"),
        validity_years: values.uint("self-signed-cert-validity"),
    }
}

/// A list as Go's `%q` writes it.
fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(go::quote).collect();
    format!("[{}]", quoted.join(" "))
}

/// An acceptor for ports of one kind; None if none of their URLs has TLS.
pub(super) fn acceptor(urls: &[Url], files: &ServerFiles) -> Result<Option<Arc<Acceptor>>, String> {
    if !urls.iter().any(Url::is_tls) {
        return Ok(None);
    }
    let acceptor = Acceptor::new(files.clone()).map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(acceptor)))
}

/// Warns of URLs without TLS beside TLS settings, which have no effect there.
pub(super) fn say_what_is_plain(peers: bool, urls: &[Url], files: &ServerFiles) {
    let (schemes, flag) = if peers {
        ("HTTP", "--peer-client-cert-auth")
    } else {
        ("http or unix", "--client-cert-auth")
    };
    for url in urls.iter().filter(|url| !url.is_tls()) {
        let url = url.to_string();
        let mut texts = Vec::new();
        if !files.is_empty() {
            texts.push(format!(
                "scheme is {schemes} while key and cert files are present; ignoring key and cert files"
            ));
        }
        if files.demands_certificates {
            texts.push(format!(
                "scheme is {schemes} while {flag} is enabled; ignoring client cert auth for this URL"
            ));
        }
        for text in texts {
            if peers {
                tracing::warn!("peer-url" = url, "{text}");
            } else {
                tracing::warn!("client-url" = url, "{text}");
            }
        }
    }
}

/// Dials peers with TLS or without, as their URLs say.
pub(super) struct TlsDial {
    files: ClientFiles,
    connector: OnceLock<Connector>,
    tcp: TcpDial,
}

impl TlsDial {
    /// `local` is this machine's address to dial from; None leaves the choice to the system. Where
    /// no flag could be wrong, nothing is read before a peer is dialled over TLS: the system's
    /// authorities are some hundred files, and a megabyte in memory. Versions and suites were checked
    /// with the other settings, which reads nothing.
    pub(super) fn new(settings: &Settings, local: Option<IpAddr>) -> Result<Self, String> {
        let mut files = settings.dial.clone();
        if let Some(domain) = settings.domain.get() {
            files.server_name.clone_from(domain);
        }
        let dial = Self { files, connector: OnceLock::new(), tcp: TcpDial { local } };
        let versions = dial.files.versions.clone();
        let protocol = dial.files.protocol;
        if dial.files != (ClientFiles { protocol, versions, ..ClientFiles::default() }) {
            dial.connector().map_err(|why| why.to_string())?;
        }
        Ok(dial)
    }

    fn connector(&self) -> Result<&Connector, tls::Error> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let connector = Connector::new(self.files.clone())?;
        Ok(self.connector.get_or_init(|| connector))
    }
}

impl Dial for TlsDial {
    fn dial<'a>(&'a self, url: &'a Uri) -> Dialing<'a> {
        Box::pin(async move {
            let plain = match url.scheme_str() {
                Some("https") => "http",
                Some("unixs") => "unix",
                _ => return self.tcp.dial(url).await,
            };
            let mut parts = url.clone().into_parts();
            parts.scheme = Some(plain.parse().map_err(io::Error::other)?);
            let link = self.tcp.dial(&Uri::from_parts(parts).map_err(io::Error::other)?).await?;
            let host = if plain == "http" { url.host().unwrap_or_default() } else { "localhost" };
            let connector = self.connector().map_err(io::Error::other)?;
            Ok(Box::new(connector.connect(link, host).await?) as Box<dyn Link>)
        })
    }
}

/// Checks that a peer's certificate is for the address that the peer connects from; the error is
/// the log's text. As in etcd, a certificate without names and addresses is accepted from anywhere.
/// Its names are resolved and compared with the address; then the names that DNS has for the
/// address (PTR) are compared with them, and these alone can match a wildcard.
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
    let resolver = Resolver::new(std::env::var_os(dns::VARIABLE));
    let found = resolver.names_of(&SystemClock::new(), ip).await;
    let why = found.as_ref().err().map(|error| format!(" ({error})")).unwrap_or_default();
    let is_named = |own: &String| {
        let own = own.strip_suffix('.').unwrap_or(own);
        names.iter().any(|name| match name.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => own.ends_with(rest),
            _ => own == name,
        })
    };
    if found.unwrap_or_default().iter().any(is_named) {
        return Ok(());
    }
    Err(format!("tls: \"{ip}\" does not match any of DNSNames {names:?}{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::flags;

    #[test]
    fn the_systems_authorities_are_read_by_the_first_dial_over_tls() {
        let versions = ["--tls-min-version=TLS1.2", "--tls-max-version=TLS1.3"];
        for flags in [&[][..], &versions.map(str::to_owned)] {
            let settings = settings(&flags::parse(flags).ok().unwrap());
            let dial = TlsDial::new(&settings, None).unwrap();
            assert!(dial.connector.get().is_none(), "{flags:?}");
            assert!(dial.connector().is_ok());
            assert!(dial.connector.get().is_some());
        }
    }

    #[test]
    fn files_for_dialling_are_read_at_once() {
        let dial = ClientFiles { ca: "/no/such/file".into(), ..ClientFiles::default() };
        let settings = Settings { dial, ..Settings::default() };
        let why = TlsDial::new(&settings, None).err().unwrap();
        assert_eq!(why, "open /no/such/file: no such file or directory");
    }
}
