//! Coercion of variables before execution (`CoerceVariableValues`, GraphQL specification, section 6.1.2).
//!
//! async-graphql reads a variable at its first use, during execution. The specification requires a request error for
//! invalid variables, so the gateway coerces all of them first, by the types of its own schema.

use async_graphql::{
    Name, Positioned, Value, Variables,
    indexmap::IndexMap,
    parser::types::{BaseType, Type, VariableDefinition},
};
use serde_json::Number;

use super::value_path::ValuePath;
use crate::{
    error::ApiError,
    graphql::schema::type_index::{InputType, Inputs, Scalar, Types},
};

impl Types {
    /// Coerces the variables in `definitions`, and applies their defaults. Undeclared variables are dropped.
    ///
    /// # Errors
    /// `BAD_USER_INPUT` for each missing or invalid variable, with the path within it and without the value, which may be
    /// personal data. Stops at `max_errors` + 1 errors.
    pub(crate) fn coerce(
        &self,
        definitions: &[Positioned<VariableDefinition>],
        mut given: Variables,
        max_errors: usize,
    ) -> Result<Variables, Vec<ApiError>> {
        let mut coerced = Variables::default();
        let mut errors = Vec::new();
        for definition in definitions {
            if errors.len() > max_errors {
                break;
            }
            let definition = &definition.node;
            let name = &definition.name.node;
            let ty = &definition.var_type.node;
            let value = match (given.remove(name), &definition.default_value) {
                (Some(value), _) => self.value(ty, value, &ValuePath::Variable(name)),
                (None, Some(default)) => Ok(default.node.clone()),
                (None, None) if ty.nullable => continue,
                (None, None) => Err(ValuePath::Variable(name).error("is missing", ty)),
            };
            match value {
                Ok(value) => {
                    coerced.insert(name.clone(), value);
                }
                Err(error) => errors.push(ApiError::BadUserInput(error)),
            }
        }
        if errors.is_empty() { Ok(coerced) } else { Err(errors) }
    }

    fn value(&self, ty: &Type, value: Value, path: &ValuePath<'_>) -> Result<Value, String> {
        if value == Value::Null {
            return if ty.nullable { Ok(value) } else { Err(path.error("is null", ty)) };
        }
        match (&ty.base, value) {
            (BaseType::List(item), Value::List(values)) => {
                let coerced = values
                    .into_iter()
                    .enumerate()
                    .map(|(index, value)| self.value(item, value, &ValuePath::Item(path, index)));
                coerced.collect::<Result<_, _>>().map(Value::List)
            }
            // Section 3.11: a single value is coerced to a list of one.
            (BaseType::List(item), value) => {
                self.value(item, value, path).map(|value| Value::List(vec![value]))
            }
            (BaseType::Named(name), value) => match self.input(name) {
                Some(InputType::Scalar(scalar)) => {
                    scalar.coerce(value).ok_or_else(|| path.error("has an invalid value", ty))
                }
                Some(InputType::Enum(names)) => match value {
                    Value::String(word) if names.contains(word.as_str()) => Ok(Value::Enum(Name::new(word))),
                    _ => Err(path.error("has an invalid value", ty)),
                },
                Some(InputType::Object(fields)) => self.input_object(fields, ty, value, path),
                // Unknown type or not an input type: validation reports it.
                None => Ok(value),
            },
        }
    }

    fn input_object(
        &self,
        fields: &Inputs,
        ty: &Type,
        value: Value,
        path: &ValuePath<'_>,
    ) -> Result<Value, String> {
        let Value::Object(mut given) = value else { return Err(path.error("has an invalid value", ty)) };
        let mut coerced = IndexMap::new();
        for (name, field) in fields {
            let path = ValuePath::Field(path, name);
            match (given.swap_remove(name), &field.default) {
                (Some(value), _) => {
                    coerced.insert(name.clone(), self.value(&field.ty, value, &path)?);
                }
                (None, Some(default)) => {
                    coerced.insert(name.clone(), default.clone());
                }
                (None, None) if field.ty.nullable => {}
                (None, None) => return Err(path.error("is missing", &field.ty)),
            }
        }
        if given.is_empty() {
            Ok(Value::Object(coerced))
        } else {
            Err(path.error("has an unknown field", ty))
        }
    }
}

impl Scalar {
    /// Coerces a JSON value: 1.0 is a valid Int, and a numeric ID becomes a string.
    fn coerce(self, value: Value) -> Option<Value> {
        let value = match (self, value) {
            (Self::Int, Value::Number(number)) => Value::Number(whole(&number)?.into()),
            (_, value) => value,
        };
        match (self, value) {
            (scalar, value) if !scalar.accepts(&value) => None,
            (Self::Id, Value::Number(number)) => Some(Value::String(number.to_string())),
            (_, value) => Some(value),
        }
    }
}

/// The 32-bit integer that `number` denotes, also if it is written with a fraction, such as `1.0`.
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
        Types::of(SDL)
            .unwrap()
            .coerce(&operation.variable_definitions, Variables::from_json(given), 2)
            .map(|variables| serde_json::to_value(variables).unwrap())
            .map_err(|errors| errors.iter().map(|error| error.message().into_owned()).collect())
    }

    #[test]
    fn values_are_coerced_per_specification() {
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
    fn invalid_values_are_located_but_not_echoed() {
        let id = "[UUID!]!";
        for (declared, given, expected) in [
            ("$a: Int!", json!({}), "The variable \"$a\" is missing. Expected type: Int!."),
            ("$a: Int!", json!({"a": null}), "The variable \"$a\" is null. Expected type: Int!."),
            (
                "$a: Int",
                json!({"a": 2147483648_i64}),
                "The variable \"$a\" has an invalid value. Expected type: Int.",
            ),
            ("$a: Int", json!({"a": 1.5}), "The variable \"$a\" has an invalid value. Expected type: Int."),
            (
                "$a: String",
                json!({"a": 1}),
                "The variable \"$a\" has an invalid value. Expected type: String.",
            ),
            ("$a: ID", json!({"a": 1.5}), "The variable \"$a\" has an invalid value. Expected type: ID."),
            (
                "$a: Size",
                json!({"a": "huge"}),
                "The variable \"$a\" has an invalid value. Expected type: Size.",
            ),
            ("$a: Box", json!({"a": {}}), "The variable \"$a.size\" is missing. Expected type: Size!."),
            ("$a: Box", json!({"a": []}), "The variable \"$a\" has an invalid value. Expected type: Box."),
            (
                "$a: Box",
                json!({"a": {"size": "SMALL", "secret": 1}}),
                "The variable \"$a\" has an unknown field. Expected type: Box.",
            ),
            (
                "$a: Box",
                json!({"a": {"size": "SMALL", "inner": {"size": null}}}),
                "The variable \"$a.inner.size\" is null. Expected type: Size!.",
            ),
            (
                &format!("$a: {id}"),
                json!({"a": ["x"]}),
                "The variable \"$a[0]\" has an invalid value. Expected type: UUID!.",
            ),
        ] {
            assert_eq!(coerce(declared, given.clone()), Err(vec![expected.to_owned()]), "{declared} {given}");
        }
        assert_eq!(coerce("$a: Int!, $b: Int!", json!({})).unwrap_err().len(), 2);
        assert_eq!(coerce("$a: Int!, $b: Int!, $c: Int!, $d: Int!", json!({})).unwrap_err().len(), 3);
    }
}
