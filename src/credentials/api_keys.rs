//! API keys. The gateway stores only their digests.
//!
//! The digest is plain BLAKE3. A key has 256 random bits, so it cannot be guessed, and a slow or salted hash as for
//! passwords would add nothing. Digests are compared in constant time.

use std::{collections::HashSet, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The prefix of every key, by which people and secret scanners recognise it.
const PREFIX: &str = "agw_";

/// The maximum number of keys. Each lookup compares all of them.
const MAX_KEYS: usize = 1000;

const MAX_NAME: usize = 64;

/// The accepted API keys. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys(Arc<[ApiKey]>);

struct ApiKey {
    name: String,
    digest: blake3::Hash,
}

/// A newly generated key.
pub struct NewApiKey {
    /// The secret key, for the caller only.
    pub key: String,
    /// The line for the file of API keys.
    pub line: String,
}

impl ApiKeys {
    /// Parses a file of lines `NAME:DIGEST`. Empty lines and lines that begin with `#` are skipped. A name may have
    /// several keys, so that keys can be rotated without downtime.
    ///
    /// # Errors
    /// All faults with their line numbers. The text quotes no line, since a line may hold a secret.
    pub fn from_file(text: &str) -> Result<Self, String> {
        let (mut keys, mut faults, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match ApiKey::read(line) {
                Ok(key) if !seen.insert(key.digest) => faults.push(format!("line {number} repeats a key")),
                Ok(key) => keys.push(key),
                Err(fault) => faults.push(format!("line {number} {fault}")),
            }
        }
        if faults.is_empty() && keys.is_empty() {
            faults.push("it contains no key".to_owned());
        }
        if keys.len() > MAX_KEYS {
            faults.push(format!("it contains more than {MAX_KEYS} keys"));
        }
        if faults.is_empty() {
            return Ok(Self(keys.into()));
        }
        // Limits the length of the message.
        let more = faults.len().saturating_sub(10);
        faults.truncate(10);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(format!("{}{more}; generate lines with: appointments-gateway api-key NAME", faults.join("; ")))
    }

    /// Returns the name of `key`, if it is accepted.
    pub(crate) fn name(&self, key: &str) -> Option<&str> {
        let digest = blake3::hash(key.as_bytes());
        // Compares all keys in constant time, so that the duration reveals nothing.
        self.0.iter().fold(None, |found, it| if it.digest == digest { Some(it.name.as_str()) } else { found })
    }
}

impl ApiKey {
    fn read(line: &str) -> Result<Self, String> {
        let (name, digest) = line.split_once(':').ok_or("is not of the form NAME:DIGEST")?;
        check_name(name).map_err(|fault| format!("has a name that {fault}"))?;
        let digest = blake3::Hash::from_hex(digest.trim())
            .map_err(|_| "has a digest that is not 64 hexadecimal digits".to_owned())?;
        Ok(Self { name: name.to_owned(), digest })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(format!("is not 1 to {MAX_NAME} letters, digits or -_.@"))
}

impl NewApiKey {
    /// Generates a key for the caller `name` from the operating system's random numbers.
    ///
    /// # Errors
    /// The name is invalid, or no random numbers are available.
    pub fn generate(name: &str) -> Result<Self, String> {
        check_name(name).map_err(|fault| format!("the name {fault}"))?;
        let mut random = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
            .map_err(|_| "the system's random number generator failed".to_owned())?;
        let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let line = format!("{name}:{}", blake3::hash(key.as_bytes()).to_hex());
        Ok(Self { key, line })
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

impl fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_accepted_by_its_line_only() {
        let (alice, bob) = (NewApiKey::generate("alice").unwrap(), NewApiKey::generate("bob").unwrap());
        assert_ne!(alice.key, bob.key);
        assert!(!alice.line.contains(&alice.key[PREFIX.len()..]));
        let spare = NewApiKey::generate("alice").unwrap();
        let text = format!("# ours\n\n{}\r\n  {}  \n{}\n", alice.line, bob.line, spare.line);
        let keys = ApiKeys::from_file(&text).unwrap();
        for (key, name) in [(&alice.key, "alice"), (&bob.key, "bob"), (&spare.key, "alice")] {
            assert_eq!(keys.name(key), Some(name));
        }
        let digest = alice.line.split_once(':').unwrap().1;
        for unknown in ["", "agw_", digest, &alice.line, &alice.key[1..], &format!("{}=", alice.key)] {
            assert_eq!(keys.name(unknown), None);
        }
    }

    #[test]
    fn faults_name_line_numbers_and_quote_no_line() {
        let good = NewApiKey::generate("a").unwrap().line;
        let text =
            format!("{good}\nhunter2\nb:hunter2\n:{}\n{good}\nc d:{}\n", "0".repeat(64), "0".repeat(64));
        let fault = ApiKeys::from_file(&text).unwrap_err();
        for part in [
            "line 2 is not",
            "line 3 has a digest",
            "line 4 has a name",
            "line 5 repeats",
            "line 6 has a name",
        ] {
            assert!(fault.contains(part), "{part} in {fault}");
        }
        assert!(!fault.contains("hunter2") && !fault.contains(&good));
        for empty in ["", "\n", "# nothing\n"] {
            assert!(ApiKeys::from_file(empty).unwrap_err().contains("no key"));
        }
        assert!(ApiKeys::from_file(&"x\n".repeat(100)).unwrap_err().contains("and 90 more"));
        let names = ["", "a b", "a:b", &"x".repeat(65), "é"];
        assert!(names.iter().all(|name| NewApiKey::generate(name).is_err()));
    }

    proptest! {
        #[test]
        fn any_file_is_parsed_without_a_panic(text: String) {
            let _ = ApiKeys::from_file(&text);
        }
    }
}
