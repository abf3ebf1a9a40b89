//! API keys: long random texts that callers are given, of which the gateway has a digest each.
//!
//! The digest is a plain BLAKE3. That is enough, since a key is made here of 256 random bits: there is nothing to guess,
//! so nothing that a slow or salted hash, as for passwords, would make harder. Digests are compared in constant time.

use std::{collections::HashSet, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// What every key begins with, so that people and scanners know it when they find one.
const PREFIX: &str = "agw_";

/// How many there may be. A key is held against each of them.
const MOST_KEYS: usize = 1000;

const LONGEST_NAME: usize = 64;

/// The keys that are known. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys(Arc<[ApiKey]>);

struct ApiKey {
    name: String,
    digest: blake3::Hash,
}

/// A key that was just made.
pub struct NewApiKey {
    /// What the caller is given, and nobody else.
    pub key: String,
    /// What goes into the file.
    pub line: String,
}

impl ApiKeys {
    /// Reads a file of lines `NAME:DIGEST`. Empty lines, and those that begin with `#`, are passed over. A name may have
    /// several keys, so that they can be changed without a gap.
    ///
    /// # Errors
    /// All that is wrong with it, with the number of each line, and nothing of what is in them.
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
            faults.push("there is no key in it".to_owned());
        }
        if keys.len() > MOST_KEYS {
            faults.push(format!("there are more than {MOST_KEYS} keys in it"));
        }
        if faults.is_empty() {
            return Ok(Self(keys.into()));
        }
        // A screen of them is enough to go by.
        let more = faults.len().saturating_sub(10);
        faults.truncate(10);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(format!("{}{more}; make lines with: appointments-gateway api-key NAME", faults.join("; ")))
    }

    /// The name that `key` was given to.
    pub(crate) fn name(&self, key: &str) -> Option<&str> {
        let digest = blake3::hash(key.as_bytes());
        // Each is looked at, and each comparison takes the same time, so the time tells nothing.
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
    if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(format!("is not 1 to {LONGEST_NAME} letters, digits or -_.@"))
}

impl NewApiKey {
    /// A key for the caller called `name`, of the operating system's randomness.
    ///
    /// # Errors
    /// What is wrong with the name, or that there is no randomness.
    pub fn make(name: &str) -> Result<Self, String> {
        check_name(name).map_err(|fault| format!("the name {fault}"))?;
        let mut random = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
            .map_err(|_| "the system gives no random numbers".to_owned())?;
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
    fn a_key_is_known_by_its_line_and_by_nothing_else() {
        let (alice, bob) = (NewApiKey::make("alice").unwrap(), NewApiKey::make("bob").unwrap());
        assert_ne!(alice.key, bob.key);
        assert!(!alice.line.contains(&alice.key[PREFIX.len()..]));
        let spare = NewApiKey::make("alice").unwrap();
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
    fn every_bad_line_is_told_by_its_number_and_none_is_repeated() {
        let good = NewApiKey::make("a").unwrap().line;
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
        assert!(names.iter().all(|name| NewApiKey::make(name).is_err()));
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_a_panic(text: String) {
            let _ = ApiKeys::from_file(&text);
        }
    }
}
