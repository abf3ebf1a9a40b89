//! TLS of outgoing calls: the trusted certificate authorities and the client certificate.

use std::{fmt::Display, path::Path};

use reqwest::{Certificate, Client, ClientBuilder, Identity};

use super::error_chain::causes;
use crate::config::upstream::{ClientCertificate, UpstreamConfig};

/// The error of a machine, often a container, without certificate authorities.
const NO_AUTHORITIES: &str = "no trusted CA certificates were found on this system, and https:// needs them; install the \
    package ca-certificates, or name a PEM file of CA certificates with upstream.ca_file";

/// Builds a client for `http://` alone. It has no trust anchors, so it needs no certificate authorities.
///
/// # Errors
/// A text for the operator.
pub(crate) fn build_plain(http: ClientBuilder) -> Result<Client, String> {
    http.tls_certs_only([]).build().map_err(|error| setup_failed(&error))
}

/// Builds a client that trusts the certificate authorities of the system and of `upstream.ca_file`, and has the client
/// certificate of `config`.
///
/// # Errors
/// A text for the operator, if there are no certificate authorities, or if a file is invalid.
pub(crate) fn build(http: ClientBuilder, config: &UpstreamConfig) -> Result<Client, String> {
    let authorities = config.ca_file.as_deref().map(authorities).transpose()?.unwrap_or_default();
    let needs_system = authorities.is_empty();
    let mut http = http.tls_certs_merge(authorities);
    if let Some(certificate) = &config.client_certificate() {
        http = http.identity(identity(certificate)?);
    }
    http.build().map_err(|error| {
        if needs_system && !has_system_authorities() {
            NO_AUTHORITIES.to_owned()
        } else if let Some(ClientCertificate { certificate, key }) = config.client_certificate() {
            let (certificate, key) = (certificate.display(), key.display());
            format!(
                "upstream.client_cert_file, upstream.client_key_file: {certificate} and {key} cannot be used together: {}",
                causes(&error)
            )
        } else {
            setup_failed(&error)
        }
    })
}

/// The CA certificates in the PEM file at `path`.
fn authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    let invalid = |cause: &dyn Display| format!("upstream.ca_file: {}: {cause}", path.display());
    let pem = std::fs::read(path).map_err(|error| invalid(&error))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|_| invalid(&"not a valid PEM bundle of certificates"))?;
    if certificates.is_empty() { Err(invalid(&"contains no PEM certificate")) } else { Ok(certificates) }
}

/// The client certificate, with its chain and its private key.
fn identity(ClientCertificate { certificate, key }: &ClientCertificate<'_>) -> Result<Identity, String> {
    let read = |name: &str, path: &Path| {
        std::fs::read(path).map_err(|error| format!("{name}: {}: {error}", path.display()))
    };
    let mut pem = read("upstream.client_cert_file", certificate)?;
    pem.push(b'\n');
    pem.extend(read("upstream.client_key_file", key)?);
    // The cause would not name the file.
    Identity::from_pem(&pem).map_err(|_| {
        format!(
            "upstream.client_cert_file: {} must contain a certificate in PEM format, and {} (upstream.client_key_file) \
             its unencrypted private key",
            certificate.display(),
            key.display()
        )
    })
}

/// Whether a client can be built with the certificate authorities of the system alone.
fn has_system_authorities() -> bool {
    Client::builder().no_proxy().build().is_ok()
}

fn setup_failed(error: &reqwest::Error) -> String {
    format!("upstream: TLS setup failed: {}", causes(error))
}
