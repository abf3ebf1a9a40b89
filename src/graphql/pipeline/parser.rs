//! A parser of executable documents (GraphQL specification, edition September 2025, appendix B) into the syntax tree of
//! async-graphql, whose own parser misreads literals, rejects some valid documents and accepts some invalid ones: see
//! [`async_graphql_compat`](crate::graphql::async_graphql_compat).

use std::collections::{HashMap, hash_map::Entry};

use async_graphql::{
    Name, Pos, Positioned, ServerError,
    indexmap::IndexMap,
    parser::types::{
        BaseType, Directive, DocumentOperations, ExecutableDocument, Field, FragmentDefinition,
        FragmentSpread, InlineFragment, OperationDefinition, OperationType, Selection, SelectionSet, Type,
        TypeCondition, VariableDefinition,
    },
};
use async_graphql_value::{Number, Value};

use super::{
    strings,
    tokens::{self, Kind, Token, Tokens},
};
use crate::error::ApiError;

/// Parses `text`. Recursion is bounded by its nesting of brackets.
///
/// An integer beyond 64 bits, and `-0`, become [`Value::Binary`] with their source text, for
/// [`pipeline::integers`](super::integers).
///
/// # Errors
/// `GRAPHQL_PARSE_FAILED`. `GRAPHQL_VALIDATION_FAILED` for definitions and input fields with the same name, which the tree
/// cannot represent, and for operations that cannot be told apart or are missing.
pub(crate) fn parse(text: &str) -> Result<ExecutableDocument, ServerError> {
    let mut parser = Parser {
        text,
        tokens: tokens::of(text),
        next: None,
        at: Pos { line: 1, column: 1 },
        counted: 0,
        invalid: None,
    };
    parser.advance();
    let document = parser.document().map_err(|SyntaxError { at, reason }| {
        let message = format!("Syntax error at line {}, column {}: {reason}.", at.line, at.column);
        ApiError::ParseFailed(message).at([at])
    })?;
    match parser.invalid {
        Some(error) => Err(error),
        None => Ok(document),
    }
}

struct SyntaxError {
    at: Pos,
    reason: String,
}

type Parsed<T> = Result<T, SyntaxError>;

struct Parser<'t> {
    text: &'t str,
    tokens: Tokens<'t>,
    /// The next token; None at the end of the text.
    next: Option<Token<'t>>,
    /// The position of the next token.
    at: Pos,
    /// The offset of that position, in bytes.
    counted: usize,
    /// The first violation of a rule that only the parser can check. Syntax errors take precedence.
    invalid: Option<ServerError>,
}

impl<'t> Parser<'t> {
    fn advance(&mut self) {
        self.next = self.tokens.next();
        let start = self.next.map_or(self.text.len(), |token| token.start);
        let bytes = self.text.as_bytes();
        for at in self.counted..start {
            match bytes[at] {
                b'\n' if at > 0 && bytes[at - 1] == b'\r' => {}
                b'\n' | b'\r' => self.at = Pos { line: self.at.line + 1, column: 1 },
                // A byte within a character.
                0x80..=0xBF => {}
                _ => self.at.column += 1,
            }
        }
        self.counted = start;
    }

    /// The next token, if it is a name.
    fn word(&self) -> Option<&'t str> {
        self.next.filter(|token| token.kind == Kind::Name).map(|token| token.text)
    }

    /// Whether the next token is this punctuator.
    fn is(&self, sign: &str) -> bool {
        self.next.is_some_and(|token| token.kind == Kind::Punctuator && token.text == sign)
    }

    fn skip(&mut self, sign: &str) -> bool {
        let is_next = self.is(sign);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.skip(sign) { Ok(()) } else { Err(self.expected(&format!("\"{sign}\""))) }
    }

    /// The syntax error for an unexpected next token. It repeats neither literals nor names, which may be unquoted
    /// personal data.
    fn expected(&self, what: &str) -> SyntaxError {
        let reason = match self.next {
            None => format!("expected {what}, found the end of the document"),
            Some(Token { kind: Kind::Malformed(reason), .. }) => reason.to_owned(),
            Some(Token { kind: Kind::Unknown, text, .. }) => format!("unexpected character {text:?}"),
            Some(Token { kind: Kind::Int | Kind::Float, .. }) => format!("expected {what}, found a number"),
            Some(Token { kind: Kind::String | Kind::BlockString, .. }) => {
                format!("expected {what}, found a string")
            }
            Some(Token { kind: Kind::Name, .. }) => format!("expected {what}, found a name"),
            Some(Token { kind: Kind::Punctuator, text, .. }) => {
                format!("expected {what}, found \"{text}\"")
            }
        };
        SyntaxError { at: self.at, reason }
    }

    fn report(&mut self, message: String, at: Pos) {
        self.invalid.get_or_insert_with(|| ApiError::ValidationFailed(message).at([at]));
    }

    /// One or more items, up to `close`.
    fn many<T>(&mut self, close: &str, item: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = vec![item(self)?];
        while !self.skip(close) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn name(&mut self, what: &str) -> Parsed<Positioned<Name>> {
        let name = self.word().ok_or_else(|| self.expected(what))?;
        let name = Positioned::new(Name::new(name), self.at);
        self.advance();
        Ok(name)
    }

    fn document(&mut self) -> Parsed<ExecutableDocument> {
        let start = self.at;
        let mut anonymous = None;
        let mut operations = HashMap::new();
        let mut fragments = HashMap::new();
        let mut count = 0;
        while self.next.is_some() || count == 0 && fragments.is_empty() {
            let described = self.description()?;
            let at = self.at;
            match self.word() {
                None if self.is("{") => {
                    if let Some(at) = described {
                        let reason = "a description cannot precede a query in short form; write \"query\"";
                        return Err(SyntaxError { at, reason: reason.to_owned() });
                    }
                }
                Some("query" | "mutation" | "subscription") => {}
                Some("fragment") => {
                    let (name, fragment) = self.fragment_definition()?;
                    match fragments.entry(name.node) {
                        Entry::Vacant(entry) => {
                            entry.insert(Positioned::new(fragment, at));
                        }
                        Entry::Occupied(entry) => {
                            let message = defined_twice("fragment", entry.key());
                            self.report(message, name.pos);
                        }
                    }
                    continue;
                }
                _ => return Err(self.expected("an operation or a fragment")),
            }
            count += 1;
            let (name, operation) = self.operation()?;
            let operation = Positioned::new(operation, at);
            match name {
                None => anonymous = Some(operation),
                Some(name) => match operations.entry(name.node) {
                    Entry::Vacant(entry) => {
                        entry.insert(operation);
                    }
                    Entry::Occupied(entry) => {
                        let message = defined_twice("operation", entry.key());
                        self.report(message, name.pos);
                    }
                },
            }
        }
        if count == 0 {
            self.report("The document has no operation. Add one.".to_owned(), start);
        }
        let operations = match anonymous {
            Some(operation) => {
                if count > 1 {
                    let message =
                        "The document has several operations, one of them without a name. Name each.";
                    self.report(message.to_owned(), operation.pos);
                }
                DocumentOperations::Single(operation)
            }
            None => DocumentOperations::Multiple(operations),
        };
        Ok(ExecutableDocument { operations, fragments })
    }

    /// Skips a description, and returns its position.
    fn description(&mut self) -> Parsed<Option<Pos>> {
        let at = self.at;
        let is_description =
            self.next.is_some_and(|token| matches!(token.kind, Kind::String | Kind::BlockString));
        if is_description {
            self.value(true)?;
        }
        Ok(is_description.then_some(at))
    }

    fn operation(&mut self) -> Parsed<(Option<Positioned<Name>>, OperationDefinition)> {
        let ty = match self.word() {
            Some("mutation") => OperationType::Mutation,
            Some("subscription") => OperationType::Subscription,
            _ => OperationType::Query,
        };
        let (mut name, mut variable_definitions, mut directives) = Default::default();
        if self.word().is_some() {
            self.advance();
            name = self.word().map(|_| self.name("a name")).transpose()?;
            if self.skip("(") {
                variable_definitions = self.many(")", Self::variable_definition)?;
            }
            directives = self.directives(false)?;
        }
        let selection_set = self.selection_set()?;
        Ok((name, OperationDefinition { ty, variable_definitions, directives, selection_set }))
    }

    fn variable_definition(&mut self) -> Parsed<Positioned<VariableDefinition>> {
        self.description()?;
        let at = self.at;
        if !self.skip("$") {
            return Err(self.expected("a variable"));
        }
        let name = self.name("a name")?;
        self.expect(":")?;
        let type_at = self.at;
        let var_type = Positioned::new(self.ty()?, type_at);
        let default = if self.skip("=") { Some(self.value(true)?) } else { None };
        // A constant value contains no variable, so it is always converted.
        let default_value = default.and_then(|it| Some(Positioned::new(it.node.into_const()?, it.pos)));
        let directives = self.directives(true)?;
        Ok(Positioned::new(VariableDefinition { name, var_type, directives, default_value }, at))
    }

    fn ty(&mut self) -> Parsed<Type> {
        let base = if self.skip("[") {
            let item = self.ty()?;
            self.expect("]")?;
            BaseType::List(Box::new(item))
        } else {
            BaseType::Named(self.name("a type")?.node)
        };
        Ok(Type { base, nullable: !self.skip("!") })
    }

    fn fragment_definition(&mut self) -> Parsed<(Positioned<Name>, FragmentDefinition)> {
        self.advance();
        if self.word() == Some("on") {
            return Err(self.expected("the name of a fragment"));
        }
        let name = self.name("the name of a fragment")?;
        if self.word() != Some("on") {
            return Err(self.expected("\"on\""));
        }
        let type_condition = self.type_condition()?;
        let directives = self.directives(false)?;
        let selection_set = self.selection_set()?;
        Ok((name, FragmentDefinition { type_condition, directives, selection_set }))
    }

    /// `on` and a type. The next token is `on`.
    fn type_condition(&mut self) -> Parsed<Positioned<TypeCondition>> {
        let at = self.at;
        self.advance();
        Ok(Positioned::new(TypeCondition { on: self.name("a type")? }, at))
    }

    fn selection_set(&mut self) -> Parsed<Positioned<SelectionSet>> {
        let at = self.at;
        self.expect("{")?;
        let items = self.many("}", Self::selection)?;
        Ok(Positioned::new(SelectionSet { items }, at))
    }

    fn selection(&mut self) -> Parsed<Positioned<Selection>> {
        let at = self.at;
        let selection = if !self.skip("...") {
            Selection::Field(Positioned::new(self.field()?, at))
        } else if self.word().is_some_and(|word| word != "on") {
            let fragment_name = self.name("the name of a fragment")?;
            let directives = self.directives(false)?;
            Selection::FragmentSpread(Positioned::new(FragmentSpread { fragment_name, directives }, at))
        } else {
            let type_condition = self.word().map(|_| self.type_condition()).transpose()?;
            let directives = self.directives(false)?;
            let selection_set = self.selection_set()?;
            let fragment = InlineFragment { type_condition, directives, selection_set };
            Selection::InlineFragment(Positioned::new(fragment, at))
        };
        Ok(Positioned::new(selection, at))
    }

    fn field(&mut self) -> Parsed<Field> {
        let mut name = self.name("a field or a fragment")?;
        let mut alias = None;
        if self.skip(":") {
            alias = Some(std::mem::replace(&mut name, self.name("a field")?));
        }
        let arguments = self.arguments(false)?;
        let directives = self.directives(false)?;
        let selection_set = if self.is("{") { self.selection_set()? } else { Positioned::default() };
        Ok(Field { alias, name, arguments, directives, selection_set })
    }

    fn directives(&mut self, is_const: bool) -> Parsed<Vec<Positioned<Directive>>> {
        let mut directives = Vec::new();
        loop {
            let at = self.at;
            if !self.skip("@") {
                return Ok(directives);
            }
            let name = self.name("the name of a directive")?;
            let arguments = self.arguments(is_const)?;
            directives.push(Positioned::new(Directive { name, arguments }, at));
        }
    }

    fn arguments(&mut self, is_const: bool) -> Parsed<Vec<(Positioned<Name>, Positioned<Value>)>> {
        if !self.skip("(") {
            return Ok(Vec::new());
        }
        self.many(")", |parser| {
            let name = parser.name("an argument")?;
            parser.expect(":")?;
            Ok((name, parser.value(is_const)?))
        })
    }

    fn value(&mut self, is_const: bool) -> Parsed<Positioned<Value>> {
        let at = self.at;
        let what = if is_const { "a value without variables" } else { "a value" };
        let Some(Token { kind, text, .. }) = self.next else { return Err(self.expected(what)) };
        let value = match (kind, text) {
            (Kind::Int, _) => integer(text),
            (Kind::Float, _) => Value::Number(float(text)),
            (Kind::String, _) => {
                let value = strings::quoted(&text[1..text.len() - 1]);
                Value::String(value.ok_or_else(|| SyntaxError {
                    at,
                    reason: "invalid escape sequence in the string".to_owned(),
                })?)
            }
            (Kind::BlockString, _) => Value::String(strings::block(&text[3..text.len() - 3])),
            (Kind::Name, "true") => Value::Boolean(true),
            (Kind::Name, "false") => Value::Boolean(false),
            (Kind::Name, "null") => Value::Null,
            (Kind::Name, _) => Value::Enum(Name::new(text)),
            (Kind::Punctuator, "$") if !is_const => {
                self.advance();
                return Ok(Positioned::new(Value::Variable(self.name("a name")?.node), at));
            }
            (Kind::Punctuator, "[") => {
                self.advance();
                let mut items = Vec::new();
                while !self.skip("]") {
                    items.push(self.value(is_const)?.node);
                }
                return Ok(Positioned::new(Value::List(items), at));
            }
            (Kind::Punctuator, "{") => {
                self.advance();
                return Ok(Positioned::new(Value::Object(self.object(is_const)?), at));
            }
            _ => return Err(self.expected(what)),
        };
        self.advance();
        Ok(Positioned::new(value, at))
    }

    /// The fields of an input object, up to the closing bracket.
    fn object(&mut self, is_const: bool) -> Parsed<IndexMap<Name, Value>> {
        let mut fields = IndexMap::new();
        while !self.skip("}") {
            let name = self.name("an input field")?;
            self.expect(":")?;
            let value = self.value(is_const)?.node;
            let Positioned { node: name, pos } = name;
            if fields.contains_key(&name) {
                let problem = format!("The field \"{name}\" appears more than once in one input object.");
                self.report(format!("{problem} Remove the duplicates."), pos);
            }
            fields.insert(name, value);
        }
        Ok(fields)
    }
}

fn defined_twice(kind: &str, name: &Name) -> String {
    format!("The {kind} \"{name}\" is defined more than once. Rename or remove the others.")
}

fn integer(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) if text != "-0" => Value::Number(number.into()),
        _ => Value::Binary(text.to_owned().into()),
    }
}

/// The nearest finite number: the specification does not bound the syntax of numbers.
fn float(text: &str) -> Number {
    let number = text.parse::<f64>().unwrap_or_default().clamp(f64::MIN, f64::MAX);
    Number::from_f64(number).unwrap_or_else(|| 0.into())
}

#[cfg(test)]
mod tests {
    use async_graphql_value::ConstValue;
    use proptest::prelude::*;

    use super::*;
    use crate::error::{self, code::ErrorCode};

    fn errors(texts: &[&str], code: ErrorCode) {
        for text in texts {
            let error = parse(text).expect_err(text);
            assert_eq!((error::code(&error), error.locations.len()), (Some(code), 1), "{text}");
        }
    }

    /// The value of an argument.
    fn value(literal: &str) -> ConstValue {
        let document = parse(&format!("{{ a(b: {literal}) }}")).expect("a valid document");
        let (_, operation) = document.operations.iter().next().expect("an operation");
        match &operation.node.selection_set.node.items[0].node {
            Selection::Field(field) => {
                field.node.arguments[0].1.node.clone().into_const().expect("a constant")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn valid_documents_are_accepted() {
        for text in [
            "{a}",
            "\u{feff}query{a}",
            "query query{query}",
            "query A($a:[ Int # c\n! ] !=[1]@b(c:1)$b:on){a:a(a:$ a,b:[[$b]{}])@ c...@d{e}...{f}...on on{g}...onx}",
            "\"about\" query A { a } \"\"\"about\"\"\" fragment F on#c\nT { a } \"\" subscription on { ...F }",
            "query (\"about\" $a: Int \"\"\"more\"\"\" $b: Int) { a }",
            "{ on fragment true null fragment: on(on: trueish, null: nullable, true: falsey, in: [true false null]) }",
            "query ($a: T = {a: [{b: -1.5e3}], b: X}) { a }",
            "fragment fragment on fragment { a } query fragment { ...fragment }",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn invalid_documents_are_rejected() {
        errors(
            &[
                "",
                "#",
                "\"about\"",
                "\"about\" { a }",
                "query() { a }",
                "queryA { a }",
                "query A",
                "{ }",
                "{ a() }",
                "{ a { } }",
                "{ a(b: ) }",
                "{ a(b 1) }",
                "{ a: }",
                "{ a: b: c }",
                "{ ...on }",
                "{ ... on { a } }",
                "{ ... on T }",
                "{ ... }",
                "{ .. .a }",
                "fragment on on T { a }",
                "fragment A { a }",
                "fragment on T { a }",
                "fragment A onT { a }",
                "fragmentA on T { a }",
                "fragment A($a: Int) on T { a }",
                "query ($a: Int @b = 1) { a }",
                "query ($a: Int @b(c: $d)) { a }",
                "query ($a: Int = $b) { a }",
                "query ($a: Int = [{b: $c}]) { a }",
                "query ($a) { a }",
                "query ($a: ) { a }",
                "query (a: Int) { a }",
                "query ($a: [Int) { a }",
                "query ($a: Int!!) { a }",
                "query ($a: $b) { a }",
                "query A B { a }",
                "query { a } }",
                "{ a",
                "{ a(b: [1) }",
                "{ a(b: {c 1}) }",
                "{ a(b: 00) }",
                "{ a(b: [00]) }",
                "{ a(b: 1.) }",
                "{ a(b: \"\\u{D800}\") }",
                "{ a(b: \"\\x\") }",
                "{ a(b: [\"\"\"c\"]) }",
                "{ a | b }",
                "{ a & b }",
                "{ a } type T { a: Int }",
                "extend type T { a: Int }",
                "\"about\" query",
                "\"\\x\" query { a }",
                "{ \"about\" a }",
                "query A(\"about\") { a }",
                "{ a(\"about\" b: 1) }",
                "{ a(b: é) }",
                "{ a@ }",
                "{ @a }",
            ],
            ErrorCode::ParseFailed,
        );
    }

    #[test]
    fn ambiguous_documents_are_invalid() {
        errors(
            &[
                "query A { a } query A { b }",
                "{ a } { b }",
                "{ a } query A { b }",
                "query A { b } { a }",
                "{ ...F } fragment F on T { a } fragment F on T { a }",
                "fragment F on T { a }",
                "{ a(b: {c: 1, c: 1}) }",
                "{ a(b: [{c: {d: 1, e: [], d: 1}}]) }",
                "query ($b: B = {c: 1 c: 1}) { a }",
            ],
            ErrorCode::ValidationFailed,
        );
        // Syntax errors take precedence.
        errors(&["{ a(b: {c: 1, c: 1}) "], ErrorCode::ParseFailed);
        for text in [
            "{ a(b: {c: {c: 1}, d: [{c: 1} {c: c}], e: \"c:\"}, c: 1) { c: d(c: 1) c: d(c: 1) } }",
            "{ c: a c: a }",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn syntax_errors_are_located_and_repeat_no_literal() {
        for (text, expected) in [
            ("{\n  a(\n}", "line 3, column 1: expected an argument, found \"}\""),
            ("{\r  é: a(b: 1 \r\n\"secret\")", "line 2, column 3: unexpected character \"é\""),
            (
                "\u{feff}{ a(b: \"é🦀\" \"secret\") }",
                "line 1, column 14: expected an argument, found a string",
            ),
            (
                "{ a(b: \"\"\"\r\r\n\n\"\"\" 12345) }",
                "line 4, column 5: expected an argument, found a number",
            ),
            ("{ a", "line 1, column 4: expected a field or a fragment, found the end of the document"),
            ("{ a(b: \"secret", "line 1, column 8: unterminated string"),
            ("{ a(b: 007) }", "line 1, column 8: malformed number"),
            ("{ a(b: \"secret \\x\") }", "line 1, column 8: invalid escape sequence in the string"),
            (
                "query ($a: Int = $b) { a }",
                "line 1, column 18: expected a value without variables, found \"$\"",
            ),
            ("subscribe { a }", "line 1, column 1: expected an operation or a fragment, found a name"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, format!("Syntax error at {expected}."));
        }
    }

    #[test]
    fn literals_have_the_value_of_the_specification() {
        for (literal, expected) in [
            (r#""\u{1F980} \uD83E\uDD80""#, ConstValue::from("🦀 🦀")),
            ("\"\"\"\n  a\n   \\\"\"\"\n\"\"\"", ConstValue::from("a\n \"\"\"")),
            ("\"\"", ConstValue::from("")),
            ("\"\"\"\"\"\"", ConstValue::from("")),
            ("-7", ConstValue::from(-7)),
            ("1.50", ConstValue::from(1.5)),
            ("-1E-2", ConstValue::from(-0.01)),
            ("1e999", ConstValue::from(f64::MAX)),
            ("-0", ConstValue::Binary("-0".into())),
            ("9223372036854775808", ConstValue::Binary("9223372036854775808".into())),
            ("trueish", ConstValue::Enum(Name::new("trueish"))),
            (
                "[null,[true]]",
                ConstValue::List(vec![ConstValue::Null, ConstValue::List(vec![ConstValue::Boolean(true)])]),
            ),
        ] {
            assert_eq!(value(literal), expected, "{literal}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(query|fragment|on|[a-c{}()\\[\\]:\"\\\\#.!$@=, \r\n0-9é-]|\"\"\"){0,30}") {
            let _ = parse(&text);
        }
    }
}
