//! A cached value with the validators of its response (RFC 9110, sections 3.2 and 8.8).

use std::sync::Arc;

use uuid::Uuid;

use super::{
    freshness::Freshness,
    store::Size,
    validity::{Guarded, ReadVersion},
};
use crate::upstream::validators::Validators;

/// A value and its validators.
#[derive(Debug, Clone)]
pub(crate) struct Representation<V> {
    pub(crate) value: V,
    pub(crate) validators: Option<Arc<Validators>>,
}

impl<V> Representation<V> {
    /// A copy for the cache, from a read of this `version`. Without validators it cannot be revalidated, so it is not
    /// kept longer than it may be served.
    pub(crate) fn into_copy(self, version: ReadVersion, freshness: Freshness) -> Guarded<Self> {
        let freshness = if self.validators.is_some() { freshness } else { freshness.without_revalidation() };
        Guarded::new(self, version, freshness)
    }
}

impl<V: Size> Size for Representation<V> {
    fn size(&self) -> usize {
        // With the reference counts of the `Arc`.
        self.value.size() + self.validators.as_ref().map_or(0, |validators| 16 + validators.size())
    }

    fn tags(&self) -> impl Iterator<Item = Uuid> {
        self.value.tags()
    }
}
