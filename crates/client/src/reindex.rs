//! Opens a dataset's deduplication index, and makes it again when it was lost or damaged.
//!
//! Without it nothing goes wrong, but everything would be stored a second time.

use crate::dataset::index_folder;
use crate::push::{PushContext, PushError};
use crate::reader::{ReadError, Reader};
use crate::uploader::ask;
use seedbank_catalog::Books;
use seedbank_catalog::index::{Index, IndexError};
use seedbank_formats::numbered::RADIX;
use seedbank_formats::place::Place;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::seal::ItemKind;
use seedbank_formats::segment::Footer;
use seedbank_formats::{ChunkId, SegmentNumber};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Footers that are read at once; the largest has 340 KiB.
const FOOTERS_AT_ONCE: usize = 8;

type Items = Vec<(ChunkId, Place)>;

/// The index of the dataset that is pushed to.
pub(crate) async fn open_index(context: &PushContext) -> Result<Arc<Index>, PushError> {
    let dataset = context.dataset.id;
    let folder = index_folder(&context.index_dir, &dataset);
    let opened = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || Index::open(&folder, dataset)).await
    };
    let index = match opened.map_err(|_ended| PushError::Stopped)? {
        Ok(index) if index.items() > 0 => index,
        // A dataset without a head has nothing to be found again.
        Ok(index) => match ask(&context.books, move |books| books.head(dataset)).await? {
            Some(_) => rebuild(context, folder).await?,
            None => index,
        },
        Err(IndexError::Damaged { path, reason }) => {
            tracing::warn!(path = %path.display(), reason, "index damaged, it is made again");
            rebuild(context, folder).await?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Arc::new(index))
}

/// Makes the index from the footers of all segments that the books know. What can't be read is left out, and stored
/// again when it comes by.
async fn rebuild(context: &PushContext, folder: PathBuf) -> Result<Index, PushError> {
    let dataset = context.dataset.id;
    let (items, mut incoming) = mpsc::channel::<Items>(1);
    let emptied = folder.clone();
    let thread = tokio::task::spawn_blocking(move || {
        Index::rebuild(&folder, dataset, std::iter::from_fn(move || incoming.blocking_recv()).flatten())
    });
    let sent = send(context, items).await;
    let index = thread.await.map_err(|_ended| PushError::Stopped)??;
    if let Err(error) = sent {
        // A part would be taken for the whole next time.
        tokio::task::spawn_blocking(move || Index::rebuild(&emptied, dataset, []).map(drop))
            .await
            .map_err(|_ended| PushError::Stopped)??;
        return Err(error);
    }
    Ok(index)
}

/// Reads footers by rising segment number and sends their chunks: of everything else the newest counts, which a footer
/// that can't be read might hide.
async fn send(context: &PushContext, items: mpsc::Sender<Items>) -> Result<(), PushError> {
    let dataset = context.dataset.id;
    let reader = Reader::of_books(&context.books, &context.network, &context.keys);
    let end = ask(&context.books, move |books| Ok(books.collect_begin(dataset)?.next_segment)).await?;
    let mut reading: VecDeque<(SegmentNumber, JoinHandle<Result<Footer, ReadError>>)> = VecDeque::new();
    let (mut placements, mut next) = (VecDeque::<SegmentPlacement>::new(), SegmentNumber(0));
    loop {
        while placements.is_empty() && next < end {
            let last = SegmentNumber(next.0 + (RADIX as u64 - 1));
            let some = ask(&context.books, move |books| books.segments_in(dataset, next, last, None)).await?;
            placements.extend(some);
            next = SegmentNumber(last.0 + 1);
        }
        match placements.pop_front() {
            Some(placement) => {
                let (reader, segment) = (Arc::clone(&reader), placement.number);
                let footer = tokio::spawn(async move { reader.footer(&Arc::new(placement)).await });
                reading.push_back((segment, footer));
                if reading.len() < FOOTERS_AT_ONCE {
                    continue;
                }
            }
            None if reading.is_empty() => return Ok(()),
            None => {}
        }
        let Some((segment, footer)) = reading.pop_front() else { continue };
        match footer.await.map_err(|_ended| PushError::Stopped)? {
            // Nobody listens when the index could not be written, and that is told by the thread.
            Ok(footer) => drop(items.send(chunks_of(segment, &footer)).await),
            Err(error) => tracing::warn!(%segment, %error, "footer not read"),
        }
    }
}

fn chunks_of(segment: SegmentNumber, footer: &Footer) -> Items {
    let chunks = (0..).zip(&footer.items).filter(|(_, item)| item.kind == ItemKind::Chunk);
    chunks.map(|(index, item)| (item.id, Place { segment, index })).collect()
}
