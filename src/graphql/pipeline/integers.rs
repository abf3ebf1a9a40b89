//! Coercion of integer literals beyond 64 bits, and of `-0` (GraphQL specification, section 3.5, "Input Coercion").
//!
//! The parser keeps the text of such a literal, since its value depends on its type: an ID is that text, `-0` as an Int is
//! zero, and anything else is invalid.

use async_graphql::{
    Positioned,
    parser::types::{
        BaseType, DocumentOperations, ExecutableDocument, OperationDefinition, Selection, SelectionSet, Type,
    },
};
use async_graphql_value::Value;

use crate::graphql::schema::type_index::{InputType, OutputFields, Scalar, Types};

/// Coerces those literals in `document` where they are valid. Recursion is bounded by the nesting of the text.
pub(crate) fn coerce(document: &mut ExecutableDocument, types: &Types) {
    let operations: Vec<&mut Positioned<OperationDefinition>> = match &mut document.operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    for operation in operations {
        let operation = &mut operation.node;
        for definition in &mut operation.variable_definitions {
            let definition = &mut definition.node;
            if let Some(default) = &mut definition.default_value {
                let mut value = std::mem::take(&mut default.node).into_value();
                types.coerce_integers(&mut value, &definition.var_type.node);
                default.node = value.into_const().unwrap_or_default();
            }
        }
        types.coerce_in(&mut operation.selection_set.node, types.root(operation.ty));
    }
    for fragment in document.fragments.values_mut() {
        let fields = types.object(&fragment.node.type_condition.node.on.node);
        types.coerce_in(&mut fragment.node.selection_set.node, fields);
    }
}

impl Types {
    /// Coerces the arguments in `set`, which selects from an object with these `fields`, if the type is known.
    fn coerce_in(&self, set: &mut SelectionSet, fields: Option<&OutputFields>) {
        for selection in &mut set.items {
            match &mut selection.node {
                Selection::Field(field) => {
                    let field = &mut field.node;
                    let Some(known) = fields.and_then(|fields| fields.get(&field.name.node)) else {
                        continue;
                    };
                    for (name, value) in &mut field.arguments {
                        if let Some(input) = known.arguments.get(&name.node) {
                            self.coerce_integers(&mut value.node, &input.ty);
                        }
                    }
                    self.coerce_in(&mut field.selection_set.node, self.target_fields(known));
                }
                Selection::InlineFragment(fragment) => {
                    let fields = match &fragment.node.type_condition {
                        Some(condition) => self.object(&condition.node.on.node),
                        None => fields,
                    };
                    self.coerce_in(&mut fragment.node.selection_set.node, fields);
                }
                Selection::FragmentSpread(_) => {}
            }
        }
    }

    fn coerce_integers(&self, value: &mut Value, ty: &Type) {
        match (&mut *value, &ty.base) {
            (Value::List(items), BaseType::List(item)) => {
                items.iter_mut().for_each(|value| self.coerce_integers(value, item));
            }
            // A single value is coerced to a list of one.
            (_, BaseType::List(item)) => self.coerce_integers(value, item),
            (Value::Object(fields), BaseType::Named(name)) => {
                if let Some(InputType::Object(declared)) = self.input(name) {
                    for (name, value) in fields {
                        if let Some(input) = declared.get(name) {
                            self.coerce_integers(value, &input.ty);
                        }
                    }
                }
            }
            (Value::Binary(text), BaseType::Named(name)) => match self.input(name) {
                Some(InputType::Scalar(Scalar::Id)) => {
                    *value = Value::String(String::from_utf8_lossy(text).into_owned());
                }
                Some(InputType::Scalar(Scalar::Int)) if text.as_ref() == b"-0" => {
                    *value = Value::Number(0.into())
                }
                _ => {}
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::pipeline::parser;

    const SDL: &str = "
        input Box { int: Int  id: ID  ids: [ID!]  inner: Box }
        type Query { a(int: Int, id: ID, ids: [ID], text: String, box: Box): Query }
    ";

    #[test]
    fn integers_are_coerced_by_their_type() {
        const WIDE: &str = "123456789012345678901234567890";
        let text = format!(
            "query A($a: Int = -0, $b: [Box] = {{ids: {WIDE}}}) {{
                a(int: -0, id: {WIDE}, ids: [-0, 1], text: -0) {{ ... {{ ... on Query {{ a(ids: -0) }} }} }}
            }}
            query B {{ unknown(id: -0) }}
            fragment F on Query {{ a(box: {{int: -0, id: -0, inner: {{int: {WIDE}, id: {WIDE}}}}}) }}"
        );
        let mut document = parser::parse(&text).unwrap();
        coerce(&mut document, &Types::of(SDL).unwrap());
        let DocumentOperations::Multiple(operations) = &document.operations else { panic!() };
        let definitions = &operations["A"].node.variable_definitions;
        let defaults: Vec<_> =
            definitions.iter().map(|it| it.node.default_value().unwrap().to_string()).collect();
        assert_eq!(defaults, ["0".to_owned(), format!("{{ids: \"{WIDE}\"}}")]);

        fn arguments(set: &SelectionSet) -> String {
            let of = |selection: &Positioned<Selection>| match &selection.node {
                Selection::Field(field) => {
                    let own = field.node.arguments.iter().map(|(_, value)| value.node.clone());
                    let kept = own.map(|value| match value {
                        Value::Binary(text) => format!("{text:?} "),
                        value => format!("{value} "),
                    });
                    kept.collect::<String>() + &arguments(&field.node.selection_set.node)
                }
                Selection::InlineFragment(fragment) => arguments(&fragment.node.selection_set.node),
                Selection::FragmentSpread(_) => String::new(),
            };
            set.items.iter().map(of).collect()
        }
        let of_operation = |name: &str| arguments(&operations[name].node.selection_set.node);
        assert_eq!(of_operation("A"), format!("0 \"{WIDE}\" [\"-0\", 1] b\"-0\" \"-0\" "));
        assert_eq!(of_operation("B"), "b\"-0\" ");
        let fragment = arguments(&document.fragments["F"].node.selection_set.node);
        assert!(fragment.starts_with("{int: 0, id: \"-0\", inner: {int: ["), "{fragment}");
        assert!(fragment.ends_with(&format!(", id: \"{WIDE}\"}}}} ")), "{fragment}");
    }
}
