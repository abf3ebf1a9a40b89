//! The complexity of operations. In an array, their sum must not exceed the limits of a single operation.

use async_graphql::{ServerError, parser::types::ExecutableDocument};

use super::{limits, tokens};
use crate::{
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
};

/// The counts of an operation that are limited, except its depth, which does not add up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Complexity {
    bytes: u64,
    tokens: u64,
    root_fields: u64,
    fields: u64,
    aliases: u64,
    directives: u64,
    cost: u64,
}

impl Complexity {
    /// The complexity of a document, without its cost, which depends on variables.
    ///
    /// # Errors
    /// As [`limits::count`].
    pub(crate) fn of(text: &str, document: &ExecutableDocument) -> Result<Self, ServerError> {
        let limits::Count { root_fields, fields, aliases, directives, .. } = limits::count(document)?;
        let (bytes, tokens) = (text.len() as u64, tokens::of(text).count() as u64);
        Ok(Self { bytes, tokens, root_fields, fields, aliases, directives, cost: 0 })
    }

    /// The same with this cost.
    pub(crate) fn with_cost(self, cost: u64) -> Self {
        Self { cost, ..self }
    }

    /// The sum of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            tokens: self.tokens.saturating_add(other.tokens),
            root_fields: self.root_fields.saturating_add(other.root_fields),
            fields: self.fields.saturating_add(other.fields),
            aliases: self.aliases.saturating_add(other.aliases),
            directives: self.directives.saturating_add(other.directives),
            cost: self.cost.saturating_add(other.cost),
        }
    }

    /// Checks the sum over an array of operations.
    ///
    /// # Errors
    /// `QUERY_TOO_COMPLEX`, naming the limit.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let max_bytes = usize::try_from(limits.query.as_u64()).unwrap_or(usize::MAX);
        for (limit, what, value, maximum) in [
            (Limit::Query, "bytes", self.bytes, max_bytes),
            (Limit::Tokens, "tokens", self.tokens, limits.tokens),
            (Limit::RootFields, "root fields", self.root_fields, limits.root_fields),
            (Limit::Aliases, "aliases", self.aliases, limits.aliases),
            (Limit::Directives, "directives", self.directives, limits.directives),
            (Limit::Fields, "fields", self.fields, limits.fields),
            (Limit::Cost, "cost points", self.cost, limits.cost),
        ] {
            if value > maximum as u64 {
                return Err(LimitExceeded::array_too_complex(limit, what, maximum, value));
            }
        }
        Ok(())
    }
}
