//! What may be a name, and which names are near one that does not exist.

use crate::error::CatalogError;
use seedbank_formats::checkpoint::NAME_BYTES_MAX;

/// An error suggests so many names.
const NEAR_MAX: usize = 3;

/// An id may be cut to so many hex digits: 32 bits, unique in practice within a dataset.
pub(crate) const ID_DIGITS_MIN: usize = 8;

/// Checks a dataset's name: `NAME@REF:PATH` must be readable, and a name may become a file name.
pub(crate) fn check_dataset_name(name: &str) -> Result<(), CatalogError> {
    check(name, is_whole_id)
}

/// Checks a ref's name.
pub(crate) fn check_ref_name(name: &str) -> Result<(), CatalogError> {
    check(name, is_id_prefix)
}

fn check(name: &str, reads_as_id: fn(&str) -> bool) -> Result<(), CatalogError> {
    let letter = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+');
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it has more than 255 bytes"
    } else if !name.chars().all(letter) {
        "only letters, digits and . _ - / + are allowed"
    } else if name.starts_with(['-', '/']) || name.ends_with('/') || name.contains("//") {
        "it may not start with - or /, nor have empty parts"
    } else if name.split('/').any(|part| part == "." || part == "..") {
        "a part of it may not be . or .."
    } else if reads_as_id(name) {
        "it reads as an id"
    } else {
        return Ok(());
    };
    Err(CatalogError::InvalidName { name: name.to_owned(), reason: reason.to_owned() })
}

fn is_whole_id(text: &str) -> bool {
    text.len() == 64 && is_id_prefix(text)
}

/// Whether a text could be a version's id, whole or cut.
pub(crate) fn is_id_prefix(text: &str) -> bool {
    (ID_DIGITS_MIN..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The names nearest to `wanted`, best first: those that differ by few letters, or go on where it ends.
pub(crate) fn near(wanted: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let wanted: Vec<char> = wanted.chars().take(NAME_BYTES_MAX).flat_map(char::to_lowercase).collect();
    let limit = (wanted.len() / 3).max(2);
    let mut found: Vec<(usize, String)> = names
        .into_iter()
        .filter_map(|name| {
            let letters: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
            let distance = distance(&wanted, &letters);
            let goes_on = !wanted.is_empty() && letters.starts_with(&wanted);
            (distance <= limit || goes_on).then_some((distance, name))
        })
        .collect();
    found.sort();
    found.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

/// The fewest letters to insert, delete or replace that turn `a` into `b` (Levenshtein).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, letter) in a.iter().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, other) in b.iter().enumerate() {
            let replace = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = replace.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{check_dataset_name, check_ref_name, distance, near};

    #[test]
    fn names_that_a_command_line_or_a_file_system_would_misread_are_refused() {
        for good in ["main", "faces-v2", "größe/α", ".home", "v1.0+cu12", "a/b.c"] {
            check_dataset_name(good).unwrap();
            check_ref_name(good).unwrap();
        }
        let long = "ö".repeat(128);
        for bad in ["", "-x", "/x", "x/", "a//b", "a b", "a@b", "a:b", "..", "a/../b", "x\n", "x\0", &long] {
            check_dataset_name(bad).unwrap_err();
            check_ref_name(bad).unwrap_err();
        }
        check_dataset_name("deadbeef").unwrap();
        check_ref_name("deadbeef").unwrap_err();
        check_dataset_name(&"ab".repeat(32)).unwrap_err();
    }

    #[test]
    fn near_names_are_those_a_few_letters_away() {
        let names = || ["penguins", "penguin", "vega", "pen"].map(str::to_owned);
        assert_eq!(near("pengiuns", names()), ["penguins"]);
        assert_eq!(near("Penguin", names()), ["penguin", "penguins"]);
        assert_eq!(near("peng", names()), ["pen", "penguin", "penguins"]);
        assert!(near("elephants", names()).is_empty());
        assert!(near(&"x".repeat(100_000), names()).is_empty());
    }

    #[test]
    fn distance_counts_insertions_deletions_and_replacements() {
        let count =
            |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!((count("kitten", "sitting"), count("", "abc"), count("abc", "")), (3, 3, 3));
        assert_eq!((count("same", "same"), count("flaw", "lawn")), (0, 2));
    }
}
