//! What the README says of the program, held against the program.

use appointments_gateway::config::{KEYS, Key};

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
fn the_table_of_keys_is_that_of_the_program() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap_or_default();
    let table = table();
    let section =
        readme.split("\n## ").find(|section| section.starts_with("Configuration\n")).unwrap_or_default();
    let rows = |text: &str| {
        text.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(
        rows(section) == rows(&table),
        "The table under \"## Configuration\" in README.md is not that of the program. The right one is:\n\n{table}"
    );
}
