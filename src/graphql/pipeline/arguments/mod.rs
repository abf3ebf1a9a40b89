//! Validation of arguments and directives (GraphQL specification, sections 5.4, 5.6, 5.7 and 5.8.5).
//!
//! async-graphql never compares the type of a variable with the type of its position, accepts many literals that do not
//! match their input type, and does not validate `__typename`. Such documents would fail during execution, or send
//! different values upstream. The library's validation runs afterwards, and checks fields and unused variables.
//!
//! Unused fragments and undeclared variables are rejected here as well: the library reports an undeclared variable once
//! per operation, and the errors of an unused fragment once per fragment that spreads it.

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
    graphql::schema::type_index::{Input, InputType, Inputs, OutputFields, Scalar, Types},
};

/// Validates every operation of `document`, and each fragment once per operation that uses it, since variables belong to the
/// operation. The document is within the limits and has no fragment cycles.
///
/// # Errors
/// `GRAPHQL_VALIDATION_FAILED` for each error, with its position in the document. Messages never repeat literals, which may
/// be personal data. Stops at `max_errors` + 1 errors.
pub(crate) fn check(
    document: &ExecutableDocument,
    types: &Types,
    max_errors: usize,
) -> Result<(), Vec<ServerError>> {
    // The parsed document does not keep the order of operations and fragments.
    let mut operations: Vec<_> = document.operations.iter().map(|(_, operation)| operation).collect();
    operations.sort_by_key(|operation| operation.pos);
    let (variables, seen, errors) = Default::default();
    let mut validator = ArgumentValidator { document, types, max_errors, variables, seen, errors };
    let mut used = HashSet::new();
    for operation in operations {
        validator.operation(&operation.node);
        used.extend(validator.seen.drain());
    }
    validator.unused_fragments(&used);
    if validator.errors.is_empty() { Ok(()) } else { Err(validator.errors.into_iter().map(error).collect()) }
}

fn error((at, message): (Pos, String)) -> ServerError {
    ApiError::ValidationFailed(message).at([at])
}

/// Validates one operation after the other.
struct ArgumentValidator<'d> {
    document: &'d ExecutableDocument,
    types: &'d Types,
    max_errors: usize,
    /// The variables of the current operation.
    variables: HashMap<&'d Name, &'d VariableDefinition>,
    /// The fragments visited for the current operation.
    seen: HashSet<&'d Name>,
    /// The distinct errors: an error in a fragment may recur for several operations.
    errors: BTreeSet<(Pos, String)>,
}

impl<'d> ArgumentValidator<'d> {
    fn report(&mut self, at: Pos, message: impl FnOnce() -> String) {
        if !self.is_full() {
            self.errors.insert((at, message()));
        }
    }

    /// Whether there is one error more than can be listed, so that validation can stop.
    fn is_full(&self) -> bool {
        self.errors.len() > self.max_errors
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
                let path = ValuePath::Default(&variable.name.node);
                let value = default.node.clone().into_value();
                self.value(&value, &variable.var_type.node, false, &path, default.pos);
            }
        }
        self.selections(&operation.selection_set.node, self.types.root(operation.ty));
    }

    fn unused_fragments(&mut self, used: &HashSet<&Name>) {
        let unused = self.document.fragments.iter().filter(|(name, _)| !used.contains(name));
        let mut unused: Vec<_> = unused.map(|(name, fragment)| (fragment.pos, name)).collect();
        unused.sort_unstable();
        for (at, name) in unused {
            self.report(at, || format!("The fragment \"{name}\" is not used. Remove it."));
        }
    }

    /// Validates `set`, which selects from an object with these `fields`, if the type is known.
    fn selections(&mut self, set: &'d SelectionSet, fields: Option<&'d OutputFields>) {
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

    fn field(&mut self, field: &'d Positioned<Field>, fields: Option<&'d OutputFields>) {
        let Positioned { pos, node: field } = field;
        self.directives(&field.directives, DirectiveLocation::Field);
        let known = fields.and_then(|fields| fields.get(&field.name.node));
        match known {
            Some(known) => self.arguments(&field.arguments, &known.arguments, *pos),
            None => field.arguments.iter().for_each(|(_, value)| self.declared(&value.node, value.pos)),
        }
        if field.name.node == "__typename" && !field.selection_set.node.items.is_empty() {
            self.report(field.selection_set.pos, || {
                "The field \"__typename\" has no subfields. Remove the selection.".to_owned()
            });
        }
        self.selections(&field.selection_set.node, known.and_then(|known| self.types.target_fields(known)));
    }

    fn directives(&mut self, directives: &'d [Positioned<Directive>], location: DirectiveLocation) {
        let mut names = HashSet::new();
        for Positioned { pos, node: directive } in directives {
            let name = &directive.name.node;
            let known = self.types.directive(name).filter(|known| known.locations.contains(&location));
            let Some(known) = known else {
                self.report(*pos, || {
                    format!("The directive \"@{name}\" is unknown or not allowed here. Remove it.")
                });
                continue;
            };
            if !names.insert(name) {
                self.report(*pos, || {
                    format!("The directive \"@{name}\" appears more than once here. Remove the duplicates.")
                });
            }
            self.arguments(&directive.arguments, &known.arguments, *pos);
        }
    }

    /// Validates the arguments of the field or directive at this position.
    fn arguments(
        &mut self,
        given: &'d [(Positioned<Name>, Positioned<Value>)],
        declared: &'d Inputs,
        at: Pos,
    ) {
        let mut names = HashSet::new();
        for (name, value) in given {
            let path = ValuePath::Argument(&name.node);
            if !names.insert(&name.node) {
                self.report(name.pos, || {
                    format!("The {path} appears more than once. Remove the duplicates.")
                });
            }
            self.input(&value.node, declared.get(&name.node), &path, value.pos);
        }
        self.missing(declared, |name| names.contains(name), ValuePath::Argument, at);
    }

    /// Validates the value of an argument or of an input field.
    fn input(&mut self, value: &Value, declared: Option<&Input>, path: &ValuePath<'_>, at: Pos) {
        match declared {
            Some(input) => self.value(value, &input.ty, input.default.is_some(), path, at),
            None => self.report(at, || format!("Unknown {path}. Remove it.")),
        }
    }

    fn missing<'n>(
        &mut self,
        declared: &'n Inputs,
        is_given: impl Fn(&Name) -> bool,
        path: impl Fn(&'n Name) -> ValuePath<'n>,
        at: Pos,
    ) {
        for (name, input) in declared {
            if input.is_required() && !is_given(name) {
                self.report(at, || path(name).error("is missing", &input.ty));
            }
        }
    }

    /// Validates a value. `has_default` tells whether the argument or input field has a default value.
    fn value(&mut self, value: &Value, ty: &Type, has_default: bool, path: &ValuePath<'_>, at: Pos) {
        match (value, &ty.base) {
            (Value::Variable(name), _) => self.variable(name, ty, has_default, path, at),
            (Value::Null, _) => {
                if !ty.nullable {
                    self.report(at, || path.error("is null", ty));
                }
            }
            (Value::List(items), BaseType::List(item)) => {
                for (index, value) in items.iter().enumerate() {
                    self.value(value, item, false, &ValuePath::Item(path, index), at);
                }
            }
            // Section 3.11: a single value is coerced to a list of one.
            (value, BaseType::List(item)) => self.value(value, item, false, path, at),
            (value, BaseType::Named(name)) => {
                let is_valid = match (self.types.input(name), value) {
                    (Some(InputType::Object(declared)), Value::Object(given)) => {
                        for (name, value) in given {
                            self.input(value, declared.get(name), &ValuePath::Field(path, name), at);
                        }
                        let is_given = |name: &Name| given.contains_key(name);
                        self.missing(declared, is_given, |name| ValuePath::Field(path, name), at);
                        true
                    }
                    (Some(InputType::Object(_)), _) => false,
                    (Some(InputType::Enum(words)), Value::Enum(word)) => words.contains(word),
                    (Some(InputType::Enum(_)), _) => false,
                    (Some(InputType::Scalar(Scalar::Any)), value) => {
                        self.declared(value, at);
                        true
                    }
                    (Some(InputType::Scalar(scalar)), value) => {
                        value.clone().into_const().is_some_and(|value| scalar.accepts(&value))
                    }
                    // A variable of an unknown type: async-graphql reports it.
                    (None, _) => true,
                };
                if !is_valid {
                    self.report(at, || path.error("has an invalid value", ty));
                }
            }
        }
    }

    fn variable(&mut self, name: &Name, ty: &Type, has_default: bool, path: &ValuePath<'_>, at: Pos) {
        match self.variables.get(name) {
            Some(variable) if is_allowed(variable, ty, has_default) => {}
            Some(variable) => {
                let given = &variable.var_type.node;
                self.report(at, || {
                    format!("The variable \"${name}\" has type {given}, but the {path} requires type {ty}.")
                });
            }
            None => self.undeclared(name, at),
        }
    }

    /// Checks that the variables in `value`, the argument of an unknown field, are declared.
    fn declared(&mut self, value: &Value, at: Pos) {
        match value {
            Value::Variable(name) if !self.variables.contains_key(name) => self.undeclared(name, at),
            Value::List(items) => items.iter().for_each(|item| self.declared(item, at)),
            Value::Object(fields) => fields.values().for_each(|field| self.declared(field, at)),
            _ => {}
        }
    }

    fn undeclared(&mut self, name: &Name, at: Pos) {
        self.report(at, || format!("The variable \"${name}\" is not declared by the operation."));
    }
}

/// `IsVariableUsageAllowed` (section 5.8.5): a nullable variable is allowed at a non-null position if the variable or the
/// position has a default value.
fn is_allowed(variable: &VariableDefinition, position: &Type, has_default: bool) -> bool {
    let ty = &variable.var_type.node;
    let default = variable.default_value.as_ref().map(|default| &default.node);
    let is_filled = has_default || default.is_some_and(|default| *default != ConstValue::Null);
    (position.nullable || !ty.nullable || is_filled) && is_compatible(&ty.base, &position.base)
}

/// Whether each value of type `given` is also a value of type `wanted` (`AreTypesCompatible`).
fn is_compatible(given: &BaseType, wanted: &BaseType) -> bool {
    match (given, wanted) {
        (BaseType::Named(given), BaseType::Named(wanted)) => given == wanted,
        (BaseType::List(given), BaseType::List(wanted)) => {
            (wanted.nullable || !given.nullable) && is_compatible(&given.base, &wanted.base)
        }
        _ => false,
    }
}
