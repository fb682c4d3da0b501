//! The repository's own text: its links lead somewhere, and it names no place that exists on one machine only.

use crate::{read, root};
use std::path::{Path, PathBuf};

/// Spelled in halves, so that this file does not hold what it looks for.
const MACHINE_PLACES: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
    concat!("/tmp/", "plan"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("debian", ".org"),
];

/// The text files of the repository: not what was built, not what git keeps, not the demo's data.
fn files() -> Vec<PathBuf> {
    const SKIPPED: [&str; 4] = [".git", "target", "field-notes", "node_modules"];
    const TEXT: [&str; 11] = ["c", "css", "h", "html", "md", "rs", "sh", "sol", "sql", "toml", "yml"];
    let (mut found, mut waiting) = (Vec::new(), vec![root()]);
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder can be read") {
            let entry = entry.expect("the entry can be read");
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !SKIPPED.contains(&&*name) {
                    waiting.push(path);
                }
                continue;
            }
            let in_ci = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == ".ci");
            let is_text = path.extension().is_some_and(|end| TEXT.iter().any(|text| end == *text));
            if is_text || in_ci {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn no_text_names_a_place_of_one_machine() {
    let files = files();
    assert!(files.len() > 20, "the repository's files are found");
    let mut found = Vec::new();
    for path in files {
        for (number, line) in read(&path).lines().enumerate() {
            for place in MACHINE_PLACES.iter().filter(|place| line.contains(**place)) {
                found.push(format!("{}:{}: {place}", path.display(), number + 1));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_relative_link_of_the_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for path in files().iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let folder = path.parent().expect("a file has a folder");
        for target in links(&read(path)) {
            if !leads_somewhere(folder, &target) {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// The targets of a document's links and images, outside code.
fn links(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        if in_fence {
            continue;
        }
        // Every second part of a line split at back-quotes is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(inline.map(|(target, _)| target.to_owned()));
        let reference = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        found.extend(reference.map(|(_, target)| target.to_owned()));
    }
    found
}

fn leads_somewhere(folder: &Path, target: &str) -> bool {
    // A title may stand behind the target, in quotes.
    let target = target.split(" \"").next().unwrap_or_default().trim().trim_matches(['<', '>']);
    let elsewhere = target.contains("://") || target.starts_with("mailto:");
    let path = target.split('#').next().unwrap_or_default();
    elsewhere || path.is_empty() || folder.join(path).exists()
}

#[test]
fn links_are_found_outside_code_only() {
    let document =
        "See [a](one.md), `[b](two.md)` and ![c](three.png \"title\").\n```\n[d](four.md)\n```\n[e]: five.md";
    assert_eq!(links(document), ["one.md", "three.png \"title\"", "five.md"]);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(leads_somewhere(here, "Cargo.toml \"the manifest\"") && leads_somewhere(here, "src/lib.rs#top"));
    assert!(leads_somewhere(here, "https://example.com/x") && leads_somewhere(here, "#above"));
    assert!(!leads_somewhere(here, "missing.md"));
}
