//! The fault table names tests that exist: a row whose test was renamed or removed would promise what nobody looks at.

use crate::{read, root};
use std::path::Path;

/// The tests that a document's tables name: `path/to/file.rs::name` or, of a contract, `file.t.sol::name`, in back-quotes, in a row of a
/// table.
fn named_tests(markdown: &str) -> Vec<(String, String)> {
    let rows = markdown.lines().filter(|line| line.starts_with('|'));
    // Every second part of a row split at back-quotes is code.
    let code = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    code.filter_map(|code| code.rsplit_once("::"))
        .filter(|(path, _)| Path::new(path).extension().is_some_and(|end| end == "rs" || end == "sol"))
        .map(|(path, name)| (path.to_owned(), name.to_owned()))
        .collect()
}

/// Rows of the table below a heading, without its head.
fn rows_below<'a>(markdown: &'a str, heading: &str) -> Vec<&'a str> {
    let section = markdown.split(heading).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with('|')).skip(2).collect()
}

/// Whether a source text has a test function of this name.
fn has_test(source: &str, name: &str) -> bool {
    let heads = [format!("fn {name}("), format!("function {name}(")];
    source.lines().any(|line| {
        let line = line.trim_start().trim_start_matches("async ");
        heads.iter().any(|head| line.starts_with(head))
    })
}

#[test]
fn every_test_that_the_fault_table_names_exists() {
    let document = read(&root().join("docs/reliability.md"));
    let mut missing = Vec::new();
    for (path, name) in named_tests(&document) {
        let source = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        if !has_test(&source, &name) {
            missing.push(format!("{path}::{name}"));
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_row_of_the_fault_table_and_every_removed_guard_names_a_test() {
    let document = read(&root().join("docs/reliability.md"));
    for heading in ["\n## Faults\n", "\n## Guards removed by hand\n"] {
        let rows = rows_below(&document, heading);
        let without: Vec<&&str> = rows.iter().filter(|row| named_tests(row).is_empty()).collect();
        assert!(without.is_empty(), "{heading}: {without:#?}");
    }
    assert!(rows_below(&document, "\n## Faults\n").len() > 5, "the table is found");
}

#[test]
fn tests_are_found_by_path_and_name_in_tables_only() {
    let document = "`a.rs::not_in_a_row`\n| x | `b/c.rs::one`, `d.t.sol::two` | `seed::MAX` |\n";
    let expected =
        [("b/c.rs", "one"), ("d.t.sol", "two")].map(|(path, name)| (path.to_owned(), name.to_owned()));
    assert_eq!(named_tests(document), expected);
    let source = "    #[test]\n    fn one() {}\n    async fn two() {}\n// fn three() is gone\nfn four_and_more() {}\nfunction test_five() public {}\n";
    assert!(has_test(source, "one") && has_test(source, "two") && has_test(source, "test_five"));
    assert!(!has_test(source, "three") && !has_test(source, "four"));
}
