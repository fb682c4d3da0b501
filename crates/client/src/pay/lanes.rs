//! Lanes: which counter of a team's promises this process grows, and how far it has grown.
//!
//! Each process that reads takes one lane, by a lock on its file that ends with the process; so any number of processes pay
//! one provider without talking to each other. The counters lie in the locked file and not in the catalog: whoever has the
//! lane has the counter, readers need no books for it, and no second writer can exist. A counter is on disk before a voucher
//! leaves. What is lost with the file is only the number: the chain still has what was redeemed, and a lane from which a
//! provider holds more is left alone. Each deployment has a folder of its own.

use seedbank_agreement::{Address, Amount};
use seedbank_formats::PublicKey;
use seedbank_store::make_folder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Processes of one home that read at once. One more waits for none: it is told.
pub const LANES_MAX: u32 = 256;

/// Spending is counted by months of so many seconds, from 1970 on.
pub const MONTH_SECONDS: u64 = 30 * 86_400;

/// Months of which a lane remembers what was spent. The budget asks for one, but clocks jump.
const MONTHS_MAX: usize = 12;

/// Held by the process that compares what is spent with the budget until it has noted what it spends.
const BUDGET_LOCK: &str = "budget.lock";

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// End one of the other processes.
    #[error("{LANES_MAX} processes of this home are reading already; end one of them")]
    AllTaken,
    /// Move the file away: the counters start from what the chain knows.
    #[error("{} holds no counters of a lane; move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Look at the disk.
    #[error("can't use {}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What a lane promised one payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// The provider whose wallet the payee is, by both their words.
    pub provider: PublicKey,
    /// All that was ever promised.
    pub cumulative: Amount,
    /// What the channel is known to cover.
    pub cap: Amount,
    /// When something was last promised, in seconds since 1970.
    #[serde(default)]
    pub used: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counters {
    payees: Promises,
    /// What was promised in the last months.
    months: BTreeMap<u64, Amount>,
}

/// A lane of this process. The lock ends with it.
#[derive(Debug)]
pub struct Lane {
    number: u32,
    path: PathBuf,
    counters: Counters,
    _lock: File,
}

pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> LaneError {
    let path = path.to_owned();
    move |source| LaneError::Disk { path, source }
}

fn file_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("lane-{number:03}.json"))
}

/// Which lane's counters a file of this name holds.
fn number_of(name: &str) -> Option<u32> {
    name.strip_prefix("lane-")?.strip_suffix(".json")?.parse().ok()
}

impl Lane {
    /// Takes the first lane that no other process has.
    ///
    /// # Errors
    /// [`LaneError`].
    pub fn take(dir: &Path) -> Result<Lane, LaneError> {
        make_folder(dir).map_err(disk(dir))?;
        for number in 0..LANES_MAX {
            let path = dir.join(format!("lane-{number:03}.lock"));
            let lock = private(&path).map_err(disk(&path))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(source)) => return Err(LaneError::Disk { path, source }),
            }
            let path = file_of(dir, number);
            let counters = read(&path)?;
            return Ok(Lane { number, path, counters, _lock: lock });
        }
        Err(LaneError::AllTaken)
    }

    /// Which one.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What was promised to a payee.
    #[must_use]
    pub fn counter(&self, payee: &Address) -> Option<Counter> {
        self.counters.payees.get(&payee.to_string()).copied()
    }

    /// Sets a payee's counter, durably. What it rises by is spent in `month`.
    ///
    /// # Errors
    /// [`LaneError::Disk`]; the file is as it was, and nothing may be signed.
    pub fn set(
        &mut self,
        payee: &Address,
        counter: Counter,
        spent: Amount,
        month: u64,
    ) -> Result<(), LaneError> {
        let mut counters = self.counters.clone();
        counters.payees.insert(payee.to_string(), counter);
        let sum = counters.months.entry(month).or_default();
        *sum = sum.saturating_add(spent);
        // The farthest goes first: a clock that jumps ahead and comes back finds what was spent.
        while counters.months.len() > MONTHS_MAX {
            let farthest = counters.months.keys().copied().max_by_key(|kept| kept.abs_diff(month));
            farthest.and_then(|farthest| counters.months.remove(&farthest));
        }
        self.replace(counters)
    }

    /// Forgets what was promised to a payee, durably: it was not all of it. The lane is then one whose counter was lost.
    ///
    /// # Errors
    /// [`LaneError::Disk`]; the file is as it was.
    pub fn forget(&mut self, payee: &Address) -> Result<(), LaneError> {
        let mut counters = self.counters.clone();
        counters.payees.remove(&payee.to_string());
        self.replace(counters)
    }

    fn replace(&mut self, counters: Counters) -> Result<(), LaneError> {
        let bytes = serde_json::to_vec(&counters).expect("counters have text keys");
        replace(&self.path, &bytes).map_err(disk(&self.path))?;
        self.counters = counters;
        Ok(())
    }
}

/// What all lanes of a home promised in a month.
///
/// # Errors
/// [`LaneError`].
pub fn spent_in(dir: &Path, month: u64) -> Result<Amount, LaneError> {
    let all = all_counters(dir)?;
    Ok(all.iter().filter_map(|(_, counters)| counters.months.get(&month).copied()).sum())
}

/// What one lane promised each payee, by the payees' addresses.
pub type Promises = BTreeMap<String, Counter>;

/// What all lanes of a home promised, with each lane's number.
///
/// # Errors
/// [`LaneError`].
pub fn promised(dir: &Path) -> Result<Vec<(u32, Promises)>, LaneError> {
    let all = all_counters(dir)?;
    Ok(all.into_iter().map(|(number, counters)| (number, counters.payees)).collect())
}

fn leaving_file(dir: &Path, payee: &Address) -> PathBuf {
    dir.join(format!("leaving-{payee}").to_lowercase())
}

/// Whether this home is taking its money out of a channel by itself, since nobody reads there any more. Whoever reads there
/// again may stay; an exit that a person announced is the person's.
#[must_use]
pub fn is_leaving(dir: &Path, payee: &Address) -> bool {
    leaving_file(dir, payee).exists()
}

/// Notes that this home is taking its money out of a channel by itself.
///
/// # Errors
/// [`LaneError::Disk`].
pub fn note_leaving(dir: &Path, payee: &Address) -> Result<(), LaneError> {
    let path = leaving_file(dir, payee);
    replace(&path, b"").map_err(disk(&path))
}

/// Forgets it.
///
/// # Errors
/// [`LaneError::Disk`].
pub fn forget_leaving(dir: &Path, payee: &Address) -> Result<(), LaneError> {
    let path = leaving_file(dir, payee);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(&path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn all_counters(dir: &Path) -> Result<Vec<(u32, Counters)>, LaneError> {
    let names = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(disk(dir))?,
    };
    let mut all = Vec::new();
    for name in names {
        let name = name.map_err(disk(dir))?.file_name();
        if let Some(number) = name.to_str().and_then(number_of) {
            all.push((number, read(&dir.join(name))?));
        }
    }
    all.sort_unstable_by_key(|(number, _)| *number);
    Ok(all)
}

fn read(path: &Path) -> Result<Counters, LaneError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| LaneError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Counters::default()),
        Err(error) => Err(disk(path)(error)),
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Replaces a file durably: old or new is there, never a part.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let folder = path.parent().expect("a lane's file is in a folder");
    File::open(folder)?.sync_all()
}

/// Whose turn it is to compare what is spent with the budget, among all processes of a home.
pub(crate) struct BudgetTurn {
    _lock: File,
}

impl BudgetTurn {
    /// Waits for the others.
    pub(crate) fn wait(dir: &Path) -> Result<BudgetTurn, LaneError> {
        let lock = exclusive(dir, BUDGET_LOCK).map_err(disk(&dir.join(BUDGET_LOCK)))?;
        Ok(BudgetTurn { _lock: lock })
    }
}

/// A lock on a file of the folder, held until it is dropped.
pub(crate) fn exclusive(dir: &Path, name: &str) -> io::Result<File> {
    let path = dir.join(name);
    let file = match private(&path) {
        // Making it makes it durable, which is too dear for each voucher's turn.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(dir)?;
            private(&path)?
        }
        opened => opened?,
    };
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{Counter, Lane, LaneError, forget_leaving, is_leaving, note_leaving, promised, spent_in};
    use seedbank_agreement::{Address, Amount};
    use seedbank_formats::PublicKey;

    const PAYEE: Address = Address([7; 20]);

    fn counter(cumulative: u128) -> Counter {
        Counter { provider: PublicKey([3; 32]), cumulative: Amount(cumulative), cap: Amount(100), used: 9 }
    }

    #[test]
    fn each_process_has_a_lane_of_its_own_and_the_counter_stays_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Lane::take(dir.path()).unwrap();
        let second = Lane::take(dir.path()).unwrap();
        assert_eq!((first.number(), second.number()), (0, 1));
        first.set(&PAYEE, counter(5), Amount(5), 700).unwrap();
        drop(first);
        let again = Lane::take(dir.path()).unwrap();
        assert_eq!((again.number(), again.counter(&PAYEE)), (0, Some(counter(5))));
        assert_eq!(second.counter(&PAYEE), None);
    }

    #[test]
    fn spending_of_all_lanes_is_counted_by_the_month() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (Lane::take(dir.path()).unwrap(), Lane::take(dir.path()).unwrap());
        one.set(&PAYEE, counter(5), Amount(5), 700).unwrap();
        one.set(&PAYEE, counter(8), Amount(3), 701).unwrap();
        other.set(&PAYEE, counter(2), Amount(2), 701).unwrap();
        assert_eq!(spent_in(dir.path(), 701).unwrap(), Amount(5));
        assert_eq!(spent_in(dir.path(), 700).unwrap(), Amount(5));
        for month in 702..720 {
            one.set(&PAYEE, counter(9), Amount(1), month).unwrap();
        }
        assert_eq!(spent_in(dir.path(), 700).unwrap(), Amount::ZERO, "older months are forgotten");
        let all = promised(dir.path()).unwrap();
        assert_eq!(all.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(all[0].1[&PAYEE.to_string()], counter(9));
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_finds_what_was_spent() {
        let dir = tempfile::tempdir().unwrap();
        let mut lane = Lane::take(dir.path()).unwrap();
        lane.set(&PAYEE, counter(5), Amount(5), 700).unwrap();
        for month in 900..910 {
            lane.set(&PAYEE, counter(6), Amount(1), month).unwrap();
            lane.set(&PAYEE, counter(6), Amount::ZERO, 700).unwrap();
        }
        lane.set(&PAYEE, counter(8), Amount(2), 700).unwrap();
        assert_eq!(spent_in(dir.path(), 700).unwrap(), Amount(7));
    }

    #[test]
    fn what_was_forgotten_of_a_payee_is_lost_for_who_takes_the_lane_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut lane = Lane::take(dir.path()).unwrap();
        lane.set(&PAYEE, counter(5), Amount(5), 700).unwrap();
        lane.forget(&PAYEE).unwrap();
        drop(lane);
        assert_eq!(Lane::take(dir.path()).unwrap().counter(&PAYEE), None);
        assert_eq!(spent_in(dir.path(), 700).unwrap(), Amount(5), "it is spent all the same");
    }

    #[test]
    fn counters_of_older_homes_are_read_and_are_idle() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lane::take(dir.path()).unwrap());
        let provider = PublicKey([3; 32]);
        let old = format!(
            r#"{{"payees":{{"{PAYEE}":{{"provider":"{provider}","cumulative":"5","cap":"9"}}}},"months":{{}}}}"#
        );
        std::fs::write(dir.path().join("lane-000.json"), old).unwrap();
        assert_eq!(Lane::take(dir.path()).unwrap().counter(&PAYEE).unwrap().used, 0);
    }

    #[test]
    fn what_leaves_is_known_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_leaving(dir.path(), &PAYEE));
        note_leaving(dir.path(), &PAYEE).unwrap();
        note_leaving(dir.path(), &PAYEE).unwrap();
        assert!(is_leaving(dir.path(), &PAYEE));
        assert!(!is_leaving(dir.path(), &Address([8; 20])));
        forget_leaving(dir.path(), &PAYEE).unwrap();
        forget_leaving(dir.path(), &PAYEE).unwrap();
        assert!(!is_leaving(dir.path(), &PAYEE));
    }

    #[test]
    fn a_damaged_file_is_no_counter_of_zero() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lane::take(dir.path()).unwrap());
        std::fs::write(dir.path().join("lane-000.json"), b"{").unwrap();
        assert!(matches!(Lane::take(dir.path()), Err(LaneError::Damaged { .. })));
    }
}
