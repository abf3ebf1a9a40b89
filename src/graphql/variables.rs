//! The variables of a request, coerced before anything runs: GraphQL, section 6.1.2 `CoerceVariableValues`.
//!
//! async-graphql reads a variable where a field first uses it, in the middle of execution. The specification wants a
//! request with bad variables refused as a whole, so this is done here, by the types of our own schema.

use std::collections::{HashMap, HashSet};

use async_graphql::{
    Name, ScalarType, Value, Variables,
    parser::{
        parse_schema,
        types::{BaseType, OperationDefinition, Type, TypeKind, TypeSystemDefinition},
    },
};
use serde_json::Number;

use super::error::ApiError;
use crate::model::{Date, DateTime, Uuid};

/// The input types of a schema.
#[derive(Debug)]
pub(super) struct InputTypes(HashMap<Name, InputType>);

#[derive(Debug)]
enum InputType {
    Scalar(Scalar),
    Enum(HashSet<Name>),
    Object(Vec<InputField>),
}

#[derive(Debug)]
struct InputField {
    name: Name,
    ty: Type,
    default: Option<Value>,
}

#[derive(Debug, Clone, Copy)]
enum Scalar {
    Int,
    Float,
    String,
    Boolean,
    Id,
    Uuid,
    DateTime,
    Date,
}

impl InputTypes {
    /// Those of the schema that `sdl` describes.
    ///
    /// # Errors
    /// Where `sdl` is no schema, or has a scalar that is not known here.
    pub(super) fn of(sdl: &str) -> Result<Self, String> {
        let mut types: HashMap<_, _> = [
            ("Int", Scalar::Int),
            ("Float", Scalar::Float),
            ("String", Scalar::String),
            ("Boolean", Scalar::Boolean),
            ("ID", Scalar::Id),
        ]
        .map(|(name, scalar)| (Name::new(name), InputType::Scalar(scalar)))
        .into();
        for definition in parse_schema(sdl).map_err(|error| error.to_string())?.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let name = definition.node.name.node;
            let ty = match definition.node.kind {
                TypeKind::Scalar => InputType::Scalar(match name.as_str() {
                    "UUID" => Scalar::Uuid,
                    "DateTime" => Scalar::DateTime,
                    "Date" => Scalar::Date,
                    _ => return Err(format!("the scalar {name} has no rule for variables")),
                }),
                TypeKind::Enum(ty) => {
                    InputType::Enum(ty.values.into_iter().map(|value| value.node.value.node).collect())
                }
                TypeKind::InputObject(ty) => InputType::Object(
                    ty.fields
                        .into_iter()
                        .map(|field| InputField {
                            name: field.node.name.node,
                            ty: field.node.ty.node,
                            default: field.node.default_value.map(|value| value.node),
                        })
                        .collect(),
                ),
                TypeKind::Object(_) | TypeKind::Interface(_) | TypeKind::Union(_) => continue,
            };
            types.insert(name, ty);
        }
        Ok(Self(types))
    }

    /// The variables that `operation` declares, as they are given or by their defaults; what it does not declare is
    /// left out.
    ///
    /// # Errors
    /// `BAD_USER_INPUT` for each variable that is missing or does not fit, with the place within it, and without the
    /// value, which may be personal data.
    pub(super) fn coerce(
        &self,
        operation: &OperationDefinition,
        mut given: Variables,
    ) -> Result<Variables, Vec<ApiError>> {
        let mut coerced = Variables::default();
        let mut faults = Vec::new();
        for definition in &operation.variable_definitions {
            let definition = &definition.node;
            let name = &definition.name.node;
            let ty = &definition.var_type.node;
            let value = match (given.remove(name), &definition.default_value) {
                (Some(value), _) => self.value(ty, value, &mut Path(vec![format!("${name}")])),
                (None, Some(default)) => Ok(default.node.clone()),
                (None, None) if ty.nullable => continue,
                (None, None) => {
                    Err(format!("The variable \"${name}\" is missing; it has to be of type {ty}."))
                }
            };
            match value {
                Ok(value) => {
                    coerced.insert(name.clone(), value);
                }
                Err(fault) => faults.push(ApiError::BadUserInput(fault)),
            }
        }
        if faults.is_empty() { Ok(coerced) } else { Err(faults) }
    }

    fn value(&self, ty: &Type, value: Value, path: &mut Path) -> Result<Value, String> {
        if value == Value::Null {
            return if ty.nullable { Ok(value) } else { Err(path.fault("is null", ty)) };
        }
        match (&ty.base, value) {
            (BaseType::List(item), Value::List(values)) => {
                let coerced = values.into_iter().enumerate().map(|(index, value)| {
                    path.0.push(format!("[{index}]"));
                    let value = self.value(item, value, path);
                    path.0.pop();
                    value
                });
                coerced.collect::<Result<_, _>>().map(Value::List)
            }
            // GraphQL, section 3.11: a value in place of a list is a list of one.
            (BaseType::List(item), value) => {
                self.value(item, value, path).map(|value| Value::List(vec![value]))
            }
            (BaseType::Named(name), value) => match self.0.get(name) {
                Some(InputType::Scalar(scalar)) => {
                    scalar.coerce(value).ok_or_else(|| path.fault("does not fit", ty))
                }
                Some(InputType::Enum(names)) => match value {
                    Value::String(word) if names.contains(word.as_str()) => Ok(Value::Enum(Name::new(word))),
                    _ => Err(path.fault("does not fit", ty)),
                },
                Some(InputType::Object(fields)) => self.object(fields, ty, value, path),
                // Validation says that there is no such type, or that it is none for variables.
                None => Ok(value),
            },
        }
    }

    fn object(
        &self,
        fields: &[InputField],
        ty: &Type,
        value: Value,
        path: &mut Path,
    ) -> Result<Value, String> {
        let Value::Object(mut given) = value else { return Err(path.fault("does not fit", ty)) };
        let mut coerced = async_graphql::indexmap::IndexMap::new();
        for field in fields {
            path.0.push(format!(".{}", field.name));
            match (given.swap_remove(&field.name), &field.default) {
                (Some(value), _) => {
                    coerced.insert(field.name.clone(), self.value(&field.ty, value, path)?);
                }
                (None, Some(default)) => {
                    coerced.insert(field.name.clone(), default.clone());
                }
                (None, None) if field.ty.nullable => {}
                (None, None) => return Err(path.fault("is missing", &field.ty)),
            }
            path.0.pop();
        }
        if given.is_empty() {
            Ok(Value::Object(coerced))
        } else {
            Err(path.fault("has a field that is not known", ty))
        }
    }
}

/// Where in a variable, for the message.
struct Path(Vec<String>);

impl Path {
    fn fault(&self, what: &str, ty: &Type) -> String {
        format!("The variable \"{}\" {what}; it has to be of type {ty}.", self.0.concat())
    }
}

impl Scalar {
    fn coerce(self, value: Value) -> Option<Value> {
        let fits = match (self, &value) {
            (Self::Int, Value::Number(number)) => return whole(number).map(|it| Value::Number(it.into())),
            (Self::Id, Value::Number(number)) => {
                return (number.is_i64() || number.is_u64()).then(|| Value::String(number.to_string()));
            }
            (Self::Float, Value::Number(_))
            | (Self::String | Self::Id, Value::String(_))
            | (Self::Boolean, Value::Boolean(_)) => true,
            (Self::Uuid, value) => Uuid::is_valid(value),
            (Self::DateTime, value) => DateTime::is_valid(value),
            (Self::Date, value) => Date::is_valid(value),
            _ => false,
        };
        fits.then_some(value)
    }
}

/// A whole number of 32 bits, however it is written: `1.0` is one.
fn whole(number: &Number) -> Option<i32> {
    match number.as_i64() {
        Some(number) => i32::try_from(number).ok(),
        None => {
            let number = number.as_f64()?;
            (number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number))
                .then_some(number as i32)
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use serde_json::json;

    use super::*;

    const SDL: &str = "
        scalar UUID scalar DateTime scalar Date
        enum Size { SMALL LARGE }
        input Box { size: Size!  count: Int = 1  inner: Box  ids: [UUID!] }
        type Query { a: Int }
    ";

    fn coerce(declared: &str, given: serde_json::Value) -> Result<serde_json::Value, Vec<String>> {
        let document = parse_query(format!("query ({declared}) {{ a }}")).unwrap();
        let operation = &document.operations.iter().next().unwrap().1.node;
        InputTypes::of(SDL)
            .unwrap()
            .coerce(operation, Variables::from_json(given))
            .map(|variables| serde_json::to_value(variables).unwrap())
            .map_err(|faults| faults.iter().map(|fault| fault.message().into_owned()).collect())
    }

    #[test]
    fn values_are_coerced_as_the_specification_says() {
        for (declared, given, expected) in [
            ("$a: Int", json!({"a": 1.0, "unknown": 2}), json!({"a": 1})),
            ("$a: Int = 5", json!({}), json!({"a": 5})),
            ("$a: Int = 5", json!({"a": null}), json!({"a": null})),
            ("$a: Int", json!({}), json!({})),
            ("$a: Float", json!({"a": 1}), json!({"a": 1})),
            ("$a: ID", json!({"a": 7}), json!({"a": "7"})),
            ("$a: [Int!]!", json!({"a": 1}), json!({"a": [1]})),
            ("$a: [[Int]]", json!({"a": [1, [2, null]]}), json!({"a": [[1], [2, null]]})),
            ("$a: Size", json!({"a": "LARGE"}), json!({"a": "LARGE"})),
            ("$a: Box", json!({"a": {"size": "SMALL"}}), json!({"a": {"size": "SMALL", "count": 1}})),
            ("$a: Unknown", json!({"a": {"any": 1}}), json!({"a": {"any": 1}})),
        ] {
            assert_eq!(coerce(declared, given.clone()), Ok(expected), "{declared} {given}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_not_repeated() {
        let id = "[UUID!]!";
        for (declared, given, expected) in [
            ("$a: Int!", json!({}), "The variable \"$a\" is missing; it has to be of type Int!."),
            ("$a: Int!", json!({"a": null}), "The variable \"$a\" is null; it has to be of type Int!."),
            (
                "$a: Int",
                json!({"a": 2147483648_i64}),
                "The variable \"$a\" does not fit; it has to be of type Int.",
            ),
            ("$a: Int", json!({"a": 1.5}), "The variable \"$a\" does not fit; it has to be of type Int."),
            ("$a: String", json!({"a": 1}), "The variable \"$a\" does not fit; it has to be of type String."),
            ("$a: ID", json!({"a": 1.5}), "The variable \"$a\" does not fit; it has to be of type ID."),
            (
                "$a: Size",
                json!({"a": "huge"}),
                "The variable \"$a\" does not fit; it has to be of type Size.",
            ),
            ("$a: Box", json!({"a": {}}), "The variable \"$a.size\" is missing; it has to be of type Size!."),
            ("$a: Box", json!({"a": []}), "The variable \"$a\" does not fit; it has to be of type Box."),
            (
                "$a: Box",
                json!({"a": {"size": "SMALL", "secret": 1}}),
                "The variable \"$a\" has a field that is not known; it has to be of type Box.",
            ),
            (
                "$a: Box",
                json!({"a": {"size": "SMALL", "inner": {"size": null}}}),
                "The variable \"$a.inner.size\" is null; it has to be of type Size!.",
            ),
            (
                &format!("$a: {id}"),
                json!({"a": ["x"]}),
                "The variable \"$a[0]\" does not fit; it has to be of type UUID!.",
            ),
        ] {
            assert_eq!(coerce(declared, given.clone()), Err(vec![expected.to_owned()]), "{declared} {given}");
        }
        assert_eq!(coerce("$a: Int!, $b: Int!", json!({})).unwrap_err().len(), 2);
    }
}
