//! Compiled selections of [model](crate::model) objects: each field name is looked up once per plan, not once per value.

use async_graphql::{
    Pos,
    parser::types::{self as ast, SelectionSet},
};
use async_graphql_value::Value as Literal;

use super::normalize;
use crate::model::heap_size::allocation;

/// The compiled selection set of one object.
#[derive(Debug)]
pub(crate) struct Selection {
    /// The fields in response order.
    pub(crate) fields: Vec<SelectedField>,
    /// The estimated length of its JSON in bytes.
    pub(crate) length: usize,
}

/// A selected field.
#[derive(Debug)]
pub(crate) struct SelectedField {
    /// The response name as written to JSON, with quotes and colon.
    key: Box<str>,
    /// The position in the document.
    pub(crate) pos: Pos,
    pub(crate) kind: SelectedKind,
    /// The selection of an object field.
    pub(crate) inner: Selection,
    /// The argument `enabled`, which only `Features.all` has.
    pub(crate) enabled: Option<bool>,
}

/// The source of a selected field's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SelectedKind {
    /// `__typename`, with its value.
    Typename(&'static str),
    /// The index of the field in its object's [`Outline`].
    Field(usize),
}

/// The fields of an object type, each with the outline of the object type it leads to, if any.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [(&'static str, Option<&'static Outline>)],
}

/// A model object with an outline.
pub(crate) trait Outlined {
    /// The type's name and fields.
    const OUTLINE: Outline;
}

impl Selection {
    pub(crate) const EMPTY: Self = Self { fields: Vec::new(), length: 2 };

    /// Compiles `set`, which is normalised and valid, and selects from an object of that `outline`.
    pub(crate) fn of(set: &SelectionSet, outline: &'static Outline) -> Self {
        /// The typical length of a value.
        const VALUE: usize = 24;
        let selected =
            normalize::fields(set).filter_map(|field| SelectedField::of(&field.node, field.pos, outline));
        let fields: Vec<_> = selected.collect();
        let length = |field: &SelectedField| field.key.len() + VALUE + field.inner.length;
        Self { length: 2 + fields.iter().map(length).sum::<usize>(), fields }
    }

    /// Heap bytes in use.
    pub(crate) fn size(&self) -> usize {
        let field = |field: &SelectedField| allocation(field.key.len()) + field.inner.size();
        allocation(self.fields.capacity() * size_of::<SelectedField>())
            + self.fields.iter().map(field).sum::<usize>()
    }
}

impl SelectedField {
    /// Compiles one field; None if the object has no such field.
    fn of(field: &ast::Field, pos: Pos, outline: &'static Outline) -> Option<Self> {
        let name = field.name.node.as_str();
        let (kind, inner) = if name == "__typename" {
            (SelectedKind::Typename(outline.name), Selection::EMPTY)
        } else {
            let index = outline.fields.iter().position(|(known, _)| *known == name)?;
            let inner =
                outline.fields[index].1.map(|outline| Selection::of(&field.selection_set.node, outline));
            (SelectedKind::Field(index), inner.unwrap_or(Selection::EMPTY))
        };
        let enabled = match field.get_argument("enabled").map(|value| &value.node) {
            Some(Literal::Boolean(enabled)) => Some(*enabled),
            // Null counts as omitted.
            _ => None,
        };
        // A name needs no escaping.
        let key = format!("\"{}\":", field.response_key().node).into();
        Some(Self { key, pos, kind, inner, enabled })
    }

    /// `"name":`
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The response name.
    pub(crate) fn name(&self) -> &str {
        self.key.trim_matches(['"', ':'])
    }
}
