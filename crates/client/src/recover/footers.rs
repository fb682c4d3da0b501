//! The deduplication index, made again from the segments' footers.
//!
//! Footers are read a few ahead and flow through a bounded channel to the thread that sorts them, so memory does not grow
//! with the dataset.

use super::RecoverError;
use super::map::SegmentWalk;
use crate::heads::OpenedHead;
use crate::reader::{ReadError, Reader};
use seedbank_catalog::index::Index;
use seedbank_formats::place::Place;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::seal::ItemKind;
use seedbank_formats::segment::Footer;
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Footers that are read at once; the largest has 400 KiB.
const FOOTERS_AT_ONCE: usize = 8;

/// Which items an index gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// All: every footer is known.
    All,
    /// Only chunks. Of a page's layout the newest counts, and with a footer missing the newest one found may be an old
    /// one, which leads to segments that are no more. Pages are as good as gone without their layouts.
    Chunks,
}

impl Keep {
    fn keeps(self, kind: ItemKind) -> bool {
        match (self, kind) {
            (Keep::All, _) | (Keep::Chunks, ItemKind::Chunk) => true,
            (Keep::Chunks, ItemKind::Page | ItemKind::Named) => false,
        }
    }
}

type Items = Vec<(ChunkId, Place)>;

/// Makes the index in `folder`, and says which segments' footers can't be read.
pub(super) async fn rebuild_index(
    opened: &OpenedHead,
    folder: &Path,
) -> Result<Vec<SegmentNumber>, RecoverError> {
    let unread = rebuild(opened, folder, Keep::All).await?;
    if unread.is_empty() { Ok(unread) } else { rebuild(opened, folder, Keep::Chunks).await }
}

async fn rebuild(opened: &OpenedHead, folder: &Path, keep: Keep) -> Result<Vec<SegmentNumber>, RecoverError> {
    let dataset = opened.reader().keys().id;
    let (items, mut incoming) = mpsc::channel::<Items>(1);
    let thread = {
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || {
            let incoming = std::iter::from_fn(move || incoming.blocking_recv());
            Index::rebuild(&folder, dataset, incoming.flatten()).map(drop)
        })
    };
    let sent = send(opened, keep, items).await;
    thread.await.map_err(|_ended| RecoverError::Stopped)??;
    match sent {
        Ok(unread) => Ok(unread),
        Err(error) => {
            // What came so far is no index to build on.
            clear(folder, dataset).await?;
            Err(error.into())
        }
    }
}

async fn clear(folder: &Path, dataset: DatasetId) -> Result<(), RecoverError> {
    let folder = folder.to_owned();
    let cleared = tokio::task::spawn_blocking(move || Index::rebuild(&folder, dataset, []).map(drop));
    Ok(cleared.await.map_err(|_ended| RecoverError::Stopped)??)
}

/// A footer that is being read.
struct Reading {
    segment: SegmentNumber,
    footer: JoinHandle<Result<Footer, ReadError>>,
}

impl Reading {
    fn begin(reader: &Arc<Reader>, placement: SegmentPlacement) -> Reading {
        let (reader, segment) = (Arc::clone(reader), placement.number);
        let footer = tokio::spawn(async move { reader.footer(&Arc::new(placement)).await });
        Reading { segment, footer }
    }
}

/// Reads footers by rising segment number and sends their items. Gives the segments of which that failed.
async fn send(
    opened: &OpenedHead,
    keep: Keep,
    items: mpsc::Sender<Items>,
) -> Result<Vec<SegmentNumber>, ReadError> {
    let (mut walk, mut reading) = (SegmentWalk::new(opened), VecDeque::new());
    let mut unread = Vec::new();
    loop {
        while reading.len() < FOOTERS_AT_ONCE
            && let Some(placement) = walk.next().await?
        {
            reading.push_back(Reading::begin(opened.reader(), placement));
        }
        let Some(Reading { segment, footer }) = reading.pop_front() else { return Ok(unread) };
        match footer.await.map_err(|_ended| ReadError::Stopped)? {
            // Nobody listens when the index could not be written, and that is told by the thread.
            Ok(footer) => drop(items.send(items_of(segment, &footer, keep)).await),
            Err(error) => {
                tracing::warn!(%segment, %error, "footer not read");
                unread.push(segment);
            }
        }
    }
}

fn items_of(segment: SegmentNumber, footer: &Footer, keep: Keep) -> Items {
    let placed = (0..).zip(&footer.items).filter(|(_, item)| keep.keeps(item.kind));
    placed.map(|(index, item)| (item.id, Place { segment, index })).collect()
}

#[cfg(test)]
mod tests {
    use super::{Keep, items_of};
    use seedbank_formats::place::Place;
    use seedbank_formats::seal::{Codec, Item, ItemKind};
    use seedbank_formats::segment::Footer;
    use seedbank_formats::{ChunkId, SegmentNumber};

    #[test]
    fn with_a_footer_missing_only_chunks_are_indexed() {
        let item = |(number, kind)| Item {
            kind,
            id: ChunkId([number; 32]),
            codec: Codec::Raw,
            offset: 0,
            sealed_len: 38,
            plain_len: 10,
        };
        let kinds = [(0, ItemKind::Page), (1, ItemKind::Named), (2, ItemKind::Chunk)];
        let footer = Footer { items: kinds.map(item).to_vec() };
        let segment = SegmentNumber(5);
        let all: Vec<_> =
            (0..3u8).map(|n| (ChunkId([n; 32]), Place { segment, index: u32::from(n) })).collect();
        assert_eq!(items_of(segment, &footer, Keep::All), all);
        assert_eq!(items_of(segment, &footer, Keep::Chunks), all[2..]);
    }
}
