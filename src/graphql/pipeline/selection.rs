//! What is selected of an object of the [model](crate::model), compiled: each name is looked up once for a document, not
//! once for each value.

use async_graphql::{
    Pos,
    parser::types::{self as ast, SelectionSet},
};
use async_graphql_value::Value as Literal;

use super::normalize;
use crate::model::allocation;

/// What is selected of an object.
#[derive(Debug)]
pub(crate) struct Selection {
    /// In the order of the answer.
    pub(crate) fields: Vec<Selected>,
    /// About how many bytes it comes to.
    pub(crate) length: usize,
}

/// A field that is selected.
#[derive(Debug)]
pub(crate) struct Selected {
    /// As it is written: the name in the answer with its quotes and the colon.
    key: Box<str>,
    /// Where it stands in the document.
    pub(crate) pos: Pos,
    pub(crate) what: What,
    /// What is selected of it, where it is an object.
    pub(crate) inner: Selection,
    /// The argument of that name, of the one field that has it.
    pub(crate) enabled: Option<bool>,
}

/// What is selected.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// `__typename`, which is this.
    Typename(&'static str),
    /// The field of that number of its object's [`Outline`].
    Field(usize),
}

/// The fields of an object, each with that of the object to which it leads, if it does.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [(&'static str, Option<&'static Outline>)],
}

impl Selection {
    pub(crate) const NOTHING: Self = Self { fields: Vec::new(), length: 2 };

    /// Of `set`, which is flattened and valid, and selects of the object of that `outline`.
    pub(crate) fn of(set: &SelectionSet, outline: &'static Outline) -> Self {
        /// What the value of a field comes to: a time, a part of a name, a number.
        const VALUE: usize = 24;
        let selected =
            normalize::fields(set).filter_map(|field| Selected::of(&field.node, field.pos, outline));
        let fields: Vec<_> = selected.collect();
        let length = |field: &Selected| field.key.len() + VALUE + field.inner.length;
        Self { length: 2 + fields.iter().map(length).sum::<usize>(), fields }
    }

    /// The bytes that it takes beside itself.
    pub(crate) fn size(&self) -> usize {
        let field = |field: &Selected| allocation(field.key.len()) + field.inner.size();
        allocation(self.fields.capacity() * size_of::<Selected>())
            + self.fields.iter().map(field).sum::<usize>()
    }
}

impl Selected {
    /// None where the object has no such field.
    fn of(field: &ast::Field, pos: Pos, outline: &'static Outline) -> Option<Self> {
        let name = field.name.node.as_str();
        let (what, inner) = if name == "__typename" {
            (What::Typename(outline.name), Selection::NOTHING)
        } else {
            let index = outline.fields.iter().position(|(known, _)| *known == name)?;
            let inner =
                outline.fields[index].1.map(|outline| Selection::of(&field.selection_set.node, outline));
            (What::Field(index), inner.unwrap_or(Selection::NOTHING))
        };
        let enabled = match field.get_argument("enabled").map(|value| &value.node) {
            Some(Literal::Boolean(enabled)) => Some(*enabled),
            // Null is as if it were left out.
            _ => None,
        };
        // A name has nothing to escape.
        let key = format!("\"{}\":", field.response_key().node).into();
        Some(Self { key, pos, what, inner, enabled })
    }

    /// `"name":`
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The name in the answer.
    pub(crate) fn name(&self) -> &str {
        self.key.trim_matches(['"', ':'])
    }
}
