//! How far events were read, and on which chain of blocks. Pure.

use std::collections::VecDeque;

/// How far events were read, with enough of the chain to notice when it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    start: u64,
    next: u64,
    /// Blocks at which reading stopped, oldest first, each with its hash.
    stops: VecDeque<(u64, [u8; 32])>,
    /// There were older stops.
    forgot: bool,
}

/// So many stops back a reorganisation is undone exactly. At the head a stop is a block or a few: chains of several makers replace a
/// handful at most.
const STOPS_MAX: usize = 128;

impl Cursor {
    /// Begins with a block, such as the one in which the directory was deployed.
    #[must_use]
    pub fn from_block(start: u64) -> Self {
        Self { start, next: start, stops: VecDeque::new(), forgot: false }
    }

    /// The first block that was not read yet.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Everything up to this block was read.
    pub(super) fn advance(&mut self, to: u64, hash: [u8; 32]) {
        self.stops.push_back((to, hash));
        if self.stops.len() > STOPS_MAX {
            self.stops.pop_front();
            self.forgot = true;
        }
        self.next = to + 1;
    }

    /// Forgets what comes after a block, and says which is the first that has to be read again.
    pub(super) fn back_to(&mut self, last: Option<u64>) -> u64 {
        self.stops.retain(|(number, _)| last.is_some_and(|last| *number <= last));
        self.next = last.map_or(self.start, |last| last + 1);
        self.next
    }

    /// Finds out where the chain, whose newest block is `head`, stopped being what was read.
    pub(super) fn search(&self, head: u64) -> Search<'_> {
        // A head below the last stop is an endpoint that is behind, unless what it has differs as well.
        let at = self.stops.iter().rposition(|(number, _)| *number <= head);
        Search { cursor: self, at, found: None, differs: false }
    }
}

/// What the chain has at a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Hash([u8; 32]),
    /// The endpoint doesn't know such a block.
    Nothing,
}

/// Where the chain stopped being what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fork {
    None,
    /// After this block; None: before the first one.
    After(Option<u64>),
    TooDeep {
        oldest: u64,
    },
}

/// Goes back over the stops until one is still in the chain.
pub(super) struct Search<'a> {
    cursor: &'a Cursor,
    /// The stop that is looked at.
    at: Option<usize>,
    found: Option<Fork>,
    differs: bool,
}

impl Search<'_> {
    /// The block that has to be known next.
    pub(super) fn wanted(&self) -> Option<u64> {
        match (self.found, self.at) {
            (None, Some(at)) => Some(self.cursor.stops[at].0),
            _ => None,
        }
    }

    pub(super) fn answer(&mut self, known: Known) {
        let at = self.at.expect("only what was wanted is answered");
        let (number, hash) = self.cursor.stops[at];
        match known {
            Known::Hash(same) if same == hash => {
                self.found = Some(if self.differs { Fork::After(Some(number)) } else { Fork::None });
            }
            // Not known is not the same as another: the next look will show.
            Known::Nothing if !self.differs => self.found = Some(Fork::None),
            Known::Hash(_) | Known::Nothing => {
                self.differs = true;
                self.at = at.checked_sub(1);
            }
        }
    }

    pub(super) fn result(self) -> Fork {
        match self.found {
            Some(fork) => fork,
            None if !self.differs => Fork::None,
            None if self.cursor.forgot => Fork::TooDeep { oldest: self.cursor.stops[0].0 },
            None => Fork::After(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Fork, Known, STOPS_MAX};
    use std::collections::BTreeMap;

    fn hash(fork: u8, number: u64) -> [u8; 32] {
        let mut hash = [fork; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    fn read(numbers: impl IntoIterator<Item = u64>) -> Cursor {
        let mut cursor = Cursor::from_block(1);
        numbers.into_iter().for_each(|number| cursor.advance(number, hash(0, number)));
        cursor
    }

    /// A chain of `head` blocks whose blocks from `changed` on are of another fork.
    fn search(cursor: &Cursor, head: u64, changed: u64) -> (Fork, usize) {
        let chain: BTreeMap<u64, [u8; 32]> =
            (0..=head).map(|number| (number, hash(u8::from(number >= changed), number))).collect();
        let mut search = cursor.search(head);
        let mut asked = 0;
        while let Some(number) = search.wanted() {
            asked += 1;
            search.answer(chain.get(&number).map_or(Known::Nothing, |hash| Known::Hash(*hash)));
        }
        (search.result(), asked)
    }

    #[test]
    fn an_unchanged_chain_costs_one_look() {
        assert_eq!(search(&read([5, 6, 7]), 9, 100), (Fork::None, 1));
        assert_eq!(search(&read([]), 9, 0), (Fork::None, 0));
    }

    #[test]
    fn the_newest_stop_that_is_still_there_is_where_reading_goes_on() {
        let mut cursor = read([5, 6, 7, 8]);
        assert_eq!(search(&cursor, 9, 7).0, Fork::After(Some(6)));
        assert_eq!(cursor.back_to(Some(6)), 7);
        assert_eq!(cursor.next(), 7);
        assert_eq!(search(&cursor, 9, 7), (Fork::None, 1));
    }

    #[test]
    fn a_chain_that_differs_from_the_start_is_read_from_the_start() {
        let mut cursor = read([5, 6]);
        assert_eq!(search(&cursor, 9, 0).0, Fork::After(None));
        assert_eq!(cursor.back_to(None), 1);
    }

    #[test]
    fn an_endpoint_that_is_behind_is_no_reorganisation() {
        assert_eq!(search(&read([5, 6, 7]), 6, 100).0, Fork::None);
        assert_eq!(search(&read([5, 6, 7]), 4, 100), (Fork::None, 0));
    }

    #[test]
    fn a_shorter_chain_with_other_blocks_is_a_reorganisation() {
        assert_eq!(search(&read([5, 6, 7]), 6, 6).0, Fork::After(Some(5)));
    }

    #[test]
    fn only_so_many_stops_are_kept_and_what_lies_deeper_is_said() {
        let count = u64::try_from(STOPS_MAX).unwrap();
        let cursor = read(1..=count + 10);
        assert_eq!(cursor.stops.len(), STOPS_MAX);
        assert_eq!(search(&cursor, count + 10, 11).0, Fork::TooDeep { oldest: 11 });
        assert_eq!(search(&cursor, count + 10, 12).0, Fork::After(Some(11)));
        let mut cursor = cursor;
        cursor.back_to(Some(11));
        assert_eq!(
            search(&cursor, 20, 1).0,
            Fork::TooDeep { oldest: 11 },
            "what was forgotten stays forgotten"
        );
    }
}
