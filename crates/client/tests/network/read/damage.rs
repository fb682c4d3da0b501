//! Random damage under a seed: the exact bytes, or an error that says that they can't be had.

use super::provider::Conduct;
use super::world::{World, stranger_within};
use seedbank_client::RangeError;
use seedbank_client::dataset::Visibility;
use seedbank_client::pull::CatError;
use seedbank_client::reader::ReadError;
use seedbank_client::snapshot::SnapshotError;
use seedbank_formats::PublicKey;
use seedbank_protocol::read_exchange::Verdict;
use seedbank_testkit::ByteStream;
use seedbank_transport::{ClientLimits, Progress};
use std::collections::BTreeMap;
use std::time::Duration;

/// Whoever stalls is given up after this; the others answer within milliseconds, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(1);

fn limits() -> ClientLimits {
    let progress = Progress { window: DEADLINE, bytes_min: 64 * 1024 };
    ClientLimits { connect: DEADLINE, answer: DEADLINE, progress, ..ClientLimits::default() }
}

fn is_unavailable(error: &ReadError) -> bool {
    matches!(error, ReadError::Range(RangeError::Unavailable { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_damaged_the_bytes_are_exact_or_there_are_none() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(51, 1_800_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let segments = {
        let reading = world.read(pushed.version).await;
        reading.snapshot.segments(&reading.reader).await.unwrap()
    };
    let size = file.len() as u64;
    let (mut exact, mut unavailable) = (0, 0);
    for seed in 0..32 {
        let mut dice = ByteStream::new(1_000 + seed);
        let mut conducts: BTreeMap<PublicKey, Conduct> = BTreeMap::new();
        let share = 1 + dice.below(9);
        for provider in &world.providers {
            let is_bad = dice.below(10) < share;
            let kind = usize::try_from(dice.below(Conduct::ALL.len() as u64)).unwrap();
            let conduct = if is_bad { Conduct::ALL[kind] } else { Conduct::Honest };
            provider.shelf.behave(conduct);
            conducts.insert(provider.key(), conduct);
        }
        let proves =
            |provider: &PublicKey| matches!(conducts[provider], Conduct::Honest | Conduct::WrongAtFirst);
        let enough =
            segments.iter().all(|segment| segment.holders().filter(proves).count() >= segment.scheme.data());
        let network = stranger_within(limits());
        let start = dice.below(size);
        let end = if dice.below(3) == 0 { size } else { (start + 1 + dice.below(300_000)).min(size) };
        let told = format!("seed {seed}, {start}..{end}, {conducts:?}");
        let read = match world.try_read(pushed.version, network.clone()).await {
            Ok(reading) => reading.cat("big.bin", start..end).await,
            Err(SnapshotError::Read(error)) => Err(CatError::Read(error)),
            Err(error) => panic!("{told}: {error}"),
        };
        match read {
            Ok(bytes) => {
                exact += 1;
                let expected = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                assert!(bytes[..] == file[expected], "{told}");
            }
            Err(CatError::Read(error)) if is_unavailable(&error) && !enough => unavailable += 1,
            Err(error) => panic!("{told}: {error}"),
        }
        network.settle(Duration::from_secs(5)).await;
        for finding in network.findings() {
            let conduct = conducts[&finding.provider];
            let deserved = match finding.verdict {
                Verdict::Liar { .. } => conduct == Conduct::Lies,
                Verdict::Rotten => conduct == Conduct::Rotten,
                Verdict::Absent => conduct == Conduct::Absent,
                Verdict::Suspect => conduct == Conduct::WrongAtFirst,
                Verdict::Evasive => {
                    matches!(conduct, Conduct::Evades | Conduct::Garbage | Conduct::Half | Conduct::Drips)
                }
                Verdict::WriterFault => false,
            };
            assert!(deserved, "{told}: {finding:?}");
        }
    }
    assert!(exact > 12 && unavailable > 2, "{exact} {unavailable}");
}
