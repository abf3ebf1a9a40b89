//! Registered texts in the shared Redis: a text that a client has registered with one replica is found by all.
//!
//! Texts are encrypted, since literals may be personal data, and found by the same callers as in the memory of a replica.
//! Each caller has at most [`MAX_TEXTS`] of them, and evicts only its own. Without Redis, a text is unknown to the replicas
//! with which it was not registered, and clients send it again.

use std::{sync::LazyLock, time::Duration};

use redis::Script;

use super::{id::Sha256, registered::is_shareable};
use crate::{
    caller::{Caller, Scope},
    fleet::Fleet,
};

/// The time after which an unused text is removed.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum number of texts that belong to one caller.
const MAX_TEXTS: usize = 1000;

/// The bytes of all texts that are stored within a [`LIFETIME`].
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The kinds of names in Redis.
const TEXT: &str = "text";
const TEXTS_OF_CALLER: &str = "texts";
const BYTES: &str = "persisted-bytes";

static FIND: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../fleet/scripts/find_text.lua")));
static STORE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../../fleet/scripts/store_text.lua")));

/// The registered texts of all replicas. Cheap to clone.
#[derive(Clone)]
pub(super) struct SharedTexts(Fleet);

impl SharedTexts {
    /// None without a shared Redis.
    pub(super) fn of(fleet: &Fleet) -> Option<Self> {
        fleet.is_configured().then(|| Self(fleet.clone()))
    }

    /// The text with this hash that `caller` may use. During a rotation, it may be under any key of the fleet.
    pub(super) async fn find(&self, hash: Sha256, caller: Option<&Caller>) -> Option<String> {
        let (names, sealer) = (self.0.names()?, self.0.sealer()?);
        // Without a caller, the upstream would answer nothing.
        if caller.is_none() || !self.0.is_joined() {
            return None;
        }
        let public = names.digests(TEXT, &[hash.as_bytes()]);
        let identities = caller.map(Caller::identities).unwrap_or_default().into_iter().enumerate();
        let private = identities.filter_map(|(key, identity)| {
            names.digests(TEXT, &[hash.as_bytes(), &identity.digest()]).into_iter().nth(key)
        });
        let all: Vec<_> = public.iter().cloned().chain(private).collect();
        let lifetime = LIFETIME.as_millis().to_string();
        let found = self.0.call::<Vec<Vec<u8>>>(&FIND, &all, &[lifetime.as_bytes()]).await.ok()?;
        let [name, sealed] = found.as_slice() else { return None };
        let text = String::from_utf8(sealer.open(name, sealed)?).ok()?;
        let is_valid = Sha256::of(&text) == hash && public.contains(name) == is_shareable(&text);
        is_valid.then_some(text)
    }

    /// Stores a `text` that the caller `identity` has registered.
    pub(super) async fn store(&self, hash: Sha256, text: &str, identity: Scope) {
        let (Some(names), Some(sealer)) = (self.0.names(), self.0.sealer()) else { return };
        let identity = identity.digest();
        let readers: &[&[u8]] = if is_shareable(text) { &[] } else { &[&identity] };
        let name = names.digest(TEXT, &[&[hash.as_bytes()], readers].concat());
        let sealed = sealer.seal(&name, text.as_bytes());
        let [lifetime, texts, bytes] =
            [LIFETIME.as_millis() as u64, MAX_TEXTS as u64, MAX_BYTES].map(|number| number.to_string());
        let arguments: [&[u8]; 4] = [&sealed, lifetime.as_bytes(), texts.as_bytes(), bytes.as_bytes()];
        let keys = [name, names.digest(TEXTS_OF_CALLER, &[&identity]), names.digest(BYTES, &[])];
        // Without Redis, the text stays with this replica.
        let _ = self.0.call::<()>(&STORE, &keys, &arguments).await;
    }
}
