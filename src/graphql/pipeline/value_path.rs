//! Paths of invalid values within arguments and variables, for error messages.

use std::fmt;

use async_graphql::{Name, parser::types::Type};

/// The path of a value, as a list linked to its parent.
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
    /// An error message about the value at this path, without the value, which may be personal data.
    pub(crate) fn error(&self, problem: &str, ty: &Type) -> String {
        format!("The {self} {problem}. Expected type: {ty}.")
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

/// For example `argument "input.claimant.email"`.
impl fmt::Display for ValuePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path(f)?;
        f.write_str("\"")
    }
}
