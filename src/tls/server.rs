//! The side that is dialled.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::files::{self, Reloaded};
use super::replay::Replay;
use super::{Error, Versions};
use crate::limits::{TLS_HANDSHAKE_FAIR_TIME, TLS_HANDSHAKE_TIMEOUT, TLS_HANDSHAKES_MAX};

/// Files and settings of a port's TLS; an empty path is none.
#[derive(Clone, Debug, Default)]
pub struct ServerFiles {
    pub cert: String,
    pub key: String,
    /// Authorities for clients. If there are any, or `demands_certificates` is set, clients must
    /// show a certificate.
    pub ca: String,
    pub crl: String,
    pub demands_certificates: bool,
    /// Common names, one of which a client's certificate must have; empty for any.
    pub allowed_names: Vec<String>,
    /// Hosts, for one of which a client's certificate must be valid; empty for any.
    pub allowed_hosts: Vec<String>,
    pub versions: Versions,
}

impl ServerFiles {
    pub fn is_empty(&self) -> bool {
        self.cert.is_empty() && self.key.is_empty()
    }

    fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key, &self.ca, &self.crl].map(PathBuf::from).to_vec()
    }

    fn config(&self) -> Result<ServerConfig, Error> {
        if self.cert.is_empty() || self.key.is_empty() {
            let (cert, key) = (PathBuf::from(&self.cert), PathBuf::from(&self.key));
            return Err(Error::Pair { cert, key });
        }
        let provider = self.versions.provider()?;
        let versions = self.versions.allowed()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?;
        let asks_nobody = self.ca.is_empty() && !self.demands_certificates;
        let builder = match asks_nobody {
            true => builder.with_no_client_auth(),
            false => {
                let path = Some(self.ca.as_str()).filter(|path| !path.is_empty());
                let roots = Arc::new(files::roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let inner = verifier.map_err(|error| Error::Other(error.to_string()))?;
                let revoked = match self.crl.as_str() {
                    "" => HashSet::new(),
                    path => files::revoked(path)?,
                };
                let known = path.map(files::chain).transpose()?.unwrap_or_default();
                let (names, hosts) = (self.allowed_names.clone(), self.allowed_hosts.clone());
                let verifier = ClientVerifier { inner, known, revoked, names, hosts };
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
        };
        let (chain, key) = (files::chain(&self.cert)?, files::key(&self.key)?);
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if !asks_nobody {
            // A resumed session would go on with a client's certificate that has expired meanwhile.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}

/// A connection after its handshake, with the client verified if it had to be.
pub struct Accepted<S> {
    pub stream: TlsStream<Replay<S>>,
    /// Common name of the client's certificate: None without a certificate, empty if it has none.
    pub common_name: Option<String>,
    /// The client's certificate.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Accepts TLS connections with the files as they are at that moment.
pub struct Acceptor {
    files: ServerFiles,
    config: Reloaded<ServerConfig>,
    handshakes: Semaphore,
}

impl Acceptor {
    pub fn new(files: ServerFiles) -> Result<Self, Error> {
        let config = Reloaded::new(files.paths(), || files.config())?;
        Ok(Self { files, config, handshakes: Semaphore::new(TLS_HANDSHAKES_MAX) })
    }

    /// Shakes hands, within a time and beside a bounded number of others. `asked` becomes the
    /// server name that the client asked for, also if it is refused.
    pub async fn accept<S>(&self, mut stream: S, asked: &mut String) -> io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long");
        // The first bytes are read before a handshake place is taken: a client that connects and
        // sends nothing takes no place from others.
        let first =
            timeout(TLS_HANDSHAKE_TIMEOUT, first_bytes(&mut stream)).await.map_err(late)??;
        let stream = Replay::new(first, stream);
        let place = timeout(TLS_HANDSHAKE_TIMEOUT, self.handshakes.acquire()).await;
        let _place = place.map_err(late)?.map_err(io::Error::other)?;
        let config = self.config.get(|| self.files.config());
        let shake = async {
            let hello = rustls::server::Acceptor::default();
            let start = tokio_rustls::LazyConfigAcceptor::new(hello, stream).await?;
            asked.push_str(start.client_hello().server_name().unwrap_or_default());
            start.into_stream(config).await
        };
        let stream = tokio::select! {
            shaken = timeout(TLS_HANDSHAKE_TIMEOUT, shake) => shaken.map_err(late)??,
            () = self.wanted_by_others() => {
                return Err(io::Error::other("others wait for the place of this slow handshake"));
            }
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = leaf.map(|leaf| leaf.clone().into_owned());
        let name = certificate.as_ref().map(|leaf| files::common_name(leaf).unwrap_or_default());
        Ok(Accepted { stream, common_name: name, certificate })
    }

    /// Resolves when this handshake has had its time and no place is free. Without that, clients
    /// that begin handshakes and end none would keep all others out.
    async fn wanted_by_others(&self) {
        loop {
            tokio::time::sleep(TLS_HANDSHAKE_FAIR_TIME).await;
            if self.handshakes.available_permits() == 0 {
                return;
            }
        }
    }
}

/// The client's first bytes; an error if they are not TLS. As in etcd, a client that speaks plain
/// text gets no alert, which it could not read.
async fn first_bytes(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    /// Types of records: a handshake, or an alert of a client that gives up at once.
    const OPENINGS: [u8; 2] = [22, 21];
    let mut first = BytesMut::with_capacity(1024);
    stream.read_buf(&mut first).await?;
    match first.first() {
        Some(kind) if OPENINGS.contains(kind) => Ok(first.freeze()),
        Some(_) => Err(io::Error::other("tls: first record does not look like a TLS handshake")),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Verifies clients' certificates.
struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// The authorities' certificates. As in Go, a client may show one of them: a self-signed
    /// certificate is often both.
    known: Vec<CertificateDer<'static>>,
    revoked: HashSet<Vec<u8>>,
    names: Vec<String>,
    hosts: Vec<String>,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

impl ClientVerifier {
    fn is_allowed(&self, leaf: &CertificateDer<'_>) -> bool {
        let name = || files::common_name(leaf);
        if !self.names.is_empty() {
            return name().is_some_and(|name| self.names.contains(&name));
        }
        if self.hosts.is_empty() {
            return true;
        }
        let Ok(parsed) = ParsedCertificate::try_from(leaf) else { return false };
        self.hosts.iter().any(|host| {
            let host = ServerName::try_from(host.as_str());
            host.is_ok_and(|host| verify_server_name(&parsed, &host).is_ok())
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = match self.inner.verify_client_cert(leaf, intermediates, now) {
            Err(_) if self.known.contains(leaf) => {
                match files::unfit(leaf, |usages| usages.client_auth, now.as_secs()) {
                    Some(unfit) => return Err(unfit.into()),
                    None => ClientCertVerified::assertion(),
                }
            }
            // The issuer has the name of an authority, but another key.
            Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature)) => {
                return Err(CertificateError::UnknownIssuer.into());
            }
            verified => verified?,
        };
        for certificate in std::iter::once(leaf).chain(intermediates) {
            if files::serial(certificate).is_none_or(|serial| self.revoked.contains(&serial)) {
                return Err(CertificateError::Revoked.into());
            }
        }
        if !self.is_allowed(leaf) {
            // An error for which rustls sends etcd's alert, "bad certificate".
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
