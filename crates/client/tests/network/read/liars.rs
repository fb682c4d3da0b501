//! Providers that are wrong in every way there is: the bytes come out right, and the verdict is what the provider signed
//! for, no more and no less.

use super::provider::{Conduct, spoilt};
use super::world::{FOR_EVER, Reading, Segment, World, chunks, patient, stranger};
use super::writer::{Writer, copies, file, ids};
use seedbank_client::RangeError;
use seedbank_client::dataset::Visibility;
use seedbank_client::network::{Finding, Network};
use seedbank_client::pull::CatError;
use seedbank_client::reader::ReadError;
use seedbank_erasure::Scheme;
use seedbank_formats::layout::LayoutPage;
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::receipt::{Answer, Statement};
use seedbank_formats::tree::Content;
use seedbank_formats::{FragmentId, slice};
use seedbank_protocol::read_exchange::Verdict;
use seedbank_testkit::ByteStream;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A version of one file, and a reader that has its metadata already.
struct Scene {
    world: World,
    file: Vec<u8>,
    reading: Reading,
    segment: Segment,
}

impl Scene {
    /// Nobody is outrun by a hedge before it has lied.
    async fn new(seed: u64) -> Scene {
        Scene::read_by(seed, patient(FOR_EVER)).await
    }

    async fn read_by(seed: u64, network: Arc<Network>) -> Scene {
        let world = World::start(4, 8, Visibility::Private).await;
        let file = ByteStream::bytes(seed, 2_000_000);
        let pushed = world.push_files(&[("big.bin", &file)]).await;
        let reading = world.try_read(pushed.version, network).await.unwrap();
        let segment = reading.data_segment(&world).await;
        reading.cat("big.bin", 1_999_999..2_000_000).await.unwrap();
        Scene { world, file, reading, segment }
    }

    fn fragments(&self) -> Vec<FragmentId> {
        ids(&self.segment.placement)
    }

    /// The holder of a fragment misbehaves about this segment.
    fn misbehave(&self, index: usize, conduct: Conduct) {
        self.world.provider(self.segment.holder(index)).shelf.behave_about(conduct, self.fragments());
    }

    /// Reads all that fragment 0 has of the file, and what was found out thereby.
    async fn findings(&self) -> Vec<Finding> {
        let end = self.segment.fragment_len();
        let read = self.reading.cat("big.bin", 0..end).await.unwrap();
        assert!(read[..] == self.file[..usize::try_from(end).unwrap()]);
        self.reading.network.settle(PATIENCE).await;
        self.reading.network.findings()
    }
}

/// Checks a liar's evidence as a third party would, who has nothing but the finding and the fragment's length.
fn proves_a_lie(finding: &Finding, fragment_len: u64) -> bool {
    let (Some(statement), Some(given)) = (&finding.statement, &finding.slice) else { return false };
    let statement = Statement::check(statement).unwrap();
    assert_eq!((statement.provider, statement.fragment), (finding.provider, finding.fragment));
    assert_eq!(statement.answer, Answer::Slice(FragmentId::of(given).0));
    let range = statement.start..statement.end;
    slice::verify(&statement.fragment, fragment_len, &range, given).is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_wrong_bytes_are_evidence_that_anyone_can_check() {
    let scene = Scene::new(21).await;
    scene.misbehave(0, Conduct::Lies);
    let findings = scene.findings().await;
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!(finding.provider, scene.segment.holder(0));
    assert!(matches!(finding.verdict, Verdict::Liar { .. }));
    assert!(proves_a_lie(finding, scene.segment.fragment_len()));
    // Known to be without it, the liar is not asked again: no matter how often it would lie.
    let asked = scene.reading.network.traffic.asked()[&scene.segment.holder(0)];
    assert_eq!(scene.findings().await.len(), 1);
    assert_eq!(scene.reading.network.traffic.asked()[&scene.segment.holder(0)], asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admitted_rot_and_admitted_absence_are_told_as_signed() {
    for (conduct, verdict, answer) in [
        (Conduct::Rotten, Verdict::Rotten, Answer::Rotten),
        (Conduct::Absent, Verdict::Absent, Answer::Absent),
    ] {
        let scene = Scene::new(22).await;
        scene.misbehave(0, conduct);
        let findings = scene.findings().await;
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.provider, finding.verdict), (scene.segment.holder(0), verdict));
        let statement = Statement::check(finding.statement.as_ref().unwrap()).unwrap();
        assert_eq!((statement.answer, statement.fragment), (answer, scene.fragments()[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_signed_word_nobody_is_accused() {
    for (conduct, verdict) in [(Conduct::WrongAtFirst, Verdict::Suspect), (Conduct::Evades, Verdict::Evasive)]
    {
        let scene = Scene::new(23).await;
        scene.misbehave(0, conduct);
        let findings = scene.findings().await;
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.provider, finding.verdict), (scene.segment.holder(0), verdict));
        assert_eq!((&finding.statement, &finding.slice), (&None, &None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_half_answers_silence_and_refusals_are_read_around_without_blame() {
    for conduct in [Conduct::Half, Conduct::Stalls, Conduct::Drips, Conduct::Refuses] {
        let scene = Scene::read_by(24, stranger()).await;
        scene.misbehave(0, conduct);
        assert_eq!(scene.findings().await, [], "{conduct:?}");
        assert!(scene.reading.moved().decodes > 0, "{conduct:?}");
    }
    // Garbage is asked about, and garbage is no word.
    let scene = Scene::new(24).await;
    scene.misbehave(0, Conduct::Garbage);
    let findings = scene.findings().await;
    assert!(findings.iter().all(|finding| finding.verdict == Verdict::Evasive), "{findings:?}");
}

/// The chunk that lies across the border of the first two fragments.
fn across(scene: &Scene) -> std::ops::Range<u64> {
    let border = scene.segment.fragment_len();
    let items = scene.segment.items.iter();
    let position = items.clone().position(|item| u64::from(item.offset + item.sealed_len) > border).unwrap();
    assert!(u64::from(scene.segment.items[position].offset) < border, "a chunk lies across the border");
    let chunk = &chunks(&scene.file)[position];
    chunk.start..chunk.start + chunk.bytes.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_fragments_only_the_wrong_one_s_holder_is_blamed() {
    for wrong in [0, 1] {
        for (conduct, is_signed) in
            [(Conduct::Lies, true), (Conduct::WrongAtFirst, false), (Conduct::Evades, false)]
        {
            let scene = Scene::new(25).await;
            let range = across(&scene);
            scene.misbehave(wrong, conduct);
            let read = scene.reading.cat("big.bin", range.clone()).await.unwrap();
            let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
            assert!(read[..] == scene.file[start..end]);
            scene.reading.network.settle(PATIENCE).await;
            let findings = scene.reading.network.findings();
            let [finding] = &findings[..] else { panic!("{conduct:?}: {findings:?}") };
            assert_eq!(finding.provider, scene.segment.holder(wrong), "{conduct:?}");
            assert_eq!(finding.statement.is_some(), is_signed, "{conduct:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_neighbour_that_can_not_be_asked_again_is_not_blamed_either() {
    let scene = Scene::new(26).await;
    let range = across(&scene);
    scene.misbehave(0, Conduct::Lies);
    // Right bytes at first, and then no proof: nobody but the liar may be found wrong.
    scene.misbehave(1, Conduct::HonestUntilAsked);
    scene.reading.cat("big.bin", range).await.unwrap();
    scene.reading.network.settle(PATIENCE).await;
    let findings = scene.reading.network.findings();
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!(finding.provider, scene.segment.holder(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lying_sources_of_a_decode_are_named_and_replaced() {
    let mut scene = Scene::new(27).await;
    let gone = scene.segment.holder(0);
    scene.world.kill(gone).await;
    // Whichever four are asked first, two of the seven lie and one rotted: four honest ones are left.
    scene.misbehave(2, Conduct::Lies);
    scene.misbehave(4, Conduct::Lies);
    scene.misbehave(6, Conduct::Rotten);
    let findings = scene.findings().await;
    for finding in &findings {
        let index = scene.fragments().iter().position(|fragment| *fragment == finding.fragment).unwrap();
        assert_eq!(finding.provider, scene.segment.holder(index));
        match finding.verdict {
            Verdict::Liar { .. } => {
                assert!(index == 2 || index == 4);
                assert!(proves_a_lie(finding, scene.segment.fragment_len()));
            }
            verdict => assert_eq!((verdict, index), (Verdict::Rotten, 6)),
        }
    }
    assert!(!findings.is_empty());
}

/// A segment of one file, whose bytes are changed before and after coding.
fn spoilt_by_its_writer(
    world: &World,
    scheme: Scheme,
    spoil_segment: impl Fn(&mut [u8]),
    spoil_fragments: impl Fn(&mut Vec<Vec<u8>>),
) -> (Vec<u8>, Reading) {
    let bytes = ByteStream::bytes(28, 900_000);
    let mut writer = Writer::new(world);
    let mut draft = writer.draft();
    let placed: Vec<(ChunkRef, Place)> = bytes.chunks(90_000).map(|chunk| draft.chunk(chunk)).collect();
    writer.store_spoilt(draft, scheme, |segment| spoil_segment(&mut segment.bytes), spoil_fragments);
    let layout = LayoutPage::describe(placed.iter().map(|(_, place)| *place), []);
    let content = Content::Chunks(placed.iter().map(|(chunk, _)| *chunk).collect());
    let reading = writer.version(vec![("big.bin", file(900_000, content))], &layout);
    (bytes, reading)
}

fn is_writer_fault<T>(read: &Result<T, CatError>) -> bool {
    matches!(read, Err(CatError::Read(ReadError::Range(RangeError::WriterFault { .. }))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_writer_sealed_wrongly_is_never_a_provider_s_fault() {
    let world = World::start(4, 8, Visibility::Private).await;
    for scheme in [Scheme::new(4, 8).unwrap(), copies()] {
        // One bit in the middle of the first chunk, before anything was coded.
        let (bytes, reading) = spoilt_by_its_writer(&world, scheme, |segment| segment[45_000] ^= 1, |_| {});
        let read = reading.cat("big.bin", 0..10).await;
        assert!(is_writer_fault(&read), "{read:?}");
        reading.network.settle(PATIENCE).await;
        assert_eq!(reading.network.findings(), []);
        assert!(reading.cat("big.bin", 90_000..900_000).await.unwrap() == bytes[90_000..]);
        // The chunk across a border: all parts are as written, and nobody is blamed.
        let at = |segment: &mut [u8]| segment[segment.len() / 4 + 10] ^= 1;
        let (_, reading) = spoilt_by_its_writer(&world, scheme, at, |_| {});
        let read = reading.cat("big.bin", 0..900_000).await;
        assert!(is_writer_fault(&read), "{read:?}");
        reading.network.settle(PATIENCE).await;
        assert_eq!(reading.network.findings(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragment_that_its_writer_damaged_after_coding_is_decoded_around() {
    let world = World::start(4, 8, Visibility::Private).await;
    let scheme = Scheme::new(4, 8).unwrap();
    let damage = |fragments: &mut Vec<Vec<u8>>| fragments[0] = spoilt(&fragments[0]);
    let (bytes, reading) = spoilt_by_its_writer(&world, scheme, |_| {}, damage);
    assert!(reading.cat("big.bin", 0..900_000).await.unwrap() == bytes);
    reading.network.settle(PATIENCE).await;
    assert_eq!(reading.network.findings(), []);
}
