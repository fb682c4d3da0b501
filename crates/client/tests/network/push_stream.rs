//! Pushes of what can be read only once.

use crate::harness::{MIB, World, options};
use seedbank_catalog::{Books, Request};
use seedbank_client::progress::Silent;
use seedbank_client::push::{Made, PushContext, PushError, PushReport, Stream, push_stream};
use seedbank_formats::path::TreePath;
use seedbank_testkit::ByteStream;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const LEN: usize = 3 * MIB + 5;

/// A pipe: it gives as much as it likes at a time, and then may break.
struct Pipe {
    bytes: io::Take<ByteStream>,
    broken: bool,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(60_001);
        match self.bytes.read(&mut out[..most])? {
            0 if self.broken => Err(io::Error::other("the other end died")),
            count => Ok(count),
        }
    }
}

async fn push(context: &PushContext, broken: bool) -> Result<PushReport, PushError> {
    let bytes = Pipe { bytes: ByteStream::new(7).take(LEN as u64), broken };
    let stream = Stream { path: TreePath::parse("runs/weights").unwrap(), bytes: Box::new(bytes) };
    push_stream(context, &options(Path::new("-")), stream, Arc::new(Silent)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_a_dataset_of_one_file() {
    let world = World::start(4, 2, 4).await;
    let report = push(&world.context(), false).await.unwrap();
    assert_eq!((report.made, report.entries, report.bytes), (Made::Version, 1, LEN as u64));
    let same = world.source("same");
    fs::create_dir(same.join("runs")).unwrap();
    fs::write(same.join("runs/weights"), ByteStream::bytes(7, LEN)).unwrap();
    assert_eq!(world.check_from_head(&same).await, report.version);
    // It is read to its end to learn that, and nothing of it is stored twice.
    let again = push(&world.context(), false).await.unwrap();
    assert_eq!((again.made, again.counts.bytes_read, again.counts.bytes_new), (Made::Nothing, LEN as u64, 0));
    world.check_claims().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_makes_no_version() {
    let world = World::start(4, 2, 4).await;
    let failed = push(&world.context(), true).await.unwrap_err();
    assert!(matches!(failed, PushError::ReadStream(_)), "{failed:?}");
    assert!(world.books.versions(world.keys.id, None, 1).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_would_have_to_be_read_again_is_asked_for_again() {
    let world = World::start(4, 2, 4).await;
    let (books, ended) = (Arc::clone(&world.books), AtomicBool::new(false));
    let context = world.hooked(move |request| {
        if let Request::CommitBase { lease, .. } = request
            && !ended.swap(true, Ordering::Relaxed)
        {
            books.end_push(*lease).unwrap();
        }
    });
    let failed = push(&context, false).await.unwrap_err();
    assert!(matches!(failed, PushError::StreamSpent), "{failed:?}");
    assert_eq!(push(&world.context(), false).await.unwrap().made, Made::Version);
}
