//! Parsing of a document within the limits, and selection of its operation.
//!
//! All of it takes time and memory proportional to the text. The lexical limits are [checked](check_tokens) first, so that
//! the recursive parser never sees too deep or too long a text. The document is [parsed](parser) and its contents are
//! [counted](limits).

use async_graphql::{
    Positioned, ServerError,
    parser::types::{DocumentOperations, ExecutableDocument, OperationDefinition},
};

use super::{
    limits, parser,
    tokens::{self, Kind},
};
use crate::{
    config::limits::Limits,
    error::{
        ApiError,
        limit::{Limit, LimitExceeded},
    },
};

/// Parses `text` within `limits`.
///
/// # Errors
/// `QUERY_TOO_COMPLEX`, naming the limit. `GRAPHQL_PARSE_FAILED`. `GRAPHQL_VALIDATION_FAILED` for cyclic and unknown
/// fragments, which cannot be counted, and for definitions and input fields with the same name.
pub(crate) fn parse(text: &str, limits: &Limits) -> Result<ExecutableDocument, ServerError> {
    check_tokens(text, limits)?;
    let document = parser::parse(text)?;
    limits::check(&document, limits)?;
    Ok(document)
}

/// Selects the operation of that name, or the only one (`GetOperation`, GraphQL specification, section 6.1).
pub(crate) fn operation<'d>(
    document: &'d ExecutableDocument,
    name: Option<&str>,
) -> Result<&'d Positioned<OperationDefinition>, ApiError> {
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Ok(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name).ok_or_else(|| {
            ApiError::BadUserInput("The document has no operation with the name in operationName.".to_owned())
        }),
        (DocumentOperations::Single(_), Some(_)) => Err(ApiError::BadUserInput(
            "The only operation in the document has no name. Omit operationName.".to_owned(),
        )),
        (DocumentOperations::Multiple(operations), None) => {
            let mut operations = operations.values();
            match (operations.next(), operations.next()) {
                (Some(operation), None) => Ok(operation),
                _ => Err(ApiError::BadUserInput(
                    "The document has several operations. Select one with operationName.".to_owned(),
                )),
            }
        }
    }
}

/// Checks the length of the text, the number of tokens and the nesting of brackets. The result is unspecified for text that
/// the parser will reject.
fn check_tokens(text: &str, limits: &Limits) -> Result<(), ApiError> {
    let max_bytes = limits.query.as_u64() as usize;
    if text.len() > max_bytes {
        return Err(LimitExceeded::too_complex(Limit::Query, "bytes", max_bytes, text.len() as u64));
    }
    let (mut count, mut brackets, mut parentheses) = (0_usize, 0_usize, 0_usize);
    let (mut selections, mut deepest, mut deepest_selection) = (0_usize, 0, 0);
    for token in tokens::of(text) {
        count += 1;
        if token.kind != Kind::Punctuator {
            continue;
        }
        match token.text {
            "{" | "[" | "(" => {
                brackets += 1;
                match token.text {
                    "(" => parentheses += 1,
                    // Within parentheses, a curly bracket opens an input object.
                    "{" if parentheses == 0 => selections += 1,
                    _ => {}
                }
            }
            "}" | "]" | ")" => {
                brackets = brackets.saturating_sub(1);
                match token.text {
                    ")" => parentheses = parentheses.saturating_sub(1),
                    "}" if parentheses == 0 => selections = selections.saturating_sub(1),
                    _ => {}
                }
            }
            _ => {}
        }
        deepest = deepest.max(brackets);
        deepest_selection = deepest_selection.max(selections);
    }
    // Lists and input objects in arguments nest deeper than selections. The parser and validation recurse with every
    // bracket.
    let max_brackets = 2 * limits.depth;
    for (limit, what, value, maximum) in [
        (Limit::Tokens, "tokens", count, limits.tokens),
        (Limit::Depth, "levels of nested selections", deepest_selection, limits.depth),
        (Limit::Depth, "levels of nested brackets (twice the levels of selections)", deepest, max_brackets),
    ] {
        if value > maximum {
            return Err(LimitExceeded::too_complex(limit, what, maximum, value as u64));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{config::Config, error};

    fn limits() -> Limits {
        Config::default().limits
    }

    fn rejection(text: &str) -> String {
        match parse(text, &limits()) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => match error::limit(&error) {
                Some(limit) => limit.to_string(),
                None => error::code(&error).unwrap().to_string(),
            },
        }
    }

    #[test]
    fn each_limit_is_named() {
        let fields = |count: usize| "id ".repeat(count);
        assert_eq!(rejection(&format!("{{ a {} }}", " ".repeat(70_000))), "query");
        assert_eq!(rejection(&format!("{{ {} }}", fields(4_000))), "tokens");
        assert_eq!(rejection(&format!("{}{}", "{a".repeat(26), "}".repeat(26))), "depth");
        assert_eq!(rejection(&format!("{}a{}", "{a".repeat(24), "}".repeat(24))), "accepted");
        assert_eq!(rejection(&"{a".repeat(500)), "depth");
        assert_eq!(rejection(&format!("{{ a(b: {}", "[".repeat(3_000))), "depth");
        assert_eq!(rejection(&format!("{{ {} }}", fields(51))), "root_fields");
        assert_eq!(rejection(&format!("{{ {} }}", fields(50))), "accepted");
        assert_eq!(rejection(&format!("{{ a {{ {} }} }}", "b: id ".repeat(51))), "aliases");
        assert_eq!(rejection(&format!("{{ a {{ {} }} }}", "b @c ".repeat(51))), "directives");
        assert_eq!(rejection(&format!("{{ a {{ {} }} }}", fields(2_000))), "fields");
        assert_eq!(rejection("{ a "), "GRAPHQL_PARSE_FAILED");
    }

    #[test]
    fn fragments_count_at_each_use_and_are_traversed_once() {
        let mut text = "{ a { ...f0 } } fragment f20 on T { id }".to_owned();
        for n in 0..20 {
            text += &format!(" fragment f{n} on T {{ ...f{0} ...f{0} }}", n + 1);
        }
        // 2^20 fields, in 21 fragments.
        assert_eq!(rejection(&text), "fields");
        assert_eq!(
            rejection("{ ...f } fragment f on T { a { ...g } } fragment g on T { ...f }"),
            "GRAPHQL_VALIDATION_FAILED"
        );
        let chain: String = (0..300).map(|n| format!("fragment f{n} on T {{ ...f{} }}", n + 1)).collect();
        assert_eq!(rejection(&format!("{{ ...f0 }} {chain} fragment f300 on T {{ id }}")), "depth");
        // Unused fragments count too.
        assert_eq!(rejection(&format!("{{ a }} {chain} fragment f300 on T {{ id }}")), "depth");
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        let braces = "{".repeat(60);
        for text in [
            format!("{{ a(b: \"{braces}\") }}"),
            format!("{{ a(b: \"\\\"{braces}\") }}"),
            format!("{{ a(b: \"\"\"\n\"{braces}\\\"\"\" \"\"\") }}"),
            format!("{{ a # {braces}\n }}"),
            "{ a(b: \"\") }".to_owned(),
        ] {
            assert_eq!(rejection(&text), "accepted", "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[a-z{}()\\[\\]:\"\\\\#.!$@, \n0-9é]*") {
            let _ = parse(&text, &limits());
        }
    }
}
