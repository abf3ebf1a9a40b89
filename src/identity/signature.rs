//! The signatures of JWTs, verified by ring, which is in the program for TLS already.
//!
//! `jsonwebtoken` brings no cryptography of its own: it takes a [`CryptoProvider`]. This one verifies with public keys and
//! does nothing else, so that neither signing nor a shared secret can be asked of it.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use ring::signature as ring;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(PublicKey::new(*algorithm, key)?)),
    // For making key sets out of keys, which nobody does here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Has `jsonwebtoken` verify with ring, in the whole process.
pub(super) fn install() {
    // A second call finds it installed, which is all that is wanted.
    let _ = PROVIDER.install_default();
}

/// A public key, to be used with one algorithm.
struct PublicKey {
    algorithm: Algorithm,
    verification: Verification,
    key: DecodingKey,
}

#[derive(Clone, Copy)]
enum Verification {
    Rsa(&'static ring::RsaParameters),
    Other(&'static dyn ring::VerificationAlgorithm),
}

impl PublicKey {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let verification = match algorithm {
            Algorithm::RS256 => Verification::Rsa(&ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Verification::Rsa(&ring::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Verification::Rsa(&ring::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Verification::Rsa(&ring::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Verification::Rsa(&ring::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Verification::Rsa(&ring::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Verification::Other(&ring::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Verification::Other(&ring::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => Verification::Other(&ring::ED25519),
            // Those with a shared secret, and any that are yet to be.
            _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
        };
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Self { algorithm, verification, key: key.clone() })
    }
}

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (self.verification, self.key.kind()) {
            (Verification::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                ring::RsaPublicKeyComponents { n: significant(n), e: significant(e) }
                    .verify(parameters, message, signature)
            }
            (Verification::Other(algorithm), DecodingKeyKind::SecretOrDer(point)) => {
                ring::UnparsedPublicKey::new(algorithm, point).verify(message, signature)
            }
            _ => return Err(signature::Error::new()),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A number without the leading zeros that some issuers write and RFC 7518, section 6.3.1.1, does not allow.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
