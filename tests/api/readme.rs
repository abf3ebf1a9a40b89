//! What the README and SECURITY.md say of the program, held against the program.

use appointments_gateway::{
    config::{key::Key, keys::KEYS},
    error::limit::LIMITS,
};

/// The table of all keys, as the README has to have it.
fn table() -> String {
    let row = |key: &Key| {
        let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        let flag = key.flag().map_or("none".to_owned(), |flag| format!("`--{flag}`"));
        format!("| `{}` | {default} | `{}` | {flag} | {} |\n", key.name, key.variable(), key.help)
    };
    let head = "| Key | Default | Variable | Flag | What it is for |\n| --- | --- | --- | --- | --- |\n";
    head.to_owned() + &KEYS.iter().map(row).collect::<String>()
}

#[test]
fn every_limit_is_in_the_table_of_limits() {
    let readme = include_str!("../../README.md");
    let section = readme.split("\n## Limits\n").nth(1).unwrap().split("\n**Cost.**").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `limit` |"));
    let names = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(',').map(|name| name.trim().trim_matches('`')));
    let (mut told, mut known) = (names.collect::<Vec<_>>(), LIMITS.to_vec());
    told.sort_unstable();
    known.sort_unstable();
    assert_eq!(told, known);
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let security = include_str!("../../SECURITY.md");
    let tests = include_str!("main.rs");
    let rows = security.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Who |"));
    let shown_by = rows.map(|row| row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default());
    let mut count = 0;
    for name in shown_by.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|name| *name != "fuzz") {
        assert!(tests.contains(&format!("mod {name};")), "{name}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// The table of the strict defaults.
fn strict_table() -> String {
    let row = |key: &Key| Some(format!("| `{}` | `{}` | `{}` |\n", key.name, key.default, key.production()?));
    let head = "| Key | In development | In production |\n| --- | --- | --- |\n";
    head.to_owned() + &KEYS.iter().filter_map(row).collect::<String>()
}

#[test]
fn the_tables_of_keys_are_those_of_the_program() {
    assert_table("## Configuration", &table());
    assert_table("### In production", &strict_table());
}

fn assert_table(title: &str, table: &str) {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap_or_default();
    let section = readme.split(&format!("\n{title}\n")).nth(1).unwrap_or_default();
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = |text: &str| {
        text.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(
        rows(section) == rows(table),
        "The table under \"{title}\" in README.md is not that of the program. The right one is:\n\n{table}"
    );
}
