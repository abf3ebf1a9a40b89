//! Verification of JWT signatures with ring, which TLS uses already.
//!
//! Only public keys are supported: neither signing nor shared secrets.

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature as ring;

#[derive(Clone, Copy)]
enum Verification {
    Rsa(&'static ring::RsaParameters),
    Other(&'static dyn ring::VerificationAlgorithm),
}

impl Verification {
    /// Returns `None` for shared secrets and unknown algorithms.
    fn with(algorithm: Algorithm) -> Option<Self> {
        Some(match algorithm {
            Algorithm::RS256 => Self::Rsa(&ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Self::Rsa(&ring::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Self::Rsa(&ring::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Self::Rsa(&ring::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Self::Rsa(&ring::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Self::Rsa(&ring::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Self::Other(&ring::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Self::Other(&ring::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => Self::Other(&ring::ED25519),
            _ => return None,
        })
    }
}

/// Whether `signature` is a valid signature of `message` by `key` with `algorithm`.
pub(crate) fn is_valid(algorithm: Algorithm, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    if key.family() != algorithm.family() {
        return false;
    }
    let verified = match (Verification::with(algorithm), key.kind()) {
        (Some(Verification::Rsa(parameters)), DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let components = ring::RsaPublicKeyComponents { n: significant(n), e: significant(e) };
            components.verify(parameters, message, signature)
        }
        (Some(Verification::Other(algorithm)), DecodingKeyKind::SecretOrDer(point)) => {
            ring::UnparsedPublicKey::new(algorithm, point).verify(message, signature)
        }
        _ => return false,
    };
    verified.is_ok()
}

/// Returns a digest of `key`, independent of its notation.
pub(crate) fn fingerprint(key: &DecodingKey) -> blake3::Hash {
    let parts = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => [significant(n), significant(e)],
        DecodingKeyKind::SecretOrDer(point) => [point.as_slice(), &[]],
    };
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

/// Strips leading zeros of a number. Some issuers write them, against RFC 7518, section 6.3.1.1.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
