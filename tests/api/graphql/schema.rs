//! The schema file, and the parts of it that clients rely on.

use std::collections::BTreeMap;

use async_graphql::parser::{
    parse_schema,
    types::{FieldDefinition, TypeDefinition, TypeKind, TypeSystemDefinition},
};

use crate::support::{FinishedRun, program};

const CONTRACT: &str = include_str!("../../fixtures/contract.graphql");

fn in_the_repository() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql")).unwrap()
}

fn types(sdl: &str) -> BTreeMap<String, TypeDefinition> {
    let definitions = parse_schema(sdl).unwrap().definitions.into_iter();
    definitions
        .filter_map(|definition| match definition {
            TypeSystemDefinition::Type(ty) => Some((ty.node.name.node.to_string(), ty.node)),
            _ => None,
        })
        .collect()
}

fn fields(ty: &TypeDefinition) -> Vec<&FieldDefinition> {
    match &ty.kind {
        TypeKind::Object(object) => object.fields.iter().map(|field| &field.node).collect(),
        TypeKind::Interface(interface) => interface.fields.iter().map(|field| &field.node).collect(),
        _ => Vec::new(),
    }
}

/// Everything about a type that a client relies on, a line each.
fn promises(name: &str, ty: &TypeDefinition) -> Vec<String> {
    let kind = match &ty.kind {
        TypeKind::Scalar => "scalar",
        TypeKind::Object(_) => "type",
        TypeKind::Interface(_) => "interface",
        TypeKind::Union(_) => "union",
        TypeKind::Enum(_) => "enum",
        TypeKind::InputObject(_) => "input",
    };
    let mut promises = vec![format!("{kind} {name}")];
    for field in fields(ty) {
        promises.push(format!("{name}.{}: {}", field.name, field.ty));
        for argument in &field.arguments {
            let argument = &argument.node;
            let default = argument.default_value.as_ref().map(|it| format!(" = {it}")).unwrap_or_default();
            promises.push(format!("{name}.{}({}: {}{default})", field.name, argument.name, argument.ty));
        }
    }
    match &ty.kind {
        TypeKind::Enum(ty) => {
            promises.extend(ty.values.iter().map(|value| format!("{name}.{}", value.node.value)));
        }
        TypeKind::InputObject(ty) => {
            promises.extend(
                ty.fields.iter().map(|field| format!("{name}.{}: {}", field.node.name, field.node.ty)),
            );
        }
        _ => {}
    }
    promises
}

#[tokio::test]
async fn the_file_is_what_the_program_prints() {
    let printed = FinishedRun::of(program(&["schema"], &[])).await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert!(
        printed.stdout == in_the_repository(),
        "schema.graphql is not the schema of the program; rewrite it with: cargo run -- schema > schema.graphql"
    );
}

#[test]
fn the_schema_contains_the_contract() {
    let (contract, served) = (types(CONTRACT), types(&in_the_repository()));
    let served: Vec<_> = served.iter().flat_map(|(name, ty)| promises(name, ty)).collect();
    let missing: Vec<_> = contract
        .iter()
        .flat_map(|(name, ty)| promises(name, ty))
        .filter(|promise| !served.contains(promise))
        .collect();
    assert!(missing.is_empty(), "the contract's, and not in schema.graphql:\n{}", missing.join("\n"));

    // A new required argument breaks existing clients, and a new enum value breaks exhaustive matches.
    let contract: Vec<_> = contract.iter().flat_map(|(name, ty)| promises(name, ty)).collect();
    let fields = |it: &&String| contract.iter().any(|known| it.starts_with(&format!("{}(", field_of(known))));
    let added: Vec<_> = served
        .iter()
        .filter(|it| it.ends_with("!)") && fields(it) || is_value_of_known_enum(it, &contract))
        .filter(|it| !contract.contains(it))
        .collect();
    assert!(added.is_empty(), "in schema.graphql, and breaking clients of the contract: {added:?}");
}

fn field_of(promise: &str) -> &str {
    promise.split([':', '(']).next().unwrap_or_default()
}

fn is_value_of_known_enum(promise: &str, contract: &[String]) -> bool {
    let Some((name, _)) = promise.split_once('.') else { return false };
    !promise.contains(':') && contract.contains(&format!("enum {name}"))
}

#[test]
fn everything_in_the_schema_is_described() {
    let mut bare = Vec::new();
    let mut check = |place: String, description: Option<&str>| {
        if description.is_none_or(|text| text.trim().is_empty()) {
            bare.push(place);
        }
    };
    for (name, ty) in &types(&in_the_repository()) {
        check(name.clone(), ty.description.as_ref().map(|it| it.node.as_str()));
        for field in fields(ty) {
            let place = format!("{name}.{}", field.name);
            check(place.clone(), field.description.as_ref().map(|it| it.node.as_str()));
            for argument in &field.arguments {
                let description = argument.node.description.as_ref();
                check(format!("{place}({}:)", argument.node.name), description.map(|it| it.node.as_str()));
            }
        }
        match &ty.kind {
            TypeKind::Enum(ty) => ty.values.iter().for_each(|value| {
                let description = value.node.description.as_ref();
                check(format!("{name}.{}", value.node.value), description.map(|it| it.node.as_str()));
            }),
            TypeKind::InputObject(ty) => ty.fields.iter().for_each(|field| {
                let description = field.node.description.as_ref();
                check(format!("{name}.{}", field.node.name), description.map(|it| it.node.as_str()));
            }),
            _ => {}
        }
    }
    assert!(bare.is_empty(), "without a description: {}", bare.join(", "));
}
