//! The side that dials.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::files::{self, Reloaded};
use super::{Error, Versions, provider};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// Files and settings of a client's TLS; an empty path is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Authorities; empty for the system's.
    pub ca: PathBuf,
    /// Accept any certificate.
    pub skip_verify: bool,
    /// The name that the server's certificate must be for; empty for the host that is dialled.
    pub server_name: String,
    /// The protocol to negotiate: `h2` or `http/1.1`.
    pub protocol: &'static str,
    pub versions: Versions,
}

impl ClientFiles {
    fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key, &self.ca].map(Clone::clone).to_vec()
    }

    fn has_cert(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }

    fn config(&self) -> Result<ClientConfig, Error> {
        if self.has_cert() == self.key.as_os_str().is_empty() {
            return Err(Error::Pair { cert: self.cert.clone(), key: self.key.clone() });
        }
        let provider = self.versions.provider()?;
        let versions = self.versions.allowed()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny::default()))
        } else {
            let path = Some(&self.ca).filter(|path| !path.as_os_str().is_empty());
            let roots = Arc::new(files::roots(path)?);
            let verifier: Arc<dyn ServerCertVerifier> = if path.is_none() && roots.is_empty() {
                Arc::new(AcceptNone::default())
            } else {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                let inner = verifier.map_err(|error| Error::Other(error.to_string()))?;
                let known = path.map(files::chain).transpose()?.unwrap_or_default();
                Arc::new(ServerVerifier { inner, known })
            };
            builder.dangerous().with_custom_certificate_verifier(verifier)
        };
        let mut config = match self.has_cert() {
            false => builder.with_no_client_auth(),
            true => {
                builder.with_client_auth_cert(files::chain(&self.cert)?, files::key(&self.key)?)?
            }
        };
        config.alpn_protocols = vec![self.protocol.as_bytes().to_vec()];
        // A resumed session would not verify the server's certificate again. etcd's clients resume
        // none either.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Makes TLS connections with the files as they are at that moment.
pub struct Connector {
    files: ClientFiles,
    config: Reloaded<ClientConfig>,
}

impl Connector {
    pub fn new(files: ClientFiles) -> Result<Self, Error> {
        let config = Reloaded::new(files.paths(), || files.config())?;
        Ok(Self { files, config })
    }

    /// Shakes hands with `host` over a stream that leads there, within `TLS_HANDSHAKE_TIMEOUT`.
    pub async fn connect<S>(&self, stream: S, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match self.files.server_name.as_str() {
            "" => host.trim_start_matches('[').trim_end_matches(']'),
            name => name,
        };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let config = self.config.get(|| self.files.config());
        let shake = tokio_rustls::TlsConnector::from(config).connect(name, stream);
        let late = || io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timeout");
        timeout(TLS_HANDSHAKE_TIMEOUT, shake).await.map_err(|_| late())?
    }
}

/// The certificates that a server shows to a client that accepts any certificate.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Its certificates, the leaf first; empty if the handshake did not get so far.
    pub chain: Vec<CertificateDer<'static>>,
    pub version: String,
    pub suite: String,
    /// Why the server refuses the connection; None if it answers.
    pub refusal: Option<String>,
}

/// Shakes hands without verifying the server, and requests `/version`: a server with TLS 1.3
/// refuses a client only after the handshake.
pub async fn show_certificates<S>(
    files: &ClientFiles,
    stream: S,
    host: &str,
) -> Result<Shown, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let files = ClientFiles { skip_verify: true, protocol: "http/1.1", ..files.clone() };
    let mut config = files.config()?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let anybody = AcceptAny { seen: Some(Arc::clone(&seen)) };
    config.dangerous().set_certificate_verifier(Arc::new(anybody));
    let mut shown = Shown::default();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|error| Error::Other(error.to_string()))?;
    let talk = async {
        let mut stream =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let session = stream.get_ref().1;
        shown.version = session.protocol_version().map(|it| format!("{it:?}")).unwrap_or_default();
        let suite = session.negotiated_cipher_suite().map(|it| format!("{:?}", it.suite()));
        shown.suite = suite.unwrap_or_default();
        let request = format!("GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        match stream.read(&mut [0; 1]).await? {
            0 => Err(io::Error::other("it closes the connection after the handshake")),
            _ => Ok(()),
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time");
    let ended = timeout(TLS_HANDSHAKE_TIMEOUT, talk).await.unwrap_or_else(|_| Err(late()));
    shown.refusal = ended.err().map(|error| error.to_string());
    shown.chain = std::mem::take(&mut *seen.lock());
    Ok(shown)
}

/// Accepts any certificate, for callers that set `skip_verify`.
#[derive(Debug, Default)]
struct AcceptAny {
    /// Where the certificates that the server shows are noted.
    seen: Option<Arc<Mutex<Vec<CertificateDer<'static>>>>>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(seen) = &self.seen {
            let chain = std::iter::once(leaf).chain(others);
            *seen.lock() = chain.map(|one| one.clone().into_owned()).collect();
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts no server: what a system without authorities trusts, as an image without a distribution. It
/// is no reason to refuse a configuration that may never dial over TLS.
#[derive(Debug, Default)]
struct AcceptNone(AcceptAny);

impl ServerCertVerifier for AcceptNone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Accepts servers whose certificates the authorities have signed, and certificates that are listed
/// among the authorities themselves, as those of `--auto-tls` are: these may sign others, and
/// rustls's own verifier accepts no such certificate for a server.
#[derive(Debug)]
struct ServerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    known: Vec<CertificateDer<'static>>,
}

impl ServerVerifier {
    /// Verifies what is left without the signature: the time, the usage and the name.
    fn verify_known(
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(error) = files::unfit(leaf, |usages| usages.server_auth, now.as_secs()) {
            return Err(error.into());
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(leaf, others, name, response, now);
        if verified.is_err() && self.known.contains(leaf) {
            return Self::verify_known(leaf, name, now);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
