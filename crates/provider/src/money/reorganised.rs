//! Whether the chain is still the one that was looked at before. Pure.
//!
//! A block names its whole past by its hash. So it is enough to remember one block of each look and to ask for it at the next: if another
//! one is there, transactions may be gone that were done, and what the books made of them is compared with the chain anew.

use seedbank_settlement::Head;

/// What became of the chain since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// It grew, or nothing happened.
    Same,
    /// Blocks were replaced, or nobody knows: this process has not looked before.
    Replaced,
    /// The endpoint does not have the block that was seen: it is behind, or the chain is shorter than it was. Ask again.
    Unknown,
}

/// An endpoint that has not caught up after so many looks shows another chain, or the block that was seen was a lie.
const UNKNOWN_MAX: u32 = 64;

/// The block that was seen last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Anchor {
    block: Option<(u64, [u8; 32])>,
    unknown: u32,
}

impl Anchor {
    /// The height whose hash decides; `None` if the head does.
    pub(crate) fn asks(&self, head: &Head) -> Option<u64> {
        self.block.map(|(number, _)| number).filter(|number| *number < head.number)
    }

    /// An own transaction is in this block: if the block goes, so does that.
    pub(crate) fn saw(&mut self, number: u64, hash: [u8; 32]) {
        if self.block.is_some_and(|(known, _)| known < number) {
            self.block = Some((number, hash));
        }
    }

    /// Judges the past by the hash at the height that was asked for, and goes on from the head.
    pub(crate) fn moves_to(&mut self, head: &Head, found: Option<[u8; 32]>) -> Past {
        let past = match self.block {
            None => Past::Replaced,
            Some((number, hash)) if number == head.number => Past::of(hash == head.hash),
            Some((number, hash)) if number < head.number => match found {
                Some(found) => Past::of(found == hash),
                None => Past::Unknown,
            },
            Some(_) => Past::Unknown,
        };
        if past == Past::Unknown && self.unknown < UNKNOWN_MAX {
            self.unknown += 1;
            return Past::Unknown;
        }
        *self = Anchor { block: Some((head.number, head.hash)), unknown: 0 };
        if past == Past::Unknown { Past::Replaced } else { past }
    }
}

impl Past {
    fn of(same: bool) -> Past {
        if same { Past::Same } else { Past::Replaced }
    }
}

#[cfg(test)]
mod tests {
    use super::{Anchor, Past};
    use seedbank_formats::Timestamp;
    use seedbank_settlement::Head;

    fn head(number: u64, hash: u8) -> Head {
        Head { number, hash: [hash; 32], time: Timestamp(0), epoch: None }
    }

    #[test]
    fn block_that_is_there_no_more_means_a_replaced_past() {
        let mut anchor = Anchor::default();
        assert_eq!(anchor.moves_to(&head(5, 5), None), Past::Replaced, "nobody knows what was before");
        assert_eq!(anchor.asks(&head(5, 5)), None);
        assert_eq!(anchor.moves_to(&head(5, 5), None), Past::Same);
        assert_eq!(anchor.moves_to(&head(5, 6), None), Past::Replaced, "the head itself");
        assert_eq!(anchor.asks(&head(9, 9)), Some(5));
        assert_eq!(anchor.moves_to(&head(9, 9), Some([6; 32])), Past::Same);
        assert_eq!(anchor.moves_to(&head(12, 12), Some([8; 32])), Past::Replaced);
        assert_eq!(anchor.moves_to(&head(13, 13), Some([12; 32])), Past::Same);
    }

    #[test]
    fn endpoint_that_is_behind_decides_nothing_and_nothing_is_forgotten() {
        let mut anchor = Anchor::default();
        anchor.moves_to(&head(9, 9), None);
        assert_eq!(anchor.asks(&head(7, 7)), None);
        assert_eq!(anchor.moves_to(&head(7, 7), None), Past::Unknown);
        assert_eq!(
            anchor.moves_to(&head(10, 10), None),
            Past::Unknown,
            "another node behind the same address"
        );
        assert_eq!(anchor.asks(&head(11, 11)), Some(9));
        assert_eq!(anchor.moves_to(&head(11, 11), Some([1; 32])), Past::Replaced);
    }

    #[test]
    fn block_of_an_own_transaction_is_watched_although_no_look_saw_it() {
        let mut anchor = Anchor::default();
        anchor.moves_to(&head(5, 5), None);
        anchor.saw(6, [6; 32]);
        anchor.saw(4, [4; 32]);
        assert_eq!(anchor.asks(&head(8, 8)), Some(6));
        assert_eq!(anchor.moves_to(&head(8, 8), Some([7; 32])), Past::Replaced);
    }

    #[test]
    fn block_that_nobody_ever_shows_is_given_up() {
        let mut anchor = Anchor::default();
        anchor.moves_to(&head(5, 5), None);
        anchor.saw(1_000, [6; 32]);
        let judged: Vec<Past> = (6..80).map(|number| anchor.moves_to(&head(number, 1), None)).collect();
        assert_eq!(judged.iter().filter(|past| **past == Past::Replaced).count(), 1);
        assert_eq!(anchor.asks(&head(90, 90)), Some(70), "what is seen now counts");
    }
}
