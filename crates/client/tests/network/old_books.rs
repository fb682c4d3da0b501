//! An old copy of the books is put back while providers hold what newer ones wrote.

use crate::harness::{MIB, Way, World, options};
use rusqlite::Connection;
use seedbank_catalog::records::Work;
use seedbank_catalog::{Books, Catalog, Local};
use seedbank_client::SharedBooks;
use seedbank_client::behind::BehindError;
use seedbank_client::maintain::{CollectError, CompactError, RefreshError};
use seedbank_client::network::wall_clock;
use seedbank_client::progress::Silent;
use seedbank_client::push::{Made, PushContext, PushError, push};
use seedbank_client::recover::recover_dataset;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::{Asked, FragmentId, Timestamp};
use seedbank_testkit::ByteStream;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A copy of the books as they are, in a folder of its own.
fn copy_books(world: &World, name: &str) -> PathBuf {
    let folder = world.folder.path().join(name);
    fs::create_dir(&folder).unwrap();
    let open = Connection::open(world.folder.path().join("catalog/catalog.sqlite")).unwrap();
    open.execute("VACUUM INTO ?1", [folder.join("catalog.sqlite").to_str().unwrap()]).unwrap();
    folder
}

fn open_books(folder: &Path) -> SharedBooks {
    Arc::new(Local::new(Catalog::open(folder).unwrap(), wall_clock))
}

/// A dataset, and a copy of its books in which a segment is dead that the newest version needs.
async fn world_with_old_books() -> (World, PathBuf) {
    let mut world = World::start(4, 2, 4).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    let big = ByteStream::bytes(1, 2 * MIB);
    fs::write(source.join("big"), &big).unwrap();
    fs::write(source.join("small"), "one").unwrap();
    let first = world.push(&source).await;
    fs::remove_file(source.join("big")).unwrap();
    world.push(&source).await;
    world.books.remove_version(world.keys.id, first.version).unwrap();
    // In this copy what `big` lies in is dead, and not yet collected.
    let old = copy_books(&world, "old");
    fs::write(source.join("big"), &big).unwrap();
    let third = world.push(&source).await;
    assert!(third.counts.bytes_new < MIB as u64, "it relies on what the old books take for dead: {third:?}");
    (world, old)
}

fn is_older(error: &BehindError) -> bool {
    let text = error.to_string();
    matches!(error, BehindError::Older { .. }) && text.contains("seedbank key recover --provider ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_or_given_up_from_old_books_and_recovery_brings_them_up_to_date() {
    let (mut world, old) = world_with_old_books().await;
    let (newest, source) = (Arc::clone(&world.books), world.folder.path().join("tree"));
    let (dataset, head) = (world.keys.id, newest.head(world.keys.id).unwrap().unwrap());
    let held = world.holdings();
    world.books = open_books(&old);
    world.renew_network();

    fs::write(source.join("small"), "two").unwrap();
    let refused = world.try_push(&options(&source)).await;
    assert!(matches!(&refused, Err(PushError::Behind(error)) if is_older(error)), "{refused:?}");
    let maintenance = world.maintenance();
    let refused = maintenance.collect(dataset, world.now()).await;
    assert!(matches!(&refused, Err(CollectError::Behind(error)) if is_older(error)), "{refused:?}");
    let segments = world.segments().iter().map(|segment| segment.number).collect();
    let refused = maintenance.compact_segments(dataset, segments).await;
    assert!(
        matches!(&refused, Err(CompactError::Write(RefreshError::Write(PushError::Behind(error)))) if is_older(error)),
        "{refused:?}"
    );
    let refreshed = maintenance.refresh_heads().await.unwrap();
    assert_eq!((refreshed.heads, refreshed.failed), (0, 1), "the removed version asks for a new head");
    let refused = maintenance.publish_head(dataset).await;
    assert!(matches!(&refused, Err(PushError::Behind(error)) if is_older(error)), "{refused:?}");
    // A release that was to be done when the copy was made, of what a provider has come to hold again since.
    let known = world.holdings();
    let none = BTreeSet::new();
    let known_of = |provider| known.get(provider).unwrap_or(&none);
    let fragments_of = |provider| held[provider].difference(known_of(provider)).copied().collect();
    let (provider, fragments): (_, Vec<FragmentId>) = held
        .keys()
        .map(|provider| (*provider, fragments_of(provider)))
        .find(|(_, fragments): &(_, Vec<FragmentId>)| !fragments.is_empty())
        .expect("the newest version has a segment of its own");
    world
        .books
        .add_job(Work::ReleaseClaims { provider, fragments, asked: Asked(u64::MAX) }, Timestamp(0))
        .unwrap();
    let done = maintenance.work(world.now()).await.unwrap();
    assert!(done.failed > 0, "{done:?}");
    let released = maintenance.release().await.unwrap();
    assert_eq!(released.done, 0);
    assert!(world.has_jobs(|work| matches!(work, Work::ReleaseClaims { .. })), "it is put off");

    // Providers have what they had.
    let old_books = std::mem::replace(&mut world.books, newest);
    world.check_claims().await;
    let opened = world.open().await;
    assert_eq!(opened.head().head().sequence(), head.sequence);

    // The old books catch up, and go on.
    let index = world.folder.path().join("index");
    recover_dataset(&old_books, &opened, "birds", &index).await.unwrap();
    let told = |books: &SharedBooks| {
        (
            books.refs(dataset).unwrap(),
            books.versions(dataset, None, 99).unwrap().len(),
            books.head(dataset).unwrap(),
        )
    };
    let (caught_up, wanted) = (told(&old_books), told(&world.books));
    assert_eq!((&caught_up.0, caught_up.1), (&wanted.0, wanted.1));
    assert_eq!(caught_up.2.map(|head| head.bytes), wanted.2.map(|head| head.bytes));
    world.books = old_books;
    world.renew_network();
    let pushed = world.push(&source).await;
    assert_eq!(pushed.made, Made::Version);
    assert!(pushed.counts.bytes_new < 1000, "what is stored is not stored again: {pushed:?}");
    world.maintenance().collect(dataset, world.now()).await.unwrap();
    world.maintenance().release().await.unwrap();
    world.renew_network();
    assert_eq!(world.check_from_head(&source).await, pushed.version);
    let head = world.books.head(dataset).unwrap().unwrap();
    assert!(head.sequence > opened.head().head().sequence());
    assert_eq!(world.books.refs(dataset).unwrap().iter().filter(|it| it.kind == RefKind::Branch).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_given_up_while_nobody_can_tell_whether_the_books_are_old() {
    let (mut world, old) = world_with_old_books().await;
    world.books = open_books(&old);
    world.renew_network();
    world.providers.iter().for_each(|provider| provider.set(Way::Closed));
    let refused = world.maintenance().collect(world.keys.id, world.now()).await;
    assert!(matches!(refused, Err(CollectError::Behind(BehindError::Silence { .. }))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_histories_of_one_sequence_are_told_apart() {
    let world = World::start(2, 1, 2).await;
    let source = world.source("tree");
    fs::write(source.join("file"), "one").unwrap();
    world.push(&source).await;
    let old = copy_books(&world, "old");
    fs::write(source.join("file"), "two").unwrap();
    world.push(&source).await;
    // As if it had been written from while no provider answered.
    let books = open_books(&old);
    let newest = world.books.head(world.keys.id).unwrap().unwrap();
    let connection = Connection::open(old.join("catalog.sqlite")).unwrap();
    connection.execute("UPDATE heads SET sequence = ?1", [newest.sequence]).unwrap();
    drop(connection);
    let pushed = push(&PushContext { books, ..world.context() }, &options(&source), Arc::new(Silent)).await;
    assert!(matches!(&pushed, Err(PushError::Behind(BehindError::Forked { .. }))), "{pushed:?}");
}
