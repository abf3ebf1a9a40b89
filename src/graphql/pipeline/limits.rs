//! What a document asks for: counted with every fragment in its place, once for each fragment however often it is used.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned,
    parser::types::{ExecutableDocument, FragmentDefinition, Selection, SelectionSet},
};

use crate::{
    config::limits::Limits,
    error::{ApiError, limit::OverLimit},
};

/// Makes sure that no operation of `document`, and no fragment either, asks for more than `limits` allow.
///
/// Recurses with the nesting of the text alone, not from fragment to fragment.
///
/// # Errors
/// `QUERY_TOO_COMPLEX`, naming the limit; `GRAPHQL_VALIDATION_FAILED` for fragments that contain themselves or are not
/// there, since nothing can be counted in those.
pub(crate) fn check(document: &ExecutableDocument, limits: &Limits) -> Result<(), ApiError> {
    let fragments = Fragments::of(document)?;
    // Neither operations nor fragments have an order in a document as it is parsed: all are counted before one is told.
    let mut most = Count::default();
    for (_, operation) in document.operations.iter() {
        let mut count = fragments.count(&operation.node.selection_set.node)?;
        count.directives += operation.node.directives.len() as u64;
        most = most.most(&count);
    }
    most.check(limits)?;
    // What no operation uses is no better: validation, which refuses it, follows it to its end.
    fragments.0.values().flatten().fold(Count::default(), Count::most).check(limits)
}

/// What a selection set asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    depth: u64,
    root_fields: u64,
    fields: u64,
    aliases: u64,
    directives: u64,
}

impl Count {
    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        for (limit, what, value, maximum) in [
            ("depth", "levels of selections", self.depth, limits.depth),
            ("root_fields", "fields at the top", self.root_fields, limits.root_fields),
            ("aliases", "aliases", self.aliases, limits.aliases),
            ("directives", "directives", self.directives, limits.directives),
            ("fields", "fields", self.fields, limits.fields),
        ] {
            if value > maximum as u64 {
                return Err(OverLimit::too_complex(limit, what, maximum, value));
            }
        }
        Ok(())
    }

    /// Of each thing as many as in the one that has more of it.
    fn most(self, other: &Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            root_fields: self.root_fields.max(other.root_fields),
            fields: self.fields.max(other.fields),
            aliases: self.aliases.max(other.aliases),
            directives: self.directives.max(other.directives),
        }
    }

    /// With what stands one level below.
    fn add(&mut self, inner: Self) {
        self.depth = self.depth.max(inner.depth + 1);
        self.root_fields = self.root_fields.saturating_add(inner.root_fields);
        self.fields = self.fields.saturating_add(inner.fields);
        self.aliases = self.aliases.saturating_add(inner.aliases);
        self.directives = self.directives.saturating_add(inner.directives);
    }
}

/// What each fragment comes to; none while those that it uses are being counted.
struct Fragments<'d>(HashMap<&'d Name, Option<Count>>);

impl<'d> Fragments<'d> {
    /// Those of `document`, each after the ones that it uses.
    fn of(document: &'d ExecutableDocument) -> Result<Self, ApiError> {
        let mut counted = Self(HashMap::new());
        let mut in_order: Vec<_> = document.fragments.iter().collect();
        in_order.sort_by_key(|(_, fragment)| fragment.pos);
        // Fragments that are being counted, the later ones used by the earlier, with what they use and has not been
        // looked at.
        let mut open: Vec<(&Name, &Positioned<FragmentDefinition>, Vec<&Name>)> = Vec::new();
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
                match counted.0.get(next) {
                    Some(Some(_)) => {}
                    Some(None) => {
                        let text = format!("The fragment \"{next}\" contains itself.");
                        return Err(ApiError::ValidationFailed(text));
                    }
                    None => {
                        let (next, fragment) =
                            document.fragments.get_key_value(next).ok_or_else(|| missing(next))?;
                        counted.0.insert(next, None);
                        open.push((next, fragment, spreads(&fragment.node.selection_set.node)));
                    }
                }
            }
        }
        Ok(counted)
    }

    /// What `set` asks for, whose fragments have been counted.
    fn count(&self, set: &SelectionSet) -> Result<Count, ApiError> {
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
                    let name = &spread.node.fragment_name.node;
                    // Counted as nothing, it could be asked for without a bound.
                    self.0.get(name).copied().flatten().ok_or_else(|| missing(name))?
                }
            };
            count.add(inner);
        }
        Ok(count)
    }
}

fn missing(name: &Name) -> ApiError {
    ApiError::ValidationFailed(format!("There is no fragment \"{name}\"."))
}

/// The names of the fragments that stand in `set`.
fn spreads(set: &SelectionSet) -> Vec<&Name> {
    fn collect<'d>(set: &'d SelectionSet, names: &mut Vec<&'d Name>) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => collect(&field.node.selection_set.node, names),
                Selection::InlineFragment(fragment) => collect(&fragment.node.selection_set.node, names),
                Selection::FragmentSpread(spread) => names.push(&spread.node.fragment_name.node),
            }
        }
    }
    let mut names = Vec::new();
    collect(set, &mut names);
    names
}
