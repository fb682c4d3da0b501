//! What was read and the books have not heard of yet: parts of a restoration, in a file that nobody else can open.

use super::RecoverError;
use seedbank_catalog::CatalogError;
use seedbank_catalog::records::Restoration;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts as lines of JSON, in a file without a name: it is gone with the process, however that ends.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    file: BufWriter<File>,
}

impl Spool {
    /// An empty one, on the disk of `dir`, which is made when it doesn't exist.
    pub(super) fn create(dir: &Path) -> Result<Spool, RecoverError> {
        let disk = |source| RecoverError::Disk { path: dir.to_owned(), source };
        let file = unnamed_file(dir).map_err(disk)?;
        Ok(Spool { dir: dir.to_owned(), file: BufWriter::new(file) })
    }

    /// Adds a part.
    pub(super) fn push(&mut self, part: &Restoration) -> Result<(), RecoverError> {
        let written = serde_json::to_writer(&mut self.file, part).map_err(io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| RecoverError::Disk { path: self.dir.clone(), source })
    }

    /// Hands out the parts in the order in which they came, one at a time.
    pub(super) fn replay(
        self,
        mut take: impl FnMut(Restoration) -> Result<(), CatalogError>,
    ) -> Result<(), RecoverError> {
        let Spool { dir, file } = self;
        let disk = |source| RecoverError::Disk { path: dir.clone(), source };
        let mut file = file.into_inner().map_err(|error| disk(error.into_error()))?;
        file.rewind().map_err(disk)?;
        let (mut lines, mut line) = (BufReader::new(file), Vec::new());
        while lines.read_until(b'\n', &mut line).map_err(disk)? > 0 {
            take(serde_json::from_slice(&line).map_err(|error| disk(error.into()))?)?;
            line.clear();
        }
        Ok(())
    }
}

fn unnamed_file(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!("recovery-{}-{number}.tmp", std::process::id()));
    // A process that died between the next two lines may have had our number.
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::Spool;
    use crate::recover::RecoverError;
    use seedbank_catalog::CatalogError;
    use seedbank_catalog::records::{Counts, Dataset, HeadRecord, Restoration};
    use seedbank_formats::keys::KeyEpoch;
    use seedbank_formats::{DatasetId, PublicKey, SegmentNumber, Timestamp};

    fn part(sequence: u64) -> Restoration {
        Restoration {
            dataset: Dataset {
                id: DatasetId([1; 32]),
                name: "a\nb".to_owned(),
                salt: [2; 32],
                owner: PublicKey([3; 32]),
                epoch: KeyEpoch(0),
                public: false,
                policy: vec![1],
                created: Timestamp(u64::MAX),
            },
            counts: Counts::default(),
            begins: None,
            segments: Vec::new(),
            versions: Vec::new(),
            refs: Vec::new(),
            pages: Vec::new(),
            head: Some(HeadRecord { sequence, bytes: vec![9; 100], segments: vec![SegmentNumber(7)] }),
        }
    }

    #[test]
    fn parts_come_back_in_order_and_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new/index");
        let (mut one, mut other) = (Spool::create(&dir).unwrap(), Spool::create(&dir).unwrap());
        for sequence in 0..500 {
            one.push(&part(sequence)).unwrap();
            other.push(&part(0)).unwrap();
        }
        assert_eq!(dir.read_dir().unwrap().count(), 0);
        let mut parts = Vec::new();
        one.replay(|part| {
            parts.push(part);
            Ok(())
        })
        .unwrap();
        assert_eq!(parts, (0..500).map(part).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_refusal_ends_a_replay() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path()).unwrap();
        (0..3).for_each(|sequence| spool.push(&part(sequence)).unwrap());
        let mut taken = 0;
        let refused = spool.replay(|_| {
            taken += 1;
            if taken == 2 { Err(CatalogError::LeaseLost) } else { Ok(()) }
        });
        assert!(matches!(refused, Err(RecoverError::Catalog(CatalogError::LeaseLost))));
        assert_eq!(taken, 2);
    }
}
