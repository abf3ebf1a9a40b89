//! The text of a query, from bytes to a document within the limits.
//!
//! Everything here happens before validation and costs time and memory in proportion to the text: first the text is
//! [measured](measure) without being understood, so that what would overwhelm the parser never reaches it; then it is
//! parsed; then what it asks for is [counted](count).

use async_graphql::{
    Positioned,
    parser::{
        self,
        types::{DocumentOperations, ExecutableDocument, OperationDefinition},
    },
};

use super::{limits, tokens};
use crate::{
    config::limits::Limits,
    error::{ApiError, limit::OverLimit},
};

/// Parses `text` if it is within `limits`.
///
/// # Errors
/// `QUERY_TOO_COMPLEX`, naming the limit; `GRAPHQL_PARSE_FAILED`; `GRAPHQL_VALIDATION_FAILED` for fragments that
/// contain themselves or are not there, since nothing can be counted in those, and for what is gone once it is parsed.
pub(crate) fn parse(text: &str, limits: &Limits) -> Result<ExecutableDocument, ApiError> {
    measure(text, limits)?;
    let document = parser::parse_query(text).map_err(|error| ApiError::ParseFailed(explain(&error)))?;
    if let Some(name) = tokens::repeated_field(text) {
        return Err(ApiError::ValidationFailed(format!(
            "The field \"{name}\" is given twice in one input object. Leave one out."
        )));
    }
    limits::check(&document, limits)?;
    Ok(document)
}

/// The operation to be run: the one of that name, or the only one. GraphQL, section 6.1 `GetOperation`.
pub(crate) fn operation<'d>(
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

/// Counts the lexical tokens and how deep selections and brackets nest. Text that is no GraphQL is counted somehow and left
/// to the parser to refuse.
fn measure(text: &str, limits: &Limits) -> Result<(), ApiError> {
    let most = limits.query.as_u64() as usize;
    if text.len() > most {
        return Err(OverLimit::too_complex("query", "bytes", most, text.len() as u64));
    }
    let (mut count, mut open, mut round) = (0_usize, 0_usize, 0_usize);
    let (mut selections, mut deepest, mut deepest_selection) = (0_usize, 0, 0);
    for token in tokens::of(text) {
        count += 1;
        match token {
            b"{" | b"[" | b"(" => {
                open += 1;
                match token {
                    b"(" => round += 1,
                    // Within arguments it is an input object.
                    b"{" if round == 0 => selections += 1,
                    _ => {}
                }
            }
            b"}" | b"]" | b")" => {
                open = open.saturating_sub(1);
                match token {
                    b")" => round = round.saturating_sub(1),
                    b"}" if round == 0 => selections = selections.saturating_sub(1),
                    _ => {}
                }
            }
            _ => {}
        }
        deepest = deepest.max(open);
        deepest_selection = deepest_selection.max(selections);
    }
    // Arguments nest lists and objects within the selections, so brackets may nest deeper than selections. The parser
    // recurses with each, and validation too.
    let brackets = 2 * limits.depth;
    for (limit, what, value, maximum) in [
        ("tokens", "words and signs", count, limits.tokens),
        ("depth", "levels of selections", deepest_selection, limits.depth),
        ("depth", "levels of brackets", deepest, brackets),
    ] {
        if value > maximum {
            return Err(OverLimit::too_complex(limit, what, maximum, value as u64));
        }
    }
    Ok(())
}

/// One sentence of the parser's report, which draws the place with the line it stands in.
fn explain(error: &parser::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("= ")).unwrap_or(&text);
    // Rules of the grammar are words with underscores between them; so are names, which are left as they are.
    let reason = match error {
        parser::Error::Syntax { .. } => reason.replace('_', " "),
        _ => reason.to_owned(),
    };
    match error.positions().next() {
        Some(at) => format!("Syntax error at line {}, column {}: {reason}.", at.line, at.column),
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
            Err(ApiError::OverLimit(limited)) => limited.limit.to_owned(),
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
        assert_eq!(refused(&format!("{{ a {{ {} }} }}", "b @c ".repeat(51))), "directives");
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
        assert_eq!(refused(&format!("{{ ...f0 }} {chain} fragment f300 on T {{ id }}")), "depth");
        // Also where nobody uses it.
        assert_eq!(refused(&format!("{{ a }} {chain} fragment f300 on T {{ id }}")), "depth");
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
        let Err(ApiError::ParseFailed(text)) = parse("query A_b { a } query A_b { b }", &limits()) else {
            panic!()
        };
        assert!(text.ends_with("operation A_b is defined twice."), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_is_measured_and_parsed_without_a_panic(text in "[a-z{}()\\[\\]:\"\\\\#.!$@, \n0-9é]*") {
            let _ = parse(&text, &limits());
        }
    }
}
