//! Copies, changes and compares folders: what a user would do between two pushes.

use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Copies a tree of files, folders and symlinks.
pub(super) fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in list(from)? {
        let target = to.join(entry.file_name().context("a listed entry has a name")?);
        let kind =
            entry.symlink_metadata().with_context(|| format!("looking at {}", entry.display()))?.file_type();
        if kind.is_dir() {
            copy_tree(&entry, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&entry).with_context(|| format!("reading {}", entry.display()))?;
            std::os::unix::fs::symlink(link, &target)
                .with_context(|| format!("making {}", target.display()))?;
        } else if kind.is_file() {
            fs::copy(&entry, &target).with_context(|| format!("copying {}", entry.display()))?;
        } else {
            bail!("{} is neither a file nor a folder nor a link; it can't be stored", entry.display());
        }
    }
    Ok(())
}

fn list(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut entries = read
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("listing {}", folder.display()))?;
    entries.sort();
    Ok(entries)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in list(folder)? {
        let kind = entry.symlink_metadata()?.file_type();
        if kind.is_dir() {
            found.extend(files(&entry)?);
        } else if kind.is_file() {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Tables are changed as a person would; of other data, a note is added to one file. Says which file.
pub(super) fn change_rows(folder: &Path) -> anyhow::Result<String> {
    /// A larger table would only make the demo slow.
    const TABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
    let files = files(folder)?;
    let size = |file: &PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
    let is_table = |file: &&PathBuf| {
        file.extension().is_some_and(|extension| extension == "csv" || extension == "tsv")
            && (1..TABLE_BYTES_MAX).contains(&size(file))
    };
    let changed = match files.iter().filter(is_table).max_by_key(|file| size(file)) {
        Some(table) => {
            let bytes = fs::read(table).with_context(|| format!("reading {}", table.display()))?;
            fs::write(table, changed_table(&bytes))
                .with_context(|| format!("writing {}", table.display()))?;
            table.clone()
        }
        None => {
            let note = folder.join("changed.txt");
            fs::write(&note, "version 2\n").with_context(|| format!("writing {}", note.display()))?;
            note
        }
    };
    Ok(changed.strip_prefix(folder).unwrap_or(&changed).display().to_string())
}

/// Raises a digit of a row at one third and appends the last row once more.
fn changed_table(bytes: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let third = bytes.len() / 3;
    if let Some(at) = changed.iter().skip(third).position(u8::is_ascii_digit) {
        let digit = &mut changed[third + at];
        *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
    }
    let trimmed = changed.strip_suffix(b"\n").unwrap_or(&changed);
    let last = trimmed.rsplit(|byte| *byte == b'\n').next().unwrap_or_default().to_vec();
    if !changed.ends_with(b"\n") {
        changed.push(b'\n');
    }
    changed.extend_from_slice(&last);
    changed.push(b'\n');
    changed
}

/// Whether two folders hold the same paths with the same bytes.
pub(super) fn same_tree(expected: &Path, actual: &Path) -> anyhow::Result<bool> {
    let names = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        Ok(list(folder)?.iter().filter_map(|path| path.file_name().map(PathBuf::from)).collect())
    };
    let expected_names = names(expected)?;
    if expected_names != names(actual)? {
        return Ok(false);
    }
    for name in expected_names {
        let (one, other) = (expected.join(&name), actual.join(&name));
        let kinds = (one.symlink_metadata()?.file_type(), other.symlink_metadata()?.file_type());
        let same = if kinds.0 != kinds.1 {
            false
        } else if kinds.0.is_dir() {
            same_tree(&one, &other)?
        } else if kinds.0.is_symlink() {
            fs::read_link(&one)? == fs::read_link(&other)?
        } else {
            same_file(&one, &other)?
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_file(one: &Path, other: &Path) -> anyhow::Result<bool> {
    use std::io::{BufRead, BufReader};
    const BLOCK: usize = 256 * 1024;
    let open = |path: &Path| -> anyhow::Result<BufReader<fs::File>> {
        let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Ok(BufReader::with_capacity(BLOCK, file))
    };
    let (mut one, mut other) = (open(one)?, open(other)?);
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let both = left.len().min(right.len());
        if left[..both] != right[..both] || (both == 0 && left.len() != right.len()) {
            return Ok(false);
        }
        if both == 0 {
            return Ok(true);
        }
        one.consume(both);
        other.consume(both);
    }
}

#[cfg(test)]
mod tests {
    use super::{change_rows, changed_table, copy_tree, same_tree};

    #[test]
    fn a_changed_table_differs_in_a_digit_and_a_row() {
        let changed = changed_table(b"a,b\n1,2\n3,9\n");
        assert_eq!(changed.len(), b"a,b\n1,2\n3,9\n".len() + 4);
        assert_eq!(changed.iter().filter(|byte| **byte == b'\n').count(), 4);
        assert_eq!(changed_table(b""), b"\n\n");
    }

    #[test]
    fn a_copy_is_the_same_until_it_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        std::fs::create_dir_all(one.join("sub/empty")).unwrap();
        std::fs::write(one.join("sub/table.csv"), "a,b\n1,2\n").unwrap();
        std::os::unix::fs::symlink("sub", one.join("link")).unwrap();
        copy_tree(&one, &other).unwrap();
        assert!(same_tree(&one, &other).unwrap());
        assert_eq!(change_rows(&other).unwrap(), "sub/table.csv");
        assert!(!same_tree(&one, &other).unwrap());
    }
}
