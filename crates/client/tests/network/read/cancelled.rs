//! Whoever stops waiting leaves nothing behind: no request, no task, no thread that goes on writing.

use super::provider::Conduct;
use super::world::World;
use seedbank_client::dataset::Visibility;
use seedbank_client::glob::Filter;
use seedbank_client::progress::{Progress, Silent};
use seedbank_client::pull::{cat, pull};
use seedbank_client::restore::RestoreOptions;
use seedbank_testkit::ByteStream;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Nobody waits so long unless the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells when the delivering thread has let go of it.
struct Watched(Option<mpsc::UnboundedSender<()>>);

impl Progress for Watched {
    fn total(&self, _files: u64, _bytes: u64) {}
    fn advance(&self, _files: u64, _bytes: u64) {}
    fn fresh(&self, _bytes: u64) {}
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _unheard = self.0.take().map(|gone| gone.send(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_dropped_ends_its_requests_and_its_thread() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(41, 3_000_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let reading = world.read(pushed.version).await;
    let segment = reading.data_segment(&world).await;
    let mut busy: Vec<watch::Receiver<usize>> = Vec::new();
    for provider in &world.providers {
        let fragments = segment.placement.fragments.iter().map(|fragment| fragment.id);
        provider.shelf.behave_about(Conduct::Stalls, fragments);
        busy.push(provider.shelf.reading());
    }
    let (gone, mut is_gone) = mpsc::unbounded_channel();
    let dest = world.folder.path().join("dest");
    let (reader, snapshot) = (Arc::clone(&reading.reader), reading.snapshot.clone());
    let pulling = tokio::spawn(async move {
        let (filter, options) = (Filter::default(), RestoreOptions::default());
        pull(&reader, &snapshot, &dest, &filter, options, Arc::new(Watched(Some(gone)))).await
    });
    // All data fragments and, once the hedges are due, the others: everybody stalls.
    for busy in &mut busy {
        timeout(PATIENCE, busy.wait_for(|requests| *requests > 0)).await.unwrap().unwrap();
    }
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    timeout(PATIENCE, is_gone.recv()).await.unwrap();
    for busy in &mut busy {
        timeout(PATIENCE, busy.wait_for(|requests| *requests == 0)).await.unwrap().unwrap();
    }
}

/// A writer that waits for permission for each write, and tells of each.
struct Gated {
    wrote: mpsc::UnboundedSender<usize>,
    may_go_on: blocking::Receiver<()>,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wrote.send(bytes.len()).map_err(io::Error::other)?;
        self.may_go_on.recv().map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_dropped_writes_no_more_than_it_is_writing() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(42, 2_000_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let reading = world.read(pushed.version).await;
    let ((wrote, mut writes), (go_on, may_go_on)) = (mpsc::unbounded_channel(), blocking::channel());
    let (reader, snapshot) = (Arc::clone(&reading.reader), reading.snapshot.clone());
    let path = "big.bin".parse().unwrap();
    let gated = Gated { wrote, may_go_on };
    let copying = tokio::spawn(async move { cat(&reader, &snapshot, &path, 0..u64::MAX, gated).await });
    timeout(PATIENCE, writes.recv()).await.unwrap().unwrap();
    copying.abort();
    assert!(copying.await.unwrap_err().is_cancelled());
    // Permission for everything, but nobody wants it any more.
    for _ in 0..100 {
        let _unheard = go_on.send(());
    }
    // The writer is dropped without having been called again.
    assert_eq!(timeout(PATIENCE, writes.recv()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_fails_ends_the_pull_at_once() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(43, 1_000_000);
    let pushed = world.push_files(&[("a", &file), ("b", &file[1..]), ("c", &file[2..])]).await;
    let reading = world.read(pushed.version).await;
    let dest = world.folder.path().join("dest");
    std::fs::create_dir_all(dest.join("b/full")).unwrap();
    let (filter, options) = (Filter::default(), RestoreOptions::default());
    let pulled = pull(&reading.reader, &reading.snapshot, &dest, &filter, options, Arc::new(Silent));
    let failed = timeout(PATIENCE, pulled).await.unwrap().unwrap_err();
    assert!(failed.to_string().contains("/b"), "{failed}");
    let before = std::fs::read(dest.join("a"));
    assert!(before.is_err() || before.unwrap() == file, "what came before is whole, or not there yet");
}
