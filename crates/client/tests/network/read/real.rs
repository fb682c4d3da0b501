//! A real provider among the others, whose disk rots.

use super::world::World;
use seedbank_catalog::Books;
use seedbank_catalog::records::ProviderProfile;
use seedbank_client::dataset::Visibility;
use seedbank_formats::receipt::{Answer, Statement};
use seedbank_protocol::read_exchange::Verdict;
use seedbank_provider::{ByteSize, DATA_DIR, InitOptions, RunOptions, init, run};
use seedbank_testkit::ByteStream;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;

/// One bit in every 4 KiB of every large file.
fn rot(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        if metadata.is_dir() {
            rot(&path);
        } else if metadata.len() > 100_000 {
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            for at in (8_192..metadata.len()).step_by(4_096) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 4], at).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_rots_is_admitted_signed_and_read_around() {
    let mut world = World::start(4, 8, Visibility::Private).await;
    let replaced = world.providers.pop().unwrap();
    world.books.forget_holdings(replaced.key()).unwrap();
    world.books.remove_provider(replaced.key()).unwrap();
    let dir = world.folder.path().join("provider");
    let options = InitOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        capacity: ByteSize(1 << 30),
        reserve: ByteSize(1 << 20),
        operator: Some("operator-real".to_owned()),
        clients: vec![(super::world::owner().public(), ByteSize(1 << 30))],
        ..InitOptions::default()
    };
    init(&dir, &options).unwrap();
    let ((ready, serving), (stop, stopped)) = (oneshot::channel(), oneshot::channel::<()>());
    let folder = dir.clone();
    let running = tokio::spawn(async move {
        let on_ready = |serving| ready.send(serving).unwrap();
        let shutdown = async {
            let _told = stopped.await;
        };
        run(&folder, RunOptions::default(), on_ready, shutdown).await
    });
    let serving = serving.await.unwrap();
    let profile = ProviderProfile {
        key: serving.key,
        address: serving.address.to_string(),
        operator: "operator-real".to_owned(),
        region: "here".to_owned(),
        capacity_bytes: 1 << 30,
        free_bytes: 1 << 30,
        accepting: true,
    };
    world.books.put_provider(profile).unwrap();
    world.also(serving.key, serving.address.to_string());

    // Sooner or later it gets a data fragment.
    for seed in 70..90 {
        let file = ByteStream::bytes(seed, 1_000_000);
        let pushed = world.push_files(&[("big.bin", &file)]).await;
        let reading = world.read_patiently(pushed.version).await;
        let segments = reading.snapshot.segments(&reading.reader).await.unwrap();
        let data = segments.iter().max_by_key(|segment| segment.sealed_len).unwrap();
        let held = data.fragments[..4].iter().position(|fragment| fragment.holder == Some(serving.key));
        let Some(held) = held else { continue };
        rot(&dir.join(DATA_DIR));
        assert!(reading.cat("big.bin", 0..u64::MAX).await.unwrap() == file);
        reading.network.settle(Duration::from_secs(10)).await;
        let findings = reading.network.findings();
        let rotten = findings.iter().find(|finding| finding.fragment == data.fragments[held].id).unwrap();
        assert_eq!((rotten.provider, rotten.verdict), (serving.key, Verdict::Rotten));
        let statement = Statement::check(rotten.statement.as_ref().unwrap()).unwrap();
        assert_eq!((statement.provider, statement.answer), (serving.key, Answer::Rotten));
        assert!(findings.iter().all(|finding| finding.provider == serving.key), "{findings:?}");
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
        return;
    }
    panic!("twenty segments, and no data fragment for one of eight providers");
}
