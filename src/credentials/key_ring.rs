//! The keys that all replicas of a fleet have in common (`shared.key_file`).
//!
//! A line of the file is key material. It is never used itself: each purpose has a key of its own, derived with BLAKE3.

use std::{fmt, sync::Arc};

/// The hexadecimal digits of a line.
const DIGITS: usize = 64;

/// The keys of the file. The first one is used for new data, all are accepted. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing(Arc<[FleetKey]>);

/// The keys that are derived from one line.
#[derive(Clone)]
pub(crate) struct FleetKey {
    /// Names the line in encrypted data.
    pub(crate) id: [u8; 4],
    /// For the digests of scopes.
    pub(crate) scopes: [u8; 32],
    /// For the names of keys in Redis.
    pub(crate) names: [u8; 32],
    /// For entity tags.
    pub(crate) entity_tags: [u8; 32],
    /// For the digests of requests with an idempotency key.
    pub(crate) requests: [u8; 32],
    /// For encryption. Each sender derives its own key from it.
    pub(crate) sealing: [u8; 32],
}

impl KeyRing {
    /// Parses the text of a key file: one key on each line, as 64 hexadecimal digits. Empty lines and lines that start with
    /// `#` are skipped.
    ///
    /// # Errors
    /// A text for the operator that names the line, and never shows it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<FleetKey> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = parse_line(line).ok_or_else(|| {
                format!(
                    "line {} is not a key of {DIGITS} hexadecimal digits; create one with: appointments-gateway key",
                    index + 1
                )
            })?;
            if keys.iter().any(|existing| existing.names == key.names) {
                return Err(format!("line {} repeats an earlier key; remove it", index + 1));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err("contains no key; create one with: appointments-gateway key".to_owned());
        }
        Ok(Self(keys.into()))
    }

    /// A random key, for a gateway without a key file. It never leaves the process.
    pub fn random() -> Self {
        Self([FleetKey::derive(&random_material())].into())
    }

    /// A new random key, as a line of the file.
    pub fn generate_line() -> String {
        hex(&random_material())
    }

    /// The key for new data.
    pub(crate) fn first(&self) -> &FleetKey {
        // `parse` refuses an empty file.
        &self.0[0]
    }

    /// All keys, the first one included.
    pub(crate) fn all(&self) -> &[FleetKey] {
        &self.0
    }
}

/// 244 bits of the operating system's randomness, mixed so that all bits look alike.
fn random_material() -> [u8; DIGITS / 2] {
    let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
    blake3::derive_key("appointments-gateway 2026 new key", halves.as_flattened())
}

fn parse_line(line: &str) -> Option<FleetKey> {
    if line.len() != DIGITS || !line.is_ascii() {
        return None;
    }
    let mut material = [0; DIGITS / 2];
    for (byte, digits) in material.iter_mut().zip(line.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(FleetKey::derive(&material))
}

impl FleetKey {
    fn derive(material: &[u8]) -> Self {
        let derive = |purpose: &str| {
            blake3::derive_key(&format!("appointments-gateway 2026 shared.key_file {purpose}"), material)
        };
        let [a, b, c, d, ..] = derive("key id");
        Self {
            id: [a, b, c, d],
            scopes: derive("scopes"),
            names: derive("names"),
            entity_tags: derive("entity tags"),
            requests: derive("requests"),
            sealing: derive("sealing"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_line_is_a_key() {
        let line = KeyRing::generate_line();
        assert_eq!(line.len(), DIGITS);
        let ring = KeyRing::parse(&format!("# first\n{line}\n\n{}\n", KeyRing::generate_line())).unwrap();
        assert_eq!(ring.all().len(), 2);
        let upper = KeyRing::parse(&line.to_uppercase()).unwrap();
        assert_eq!(upper.first().names, ring.first().names);
        assert_ne!(ring.all()[0].names, ring.all()[1].names);
    }

    #[test]
    fn each_purpose_has_its_own_key() {
        let ring = KeyRing::parse(&"0f".repeat(32)).unwrap();
        let key = ring.first();
        let keys = [key.scopes, key.names, key.entity_tags, key.requests, key.sealing];
        for (index, one) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(one));
        }
    }

    #[test]
    fn a_fault_names_its_line_and_shows_no_key() {
        let good = "ab".repeat(32);
        for (text, line) in [
            (format!("{good}\n{}", &good[1..]), "line 2"),
            (format!("{}g", &good[1..]), "line 1"),
            (format!("+{}", &good[1..]), "line 1"),
            (format!("{good}\n{good}"), "line 2"),
            ("é".repeat(32), "line 1"),
            (String::new(), "no key"),
        ] {
            let fault = KeyRing::parse(&text).unwrap_err();
            assert!(fault.contains(line) && !fault.contains("abab"), "{fault}");
        }
    }
}
