//! The documents, compared with the program: tables of keys and limits, names of tests, links.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use appointments_gateway::{
    config::{key::ConfigKey, keys::KEYS},
    error::limit::LIMITS,
};

/// Rewrites the generated tables instead of comparing them, if it is set.
const UPDATE: &str = "UPDATE_DOCUMENTS";

const CONFIGURATION: &str = "docs/configuration.md";

/// Suites outside this one that the threat model links to.
const OTHER_SUITES: [&str; 5] = ["caches", "clients", "fleet", "fuzz", "generators"];

/// A larger README is several documents in one.
const README_MAX_LINES: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The paths of all documents, relative to the root.
fn documents() -> Vec<String> {
    let in_docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let in_docs = in_docs.map(|name| format!("docs/{}", name.to_str().unwrap()));
    let others = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md"];
    let others = others.map(str::to_owned);
    others.into_iter().chain(in_docs.filter(|path| path.ends_with(".md"))).collect()
}

/// The text below a heading, up to the next one.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let below = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}")).1;
    below.split("\n#").next().unwrap_or_default()
}

/// The table of all keys.
fn key_table() -> String {
    let row = |key: &ConfigKey| {
        let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        let flag = key.flag().map_or("none".to_owned(), |flag| format!("`--{flag}`"));
        format!("| `{}` | {default} | `{}` | {flag} | {} |\n", key.name, key.variable(), key.help)
    };
    let head = "| Key | Default | Variable | Flag | Description |\n| --- | --- | --- | --- | --- |\n";
    head.to_owned() + &KEYS.iter().map(row).collect::<String>()
}

/// The table of the keys with another default in production.
fn production_table() -> String {
    let row =
        |key: &ConfigKey| Some(format!("| `{}` | `{}` | `{}` |\n", key.name, key.default, key.production()?));
    let head = "| Key | In development | In production |\n| --- | --- | --- |\n";
    head.to_owned() + &KEYS.iter().filter_map(row).collect::<String>()
}

#[test]
fn configuration_tables_match_the_program() {
    for (heading, table) in [("## All keys", key_table()), ("## Production profile", production_table())] {
        let text = read(CONFIGURATION);
        let section = section(&text, heading);
        let present = section.find("| Key |").map_or("", |start| &section[start..]);
        let present = &present[..present.find("\n\n").map_or(present.len(), |end| end + 1)];
        if std::env::var_os(UPDATE).is_some() {
            assert!(!present.is_empty(), "no table under \"{heading}\" in {CONFIGURATION}");
            fs::write(root().join(CONFIGURATION), text.replacen(present, &table, 1)).unwrap();
            continue;
        }
        assert!(
            present.trim_end() == table.trim_end(),
            "The table under \"{heading}\" in {CONFIGURATION} differs from the program. Run \
             `{UPDATE}=1 cargo test --test api documents::configuration`, or replace the table with:\n\n{table}"
        );
    }
}

#[test]
fn the_table_of_limits_is_complete() {
    let text = read("docs/api.md");
    let rows = section(&text, "## Limits").lines();
    let rows = rows.filter(|line| line.starts_with("| `") && !line.starts_with("| `limit` |"));
    let names = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(',').map(|name| name.trim().trim_matches('`')));
    let (mut documented, mut known) = (names.collect::<Vec<_>>(), LIMITS.to_vec());
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known);
}

/// All Rust files of the black-box tests.
fn test_sources() -> Vec<String> {
    fn collect(folder: &Path, sources: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut sources = Vec::new();
    collect(&root().join("tests/api"), &mut sources);
    sources
}

/// The modules of the black-box tests, at any depth.
fn test_modules(sources: &[String]) -> BTreeSet<&str> {
    let lines = sources.iter().flat_map(|source| source.lines());
    lines.filter_map(|line| line.trim().strip_prefix("mod ")?.strip_suffix(';')).collect()
}

#[test]
fn tests_named_by_the_threat_model_exist() {
    let security = read("SECURITY.md");
    let sources = test_sources();
    let modules = test_modules(&sources);
    let cells = security.lines().filter(|line| line.starts_with("| "));
    let cells = cells.map(|row| row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default());
    let mut count = 0;
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    for name in names.filter(|name| !OTHER_SUITES.contains(name)) {
        assert!(modules.contains(name), "{name}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// A filter in a `cargo test --test api FILTER` of a document selects a module, or a test by a part of its name.
#[test]
fn test_commands_in_the_documents_select_tests() {
    let sources = test_sources();
    let modules = test_modules(&sources);
    let functions = sources.iter().flat_map(|source| source.split("fn ").skip(1));
    let functions: Vec<_> = functions.filter_map(|rest| rest.split(['(', '<']).next()).collect();
    let mut count = 0;
    for document in documents() {
        for command in read(&document).split("cargo test --test api ").skip(1) {
            let is_part =
                |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "_:".contains(char);
            let filter = command.split(|char| !is_part(char)).next().unwrap_or_default();
            let is_module = filter.ends_with("::");
            for part in filter.split("::").filter(|part| !part.is_empty()) {
                let is_known = if is_module {
                    modules.contains(part)
                } else {
                    modules.iter().chain(&functions).any(|name| name.contains(part))
                };
                assert!(is_known, "{document}: cargo test --test api {filter}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn the_readme_has_at_most_200_lines() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_MAX_LINES, "{lines} lines");
}

/// A document without its code, in which brackets are no links.
fn without_code(text: &str) -> String {
    let blocks = text.split("\n```").step_by(2).map(|block| block.split('`').step_by(2));
    blocks.map(|block| block.collect::<Vec<_>>().join("code")).collect::<Vec<_>>().join("\n")
}

/// The anchors of a document's headings, as code hosts generate them: lower case, hyphens for spaces, no other
/// punctuation.
fn anchors(text: &str) -> BTreeSet<String> {
    let outside_blocks = text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n");
    let headings = outside_blocks.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let is_kept = |char: &char| char.is_alphanumeric() || " -_".contains(*char);
    headings.map(|heading| heading.chars().filter(is_kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn relative_links_and_anchors_lead_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = read(&document);
        let text = without_code(&text);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&document).parent().unwrap();
            let target = if path.is_empty() { PathBuf::from(&document) } else { folder.join(path) };
            let target = root().join(target);
            assert!(target.exists(), "{document} links to {link}: no such file");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target).unwrap());
                assert!(anchors.contains(anchor), "{document} links to {link}: no such heading");
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}
