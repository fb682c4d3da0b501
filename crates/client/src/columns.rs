//! What bulk reads of a segment with lost fragments share: columns that are decoded once for all lost fragments.
//!
//! A column is the same stretch of every fragment. To bring back that stretch of one lost fragment, the stretches of `k`
//! others are fetched, and they would bring back those of all other lost fragments as well. Whoever reads a range here
//! and there has no use for them. Whoever reads all of a segment comes by them a moment later: with half of the data
//! fragments gone, fetching them anew each time would move `k` times as much.
//!
//! So bulk reads decode windows of columns, each once however many wait for it, and keep all data fragments of it: the
//! lost ones, and those that were sources. Memory is bounded, and none of it is used while nothing is lost.

use crate::network::{Network, Tokens};
use crate::range_read::{self, fragment_len};
use crate::recent::Recent;
use bytes::Bytes;
use seedbank_formats::SegmentNumber;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_protocol::read_exchange::ReadFailed;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

/// Long enough for a request to be worth its round trip, short enough that the edges of a bulk read waste little.
const WINDOW_BYTES: u64 = 512 * 1024;

/// Room for all of a segment, since a bulk read comes to its last fragment when it has passed all others, and for the
/// beginning of the next one.
const KEPT_BYTES_MAX: u64 = 80 * 1024 * 1024;

/// All data fragments in one window, by index.
type Window = BTreeMap<usize, Bytes>;
type Slot = Arc<OnceCell<Arc<Window>>>;

/// The windows of one dataset.
pub(crate) struct Columns {
    windows: Mutex<Recent<(SegmentNumber, u64), Slot>>,
}

impl Columns {
    pub(crate) fn new() -> Arc<Columns> {
        Arc::new(Columns { windows: Mutex::new(Recent::new(KEPT_BYTES_MAX)) })
    }

    fn windows(&self) -> MutexGuard<'_, Recent<(SegmentNumber, u64), Slot>> {
        self.windows.lock().expect("nothing panics while it holds the windows")
    }

    /// A range of a data fragment, if others have brought it already.
    pub(crate) fn known(
        &self,
        placement: &SegmentPlacement,
        index: usize,
        range: &Range<u64>,
    ) -> Option<Bytes> {
        let pieces = windows(placement, range).map(|(number, _)| {
            let slot = self.windows().get(&(placement.number, number))?;
            slot.get()?.get(&index).cloned()
        });
        Some(join(&pieces.collect::<Option<Vec<Bytes>>>()?, range))
    }

    /// A range of a data fragment, from windows that are decoded now, or by others at this moment.
    pub(crate) async fn range(
        self: Arc<Self>,
        network: Arc<Network>,
        tokens: Arc<Tokens>,
        placement: Arc<SegmentPlacement>,
        index: usize,
        range: Range<u64>,
    ) -> Result<Bytes, ReadFailed> {
        let mut asked: JoinSet<(u64, Result<Bytes, ReadFailed>)> = JoinSet::new();
        for (number, window) in windows(&placement, &range) {
            let (columns, network, tokens) = (Arc::clone(&self), Arc::clone(&network), Arc::clone(&tokens));
            let placement = Arc::clone(&placement);
            asked.spawn(async move {
                (number, columns.window(&network, &tokens, &placement, index, number, window).await)
            });
        }
        let mut pieces = BTreeMap::new();
        while let Some(piece) = asked.join_next().await {
            match piece {
                Ok((number, piece)) => drop(pieces.insert(number, piece?)),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_cancelled) => return Err(nothing(&placement)),
            }
        }
        Ok(join(&pieces.into_values().collect::<Vec<Bytes>>(), &range))
    }

    /// One fragment's part of one window.
    async fn window(
        &self,
        network: &Arc<Network>,
        tokens: &Arc<Tokens>,
        placement: &Arc<SegmentPlacement>,
        index: usize,
        number: u64,
        window: Range<u64>,
    ) -> Result<Bytes, ReadFailed> {
        let slot = self.slot(placement, number, &window);
        let kept = slot.get_or_try_init(|| async {
            let decoded = range_read::decode(network, tokens, placement, index, window).await?;
            Ok(Arc::new(decoded))
        });
        Ok(kept.await?[&index].clone())
    }

    fn slot(&self, placement: &SegmentPlacement, number: u64, window: &Range<u64>) -> Slot {
        let (mut windows, key) = (self.windows(), (placement.number, number));
        windows.get(&key).unwrap_or_else(|| {
            let slot = Slot::default();
            let bytes = (window.end - window.start).saturating_mul(placement.scheme.data() as u64);
            windows.put(key, Arc::clone(&slot), bytes);
            slot
        })
    }
}

fn nothing(placement: &SegmentPlacement) -> ReadFailed {
    ReadFailed { usable: 0, needed: placement.scheme.data(), reasons: Vec::new() }
}

/// The windows that a range of a fragment touches, by number.
fn windows(
    placement: &SegmentPlacement,
    range: &Range<u64>,
) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
    let len = fragment_len(placement);
    (range.start / WINDOW_BYTES..range.end.div_ceil(WINDOW_BYTES)).map(move |number| {
        let start = number * WINDOW_BYTES;
        (number, start..len.min(start + WINDOW_BYTES))
    })
}

/// A range out of the windows that it touches.
fn join(pieces: &[Bytes], range: &Range<u64>) -> Bytes {
    let skip = usize::try_from(range.start % WINDOW_BYTES).expect("within a window");
    let len = usize::try_from(range.end - range.start).expect("a range in memory");
    match pieces {
        [piece] => piece.slice(skip..skip + len),
        pieces => {
            let mut joined = Vec::with_capacity(len);
            for piece in pieces {
                let from = if joined.is_empty() { skip } else { 0 };
                let to = piece.len().min(from + len - joined.len());
                joined.extend_from_slice(&piece[from..to]);
            }
            joined.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{WINDOW_BYTES, join, windows};
    use bytes::Bytes;
    use seedbank_erasure::Scheme;
    use seedbank_formats::SegmentNumber;
    use seedbank_formats::keys::KeyEpoch;
    use seedbank_formats::placement::SegmentPlacement;

    #[test]
    fn ranges_come_out_of_the_windows_that_they_touch() {
        let fragment: Vec<u8> = (0..3 * WINDOW_BYTES - 1_000).map(|at| (at % 251).to_le_bytes()[0]).collect();
        let placement = SegmentPlacement {
            number: SegmentNumber(1),
            epoch: KeyEpoch(0),
            scheme: Scheme::new(2, 3).unwrap(),
            sealed_len: u32::try_from(2 * fragment.len()).unwrap(),
            footer_len: 100,
            fragments: Vec::new(),
        };
        let index = |at: u64| usize::try_from(at).unwrap();
        let len = super::fragment_len(&placement);
        let padded: Vec<u8> = fragment.iter().copied().chain(std::iter::repeat(0)).take(index(len)).collect();
        for range in [
            0..1,
            5..WINDOW_BYTES,
            WINDOW_BYTES..WINDOW_BYTES + 1,
            WINDOW_BYTES - 1..WINDOW_BYTES + 1,
            7..2 * WINDOW_BYTES + 9,
            2 * WINDOW_BYTES + 5..len,
            0..len,
        ] {
            let pieces: Vec<Bytes> = windows(&placement, &range)
                .map(|(_, window)| Bytes::copy_from_slice(&padded[index(window.start)..index(window.end)]))
                .collect();
            assert!(join(&pieces, &range) == padded[index(range.start)..index(range.end)], "{range:?}");
        }
    }
}
