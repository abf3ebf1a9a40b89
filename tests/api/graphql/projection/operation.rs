//! Random operations of the schema: fields, aliases, repeated fields, named and inline fragments, `@skip` and
//! `@include`, arguments as literals and variables.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    choices::Choices,
    record::{MOST, World},
};
use crate::support::{Types, id};

pub struct Operation {
    pub selections: Vec<Selection>,
    pub fragments: Vec<Fragment>,
    variables: Vec<Variable>,
}

pub struct Fragment {
    on: String,
    pub selections: Vec<Selection>,
    height: usize,
}

struct Variable {
    declaration: String,
    /// None where none is sent.
    value: Option<Value>,
}

pub enum Selection {
    Field(Field, Vec<Condition>),
    Inline {
        on: Option<String>,
        selections: Vec<Selection>,
        conditions: Vec<Condition>,
    },
    /// One of the operation's fragments.
    Spread(usize, Vec<Condition>),
}

pub struct Field {
    pub call: Call,
    pub selections: Vec<Selection>,
}

/// A field with its arguments: fields with the same response name must be equal in it.
#[derive(Clone)]
pub struct Call {
    alias: Option<String>,
    pub name: String,
    arguments: Vec<Argument>,
}

#[derive(Clone)]
struct Argument {
    name: &'static str,
    written: String,
    /// None where it counts as left out.
    value: Option<Value>,
}

/// `@skip` or `@include`.
pub struct Condition {
    written: String,
    pub shows: bool,
}

/// The deepest that selections nest.
const DEEPEST: usize = 12;

impl Operation {
    /// A random query for the data in `world`.
    pub fn of(choices: &mut Choices, types: &Types, world: &World) -> Self {
        let mut making =
            Making { choices, types, world, fragments: Vec::new(), variables: Vec::new(), calls: Vec::new() };
        let selections = making.selections("Query", 0);
        let Making { fragments, variables, .. } = making;
        Self { selections, fragments, variables }
    }

    /// As GraphQL.
    pub fn text(&self) -> String {
        let mut text = "query".to_owned();
        if !self.variables.is_empty() {
            let declarations = self.variables.iter().map(|variable| variable.declaration.as_str());
            let _ = write!(text, "({})", declarations.collect::<Vec<_>>().join(" "));
        }
        write_set(&mut text, &self.selections);
        for (n, fragment) in self.fragments.iter().enumerate() {
            let _ = write!(text, " fragment F{n} on {}", fragment.on);
            write_set(&mut text, &fragment.selections);
        }
        text
    }

    /// The values that are sent with it.
    pub fn variables(&self) -> Value {
        let sent = self.variables.iter().filter_map(|variable| {
            let name = variable.declaration.split(':').next()?.trim_start_matches('$');
            Some((name.to_owned(), variable.value.clone()?))
        });
        sent.collect::<Map<_, _>>().into()
    }
}

impl Selection {
    pub fn is_shown(&self) -> bool {
        let (Self::Field(_, conditions) | Self::Inline { conditions, .. } | Self::Spread(_, conditions)) =
            self;
        conditions.iter().all(|condition| condition.shows)
    }
}

impl Call {
    /// The name in the answer.
    pub fn key(&self) -> &str {
        self.alias.as_ref().unwrap_or(&self.name)
    }

    /// The value of an argument; none where it is left out.
    pub fn argument(&self, name: &str) -> Option<&Value> {
        self.arguments.iter().find(|argument| argument.name == name)?.value.as_ref()
    }
}

fn write_set(text: &mut String, selections: &[Selection]) {
    text.push('{');
    for selection in selections {
        text.push(' ');
        match selection {
            Selection::Field(Field { call, selections }, conditions) => {
                if let Some(alias) = &call.alias {
                    let _ = write!(text, "{alias}: ");
                }
                text.push_str(&call.name);
                if !call.arguments.is_empty() {
                    let arguments = call.arguments.iter().map(|it| format!("{}: {}", it.name, it.written));
                    let _ = write!(text, "({})", arguments.collect::<Vec<_>>().join(", "));
                }
                write_conditions(text, conditions);
                if !selections.is_empty() {
                    write_set(text, selections);
                }
            }
            Selection::Inline { on, selections, conditions } => {
                text.push_str("...");
                if let Some(on) = on {
                    let _ = write!(text, " on {on}");
                }
                write_conditions(text, conditions);
                write_set(text, selections);
            }
            Selection::Spread(fragment, conditions) => {
                let _ = write!(text, "...F{fragment}");
                write_conditions(text, conditions);
            }
        }
    }
    text.push_str(" }");
}

fn write_conditions(text: &mut String, conditions: &[Condition]) {
    for condition in conditions {
        let _ = write!(text, " {}", condition.written);
    }
}

struct Making<'c> {
    choices: &'c mut Choices,
    types: &'c Types,
    world: &'c World,
    fragments: Vec<Fragment>,
    variables: Vec<Variable>,
    /// Fields selected so far, with their parent type, for repeated selection.
    calls: Vec<(String, Call)>,
}

impl Making<'_> {
    fn selections(&mut self, object: &str, depth: usize) -> Vec<Selection> {
        let mut selections = vec![self.selection(object, depth)];
        while !self.choices.is_over() && selections.len() < 12 && self.choices.below(4) != 0 {
            selections.push(self.selection(object, depth));
        }
        selections
    }

    fn selection(&mut self, object: &str, depth: usize) -> Selection {
        match self.choices.below(8) {
            6 if depth < DEEPEST => {
                let on = self.choices.once_in(2).then(|| object.to_owned());
                let selections = self.selections(object, depth + 1);
                Selection::Inline { on, selections, conditions: self.conditions() }
            }
            7 if depth < DEEPEST => {
                let fragment = self.fragment(object, depth);
                Selection::Spread(fragment, self.conditions())
            }
            _ => {
                let call = self.call(object, depth);
                let of = if call.name == "__typename" { "String" } else { self.types.of(object, &call.name) };
                let selections =
                    if self.types.fields(of).is_some() { self.selections(of, depth + 1) } else { Vec::new() };
                Selection::Field(Field { call, selections }, self.conditions())
            }
        }
    }

    /// One that is there already or a new one. It is there once its own selections are made, so none contains itself.
    fn fragment(&mut self, object: &str, depth: usize) -> usize {
        let fits = |it: &Fragment| it.on == object && depth + it.height <= DEEPEST;
        let known: Vec<_> = (0..self.fragments.len()).filter(|n| fits(&self.fragments[*n])).collect();
        if !known.is_empty() && self.choices.once_in(2) {
            return known[self.choices.below(known.len())];
        }
        let selections = self.selections(object, depth + 1);
        let height = 1 + self.height(&selections);
        self.fragments.push(Fragment { on: object.to_owned(), selections, height });
        self.fragments.len() - 1
    }

    /// How many levels selections nest.
    fn height(&self, selections: &[Selection]) -> usize {
        let below = selections.iter().map(|selection| match selection {
            Selection::Field(Field { selections, .. }, _) if selections.is_empty() => 0,
            Selection::Field(Field { selections, .. }, _) | Selection::Inline { selections, .. } => {
                self.height(selections)
            }
            Selection::Spread(fragment, _) => self.fragments[*fragment].height,
        });
        1 + below.max().unwrap_or_default()
    }

    fn call(&mut self, object: &str, depth: usize) -> Call {
        let again: Vec<_> = self.calls.iter().filter(|(of, _)| of == object).map(|(_, call)| call).collect();
        if !again.is_empty() && self.choices.once_in(4) {
            return again[self.choices.below(again.len())].clone();
        }
        let types = self.types;
        let fields = types.fields(object).expect("an object");
        // At the end of the choices or the depth, leaf fields only.
        let is_end = self.choices.is_over() || depth >= DEEPEST;
        let leaves = fields.iter().filter(|field| !is_end || types.fields(&field.of).is_none());
        let mut names: Vec<_> = leaves.map(|field| field.name.as_str()).collect();
        names.push("__typename");
        let name = names[self.choices.below(names.len())].to_owned();
        let arguments = self.arguments(&name);
        let alias = match (arguments.is_empty(), self.choices.below(4)) {
            // Other arguments, another name.
            (false, _) => Some(format!("{name}{}", self.calls.len())),
            (true, 3) => Some(format!("another_{name}")),
            (true, _) => None,
        };
        let call = Call { alias, name, arguments };
        self.calls.push((object.to_owned(), call.clone()));
        call
    }

    fn arguments(&mut self, field: &str) -> Vec<Argument> {
        match field {
            "appointment" => {
                let id = self.id();
                vec![self.argument("id", "UUID!", id.into())]
            }
            "appointmentsByIds" => {
                let count = self.choices.below(6);
                let ids: Value = (0..count).map(|_| Value::from(self.id())).collect();
                vec![self.argument("ids", "[UUID!]!", ids)]
            }
            "appointments" => {
                let mut arguments = Vec::new();
                if self.choices.once_in(2) {
                    let first = json!(1 + self.choices.below(MOST + 2));
                    arguments.push(self.optional("first", "Int", first));
                }
                if self.choices.once_in(3) {
                    let place = self.choices.below(self.world.records.len() + 2);
                    let cursor = URL_SAFE_NO_PAD.encode(format!("appointments:{place}"));
                    arguments.push(self.optional("after", "String", cursor.into()));
                }
                arguments
            }
            "all" if self.choices.once_in(2) => {
                let enabled = self.choices.once_in(2).into();
                vec![self.optional("enabled", "Boolean", enabled)]
            }
            _ => Vec::new(),
        }
    }

    fn id(&mut self) -> String {
        // Mostly one that there is.
        let id = id(self.choices.below(MOST + 1));
        if self.choices.once_in(6) { id.to_uppercase() } else { id }
    }

    /// As a literal or as a variable.
    fn argument(&mut self, name: &'static str, ty: &str, value: Value) -> Argument {
        let written = match self.choices.below(3) {
            0 => value.to_string(),
            1 => self.variable(ty, Some(value.clone())),
            // A default, and no value.
            _ => self.variable(&format!("{ty} = {value}"), None),
        };
        Argument { name, written, value: Some(value) }
    }

    /// An argument that may be absent as well.
    fn optional(&mut self, name: &'static str, ty: &str, value: Value) -> Argument {
        if self.choices.once_in(5) {
            return Argument { name, written: self.variable(ty, None), value: None };
        }
        self.argument(name, ty, value)
    }

    /// A new variable, as it is written where it is used.
    fn variable(&mut self, ty: &str, value: Option<Value>) -> String {
        let name = format!("$v{}", self.variables.len());
        self.variables.push(Variable { declaration: format!("{name}: {ty}"), value });
        name
    }

    fn conditions(&mut self) -> Vec<Condition> {
        // At most one of each: a directive stands once in one place.
        let mut conditions = Vec::new();
        for (directive, shows_if) in [("skip", false), ("include", true)] {
            if !self.choices.once_in(8) {
                continue;
            }
            let holds = self.choices.once_in(2);
            let condition = self.argument("if", "Boolean!", holds.into());
            conditions.push(Condition {
                written: format!("@{directive}(if: {})", condition.written),
                shows: holds == shows_if,
            });
        }
        conditions
    }
}
