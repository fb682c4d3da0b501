//! Compares bytes with the vectors in `testdata/`: lines of a name and hex, so that a format can't change unnoticed.

use std::fmt::Write;

/// Checks `bytes` against the line called `name`.
pub(crate) fn check(vectors: &str, name: &str, bytes: &[u8]) {
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").unwrap();
    }
    let expected = vectors.lines().filter_map(|line| line.split_once(' ')).find(|(found, _)| *found == name);
    assert_eq!(expected.map(|(_, hex)| hex), Some(hex.as_str()), "the vector called {name}");
}
