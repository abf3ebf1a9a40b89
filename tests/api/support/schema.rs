//! The part of the schema that describes readable types, and the selection of all fields.

use std::collections::BTreeMap;

use async_graphql::parser::{
    parse_schema,
    types::{BaseType, Type, TypeKind, TypeSystemDefinition},
};

/// A selection of every field of an appointment.
pub fn everything() -> String {
    Types::read().selection("Appointment")
}

/// The objects that can be read, and the enums.
pub struct Types {
    objects: BTreeMap<String, Vec<Field>>,
    enums: Vec<String>,
}

pub struct Field {
    pub name: String,
    /// The type, or the item type of a list.
    pub of: String,
}

impl Types {
    /// As the gateway's schema has them.
    pub fn read() -> Self {
        let document = parse_schema(include_str!("../../../schema.graphql")).unwrap();
        let mut types = Self { objects: BTreeMap::new(), enums: Vec::new() };
        for definition in document.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let name = definition.node.name.node.to_string();
            match definition.node.kind {
                TypeKind::Enum(_) => types.enums.push(name),
                TypeKind::Object(object) => {
                    let fields = object.fields.iter().map(|field| Field {
                        name: field.node.name.node.to_string(),
                        of: innermost(&field.node.ty.node),
                    });
                    types.objects.insert(name, fields.collect());
                }
                _ => {}
            }
        }
        types
    }

    /// The fields of an object; none if it is no object.
    pub fn fields(&self, name: &str) -> Option<&[Field]> {
        self.objects.get(name).map(Vec::as_slice)
    }

    /// The type of a field.
    pub fn of(&self, object: &str, field: &str) -> &str {
        &self.objects[object].iter().find(|it| it.name == field).expect("a field of the schema").of
    }

    /// A selection of every field of an object, and of the objects in it.
    fn selection(&self, object: &str) -> String {
        let fields = self.objects[object].iter().map(|field| {
            let inner = self.objects.contains_key(&field.of).then(|| self.selection(&field.of));
            format!("{} {} ", field.name, inner.unwrap_or_default())
        });
        format!("{{ {}}}", fields.collect::<String>())
    }

    pub fn is_enum(&self, name: &str) -> bool {
        self.enums.iter().any(|it| it == name)
    }

    /// Every field that a query leads to.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let mut objects = vec!["Query"];
        let mut at = 0;
        while at < objects.len() {
            for field in &self.objects[objects[at]] {
                if self.objects.contains_key(&field.of) && !objects.contains(&field.of.as_str()) {
                    objects.push(&field.of);
                }
            }
            at += 1;
        }
        objects.into_iter().flat_map(|object| &self.objects[object]).map(|field| field.name.clone())
    }
}

fn innermost(ty: &Type) -> String {
    match &ty.base {
        BaseType::Named(name) => name.to_string(),
        BaseType::List(inner) => innermost(inner),
    }
}
