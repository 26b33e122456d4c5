//! Whom to trust: the system's certificates, those that a host's folder adds, or none where that is allowed.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use fs_err as fs;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::super::Error;
use super::{Failure, Settings};

/// How to speak TLS with `host[:port]`.
pub(super) fn config(settings: &Settings, authority: &str) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(authority, &e.to_string()))?;
    let files = Files::of(settings, authority)?;
    let own = if settings.is_insecure(authority) { None } else { Some(files.roots()?) };
    let judge = Judge { provider, own, verifier: OnceLock::new() };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(judge));
    match files.client {
        Some((certificate, key)) => {
            let private = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|e| unusable(&key, &e.to_string()))?;
            builder
                .with_client_auth_cert(certificates(&certificate)?, private)
                .map_err(|e| unusable(&key, &e.to_string()))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// What a host's folder holds.
#[derive(Debug, Default)]
struct Files {
    authorities: Vec<PathBuf>,
    /// Certificate and key.
    client: Option<(PathBuf, PathBuf)>,
}

impl Files {
    /// `*.crt` are authorities; `NAME.cert` with `NAME.key` is ours.
    fn of(settings: &Settings, authority: &str) -> Result<Files, Error> {
        let mut files = Files::default();
        for folder in settings.certificates.iter().map(|folder| folder.join(authority)) {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(unusable(&folder, &e.to_string())),
            };
            for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => files.authorities.push(path),
                    Some("cert") => {
                        let key = path.with_extension("key");
                        if !key.exists() {
                            return Err(unusable(&path, &format!("its key {} is missing", key.display())));
                        }
                        files.client.get_or_insert((path, key));
                    }
                    _ => {}
                }
            }
        }
        Ok(files)
    }
}

impl Files {
    /// The authorities.
    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for path in &self.authorities {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| unusable(path, &e.to_string()))?;
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(unusable(path, "it holds no certificate in PEM form")),
        Err(e) => Err(unusable(path, &e.to_string())),
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|e| unusable(path, &e.to_string()))
}

fn unusable(path: &std::path::Path, why: &str) -> Error {
    Failure::Configuration { path: path.display().to_string(), why: why.to_owned() }.into()
}

fn tls(authority: &str, why: &str) -> Error {
    Failure::Tls { host: authority.to_owned(), why: why.to_owned() }.into()
}

/// Trusts what the system's authorities vouch for, and those of the host's folder. The system's are hundreds of files, so they
/// are read when the first certificate comes: a registry on loopback shows none.
#[derive(Debug)]
struct Judge {
    provider: Arc<CryptoProvider>,
    /// Those of the host's folder. None: every certificate is taken, for hosts that the configuration lists as insecure.
    own: Option<RootCertStore>,
    verifier: OnceLock<Arc<WebPkiServerVerifier>>,
}

impl Judge {
    fn verifier(&self, own: &RootCertStore) -> Result<&WebPkiServerVerifier, rustls::Error> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(verifier);
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots.extend(own.roots.iter().cloned());
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let built = built.map_err(|e| rustls::Error::General(e.to_string()))?;
        Ok(self.verifier.get_or_init(|| built))
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.own {
            Some(own) => self.verifier(own)?.verify_server_cert(certificate, between, name, stapled, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
