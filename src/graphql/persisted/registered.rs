//! The registered texts of automatic persisted queries, by hash.
//!
//! **Sharing.** A text without strings and comments contains only names, numbers and structure. It is part of an app,
//! so any caller may use it by its hash. Strings and comments may contain personal data. A text with either is found
//! only by the caller that registered it: no other caller can learn its content, or that it exists.
//!
//! **Memory.** Texts are bounded in bytes. Under memory pressure, the largest holder's oldest texts are evicted first
//! ([`Quotas`]).

use std::sync::Arc;

use bytesize::ByteSize;
use foldhash::quality::RandomState;
use moka::{notification::RemovalCause, policy::EvictionPolicy, sync::Cache};

use super::id::Sha256;
use crate::{
    cache::quota::{Quotas, Usage},
    caller::Scope,
    metrics::metrics,
};

/// The bytes of an entry in addition to its text, as measured for the cache store: its node and queue entries in moka,
/// and its entry in the quota.
const ENTRY_OVERHEAD: usize = 700;

/// Registered texts.
pub(super) struct RegisteredTexts {
    /// Hashed with a random seed, so that clients cannot choose texts whose keys collide.
    texts: Cache<TextKey, RegisteredText, RandomState>,
    quotas: Arc<Quotas<TextKey>>,
    size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct TextKey {
    hash: Sha256,
    /// The only caller that may use the text; None for all callers.
    reader: Option<Scope>,
}

#[derive(Clone)]
struct RegisteredText {
    text: Arc<str>,
    registrant: Scope,
    /// Distinguishes the entry from all others in the quota.
    number: u64,
}

impl RegisteredTexts {
    /// No texts yet, at most `size`, with a quota of `percent` for each caller.
    pub(super) fn new(size: ByteSize, percent: u8) -> Self {
        // Slightly less than the capacity, so that the quotas evict before moka does.
        let size = size.as_u64();
        let quotas = Arc::new(Quotas::new(size - size / 64, percent));
        let texts = Cache::builder()
            .max_capacity(size)
            .weigher(|_: &TextKey, entry: &RegisteredText| weight(&entry.text))
            // A new version of an app replaces its documents, so recency predicts their use better than frequency.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener({
                let quotas = quotas.clone();
                move |_: Arc<TextKey>, entry: RegisteredText, cause| {
                    quotas.leave(entry.registrant, entry.number);
                    if cause == RemovalCause::Size {
                        metrics().evictions.count("room");
                    }
                }
            })
            .build_with_hasher(RandomState::default());
        Self { texts, quotas, size }
    }

    /// The text with this hash that the caller `identity` may use, and whether no other caller may.
    pub(super) fn get(&self, hash: Sha256, identity: Option<Scope>) -> Option<(Arc<str>, bool)> {
        let get = |reader: Option<Scope>| {
            let entry = self.texts.get(&TextKey { hash, reader })?;
            Some((entry.text, reader.is_some()))
        };
        get(None).or_else(|| get(Some(identity?)))
    }

    /// Registers `text` for the caller `identity`, subject to eviction.
    pub(super) fn insert(&self, hash: Sha256, text: &str, identity: Scope) {
        let key = TextKey { hash, reader: (!is_shareable(text)).then_some(identity) };
        let bytes = weight(text);
        if u64::from(bytes) > self.size || self.texts.contains_key(&key) {
            return;
        }
        let (held, evicted) = self.quotas.take(identity, key, bytes);
        for evicted in evicted {
            metrics().evictions.count("share");
            self.remove(evicted);
        }
        self.texts
            .insert(key, RegisteredText { text: text.into(), registrant: identity, number: held.number });
        if !self.quotas.holds(identity, held.number) {
            // The quota evicted it before it was inserted.
            self.remove(held);
        }
        // Evict now, so that the bound holds at once and not after moka's next maintenance run.
        self.texts.run_pending_tasks();
    }

    /// Removes the entry, unless another has taken its place.
    fn remove(&self, held: Usage<TextKey>) {
        if self.texts.get(&held.key).is_some_and(|entry| entry.number == held.number) {
            self.texts.invalidate(&held.key);
        }
    }

    /// The number of texts and their size in bytes.
    pub(super) fn total(&self) -> (usize, u64) {
        self.quotas.total()
    }
}

/// Whether all callers may use a valid `text` by its hash: it has neither strings nor comments. No other token contains
/// `"` or `#`.
pub(super) fn is_shareable(text: &str) -> bool {
    !text.contains(['"', '#'])
}

fn weight(text: &str) -> u32 {
    u32::try_from(ENTRY_OVERHEAD + size_of::<(TextKey, RegisteredText)>() + text.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Caller, ScopeKey};

    const KIB: u64 = 1024;

    fn callers<const N: usize>() -> [Scope; N] {
        let key = ScopeKey::random();
        std::array::from_fn(|n| Caller::with_token(&n.to_string(), &key).identity())
    }

    fn text(caller: usize, number: usize) -> String {
        format!("query Q{caller}x{number} {{ appointments(first: 1) {{ totalCount }} }}")
    }

    fn known(texts: &RegisteredTexts, text: &str, caller: Scope) -> bool {
        texts.get(Sha256::of(text), Some(caller)).is_some_and(|(found, _)| *found == *text)
    }

    fn insert(texts: &RegisteredTexts, text: &str, caller: Scope) {
        texts.insert(Sha256::of(text), text, caller);
        assert!(texts.total().1 <= texts.size, "the bound holds at any time");
    }

    #[test]
    fn only_texts_without_strings_and_comments_are_shared() {
        let [one, other] = callers();
        let texts = RegisteredTexts::new(ByteSize::kib(64), 10);
        for (text, is_shared) in [
            ("query ($id: UUID!) { appointment(id: $id) { id } }", true),
            ("{ appointments(first: 20) { nodes { features { all(enabled: true) { name } } } } }", true),
            ("{ appointment(id: \"9a0f170e-0aa0-47db-ab14-4ddcdcbad061\") { id } }", false),
            ("query ($s: String = \"x\") { __typename }", false),
            ("{ a(b: \"\"\"c\"\"\") }", false),
            ("{ __typename } # for Philomena", false),
        ] {
            insert(&texts, text, one);
            assert!(known(&texts, text, one), "{text}");
            assert_eq!(known(&texts, text, other), is_shared, "{text}");
            assert_eq!(texts.get(Sha256::of(text), None).is_some(), is_shared, "{text}");
        }
    }

    #[test]
    fn a_busy_caller_evicts_only_its_own_texts() {
        let [quiet, busy] = callers();
        let texts = RegisteredTexts::new(ByteSize::kib(64), 10);
        for number in 0..5 {
            insert(&texts, &text(0, number), quiet);
        }
        for number in 0..1000 {
            insert(&texts, &text(1, number), busy);
        }
        assert!((0..5).all(|number| known(&texts, &text(0, number), quiet)));
        assert!(known(&texts, &text(1, 999), busy) && !known(&texts, &text(1, 0), busy));
        let (entries, bytes) = texts.total();
        assert!(entries > 50 && bytes > 60 * KIB, "one caller may use the rest: {entries} {bytes}");
    }

    #[test]
    fn many_callers_stay_within_the_bound() {
        let callers = callers::<200>();
        let texts = RegisteredTexts::new(ByteSize::kib(64), 10);
        for (n, caller) in callers.into_iter().enumerate() {
            insert(&texts, &text(n, 0), caller);
        }
        assert!(known(&texts, &text(199, 0), callers[199]) && !known(&texts, &text(0, 0), callers[0]));
        texts.texts.run_pending_tasks();
        assert_eq!(texts.texts.weighted_size(), texts.total().1, "the quota counts what is held");
    }

    #[test]
    fn repeated_registrations_take_memory_once() {
        let [one, other] = callers();
        let texts = RegisteredTexts::new(ByteSize::kib(64), 10);
        for _ in 0..3 {
            insert(&texts, &text(0, 0), one);
            insert(&texts, &text(0, 0), other);
        }
        assert_eq!(texts.total().0, 1);
        insert(&texts, &" ".repeat(65 * 1024), one);
        assert_eq!(texts.total().0, 1, "a text larger than the memory is not stored");
    }

    #[test]
    fn lookups_of_unknown_hashes_change_nothing() {
        let [one, other] = callers();
        let texts = RegisteredTexts::new(ByteSize::kib(64), 10);
        let registered: Vec<_> = (0..40).map(|number| text(0, number)).collect();
        registered.iter().for_each(|text| insert(&texts, text, one));
        let before = texts.total();
        for number in 0..200_000 {
            assert!(texts.get(Sha256::of(&number.to_string()), Some(other)).is_none());
        }
        assert_eq!(texts.total(), before);
        assert!(registered.iter().all(|text| known(&texts, text, one)));
    }
}
