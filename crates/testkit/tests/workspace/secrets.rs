//! No secret is one `{:?}` away from a log: a type that wipes itself from memory does not derive `Debug`, because the
//! derived one prints what it holds, and `Zeroizing` prints what it wraps.

use crate::{read, root};
use std::path::{Path, PathBuf};

/// The structs and enums of a source that hold a wiped field or wipe themselves, and derive `Debug`.
fn shown_secrets(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(keyword) = words.iter().position(|word| ["struct", "enum"].contains(word)) else { continue };
        if line.trim_start().starts_with("//") || !words[..keyword].iter().all(|word| word.starts_with("pub"))
        {
            continue;
        }
        let above = lines[..at].iter().rev().take_while(|line| {
            let line = line.trim_start();
            line.starts_with('#') || line.starts_with("//")
        });
        let derives: String = above.filter(|line| line.contains("derive")).copied().collect();
        let one_line = line.ends_with(';') || line.ends_with('}');
        let below = lines[at + 1..].iter().take_while(|line| !one_line && line.trim_end() != "}");
        let body = std::iter::once(line).chain(below).any(|line| line.contains("Zeroizing<"));
        if (body || derives.contains("Zeroize")) && derives.contains("Debug") {
            found.push(words[keyword + 1].to_owned());
        }
    }
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("it can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn no_type_that_is_wiped_from_memory_derives_debug() {
    let sources = sources(&root().join("crates"));
    assert!(sources.iter().any(|path| read(path).contains("Zeroizing<")), "secrets are found");
    for path in sources {
        assert_eq!(shown_secrets(&read(&path)), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn derived_debug_of_secrets_is_found() {
    let shown = "#[derive(Debug)]\npub(crate) struct Key(Zeroizing<Vec<u8>>);\n\
                 /// Wiped.\n#[derive(Clone, Debug, ZeroizeOnDrop)]\nstruct Other([u8; 32]);\n\
                 #[derive(Debug)]\nenum Third {\n    One(Zeroizing<String>),\n}\n";
    assert_eq!(shown_secrets(shown), ["Key(Zeroizing<Vec<u8>>);", "Other([u8;", "Third"]);
    let hidden =
        "#[derive(Clone)]\nstruct Key(Zeroizing<Vec<u8>>);\n#[derive(Debug)]\nstruct Name(String);\n";
    assert_eq!(shown_secrets(hidden), Vec::<String>::new());
}
