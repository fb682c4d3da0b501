//! What the books hold and say: plain records that cross the steward's socket as JSON.
//!
//! Times are seconds since 1970, lengths are bytes, and byte strings are hex.

use seedbank_agreement::Address;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::numbered::NumberedTree;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
use serde::{Deserialize, Serialize};

/// What a provider says of itself, as last heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderProfile {
    /// Its identity, by which it is dialled.
    pub key: PublicKey,
    /// Where it was last reached: a hint.
    pub address: String,
    /// Who runs it, as declared.
    pub operator: String,
    /// Where it stands, as declared.
    pub region: String,
    /// What it offers in all.
    pub capacity_bytes: u64,
    /// What it has left.
    pub free_bytes: u64,
    /// Whether it takes new fragments.
    pub accepting: bool,
}

/// What we saw of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderStats {
    /// When it last answered.
    pub last_seen: Option<Timestamp>,
    /// Requests counted.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Requests that failed since the last answer.
    pub failures_in_row: u64,
    /// Answers that were proven wrong.
    pub lies: u64,
    /// Smoothed latency in microseconds; 0 before the first answer.
    pub latency_us: u64,
    /// Smoothed deviation from it in microseconds.
    pub latency_deviation_us: u64,
}

/// A provider as the books know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// What it says of itself.
    pub profile: ProviderProfile,
    /// What we saw of it.
    pub stats: ProviderStats,
    /// When it was added.
    pub added: Timestamp,
    /// How it came into the books.
    pub source: ProviderSource,
    /// Its wallet, when the registry of providers lists it.
    pub wallet: Option<Address>,
    /// Whether it takes nothing new by the registry's word.
    pub leaving: bool,
}

/// How a provider came into the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderSource {
    /// A person, or a recovery, added it.
    Hand,
    /// It was found in the registry of providers.
    Registry,
}

/// A provider as the registry lists it, after its key gave its word for its wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredProvider {
    /// By which it is dialled.
    pub key: PublicKey,
    /// Whose entry it is.
    pub wallet: Address,
    /// Where it says that it is reached.
    pub address: String,
    /// It takes nothing new.
    pub leaving: bool,
    /// What it said when it was greeted there. One that the books don't know comes in with it, and not without.
    pub greeted: Option<ProviderProfile>,
}

/// How one request to a provider went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// It answered.
    Answered {
        /// After so many microseconds.
        latency_us: u64,
    },
    /// It did not answer, or with an error of its own.
    Failed,
    /// It answered with bytes that were proven wrong.
    Lied,
}

/// One request to a provider, for its statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// The provider.
    pub provider: PublicKey,
    /// How it went.
    pub outcome: Outcome,
}

/// A dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Its id, fixed at creation.
    pub id: DatasetId,
    /// Its name here: a pointer, which may change.
    pub name: String,
    /// The salt that makes the id together with the owner's key.
    #[serde(with = "hex::array")]
    pub salt: [u8; 32],
    /// Its owner.
    pub owner: PublicKey,
    /// The key epoch that seals new data.
    pub epoch: KeyEpoch,
    /// Whether its key is published.
    pub public: bool,
    /// Its policy, in the policy's own format; the books don't look inside.
    #[serde(with = "hex")]
    pub policy: Vec<u8>,
    /// When it was created.
    pub created: Timestamp,
}

/// What a dataset takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Versions.
    pub versions: u64,
    /// Segments, without doomed ones.
    pub segments: u64,
    /// Sealed bytes of those, before coding.
    pub sealed_bytes: u64,
    /// Sealed bytes of those that a version needs, as of the last collection and the commits since.
    pub live_bytes: u64,
    /// Bytes that providers hold, all fragments together.
    pub stored_bytes: u64,
    /// Fragments that no provider holds.
    pub missing_fragments: u64,
}

/// A version and where its pages lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRecord {
    /// Its number in the dataset's version list.
    pub ordinal: u64,
    /// Its id.
    pub id: VersionId,
    /// Where the signed version lies.
    pub version: Place,
    /// Where its tree's root page and that page's layout lie.
    pub tree: ChildPlace,
    /// Sealed bytes that it added, metadata included.
    pub new_bytes: u64,
    /// Bytes that it added on all providers together.
    pub stored_bytes: u64,
    /// When it was made.
    pub time: Timestamp,
    /// What its author says of it.
    pub message: String,
}

/// A named version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefRecord {
    /// Its number in the dataset's ref list.
    pub slot: u64,
    /// Its name.
    pub name: String,
    /// Whether it moves.
    pub kind: RefKind,
    /// What it names.
    pub version: VersionId,
}

/// One of the lists that are published as pages under dense numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberedList {
    /// Segment number -> placement.
    Map,
    /// Ordinal -> version.
    Versions,
    /// Slot -> ref.
    Refs,
}

impl From<NumberedList> for NumberedTree {
    fn from(list: NumberedList) -> NumberedTree {
        match list {
            NumberedList::Map => NumberedTree::Map,
            NumberedList::Versions => NumberedTree::Versions,
            NumberedList::Refs => NumberedTree::Refs,
        }
    }
}

/// How many numbers of each list were given out. They are never taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Segment numbers.
    pub segments: u64,
    /// Ordinals of versions.
    pub versions: u64,
    /// Slots of refs.
    pub refs: u64,
}

/// Where one page of a numbered list lies now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberedPage {
    /// The list.
    pub list: NumberedList,
    /// 0 for leaves.
    pub level: u8,
    /// The page's number in its level.
    pub page: u64,
    /// Where it lies, and its hash.
    pub link: Link,
}

/// An entry of a numbered list that differs from what the newest head says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The list.
    pub list: NumberedList,
    /// The entry's number in it. The entry may be gone.
    pub number: u64,
}

/// Counts what happened to a dataset, so that "since then" has a meaning without clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChangeNumber(pub u64);

/// A running push (or repair, or compaction), and what it may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

/// A push that may start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Its lease.
    pub lease: LeaseId,
    /// The branch's version; `None` when there is none yet.
    pub parent: Option<VersionRecord>,
    /// The first of the segment numbers that were set aside for it.
    pub first_segment: SegmentNumber,
}

/// A lease, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The dataset.
    pub dataset: DatasetId,
    /// Who holds it, as told.
    pub owner: String,
    /// A collection after this time may end it.
    pub until: Timestamp,
}

/// What a commit builds on. It fails when any of this has changed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitBase {
    /// The branch, if a version is to be committed.
    pub branch: Option<BranchBase>,
    /// The new version's number in the version list.
    pub ordinal: u64,
    /// The new head's sequence.
    pub sequence: u64,
    /// What was given out by the newest head, whose pages are what [`crate::Books::pages`] says.
    pub published: Counts,
    /// What is given out by the new one, its version and branch included. Give it back as [`Commit::counts`].
    pub counts: Counts,
    /// Entries whose pages the commit must write, beside those of its own version and branch.
    pub changes: Vec<Change>,
    /// What to give back as [`Commit::through`].
    pub through: ChangeNumber,
}

/// The branch that a commit moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchBase {
    /// Its number in the ref list, or the one that it will get.
    pub slot: u64,
    /// Its version; `None` when there is none yet.
    pub parent: Option<VersionId>,
}

/// A signed head and the segments without which it can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadRecord {
    /// Its sequence.
    pub sequence: u64,
    /// Its bytes.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// Segments that it names: they are never collected while it is the newest.
    pub segments: Vec<SegmentNumber>,
}

/// A head that too few providers have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingHead {
    /// The dataset.
    pub dataset: DatasetId,
    /// The head's sequence.
    pub sequence: u64,
    /// The head's bytes.
    #[serde(with = "hex")]
    pub bytes: Vec<u8>,
    /// Providers that have it.
    pub published: Vec<PublicKey>,
}

/// A version to be committed, and the branch that moves to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    /// The version.
    pub record: VersionRecord,
    /// The branch; made when it does not exist.
    pub branch: String,
    /// The branch as the base told it.
    pub base: BranchBase,
}

/// Where a version's pages lie after compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relocation {
    /// The version.
    pub version: VersionId,
    /// Where the signed version lies now.
    pub place: Place,
    /// Where its tree's root page and that page's layout lie now.
    pub tree: ChildPlace,
}

/// By how much a segment's live bytes change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveDelta {
    /// The segment.
    pub segment: SegmentNumber,
    /// Sealed bytes that came to life (or, negative, died).
    pub bytes: i64,
}

/// A version whose pages a commit uses again. What it reaches is kept as long as it exists, and its pages lie where they
/// lay as long as its tree does: a compaction that moves anything below writes the layouts above anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reliance {
    /// The version.
    pub version: VersionId,
    /// Where its tree's root page and that page's layout lay when they were read.
    pub tree: ChildPlace,
}

/// Everything that becomes true at once when a push, a repair or a compaction ends well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The dataset.
    pub dataset: DatasetId,
    /// The lease, which ends with it.
    pub lease: LeaseId,
    /// The new version; `None` for a repair or compaction, which publish the same versions anew.
    pub version: Option<NewVersion>,
    /// The version whose pages are used again, if any are.
    pub relies_on: Option<Reliance>,
    /// Versions whose pages moved.
    pub relocations: Vec<Relocation>,
    /// Pages of numbered lists that were written.
    pub pages: Vec<NumberedPage>,
    /// The next head.
    pub head: HeadRecord,
    /// From the base: what is given out by that head.
    pub counts: Counts,
    /// From the base: changes up to this one are in those pages.
    pub through: ChangeNumber,
    /// Segments whose live bytes change. New segments start with all their bytes alive and need no entry.
    pub live: Vec<LiveDelta>,
}

/// A version found by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolved {
    /// The version.
    pub version: VersionRecord,
    /// The ref that named it; `None` when it was named by its id.
    pub by: Option<RefRecord>,
}

/// Who holds a fragment, and until when it promised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// The provider.
    pub provider: PublicKey,
    /// The end of our claim there.
    pub until: Timestamp,
}

/// Names one fragment: by its place in its segment, never by its id, which copies share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FragmentKey {
    /// The dataset.
    pub dataset: DatasetId,
    /// The segment.
    pub segment: SegmentNumber,
    /// The fragment's index.
    pub index: u8,
}

/// A claim that ends soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DueClaim {
    /// Which fragment.
    pub key: FragmentKey,
    /// Its id.
    pub fragment: FragmentId,
    /// Who holds it until when.
    pub holding: Holding,
}

impl DueClaim {
    /// Where it stands among due claims.
    #[must_use]
    pub fn position(&self) -> DuePosition {
        DuePosition { until: self.holding.until, key: self.key }
    }
}

/// Where a claim stands among due claims: what to ask behind for those that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuePosition {
    /// When it ends.
    pub until: Timestamp,
    /// The fragment.
    pub key: FragmentKey,
}

/// A claim that was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewedClaim {
    /// Which fragment.
    pub key: FragmentKey,
    /// Who holds it until when, by the provider's receipt.
    pub holding: Holding,
}

/// A fragment that nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingFragment {
    /// Which fragment.
    pub key: FragmentKey,
    /// Its id.
    pub fragment: FragmentId,
}

/// What the steward has to do when nobody waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Find holders for the segment's fragments that have none.
    CompleteFragments {
        /// The dataset.
        dataset: DatasetId,
        /// The segment.
        segment: SegmentNumber,
    },
    /// Give the newest head to the providers that should have it.
    PublishHead {
        /// The dataset.
        dataset: DatasetId,
    },
    /// Renew our claims at this provider that end soon.
    RenewClaims {
        /// The provider.
        provider: PublicKey,
    },
    /// Tell the provider that we no longer need these fragments.
    ReleaseClaims {
        /// The provider.
        provider: PublicKey,
        /// At most [`RELEASE_BATCH_MAX`].
        fragments: Vec<FragmentId>,
        /// When that was decided. What is stored there anew since is wanted.
        asked: Asked,
    },
}

/// A provider takes so many claim actions in one request.
pub const RELEASE_BATCH_MAX: usize = 1000;

/// A job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// Something to do, and how it went so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What to do.
    pub work: Work,
    /// Not before this time.
    pub not_before: Timestamp,
    /// How often it failed.
    pub attempts: u32,
    /// How it failed last.
    pub last_error: Option<String>,
}

/// The moment from which a collection looks at a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Segments used after this stay.
    pub change: ChangeNumber,
    /// Segments from this one on stay.
    pub next_segment: SegmentNumber,
}

/// What the retained versions need of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveBytes {
    /// The segment.
    pub segment: SegmentNumber,
    /// Sealed bytes of the items that are reachable.
    pub bytes: u64,
}

/// What a collection did and what compaction should do next.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collected {
    /// Segments that are no more; forget them in the index. Jobs release their fragments.
    pub doomed: Vec<SegmentNumber>,
    /// Segments of which less than half lives: write their live items anew.
    pub rewrite: Vec<LiveBytes>,
    /// Dead segments that stay for now, since a push relies on them or they are newer than the snapshot.
    pub spared: u64,
}

/// What was removed with a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// Versions that are no more.
    pub versions: u64,
    /// Segments whose fragments jobs now release.
    pub segments: u64,
}

/// A dataset, or a part of it, as a checkpoint tells it. Parts may come in any number of requests and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restoration {
    /// The dataset; made by the first part.
    pub dataset: Dataset,
    /// What was given out.
    pub counts: Counts,
    /// In the first part: the sequence of the head that all parts are told by. When the books know an older one only, they
    /// are an old copy, and forget what they know of the dataset's content before this part: the head knows better what
    /// is there, where, and what was removed.
    pub begins: Option<u64>,
    /// Segments, all of them committed.
    pub segments: Vec<SegmentPlacement>,
    /// Versions.
    pub versions: Vec<VersionRecord>,
    /// Refs, whose versions must be known by now.
    pub refs: Vec<RefRecord>,
    /// Pages of numbered lists.
    pub pages: Vec<NumberedPage>,
    /// The head.
    pub head: Option<HeadRecord>,
}

/// A fragment as an agreement's set has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetItem {
    /// The fragment.
    pub fragment: FragmentId,
    /// Its length in bytes.
    pub length: u64,
}

/// Whether a provider is paid for more than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementState {
    /// It is paid for what it proves.
    Open,
    /// It was given up: nothing new is placed there.
    Stopped,
}

/// What is agreed with one provider about pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// The provider.
    pub provider: PublicKey,
    /// Its number in the market; `None` until the provider has opened it there.
    pub id: Option<u32>,
    /// The last revision that the provider is known to hold.
    pub sequence: u32,
    /// Fragments of its set.
    pub fragments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last terms with both signatures, as the payer wrote them: the books don't look inside.
    pub signed: Option<String>,
    /// What was asked of the provider and not answered yet. It may have signed.
    pub pending: Option<PendingRevision>,
    /// Whether more is placed there.
    pub state: AgreementState,
}

/// What a provider was asked to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingRevision {
    /// Its sequence.
    pub sequence: u32,
    /// The request, as the payer wrote it: the books don't look inside.
    pub request: String,
}

/// What would make an agreed set that which the provider holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDraft {
    /// What comes in, by id.
    pub added: Vec<SetItem>,
    /// What goes out, by id.
    pub removed: Vec<FragmentId>,
    /// Whether there is more than the limit.
    pub more: bool,
    /// The root of the set that comes of it.
    #[serde(with = "hex::array")]
    pub root: [u8; 32],
    /// Its bytes.
    pub bytes: u64,
    /// Its fragments.
    pub fragments: u64,
}

/// A revision (or, for sequence 0, the first proposal) that a provider is about to be asked to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRevision {
    /// The provider.
    pub provider: PublicKey,
    /// Its sequence. The books' present one is one less, but for a proposal.
    pub sequence: u32,
    /// What comes in.
    pub added: Vec<SetItem>,
    /// What goes out.
    pub removed: Vec<FragmentId>,
    /// The request, as the payer wrote it.
    pub request: String,
}

/// What became of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RevisionEnd {
    /// The provider holds it.
    Signed {
        /// The agreement's number in the market.
        id: u32,
        /// The terms with both signatures, as the payer wrote them.
        signed: String,
    },
    /// The provider holds what it held before.
    Refused,
}

/// A provider's set that somebody is taking in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    /// Whose set.
    pub provider: PublicKey,
    /// Tells it from those that others begin.
    pub number: i64,
}

/// The terms whose set was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptedTerms {
    /// The agreement's number in the market.
    pub id: u32,
    /// Their sequence.
    pub sequence: u32,
    /// The root of their set.
    #[serde(with = "hex::array")]
    pub root: [u8; 32],
    /// Its bytes.
    pub bytes: u64,
    /// The terms, as the payer wrote them.
    pub signed: String,
}

/// What became of a set that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdoptionEnd {
    /// It is the agreement's set in these books now.
    Adopted,
    /// It is not the set of these terms: dropped.
    OtherSet,
}

/// Bytes as hex.
pub(crate) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| de::Error::custom("expected an even number of hex digits"))
    }

    pub(crate) fn text(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn parse(text: &str) -> Option<Vec<u8>> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
        if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
    }

    /// A fixed number of bytes as hex.
    pub(crate) mod array {
        use serde::{Deserializer, Serializer, de};

        pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
            super::serialize(bytes, serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
            let bytes = super::deserialize(deserializer)?;
            bytes.try_into().map_err(|_| de::Error::custom("expected 64 hex digits"))
        }
    }
}
