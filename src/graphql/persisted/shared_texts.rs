//! Registered texts in the shared Redis: a text that a client has registered with one replica is found by all.
//!
//! Texts are encrypted, since literals may be personal data, and found by the same callers as in the memory of a replica.
//! Each caller has at most [`MAX_TEXTS`] of them, and evicts only its own. Without Redis, a text is unknown to the replicas
//! with which it was not registered, and clients send it again.

use std::{sync::LazyLock, time::Duration};

use redis::Script;

use super::{id::Sha256, registered::is_shareable};
use crate::{caller::Scope, fleet::Fleet};

/// The time after which an unused text is removed.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The maximum number of texts that belong to one caller.
const MAX_TEXTS: usize = 1000;

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

    /// The text with this hash that the caller `identity` may use.
    pub(super) async fn find(&self, hash: Sha256, identity: Option<Scope>) -> Option<String> {
        if !self.0.is_joined() {
            return None;
        }
        let private = identity.and_then(|identity| self.name(hash, Some(identity)));
        let names: Vec<_> = self.name(hash, None).into_iter().chain(private.clone()).collect();
        let lifetime = LIFETIME.as_millis().to_string();
        let found = self.0.call::<Vec<Vec<u8>>>(&FIND, &names, &[lifetime.as_bytes()]).await.ok()?;
        let [name, sealed] = found.as_slice() else { return None };
        let text = String::from_utf8(self.0.sealer()?.open(name, sealed)?).ok()?;
        let is_private = Some(name) == private.as_ref();
        (Sha256::of(&text) == hash && is_private != is_shareable(&text)).then_some(text)
    }

    /// Stores a `text` that the caller `identity` has registered.
    pub(super) async fn store(&self, hash: Sha256, text: &str, identity: Scope) {
        let reader = (!is_shareable(text)).then_some(identity);
        let (Some(names), Some(sealer)) = (self.0.names(), self.0.sealer()) else { return };
        let Some(name) = self.name(hash, reader) else { return };
        let sealed = sealer.seal(&name, text.as_bytes());
        let owned = names.digest("texts", &[&identity.digest()]);
        let (lifetime, maximum) = (LIFETIME.as_millis().to_string(), MAX_TEXTS.to_string());
        let arguments: [&[u8]; 3] = [&sealed, lifetime.as_bytes(), maximum.as_bytes()];
        // Without Redis, the text stays with this replica.
        let _ = self.0.call::<()>(&STORE, &[name, owned], &arguments).await;
    }

    /// The name of a text in Redis: for all callers, or only for `reader`.
    fn name(&self, hash: Sha256, reader: Option<Scope>) -> Option<Vec<u8>> {
        let names = self.0.names()?;
        Some(match reader {
            Some(reader) => names.digest("text", &[hash.as_bytes(), &reader.digest()]),
            None => names.digest("text", &[hash.as_bytes()]),
        })
    }
}
