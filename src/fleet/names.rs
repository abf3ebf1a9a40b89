//! The names of keys and channels in Redis.
//!
//! Names that say something about data are keyed digests: a reader of Redis learns no id and recognises no caller.

use std::sync::Arc;

use super::message::ReplicaId;
use crate::credentials::key_ring::{FleetKey, KeyRing};

/// Names under `shared.prefix`. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: Arc<str>,
    keys: KeyRing,
}

impl Names {
    pub(super) fn new(prefix: &str, keys: KeyRing) -> Self {
        Self { prefix: prefix.into(), keys }
    }

    /// A name without data in it.
    pub(crate) fn plain(&self, name: &str) -> Vec<u8> {
        format!("{}:{name}", self.prefix).into_bytes()
    }

    /// The key of the present epoch.
    pub(crate) fn epoch(&self) -> Vec<u8> {
        self.plain("epoch")
    }

    /// The sorted set of the replicas, each with the end of its lease (in milliseconds by the clock of Redis).
    pub(crate) fn members(&self) -> Vec<u8> {
        self.plain("members")
    }

    /// The channel for acknowledgements to `replica`.
    pub(super) fn acknowledgements_to(&self, replica: ReplicaId) -> Vec<u8> {
        format!("{}:acknowledgements:{}", self.prefix, replica.0).into_bytes()
    }

    /// The name of a `kind` of thing that `parts` identify, under the first key.
    pub(crate) fn digest(&self, kind: &str, parts: &[&[u8]]) -> Vec<u8> {
        self.under(self.keys.first(), kind, parts)
    }

    /// The same under all keys, the first one included: other replicas may still use another key.
    pub(crate) fn digests(&self, kind: &str, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        self.keys.all().iter().map(|key| self.under(key, kind, parts)).collect()
    }

    fn under(&self, key: &FleetKey, kind: &str, parts: &[&[u8]]) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new_keyed(&key.names);
        for part in [kind.as_bytes()].iter().chain(parts) {
            // The length prefix makes the encoding of the parts unambiguous.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        // 128 bits cannot be made to collide without the key.
        let digest = &hasher.finalize().to_hex()[..32];
        format!("{}:{kind}:{digest}", self.prefix).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unambiguous_and_differ_by_key() {
        let keys = KeyRing::parse(&["a", "b"].map(|digit| digit.repeat(64)).join("\n")).unwrap();
        let names = Names::new("gateway", keys);
        let parts: [&[&[u8]]; 4] = [&[b"ab", b""], &[b"a", b"b"], &[b"", b"ab"], &[b"ab"]];
        let mut all: Vec<_> = parts.iter().flat_map(|parts| names.digests("text", parts)).collect();
        all.extend(names.digests("copy", parts[0]));
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 10);
        assert_eq!(names.digest("text", parts[0]), all[0]);
        assert!(all[0].starts_with(b"gateway:text:"));
    }
}
