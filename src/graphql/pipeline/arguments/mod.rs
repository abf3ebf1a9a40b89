//! What stands in arguments, and directives: GraphQL, sections 5.4, 5.6, 5.7 and 5.8.5.
//!
//! async-graphql never compares the type of a variable with that of its place, takes many a literal for an input that
//! it does not fit, and does not look at `__typename`. What passes there fails in the middle of execution, or is sent
//! upstream as something else. Fields, and whether variables are used, are left to its validation, which comes after this
//! one.
//!
//! Unused fragments and undeclared variables are refused here as well: the library reports the latter once for each
//! operation, which multiplies, and the faults of the former for each fragment that spreads them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};

use async_graphql::{
    Name, Pos, Positioned, ServerError,
    parser::types::{
        BaseType, Directive, DirectiveLocation, ExecutableDocument, Field, OperationDefinition,
        OperationType, Selection, SelectionSet, Type, VariableDefinition,
    },
};
use async_graphql_value::{ConstValue, Value};

use super::value_path::ValuePath;
use crate::{
    error::ApiError,
    graphql::schema::types::{Fields, Input, InputType, Inputs, Types},
};

/// Looks at every operation of `document`, and at every fragment once for each operation that uses it, since its
/// variables are those of the operation. The document is within the limits and its fragments end, so this ends as well.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` for each fault, with the place in the document. A literal is never repeated: it may be
/// personal data. Of more than `max_errors` faults only one more is looked for.
pub(crate) fn check(
    document: &ExecutableDocument,
    types: &Types,
    max_errors: usize,
) -> Result<(), Vec<ServerError>> {
    // Neither operations nor fragments have an order in a document as it is parsed.
    let mut operations: Vec<_> = document.operations.iter().map(|(_, operation)| operation).collect();
    operations.sort_by_key(|operation| operation.pos);
    let (variables, seen, faults) = Default::default();
    let mut check = Check { document, types, max_errors, variables, seen, faults };
    let mut used = HashSet::new();
    for operation in operations {
        check.operation(&operation.node);
        used.extend(check.seen.drain());
    }
    check.unused_fragments(&used);
    if check.faults.is_empty() { Ok(()) } else { Err(check.faults.into_iter().map(error).collect()) }
}

fn error((at, message): (Pos, String)) -> ServerError {
    let mut error = ServerError::from(ApiError::ValidationFailed(message));
    error.locations.push(at);
    error
}

/// The check of one operation after the other.
struct Check<'d> {
    document: &'d ExecutableDocument,
    types: &'d Types,
    max_errors: usize,
    /// Those of the operation.
    variables: HashMap<&'d Name, &'d VariableDefinition>,
    /// The fragments that have been looked at for the operation.
    seen: HashSet<&'d Name>,
    /// Each once: what is in a fragment may be found for several operations.
    faults: BTreeSet<(Pos, String)>,
}

impl<'d> Check<'d> {
    fn fault(&mut self, at: Pos, message: impl FnOnce() -> String) {
        if !self.is_full() {
            self.faults.insert((at, message()));
        }
    }

    /// Whether there is one fault more than is listed: nothing further is worth looking for.
    fn is_full(&self) -> bool {
        self.faults.len() > self.max_errors
    }

    fn operation(&mut self, operation: &'d OperationDefinition) {
        let variables = operation.variable_definitions.iter();
        self.variables = variables.map(|variable| (&variable.node.name.node, &variable.node)).collect();
        let location = match operation.ty {
            OperationType::Query => DirectiveLocation::Query,
            OperationType::Mutation => DirectiveLocation::Mutation,
            OperationType::Subscription => DirectiveLocation::Subscription,
        };
        self.directives(&operation.directives, location);
        for variable in &operation.variable_definitions {
            let variable = &variable.node;
            self.directives(&variable.directives, DirectiveLocation::VariableDefinition);
            if let Some(default) = &variable.default_value {
                let place = ValuePath::Default(&variable.name.node);
                let value = default.node.clone().into_value();
                self.value(&value, &variable.var_type.node, false, &place, default.pos);
            }
        }
        self.selections(&operation.selection_set.node, self.types.root(operation.ty));
    }

    fn unused_fragments(&mut self, used: &HashSet<&Name>) {
        let unused = self.document.fragments.iter().filter(|(name, _)| !used.contains(name));
        let mut unused: Vec<_> = unused.map(|(name, fragment)| (fragment.pos, name)).collect();
        unused.sort_unstable();
        for (at, name) in unused {
            self.fault(at, || format!("The fragment \"{name}\" is not used. Leave it out."));
        }
    }

    /// `fields` are those of the object that `set` is about, if there is one.
    fn selections(&mut self, set: &'d SelectionSet, fields: Option<&'d Fields>) {
        for selection in &set.items {
            if self.is_full() {
                return;
            }
            match &selection.node {
                Selection::Field(field) => self.field(field, fields),
                Selection::InlineFragment(fragment) => {
                    let fragment = &fragment.node;
                    self.directives(&fragment.directives, DirectiveLocation::InlineFragment);
                    let fields = match &fragment.type_condition {
                        Some(condition) => self.types.object(&condition.node.on.node),
                        None => fields,
                    };
                    self.selections(&fragment.selection_set.node, fields);
                }
                Selection::FragmentSpread(spread) => {
                    self.directives(&spread.node.directives, DirectiveLocation::FragmentSpread);
                    self.fragment(&spread.node.fragment_name.node);
                }
            }
        }
    }

    fn fragment(&mut self, name: &'d Name) {
        if let Some(fragment) = self.document.fragments.get(name)
            && self.seen.insert(name)
        {
            let fragment = &fragment.node;
            self.directives(&fragment.directives, DirectiveLocation::FragmentDefinition);
            let fields = self.types.object(&fragment.type_condition.node.on.node);
            self.selections(&fragment.selection_set.node, fields);
        }
    }

    fn field(&mut self, field: &'d Positioned<Field>, fields: Option<&'d Fields>) {
        let Positioned { pos, node: field } = field;
        self.directives(&field.directives, DirectiveLocation::Field);
        let known = fields.and_then(|fields| fields.get(&field.name.node));
        match known {
            Some(known) => self.arguments(&field.arguments, &known.arguments, *pos),
            None => field.arguments.iter().for_each(|(_, value)| self.declared(&value.node, value.pos)),
        }
        self.selections(&field.selection_set.node, known.and_then(|known| self.types.behind(known)));
    }

    fn directives(&mut self, directives: &'d [Positioned<Directive>], location: DirectiveLocation) {
        let mut names = HashSet::new();
        for Positioned { pos, node: directive } in directives {
            let name = &directive.name.node;
            let known = self.types.directive(name).filter(|known| known.locations.contains(&location));
            let Some(known) = known else {
                self.fault(*pos, || format!("There is no directive \"@{name}\" that may stand here."));
                continue;
            };
            if !names.insert(name) {
                self.fault(*pos, || format!("The directive \"@{name}\" stands here twice. Leave one out."));
            }
            self.arguments(&directive.arguments, &known.arguments, *pos);
        }
    }

    /// The arguments of what stands `at` a place.
    fn arguments(
        &mut self,
        given: &'d [(Positioned<Name>, Positioned<Value>)],
        declared: &'d Inputs,
        at: Pos,
    ) {
        let mut names = HashSet::new();
        for (name, value) in given {
            let place = ValuePath::Argument(&name.node);
            if !names.insert(&name.node) {
                self.fault(name.pos, || format!("The {place} is given twice. Leave one out."));
            }
            self.input(&value.node, declared.get(&name.node), &place, value.pos);
        }
        self.missing(declared, |name| names.contains(name), ValuePath::Argument, at);
    }

    /// The value of an argument, or of a field of an input object.
    fn input(&mut self, value: &Value, declared: Option<&Input>, place: &ValuePath<'_>, at: Pos) {
        match declared {
            Some(input) => self.value(value, &input.ty, input.default.is_some(), place, at),
            None => self.fault(at, || format!("There is no {place}. Leave it out.")),
        }
    }

    fn missing<'n>(
        &mut self,
        declared: &'n Inputs,
        is_given: impl Fn(&Name) -> bool,
        place: impl Fn(&'n Name) -> ValuePath<'n>,
        at: Pos,
    ) {
        for (name, input) in declared {
            if input.is_required() && !is_given(name) {
                self.fault(at, || place(name).fault("is missing", &input.ty));
            }
        }
    }

    /// `has_default` is whether the place has a value of its own where a variable has none.
    fn value(&mut self, value: &Value, ty: &Type, has_default: bool, place: &ValuePath<'_>, at: Pos) {
        match (value, &ty.base) {
            (Value::Variable(name), _) => self.variable(name, ty, has_default, place, at),
            (Value::Null, _) => {
                if !ty.nullable {
                    self.fault(at, || place.fault("is null", ty));
                }
            }
            (Value::List(items), BaseType::List(item)) => {
                for (index, value) in items.iter().enumerate() {
                    self.value(value, item, false, &ValuePath::Item(place, index), at);
                }
            }
            // GraphQL, section 3.11: a value in place of a list is a list of one.
            (value, BaseType::List(item)) => self.value(value, item, false, place, at),
            (value, BaseType::Named(name)) => {
                let fits = match (self.types.input(name), value) {
                    (Some(InputType::Object(declared)), Value::Object(given)) => {
                        for (name, value) in given {
                            self.input(value, declared.get(name), &ValuePath::Field(place, name), at);
                        }
                        let is_given = |name: &Name| given.contains_key(name);
                        self.missing(declared, is_given, |name| ValuePath::Field(place, name), at);
                        true
                    }
                    (Some(InputType::Object(_)), _) => false,
                    (Some(InputType::Enum(words)), Value::Enum(word)) => words.contains(word),
                    (Some(InputType::Enum(_)), _) => false,
                    (Some(InputType::Scalar(scalar)), value) => {
                        value.clone().into_const().is_some_and(|value| scalar.fits(&value))
                    }
                    // The type of a variable, which async-graphql does not find either.
                    (None, _) => true,
                };
                if !fits {
                    self.fault(at, || place.fault("does not fit", ty));
                }
            }
        }
    }

    fn variable(&mut self, name: &Name, ty: &Type, has_default: bool, place: &ValuePath<'_>, at: Pos) {
        match self.variables.get(name) {
            Some(variable) if is_allowed(variable, ty, has_default) => {}
            Some(variable) => {
                let given = &variable.var_type.node;
                self.fault(at, || {
                    format!("The variable \"${name}\" is of type {given}; for the {place} it has to be of type {ty}.")
                });
            }
            None => self.undeclared(name, at),
        }
    }

    /// Makes sure that the variables in `value`, of whatever type it is to be, are declared.
    fn declared(&mut self, value: &Value, at: Pos) {
        match value {
            Value::Variable(name) if !self.variables.contains_key(name) => self.undeclared(name, at),
            Value::List(items) => items.iter().for_each(|item| self.declared(item, at)),
            Value::Object(fields) => fields.values().for_each(|field| self.declared(field, at)),
            _ => {}
        }
    }

    fn undeclared(&mut self, name: &Name, at: Pos) {
        self.fault(at, || format!("The variable \"${name}\" is not declared by the operation."));
    }
}

/// GraphQL, section 5.8.5 `IsVariableUsageAllowed`: where null may not stand, a variable that may be null may, if a
/// default takes the place of one that is absent.
fn is_allowed(variable: &VariableDefinition, place: &Type, has_default: bool) -> bool {
    let ty = &variable.var_type.node;
    let default = variable.default_value.as_ref().map(|default| &default.node);
    let is_filled = has_default || default.is_some_and(|default| *default != ConstValue::Null);
    (place.nullable || !ty.nullable || is_filled) && is_of(&ty.base, &place.base)
}

/// Whether each value of the type `given` is one of the type `wanted`.
fn is_of(given: &BaseType, wanted: &BaseType) -> bool {
    match (given, wanted) {
        (BaseType::Named(given), BaseType::Named(wanted)) => given == wanted,
        (BaseType::List(given), BaseType::List(wanted)) => {
            (wanted.nullable || !given.nullable) && is_of(&given.base, &wanted.base)
        }
        _ => false,
    }
}
