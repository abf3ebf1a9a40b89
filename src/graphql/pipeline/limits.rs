//! Limits on depth, fields, root fields, aliases and directives. Fragments count at each use, but each is traversed once.

use std::collections::HashMap;

use async_graphql::{
    Name, Pos, Positioned, ServerError,
    parser::types::{ExecutableDocument, Selection, SelectionSet},
};

use crate::{
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
};

/// Checks every operation and every fragment of `document` against `limits`.
///
/// Recursion is bounded by the nesting of the text; it does not follow fragment spreads.
///
/// # Errors
/// `QUERY_TOO_COMPLEX`, naming the limit. `GRAPHQL_VALIDATION_FAILED` for cyclic and unknown fragments, which cannot be
/// counted.
pub(crate) fn check(document: &ExecutableDocument, limits: &Limits) -> Result<(), ServerError> {
    let fragments = FragmentCounts::of(document)?;
    fragments.operations(document)?.check(limits)?;
    // Unused fragments count too: validation traverses them before it rejects them.
    Ok(fragments.0.values().flatten().fold(Count::default(), Count::most).check(limits)?)
}

/// The maximum of each count over the operations of `document`.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` for cyclic and unknown fragments.
pub(crate) fn count(document: &ExecutableDocument) -> Result<Count, ServerError> {
    FragmentCounts::of(document)?.operations(document)
}

/// The counts of one selection set, with its fragments expanded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) depth: u64,
    pub(crate) root_fields: u64,
    pub(crate) fields: u64,
    pub(crate) aliases: u64,
    pub(crate) directives: u64,
}

impl Count {
    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        for (limit, what, value, maximum) in [
            (Limit::Depth, "levels of nested selections", self.depth, limits.depth),
            (Limit::RootFields, "root fields", self.root_fields, limits.root_fields),
            (Limit::Aliases, "aliases", self.aliases, limits.aliases),
            (Limit::Directives, "directives", self.directives, limits.directives),
            (Limit::Fields, "fields", self.fields, limits.fields),
        ] {
            if value > maximum as u64 {
                return Err(LimitExceeded::too_complex(limit, what, maximum, value));
            }
        }
        Ok(())
    }

    /// The maximum of each count.
    fn most(self, other: &Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            root_fields: self.root_fields.max(other.root_fields),
            fields: self.fields.max(other.fields),
            aliases: self.aliases.max(other.aliases),
            directives: self.directives.max(other.directives),
        }
    }

    /// Adds the counts of a selection one level below.
    fn add(&mut self, inner: Self) {
        self.depth = self.depth.max(inner.depth + 1);
        self.root_fields = self.root_fields.saturating_add(inner.root_fields);
        self.fields = self.fields.saturating_add(inner.fields);
        self.aliases = self.aliases.saturating_add(inner.aliases);
        self.directives = self.directives.saturating_add(inner.directives);
    }
}

/// The counts of each fragment; None while the fragments that it spreads are being counted.
struct FragmentCounts<'d>(HashMap<&'d Name, Option<Count>>);

impl<'d> FragmentCounts<'d> {
    /// Counts the fragments of `document` in depth-first order, with an explicit stack.
    fn of(document: &'d ExecutableDocument) -> Result<Self, ServerError> {
        let mut counted = Self(HashMap::new());
        let mut in_order: Vec<_> = document.fragments.iter().collect();
        in_order.sort_by_key(|(_, fragment)| fragment.pos);
        // The stack: each fragment with its spreads that are still to be visited.
        let mut open = Vec::new();
        for (name, fragment) in in_order {
            if counted.0.contains_key(name) {
                continue;
            }
            counted.0.insert(name, None);
            open.push((name, fragment, spreads(&fragment.node.selection_set.node)));
            while let Some((name, fragment, used)) = open.last_mut() {
                let Some(next) = used.pop() else {
                    let mut count = counted.count(&fragment.node.selection_set.node)?;
                    count.directives = count.directives.saturating_add(fragment.node.directives.len() as u64);
                    counted.0.insert(*name, Some(count));
                    open.pop();
                    continue;
                };
                let Positioned { node: next, pos } = next;
                match counted.0.get(next) {
                    Some(Some(_)) => {}
                    Some(None) => {
                        let text = format!("The fragment \"{next}\" spreads itself. Remove the cycle.");
                        return Err(ApiError::ValidationFailed(text).at([*pos]));
                    }
                    None => {
                        let (next, fragment) =
                            document.fragments.get_key_value(next).ok_or_else(|| missing(next, *pos))?;
                        counted.0.insert(next, None);
                        open.push((next, fragment, spreads(&fragment.node.selection_set.node)));
                    }
                }
            }
        }
        Ok(counted)
    }

    /// The maximum of each count over the operations of `document`. The parsed document does not keep their order, so a
    /// maximum makes the error deterministic.
    fn operations(&self, document: &ExecutableDocument) -> Result<Count, ServerError> {
        let mut most = Count::default();
        for (_, operation) in document.operations.iter() {
            let mut count = self.count(&operation.node.selection_set.node)?;
            count.directives += operation.node.directives.len() as u64;
            most = most.most(&count);
        }
        Ok(most)
    }

    /// Counts `set`, whose fragments are already counted.
    fn count(&self, set: &SelectionSet) -> Result<Count, ServerError> {
        let mut count = Count { depth: 1, ..Count::default() };
        for selection in &set.items {
            let directives = selection.node.directives().len() as u64;
            count.directives = count.directives.saturating_add(directives);
            let inner = match &selection.node {
                Selection::Field(field) => {
                    count.root_fields = count.root_fields.saturating_add(1);
                    count.fields = count.fields.saturating_add(1);
                    count.aliases = count.aliases.saturating_add(u64::from(field.node.alias.is_some()));
                    let set = &field.node.selection_set.node;
                    if set.items.is_empty() {
                        continue;
                    }
                    Count { root_fields: 0, ..self.count(set)? }
                }
                Selection::InlineFragment(fragment) => self.count(&fragment.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => {
                    let Positioned { node: name, pos } = &spread.node.fragment_name;
                    // Counting an unknown fragment as empty would allow unbounded documents.
                    self.0.get(name).copied().flatten().ok_or_else(|| missing(name, *pos))?
                }
            };
            count.add(inner);
        }
        Ok(count)
    }
}

fn missing(name: &Name, at: Pos) -> ServerError {
    ApiError::ValidationFailed(format!("Unknown fragment \"{name}\".")).at([at])
}

/// The fragment spreads in `set`.
fn spreads(set: &SelectionSet) -> Vec<&Positioned<Name>> {
    fn collect<'d>(set: &'d SelectionSet, names: &mut Vec<&'d Positioned<Name>>) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => collect(&field.node.selection_set.node, names),
                Selection::InlineFragment(fragment) => collect(&fragment.node.selection_set.node, names),
                Selection::FragmentSpread(spread) => names.push(&spread.node.fragment_name),
            }
        }
    }
    let mut names = Vec::new();
    collect(set, &mut names);
    names
}
