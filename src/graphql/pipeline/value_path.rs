//! Where in an argument or in a variable something is wrong, for the message.

use std::fmt;

use async_graphql::{Name, parser::types::Type};

/// A place, linked to the one that it is in.
#[derive(Clone, Copy)]
pub(crate) enum ValuePath<'p> {
    Argument(&'p Name),
    Variable(&'p Name),
    /// The default value of a variable.
    Default(&'p Name),
    /// A field of an input object.
    Field(&'p ValuePath<'p>, &'p Name),
    /// An item of a list.
    Item(&'p ValuePath<'p>, usize),
}

impl ValuePath<'_> {
    /// What is wrong here, without the value: it may be personal data.
    pub(crate) fn fault(&self, what: &str, ty: &Type) -> String {
        format!("The {self} {what}; it has to be of type {ty}.")
    }

    fn path(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(name) => write!(f, "argument \"{name}"),
            Self::Variable(name) => write!(f, "variable \"${name}"),
            Self::Default(name) => write!(f, "default value of the variable \"${name}"),
            Self::Field(outer, name) => {
                outer.path(f)?;
                write!(f, ".{name}")
            }
            Self::Item(outer, index) => {
                outer.path(f)?;
                write!(f, "[{index}]")
            }
        }
    }
}

/// As in `argument "input.claimant.email"`.
impl fmt::Display for ValuePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path(f)?;
        f.write_str("\"")
    }
}
