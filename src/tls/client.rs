//! The side that dials.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::files::{self, Reloaded};
use super::{Error, Versions, provider};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// What a client's TLS is made of; an empty path is none.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    pub cert: String,
    pub key: String,
    /// Empty: the system's authorities.
    pub ca: String,
    /// Believe any server.
    pub skip_verify: bool,
    /// Whom the server must be; empty: the host that is dialled.
    pub server_name: String,
    /// `h2` or `http/1.1`.
    pub protocol: &'static str,
    pub versions: Versions,
}

impl ClientFiles {
    fn paths(&self) -> Vec<String> {
        [&self.cert, &self.key, &self.ca].map(Clone::clone).to_vec()
    }

    fn config(&self) -> Result<ClientConfig, Error> {
        if self.cert.is_empty() != self.key.is_empty() {
            return Err(Error::Pair { cert: self.cert.clone(), key: self.key.clone() });
        }
        let provider = self.versions.provider()?;
        let versions = self.versions.allowed()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody))
        } else {
            let path = Some(self.ca.as_str()).filter(|path| !path.is_empty());
            let roots = Arc::new(files::roots(path)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            builder.with_webpki_verifier(verifier.map_err(|error| Error::Other(error.to_string()))?)
        };
        let mut config = match self.cert.as_str() {
            "" => builder.with_no_client_auth(),
            cert => builder.with_client_auth_cert(files::chain(cert)?, files::key(&self.key)?)?,
        };
        config.alpn_protocols = vec![self.protocol.as_bytes().to_vec()];
        Ok(config)
    }
}

/// Makes connections with the files as they are.
pub struct Connector {
    files: ClientFiles,
    config: Reloaded<ClientConfig>,
}

impl Connector {
    pub fn new(files: ClientFiles) -> Result<Self, Error> {
        let config = Reloaded::new(files.paths(), || files.config())?;
        Ok(Self { files, config })
    }

    /// Shakes hands with the host behind a stream, within a time.
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

/// Believes every server, for who asks for it in so many words.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
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
