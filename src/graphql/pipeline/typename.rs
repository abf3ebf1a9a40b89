//! Rewriting of directives on `__typename` before async-graphql validates a document. Its validation skips `__typename`,
//! and reports variables used only by directives there as unused. An equivalent inline fragment is validated.

use async_graphql::{
    Positioned,
    parser::types::{
        DocumentOperations, ExecutableDocument, InlineFragment, OperationDefinition, Selection, SelectionSet,
    },
};

/// Moves the directives of each `__typename` in `document` to an inline fragment around it.
pub(crate) fn show_directives(document: &mut ExecutableDocument) {
    let operations: Vec<&mut Positioned<OperationDefinition>> = match &mut document.operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    let in_operations = operations.into_iter().map(|operation| &mut operation.node.selection_set);
    let in_fragments = document.fragments.values_mut().map(|fragment| &mut fragment.node.selection_set);
    for set in in_operations.chain(in_fragments) {
        show_in(&mut set.node);
    }
}

fn show_in(set: &mut SelectionSet) {
    for selection in &mut set.items {
        let pos = selection.pos;
        match &mut selection.node {
            Selection::Field(field) if field.node.name.node == "__typename" => {
                let directives = std::mem::take(&mut field.node.directives);
                if !directives.is_empty() {
                    let items = vec![Positioned::new(Selection::Field(field.clone()), pos)];
                    let selection_set = Positioned::new(SelectionSet { items }, pos);
                    let fragment = InlineFragment { type_condition: None, directives, selection_set };
                    selection.node = Selection::InlineFragment(Positioned::new(fragment, pos));
                }
            }
            Selection::Field(field) => show_in(&mut field.node.selection_set.node),
            Selection::InlineFragment(fragment) => show_in(&mut fragment.node.selection_set.node),
            Selection::FragmentSpread(_) => {}
        }
    }
}
