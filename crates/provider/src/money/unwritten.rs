//! What a kill may make the books forget of readers' accounts: bounded, and made good. Pure.
//!
//! A read is counted in memory, since a disk that syncs for each would be slower than reading. So between two times that accounts are
//! written only so much may be counted, and the books say beforehand that it may be: a daemon that finds that there sets all of it aside,
//! as if somebody owed it. However often it is killed, readers together never get more unpaid than the total.

use seedbank_agreement::Amount;
use seedbank_formats::PublicKey;
use std::collections::BTreeSet;

/// A small part of the total: what a kill takes from honest readers' credit. In bytes, for the default total of 16 GiB, 256 MiB: what a
/// reader's voucher pays for, which writes accounts too, so that who pays as agreed causes no writes beside those of vouchers.
const PART: u128 = 64;

/// What was counted since accounts were last written.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// Whose accounts changed.
    changed: BTreeSet<PublicKey>,
    counted: Amount,
    most: Amount,
    /// The books say that up to `most` may be missing in them.
    is_announced: bool,
}

impl Unwritten {
    /// Under a total of credit.
    pub(super) fn of(total: Amount) -> Unwritten {
        let most = Amount(total.0 / PART);
        Unwritten { changed: BTreeSet::new(), counted: Amount::ZERO, most, is_announced: false }
    }

    /// Counts what a key read. False if that must be written down before it is served.
    #[must_use]
    pub(super) fn count(&mut self, key: PublicKey, price: Amount) -> bool {
        self.changed.insert(key);
        let counted = self.counted.checked_add(price).unwrap_or(Amount::MAX);
        let fits = self.is_announced && counted <= self.most;
        if fits {
            self.counted = counted;
        }
        fits
    }

    /// Notes that an account changed to its owner's good, or to nobody's.
    pub(super) fn note(&mut self, key: PublicKey) {
        self.changed.insert(key);
    }

    /// The accounts that changed, if any did since they were last taken.
    pub(super) fn take_changed(&mut self) -> Option<Batch> {
        if self.changed.is_empty() {
            return None;
        }
        let changed = std::mem::take(&mut self.changed);
        Some(Batch { changed, counted: self.counted, may_miss: self.most })
    }

    /// What is to be written now, if anything is. Where nothing was read since the last time, the books are to say that nothing is missing,
    /// and nothing more is counted until they say otherwise.
    pub(super) fn take(&mut self) -> Option<Batch> {
        self.take_changed().or_else(|| {
            let was_announced = std::mem::replace(&mut self.is_announced, false);
            was_announced.then(|| Batch {
                changed: BTreeSet::new(),
                counted: Amount::ZERO,
                may_miss: Amount::ZERO,
            })
        })
    }

    /// A batch is on the disk.
    pub(super) fn written(&mut self, batch: &Batch) {
        self.counted = self.counted.saturating_sub(batch.counted);
        self.is_announced = batch.may_miss > Amount::ZERO;
    }

    /// A batch is not.
    pub(super) fn failed(&mut self, batch: Batch) {
        self.changed.extend(batch.changed);
    }
}

/// Accounts on their way to the disk.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) changed: BTreeSet<PublicKey>,
    counted: Amount,
    /// What may be counted after it and not be written.
    pub(super) may_miss: Amount,
}

#[cfg(test)]
mod tests {
    use super::{PART, Unwritten};
    use seedbank_agreement::Amount;
    use seedbank_formats::PublicKey;

    const KEY: PublicKey = PublicKey([1; 32]);

    #[test]
    fn only_what_was_announced_is_counted_without_writing() {
        let mut unwritten = Unwritten::of(Amount(100 * PART));
        assert!(!unwritten.count(KEY, Amount(1)), "nothing was announced");
        let batch = unwritten.take().unwrap();
        assert_eq!((batch.changed.len(), batch.may_miss), (1, Amount(100)));
        assert!(!unwritten.count(KEY, Amount(1)), "it is not on the disk yet");
        unwritten.written(&batch);
        assert!(unwritten.count(KEY, Amount(60)) && unwritten.count(KEY, Amount(40)));
        assert!(!unwritten.count(KEY, Amount(1)));
        // What is on its way to the disk may be missing still.
        let batch = unwritten.take().unwrap();
        assert!(!unwritten.count(KEY, Amount(1)));
        unwritten.written(&batch);
        assert!(unwritten.count(KEY, Amount(100)));
        assert!(!unwritten.count(KEY, Amount::MAX));
    }

    #[test]
    fn pause_in_reading_is_written_once_and_ends_with_an_announcement() {
        let mut unwritten = Unwritten::of(Amount(100 * PART));
        assert!(unwritten.take().is_none());
        unwritten.note(KEY);
        let batch = unwritten.take().unwrap();
        unwritten.failed(batch);
        let batch = unwritten.take().unwrap();
        assert!(batch.changed.contains(&KEY));
        unwritten.written(&batch);
        let pause = unwritten.take().unwrap();
        assert_eq!((pause.changed.len(), pause.may_miss), (0, Amount(0)));
        assert!(
            !unwritten.count(KEY, Amount(1)),
            "not while the books may say already that nothing is missing"
        );
        unwritten.written(&pause);
        assert!(unwritten.take().is_some(), "what was counted");
    }
}
