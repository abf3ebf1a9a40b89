//! `CollectFields` (GraphQL specification, section 6.3.2): the fields of a selection grouped by response name, with
//! fragments resolved.

use std::collections::HashSet;

use async_graphql::{
    Name, Positioned,
    indexmap::IndexMap,
    parser::types::{Directive, ExecutableDocument, Field, Selection, SelectionSet},
};

/// Fields by response name, in the order of the selection.
pub(crate) type CollectedFields<'d> = IndexMap<&'d Name, Vec<&'d Positioned<Field>>>;

/// Collects the fields of all `sets`, which select from one object, without selections whose directives `is_skipped`
/// skips. The schema's only abstract type has one member, so every valid fragment applies.
///
/// Each fragment is visited once. Recursion is bounded by the nesting of the text, which has no fragment cycles.
pub(crate) fn collect_fields<'d>(
    document: &'d ExecutableDocument,
    sets: &[&'d SelectionSet],
    is_skipped: impl Fn(&[Positioned<Directive>]) -> bool,
) -> CollectedFields<'d> {
    let mut collector = Collector { document, is_skipped, visited: HashSet::new(), fields: IndexMap::new() };
    sets.iter().for_each(|set| collector.collect(set));
    collector.fields
}

struct Collector<'d, F> {
    document: &'d ExecutableDocument,
    is_skipped: F,
    visited: HashSet<&'d Name>,
    fields: CollectedFields<'d>,
}

impl<'d, F: Fn(&[Positioned<Directive>]) -> bool> Collector<'d, F> {
    fn collect(&mut self, set: &'d SelectionSet) {
        for selection in &set.items {
            if (self.is_skipped)(selection.node.directives()) {
                continue;
            }
            match &selection.node {
                Selection::Field(field) => {
                    self.fields.entry(&field.node.response_key().node).or_default().push(field);
                }
                Selection::InlineFragment(fragment) => self.collect(&fragment.node.selection_set.node),
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.document.fragments.get(name)
                        && self.visited.insert(name)
                    {
                        self.collect(&fragment.node.selection_set.node);
                    }
                }
            }
        }
    }
}
