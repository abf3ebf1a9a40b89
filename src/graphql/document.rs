//! The text of a query, from bytes to a document within the limits.
//!
//! Everything here happens before validation and costs time and memory in proportion to the text: first the text is
//! [measured](measure) without being understood, so that what would overwhelm the parser never reaches it; then it is
//! parsed; then what it asks for is [counted](Counter) with every fragment in its place, once for each fragment
//! however often it is used.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned,
    parser::{
        self,
        types::{DocumentOperations, ExecutableDocument, OperationDefinition, Selection, SelectionSet},
    },
};

use super::{error::ApiError, tokens};
use crate::config::Limits;

/// Parses `text` if it is within `limits`.
///
/// # Errors
/// `QUERY_TOO_COMPLEX`, naming the limit; `GRAPHQL_PARSE_FAILED`; `GRAPHQL_VALIDATION_FAILED` for fragments that
/// contain themselves or are not there, since nothing can be counted in those, and for what is gone once it is parsed.
pub(super) fn parse(text: &str, limits: &Limits) -> Result<ExecutableDocument, ApiError> {
    measure(text, limits)?;
    let document = parser::parse_query(text).map_err(|error| ApiError::ParseFailed(explain(&error)))?;
    if let Some(name) = tokens::repeated_field(text) {
        return Err(ApiError::ValidationFailed(format!(
            "The field \"{name}\" is given twice in one input object. Leave one out."
        )));
    }
    let mut counter = Counter { document: &document, fragments: HashMap::new(), deepest: limits.depth };
    for (_, operation) in document.operations.iter() {
        let count = counter.selections(&operation.node.selection_set.node, 0)?;
        for (limit, what, value, maximum) in [
            ("depth", "levels of selections", count.depth, limits.depth),
            ("root_fields", "fields at the top", count.root_fields, limits.root_fields),
            ("aliases", "aliases", count.aliases, limits.aliases),
            ("fields", "fields", count.fields, limits.fields),
        ] {
            if value > maximum {
                return Err(too_complex(limit, what, maximum, Some(value)));
            }
        }
    }
    Ok(document)
}

/// The operation to be run: the one of that name, or the only one. GraphQL, section 6.1 `GetOperation`.
pub(super) fn operation<'d>(
    document: &'d ExecutableDocument,
    name: Option<&str>,
) -> Result<&'d Positioned<OperationDefinition>, ApiError> {
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Ok(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name).ok_or_else(|| {
            ApiError::BadUserInput("The query has no operation by the name of operationName.".to_owned())
        }),
        (DocumentOperations::Single(_), Some(_)) => Err(ApiError::BadUserInput(
            "operationName names an operation, but the only one in the query has no name.".to_owned(),
        )),
        (DocumentOperations::Multiple(operations), None) => {
            let mut operations = operations.values();
            match (operations.next(), operations.next()) {
                (Some(operation), None) => Ok(operation),
                _ => Err(ApiError::BadUserInput(
                    "The query has several operations; say in operationName which one to run.".to_owned(),
                )),
            }
        }
    }
}

fn too_complex(limit: &'static str, what: &'static str, maximum: usize, value: Option<usize>) -> ApiError {
    ApiError::QueryTooComplex { limit, what, maximum: maximum as u64, value: value.map(|value| value as u64) }
}

/// Counts the lexical tokens and how deep brackets nest. Text that is no GraphQL is counted somehow and left to the parser
/// to refuse.
fn measure(text: &str, limits: &Limits) -> Result<(), ApiError> {
    let most = limits.query.as_u64() as usize;
    if text.len() > most {
        return Err(too_complex("query", "bytes", most, Some(text.len())));
    }
    let (mut count, mut depth) = (0, 0_usize);
    // Arguments nest lists and objects within the selections, so brackets may nest deeper than selections. The parser
    // recurses with each, and validation too.
    let deepest = 2 * limits.depth;
    for token in tokens::of(text) {
        count += 1;
        match token {
            b"{" | b"[" | b"(" => depth += 1,
            b"}" | b"]" | b")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if count > limits.tokens {
            return Err(too_complex("tokens", "words and signs", limits.tokens, None));
        }
        if depth > deepest {
            return Err(too_complex("depth", "levels of selections", limits.depth, None));
        }
    }
    Ok(())
}

/// What a selection set asks for, with its fragments in their places.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    depth: usize,
    root_fields: usize,
    fields: usize,
    aliases: usize,
}

struct Counter<'d> {
    document: &'d ExecutableDocument,
    /// What each fragment comes to; none while it is being counted.
    fragments: HashMap<&'d Name, Option<Count>>,
    deepest: usize,
}

impl<'d> Counter<'d> {
    fn selections(&mut self, set: &'d SelectionSet, above: usize) -> Result<Count, ApiError> {
        // Recursion ends with the text's own nesting, which is bounded, but for fragments, which may lie in a chain.
        if above > self.deepest {
            return Err(too_complex("depth", "levels of selections", self.deepest, None));
        }
        let mut count = Count { depth: 1, ..Count::default() };
        for selection in &set.items {
            let inner = match &selection.node {
                Selection::Field(field) => {
                    count.root_fields = count.root_fields.saturating_add(1);
                    count.fields = count.fields.saturating_add(1);
                    count.aliases = count.aliases.saturating_add(usize::from(field.node.alias.is_some()));
                    let set = &field.node.selection_set.node;
                    if set.items.is_empty() {
                        continue;
                    }
                    Count { root_fields: 0, ..self.selections(set, above + 1)? }
                }
                Selection::InlineFragment(fragment) => {
                    self.selections(&fragment.node.selection_set.node, above + 1)?
                }
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node, above)?,
            };
            count.depth = count.depth.max(inner.depth + 1);
            count.root_fields = count.root_fields.saturating_add(inner.root_fields);
            count.fields = count.fields.saturating_add(inner.fields);
            count.aliases = count.aliases.saturating_add(inner.aliases);
        }
        Ok(count)
    }

    fn fragment(&mut self, name: &'d Name, above: usize) -> Result<Count, ApiError> {
        let Some(fragment) = self.document.fragments.get(name) else {
            // Counted as nothing, it could be asked for without a bound.
            return Err(ApiError::ValidationFailed(format!("There is no fragment \"{name}\".")));
        };
        match self.fragments.get(name) {
            Some(Some(count)) => Ok(*count),
            Some(None) => {
                Err(ApiError::ValidationFailed(format!("The fragment \"{name}\" contains itself.")))
            }
            None => {
                self.fragments.insert(name, None);
                let count = self.selections(&fragment.node.selection_set.node, above + 1)?;
                self.fragments.insert(name, Some(count));
                Ok(count)
            }
        }
    }
}

/// One sentence of the parser's report, which draws the place with the line it stands in.
fn explain(error: &parser::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("= ")).unwrap_or(&text);
    match error.positions().next() {
        Some(at) => {
            format!("Syntax error at line {}, column {}: {}.", at.line, at.column, reason.replace('_', " "))
        }
        None => format!("Syntax error: {}.", reason.trim_end_matches('.')),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn limits() -> Limits {
        Config::default().limits
    }

    fn refused(text: &str) -> String {
        match parse(text, &limits()) {
            Ok(_) => "accepted".to_owned(),
            Err(ApiError::QueryTooComplex { limit, .. }) => limit.to_owned(),
            Err(error) => error.code().to_owned(),
        }
    }

    #[test]
    fn each_limit_is_named() {
        let fields = |count: usize| "id ".repeat(count);
        assert_eq!(refused(&format!("{{ a {} }}", " ".repeat(70_000))), "query");
        assert_eq!(refused(&format!("{{ {} }}", fields(4_000))), "tokens");
        assert_eq!(refused(&format!("{}{}", "{a".repeat(26), "}".repeat(26))), "depth");
        assert_eq!(refused(&format!("{}a{}", "{a".repeat(24), "}".repeat(24))), "accepted");
        assert_eq!(refused(&"{a".repeat(500)), "depth");
        assert_eq!(refused(&format!("{{ a(b: {}", "[".repeat(3_000))), "depth");
        assert_eq!(refused(&format!("{{ {} }}", fields(51))), "root_fields");
        assert_eq!(refused(&format!("{{ {} }}", fields(50))), "accepted");
        assert_eq!(refused(&format!("{{ a {{ {} }} }}", "b: id ".repeat(51))), "aliases");
        assert_eq!(refused(&format!("{{ a {{ {} }} }}", fields(2_000))), "fields");
        assert_eq!(refused("{ a "), "GRAPHQL_PARSE_FAILED");
    }

    #[test]
    fn fragments_count_each_time_they_are_used_and_cost_nothing_to_count() {
        let mut text = "{ a { ...f0 } } fragment f20 on T { id }".to_owned();
        for n in 0..20 {
            text += &format!(" fragment f{n} on T {{ ...f{0} ...f{0} }}", n + 1);
        }
        // 2^20 fields, in 21 fragments.
        assert_eq!(refused(&text), "fields");
        assert_eq!(
            refused("{ ...f } fragment f on T { a { ...g } } fragment g on T { ...f }"),
            "GRAPHQL_VALIDATION_FAILED"
        );
        let chain: String = (0..300).map(|n| format!("fragment f{n} on T {{ ...f{} }}", n + 1)).collect();
        assert_eq!(refused(&format!("{{ ...f0 }} {chain}")), "depth");
    }

    #[test]
    fn what_looks_like_syntax_in_strings_and_comments_is_none() {
        let braces = "{".repeat(60);
        for text in [
            format!("{{ a(b: \"{braces}\") }}"),
            format!("{{ a(b: \"\\\"{braces}\") }}"),
            format!("{{ a(b: \"\"\"\n\"{braces}\\\"\"\" \"\"\") }}"),
            format!("{{ a # {braces}\n }}"),
            "{ a(b: \"\") }".to_owned(),
        ] {
            assert_eq!(refused(&text), "accepted", "{text}");
        }
    }

    #[test]
    fn a_field_of_an_input_object_is_given_once() {
        for text in [
            "{ a(b: {c: 1, c: 1}) }",
            "{ a(b: [{c: {d: 1, e: [], d: 1}}]) }",
            "query ($b: B = {c: 1 c: 1}) { a }",
        ] {
            assert_eq!(refused(text), "GRAPHQL_VALIDATION_FAILED", "{text}");
        }
        for text in [
            "{ a(b: {c: {c: 1}, d: [{c: 1} {c: c}], e: \"c:\"}, c: 1) { c: d(c: 1) c: d(c: 1) } }",
            "{ c: a c: a }",
        ] {
            assert_eq!(refused(text), "accepted", "{text}");
        }
    }

    #[test]
    fn a_syntax_error_says_where() {
        let Err(ApiError::ParseFailed(text)) = parse("{\n  a(\n}", &limits()) else {
            panic!("it is no GraphQL")
        };
        assert!(text.starts_with("Syntax error at line 3, column 1: expected"), "{text}");
        let Err(ApiError::ParseFailed(text)) = parse("query A { a } query A { b }", &limits()) else {
            panic!()
        };
        assert_eq!(text, "Syntax error at line 1, column 15: operation A is defined twice.");
    }

    proptest! {
        #[test]
        fn any_text_is_measured_and_parsed_without_a_panic(text in "[a-z{}()\\[\\]:\"\\\\#.!$@, \n0-9é]*") {
            let _ = parse(&text, &limits());
        }
    }
}
