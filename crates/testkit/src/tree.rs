//! Folders full of files that a few numbers describe.

use crate::bytes::ByteStream;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// What to write. The same description writes the same folder on any machine.
#[derive(Debug, Clone)]
pub struct TreeSpec {
    /// Draws every size and every byte.
    pub seed: u64,
    /// How many small files, in folders below `small/`.
    pub small_files: u32,
    /// The size of each of them, in bytes.
    pub small_bytes: RangeInclusive<u64>,
    /// How many small files share a folder; at least 1.
    pub files_per_folder: u32,
    /// How many files below `copies/` repeat the bytes of a small file, drawn by the seed. None when there are no
    /// small files to repeat.
    pub duplicates: u32,
    /// The size in bytes of `huge.bin`, if there is one.
    pub huge_bytes: Option<u64>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeSummary {
    /// Files.
    pub files: u64,
    /// Bytes in all of them together.
    pub bytes: u64,
    /// Bytes without those of `copies/`: what a store that deduplicates whole files has to keep.
    pub distinct_bytes: u64,
}

impl TreeSpec {
    /// A few files of every kind, under a megabyte in all: for tests that run on every build.
    #[must_use]
    pub fn tiny(seed: u64) -> TreeSpec {
        TreeSpec {
            seed,
            small_files: 20,
            small_bytes: 0..=10_000,
            files_per_folder: 8,
            duplicates: 3,
            huge_bytes: Some(600_000),
        }
    }

    /// Writes the files below `folder`, which is created when it is missing and must not hold any of them yet.
    ///
    /// # Errors
    /// What the disk says; a file that is already there is an error of kind `AlreadyExists`.
    pub fn write(&self, folder: &Path) -> io::Result<TreeSummary> {
        let mut summary = TreeSummary::default();
        let mut draw = ByteStream::new(self.seed);
        let mut small: Vec<(PathBuf, u64)> = Vec::new();
        fs::create_dir_all(folder)?;
        for number in 0..self.small_files {
            let holder = folder.join(format!("small/{:04}", number / self.files_per_folder.max(1)));
            fs::create_dir_all(&holder)?;
            let path = holder.join(format!("{number:06}.bin"));
            let len = draw_between(&mut draw, &self.small_bytes);
            write_drawn(&path, draw.below(u64::MAX), len)?;
            summary.count(len, len);
            small.push((path, len));
        }
        if !small.is_empty() && self.duplicates > 0 {
            fs::create_dir_all(folder.join("copies"))?;
            for number in 0..self.duplicates {
                let (original, len) = pick(&mut draw, &small);
                let path = folder.join(format!("copies/{number:06}.bin"));
                io::copy(&mut File::open(original)?, &mut File::create_new(path)?)?;
                summary.count(*len, 0);
            }
        }
        if let Some(len) = self.huge_bytes {
            write_drawn(&folder.join("huge.bin"), draw.below(u64::MAX), len)?;
            summary.count(len, len);
        }
        Ok(summary)
    }
}

impl TreeSummary {
    fn count(&mut self, bytes: u64, distinct_bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        self.distinct_bytes += distinct_bytes;
    }
}

fn draw_between(draw: &mut ByteStream, range: &RangeInclusive<u64>) -> u64 {
    let span = range.end().saturating_sub(*range.start()).saturating_add(1);
    range.start() + draw.below(span)
}

fn pick<'a>(draw: &mut ByteStream, small: &'a [(PathBuf, u64)]) -> &'a (PathBuf, u64) {
    let index = usize::try_from(draw.below(small.len() as u64)).expect("an index below a usize is one");
    &small[index]
}

fn write_drawn(path: &Path, seed: u64, len: u64) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    io::copy(&mut ByteStream::new(seed).take(len), &mut file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::TreeSpec;
    use crate::compare::compare_folders;

    #[test]
    fn one_description_writes_one_folder() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let summary = TreeSpec::tiny(4).write(first.path()).unwrap();
        assert_eq!(TreeSpec::tiny(4).write(second.path()).unwrap(), summary);
        assert_eq!(compare_folders(first.path(), second.path()).unwrap(), []);
        assert_eq!(summary.files, 24);
        assert!(summary.bytes >= 600_000 && summary.distinct_bytes <= summary.bytes);
    }

    #[test]
    fn another_seed_writes_another_folder() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        TreeSpec::tiny(4).write(first.path()).unwrap();
        TreeSpec::tiny(5).write(second.path()).unwrap();
        assert!(!compare_folders(first.path(), second.path()).unwrap().is_empty());
    }

    #[test]
    fn files_that_are_there_are_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        TreeSpec::tiny(4).write(folder.path()).unwrap();
        let again = TreeSpec::tiny(4).write(folder.path()).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    }
}
