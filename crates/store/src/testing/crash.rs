//! What may be left of a disk when power fails, and trying all of it.
//!
//! A disk owes what was synced and nothing else: of the changes since, any subset may be there, in any order, and a
//! write in part. [`each_crash`] tries every subset while there are few changes and a seeded sample beyond that, and
//! tears every write at every border of a sector and inside its record.

use super::{Dice, MemDisk};
use std::collections::BTreeSet;

/// What a disk writes in one step.
pub const SECTOR_BYTES: usize = 512;

/// A change that was not synced when power failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The file or folder entry.
    pub path: String,
    /// What changed.
    pub change: Change,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A name was made, moved or removed.
    Name,
    /// Bytes were written.
    Write {
        /// From where on.
        offset: usize,
        /// How many.
        length: usize,
    },
    /// The file was cut or filled up with zeros to this length.
    Truncate(usize),
}

/// What became of a pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never reached the disk.
    Lost,
    /// It did.
    Kept,
    /// A part of a write did. For other changes this is [`Fate::Kept`].
    Torn(Tear),
}

/// Which part of a write reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// So many bytes at its beginning.
    First(usize),
    /// All but so many bytes at its beginning.
    Rest(usize),
    /// Its length only: where it made the file longer, there are zeros.
    Length,
}

/// The fate of everything when power fails before anything was written.
#[must_use]
pub fn lost(_: &Pending) -> Fate {
    Fate::Lost
}

/// The fate of everything when power fails after all was written.
#[must_use]
pub fn kept(_: &Pending) -> Fate {
    Fate::Kept
}

/// The fate that the answers of `choose` lead to, which gives a number below the one that it is given. By chance, a write is
/// lost, kept or torn alike often.
pub fn chosen(pending: &Pending, choose: &mut dyn FnMut(usize) -> usize) -> Fate {
    let Change::Write { length, .. } = pending.change else {
        return [Fate::Lost, Fate::Kept][choose(2)];
    };
    match choose(6) {
        0 | 1 => Fate::Lost,
        2 | 3 => Fate::Kept,
        _ => Fate::Torn(match choose(5) {
            0 | 1 => Tear::First(choose(length + 1)),
            2 | 3 => Tear::Rest(choose(length + 1)),
            _ => Tear::Length,
        }),
    }
}

impl Dice {
    /// A random fate.
    pub fn fate(&mut self, pending: &Pending) -> Fate {
        chosen(pending, &mut |options| self.pick(options))
    }
}

/// How far [`each_crash`] goes.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// With at most so many pending changes, all their subsets are tried.
    pub subsets_of_max: usize,
    /// Of more pending changes, so many random fates.
    pub samples: usize,
    /// At most so many places are chosen to tear a write at; all of them when there are fewer.
    pub tears_max: usize,
}

/// Where to tear a write: at each border of a sector that it crosses, in its middle, and beside its ends.
fn tears(offset: usize, length: usize) -> Vec<Tear> {
    let first_border = SECTOR_BYTES - offset % SECTOR_BYTES;
    let borders = (first_border..length).step_by(SECTOR_BYTES);
    let inside = [1, length / 2, length.saturating_sub(1)];
    let at = borders.chain(inside).filter(|at| (1..length).contains(at)).collect::<BTreeSet<_>>();
    let parts = at.into_iter().flat_map(|at| [Tear::First(at), Tear::Rest(at)]);
    parts.chain([Tear::Length]).collect()
}

/// Every combination of fates that `sweep` asks for.
fn combinations(pending: &[Pending], sweep: Sweep, dice: &mut Dice) -> Vec<Vec<Fate>> {
    let all = |fate: Fate| vec![fate; pending.len()];
    let mut found = vec![all(Fate::Lost), all(Fate::Kept)];
    if pending.len() <= sweep.subsets_of_max {
        for subset in 0..1_usize << pending.len() {
            let bits = (0..pending.len()).map(|at| subset >> at & 1 == 1);
            found.push(bits.map(|kept| if kept { Fate::Kept } else { Fate::Lost }).collect());
        }
    } else {
        // Beyond a few dozen, neighbours are much alike.
        for at in (0..pending.len()).step_by(pending.len().div_ceil(32)) {
            // In order up to a point, all but one, and only one.
            found.push((0..pending.len()).map(|i| if i < at { Fate::Kept } else { Fate::Lost }).collect());
            for (one, others) in [(Fate::Lost, Fate::Kept), (Fate::Kept, Fate::Lost)] {
                let mut fates = all(others);
                fates[at] = one;
                found.push(fates);
            }
        }
        for _ in 0..sweep.samples {
            found.push(pending.iter().map(|pending| dice.fate(pending)).collect());
        }
    }
    for (at, pending) in pending.iter().enumerate() {
        let Change::Write { offset, length } = pending.change else { continue };
        let mut tears = tears(offset, length);
        while tears.len() > sweep.tears_max {
            tears.swap_remove(dice.pick(tears.len()));
        }
        for tear in tears {
            for others in [Fate::Lost, Fate::Kept] {
                let mut fates = all(others);
                fates[at] = Fate::Torn(tear);
                found.push(fates);
            }
        }
    }
    found
}

/// Visits the disks that the next boot may find when power fails now, each different one once. Gives their number.
pub fn each_crash(
    disk: &MemDisk,
    sweep: Sweep,
    dice: &mut Dice,
    visit: &mut dyn FnMut(&[Fate], MemDisk),
) -> usize {
    let mut seen = BTreeSet::new();
    for fates in combinations(&disk.pending(), sweep, dice) {
        let next = disk.after(&fates);
        if seen.insert(next.digest()) {
            visit(&fates, next);
        }
    }
    seen.len()
}

#[cfg(test)]
mod tests {
    use super::{Fate, SECTOR_BYTES, Sweep, Tear, each_crash, tears};
    use crate::disk::Disk;
    use crate::testing::{Dice, MemDisk};
    use std::collections::BTreeSet;

    #[test]
    fn every_subset_of_few_changes_is_tried_once() {
        let disk = MemDisk::default();
        for name in ["a", "b"] {
            disk.create(name).unwrap();
        }
        disk.sync_dir("").unwrap();
        disk.rename("a", "c").unwrap();
        disk.remove("b").unwrap();
        disk.create("d").unwrap();
        let mut seen = BTreeSet::new();
        let sweep = Sweep { subsets_of_max: 3, samples: 0, tears_max: 99 };
        let count = each_crash(&disk, sweep, &mut Dice::new(1), &mut |_, next| {
            assert!(seen.insert(next.files()));
        });
        assert_eq!((count, seen.len()), (8, 8));
        assert!(
            seen.contains(&vec!["a".to_owned(), "b".to_owned(), "d".to_owned()]),
            "the last change alone"
        );
    }

    #[test]
    fn later_writes_may_survive_earlier_ones_and_the_file_may_only_have_grown() {
        let disk = MemDisk::default();
        let file = disk.create("file").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(0, b"ab").unwrap();
        file.write_at(2, b"cd").unwrap();
        let mut seen = BTreeSet::new();
        each_crash(
            &disk,
            Sweep { subsets_of_max: 2, samples: 0, tears_max: 99 },
            &mut Dice::new(1),
            &mut |_, next| {
                seen.insert(next.bytes("file"));
            },
        );
        for expected in [&b""[..], b"ab", b"abcd", b"\0\0cd", b"\0\0", b"ab\0\0", b"a", b"\0b"] {
            assert!(seen.contains(expected), "{expected:?}");
        }
    }

    #[test]
    fn writes_are_torn_where_sectors_of_the_file_meet() {
        let at = tears(SECTOR_BYTES - 10, 600);
        assert!(at.contains(&Tear::First(10)) && at.contains(&Tear::Rest(10 + SECTOR_BYTES)));
        assert!(at.contains(&Tear::First(300)) && at.contains(&Tear::Length));
    }

    #[test]
    fn dice_give_every_kind_of_fate() {
        let disk = MemDisk::default();
        disk.create("file").unwrap().write_at(0, b"bytes").unwrap();
        let pending = disk.pending();
        let mut dice = Dice::new(1);
        let rolled: Vec<Fate> =
            (0..200).flat_map(|_| pending.iter().map(|it| dice.fate(it)).collect::<Vec<_>>()).collect();
        for expected in [Fate::Lost, Fate::Kept, Fate::Torn(Tear::Length), Fate::Torn(Tear::First(3))] {
            assert!(rolled.contains(&expected), "{expected:?}");
        }
    }
}
