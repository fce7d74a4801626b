//! Trusts servers whose own certificate is in `ca_file`.
//!
//! Such a certificate is often its own issuer and says that it may issue others. The usual check
//! refuses it for a server, although `ca_file` names exactly this certificate.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// The fault of a certificate that may issue others and is used by a server. It is found after the
/// dates were checked.
const ISSUER_AS_SERVER: &str = "CaUsedAsEndEntity";

/// Checks as the other verifier does, and accepts certificates of `ca_file` as a server's own.
#[derive(Debug)]
pub(super) struct PinnedCertificates {
    pub(super) known: Vec<CertificateDer<'static>>,
    pub(super) inner: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for PinnedCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let is_issuer = |error: &rustls::Error| {
            matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(why))
                if why.0.to_string() == ISSUER_AS_SERVER)
        };
        match checked {
            Err(error) if is_issuer(&error) && self.known.iter().any(|one| one == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::{RootCertStore, client::WebPkiServerVerifier, crypto::aws_lc_rs};

    use super::*;

    /// A certificate that is its own issuer, as `openssl req -x509` makes it.
    fn self_signed(begin: (i32, u8, u8), end: (i32, u8, u8)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["box.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn is_trusted(
        known: &CertificateDer<'static>,
        shown: &CertificateDer<'_>,
        name: &'static str,
    ) -> bool {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(known.clone()).unwrap();
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = PinnedCertificates { known: vec![known.clone()], inner: inner.unwrap() };
        let name = ServerName::try_from(name).unwrap();
        // 2027-01-15.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        verifier.verify_server_cert(shown, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn only_the_pinned_certificate_is_trusted_while_valid() {
        let (good, other) =
            (self_signed((2026, 1, 1), (2030, 1, 1)), self_signed((2026, 1, 1), (2030, 1, 1)));
        let expired = self_signed((2020, 1, 1), (2026, 1, 1));
        assert!(is_trusted(&good, &good, "box.example"));
        assert!(!is_trusted(&good, &other, "box.example"));
        assert!(!is_trusted(&good, &good, "other.example"));
        assert!(!is_trusted(&expired, &expired, "box.example"));
    }
}
