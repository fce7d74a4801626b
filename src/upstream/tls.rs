//! Configures which certificates are trusted: the system's verifier, extra roots from a file, or
//! any certificate with `insecure_tls`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use tokio::sync::OnceCell;

use super::pinned::PinnedCertificates;

/// The TLS settings of one (`ca_file`, `insecure_tls`) pair, created on first use. Reading the
/// system's roots takes tens of milliseconds and memory, which setups with only local models avoid.
#[derive(Debug)]
pub(super) struct TlsSettings {
    ca_file: Option<PathBuf>,
    insecure: bool,
    config: OnceCell<Arc<ClientConfig>>,
}

impl TlsSettings {
    pub(super) fn new(ca_file: Option<PathBuf>, insecure: bool) -> Self {
        Self { ca_file, insecure, config: OnceCell::new() }
    }

    pub(super) fn matches(&self, ca_file: Option<&Path>, insecure: bool) -> bool {
        self.ca_file.as_deref() == ca_file && self.insecure == insecure
    }

    /// Returns the settings, HTTP/2 preferred. A failure is not cached: the file may exist next
    /// time.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let make = || async {
            let (ca_file, insecure) = (self.ca_file.clone(), self.insecure);
            match tokio::task::spawn_blocking(move || build_config(ca_file.as_deref(), insecure))
                .await
            {
                Ok(made) => made.map(Arc::new),
                Err(_) => Err("the system's certificates could not be read".to_owned()),
            }
        };
        self.config.get_or_try_init(make).await.cloned()
    }
}

fn build_config(ca_file: Option<&Path>, insecure: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if insecure {
        Arc::new(NoVerification(Arc::clone(&provider)))
    } else {
        build_verifier(ca_file, &provider)?
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn build_verifier(
    ca_file: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let extra = ca_file.map(read_ca_file).transpose()?.unwrap_or_default();
    let only_system = extra.is_empty();
    match Verifier::new_with_extra_roots(extra.clone(), Arc::clone(provider)) {
        Ok(verifier) if only_system => Ok(Arc::new(verifier)),
        Ok(verifier) => {
            Ok(Arc::new(PinnedCertificates { known: extra, inner: Arc::new(verifier) }))
        }
        Err(error) if only_system => {
            tracing::warn!(%error, "the system has no usable certificates: trusting the built-in list of public authorities");
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(
                webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned(),
            );
            let built_in =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .build();
            built_in.map(|v| v as Arc<dyn ServerCertVerifier>).map_err(|e| e.to_string())
        }
        Err(error) => {
            Err(format!("`ca_file` {}: {error}", ca_file.unwrap_or(Path::new("")).display()))
        }
    }
}

fn read_ca_file(ca_file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = ca_file.display();
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(ca_file).and_then(Iterator::collect);
    match found {
        Ok(found) if found.is_empty() => {
            Err(format!("`ca_file` {shown} has no certificate in it (PEM is expected)"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(format!("`ca_file` {shown} cannot be read: {error}")),
    }
}

/// `insecure_tls = true`: accepts any certificate; the peer must still prove that it has the
/// certificate's key.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
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
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
