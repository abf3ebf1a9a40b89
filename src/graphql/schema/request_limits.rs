//! The limits on the appointments that one request asks for: `limits.ids` and `limits.items`.

use std::{
    collections::HashSet,
    sync::{PoisonError, atomic::Ordering},
};

use async_graphql::Context;

use crate::{
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
    graphql::execute::run::Execution,
};

/// The limits on the appointments that one request asks for, however many operations and fields it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    max_ids: usize,
    max_items: usize,
}

impl RequestLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { max_ids: limits.ids, max_items: limits.items }
    }

    /// Checks a field that requests a list of `length` appointments with these `ids`.
    ///
    /// # Errors
    /// `BAD_USER_INPUT` if the list is too long, and those of [`admit`](Self::admit).
    pub(crate) fn admit_list(
        &self,
        ctx: &Context<'_>,
        ids: &[uuid::Uuid],
        length: usize,
    ) -> Result<(), ApiError> {
        if length > self.max_ids { Err(self.too_many(length)) } else { self.admit(ctx, ids, length) }
    }

    /// Checks the totals of the request, including `ids` and `items` of one more field.
    ///
    /// # Errors
    /// `QUERY_TOO_COMPLEX` for too many items, `BAD_USER_INPUT` for too many distinct ids.
    pub(crate) fn admit(&self, ctx: &Context<'_>, ids: &[uuid::Uuid], items: usize) -> Result<(), ApiError> {
        let requested = &Execution::of(ctx).requested;
        let mut distinct = requested.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let items = requested.items.load(Ordering::Relaxed) + items;
        if items > self.max_items {
            let what = "requested appointments";
            return Err(LimitExceeded::too_complex(Limit::Items, what, self.max_items, items as u64));
        }
        let new: HashSet<_> = ids.iter().filter(|id| !distinct.contains(*id)).collect();
        let count = distinct.len() + new.len();
        if count > self.max_ids {
            return Err(self.too_many(count));
        }
        // A rejected field takes nothing from the others.
        distinct.extend(ids);
        requested.items.store(items, Ordering::Relaxed);
        Ok(())
    }

    fn too_many(&self, count: usize) -> ApiError {
        let maximum = self.max_ids;
        let message = format!(
            "{count} ids exceed the limit of {maximum} per field and of distinct ids per request (limits.ids). Split \
             the request."
        );
        LimitExceeded::bad_input(Limit::Ids, maximum as u64, count as u64, message)
    }
}
