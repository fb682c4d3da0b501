//! Everything the books can be asked, in one table: it makes the [`Request`]s, their [`Response`]s, the typed front
//! [`Books`] and the way from a request to the code that answers it, so that the four can't drift apart.

use crate::error::CatalogError;
use crate::records::{
    AdoptedTerms, Adoption, AdoptionEnd, Agreement, AgreementState, Change, Collected, Commit, CommitBase,
    Contact, Dataset, DueClaim, DuePosition, FragmentKey, Holding, Job, JobId, Lease, LeaseId, LiveBytes,
    MissingFragment, NewRevision, NumberedList, NumberedPage, PendingHead, Provider, ProviderProfile, Push,
    RefRecord, RegisteredProvider, Removed, RenewedClaim, Resolved, Restoration, RevisionEnd, SetDraft,
    SetItem, Snapshot, Usage, VersionRecord, Work, hex,
};
use crate::turn::Turn;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
use serde::{Deserialize, Serialize};

/// A way to whoever keeps the books: the catalog in this process, or the steward's socket.
pub trait Carrier {
    /// Has a request answered. Times out by itself: the caller waits.
    ///
    /// # Errors
    /// What the books say, or [`CatalogError::Unreachable`].
    fn call(&self, request: Request) -> Result<Response, CatalogError>;
}

impl<C: Carrier + ?Sized> Carrier for &C {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        (**self).call(request)
    }
}

impl<C: Carrier + ?Sized> Carrier for std::sync::Arc<C> {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        (**self).call(request)
    }
}

impl<C: Carrier + ?Sized> Carrier for Box<C> {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        (**self).call(request)
    }
}

macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])*
        $variant:ident: $method:ident($($(#[$field:meta])? $arg:ident: $ty:ty),*) -> $answer:ty;
    )*) => {
        /// A question or an order to the books.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        pub enum Request {
            $(
                $(#[doc = $doc])*
                $variant {
                    $(
                        #[doc = concat!("As in [`Books::", stringify!($method), "`].")]
                        $(#[$field])?
                        $arg: $ty,
                    )*
                },
            )*
        }

        /// The answer to the [`Request`] of the same name.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Response {
            $(
                #[doc = concat!("Answers [`Request::", stringify!($variant), "`].")]
                $variant($answer),
            )*
        }

        /// The books, as a caller uses them. Every carrier has these methods.
        ///
        /// Each may also fail with [`CatalogError::Disk`], [`CatalogError::Corrupt`] and [`CatalogError::Unreachable`],
        /// and with [`CatalogError::NoSuchDataset`] when it takes a dataset.
        pub trait Books: Carrier {
            $(
                $(#[doc = $doc])*
                fn $method(&self, $($arg: $ty),*) -> Result<$answer, CatalogError> {
                    match self.call(Request::$variant { $($arg),* })? {
                        Response::$variant(answer) => Ok(answer),
                        _ => Err(CatalogError::Unreachable {
                            message: concat!("the answer is not one to ", stringify!($method)).to_owned(),
                        }),
                    }
                }
            )*
        }

        /// Has a request answered in an open transaction.
        pub(crate) fn answer(turn: &Turn<'_>, request: Request) -> Result<Response, CatalogError> {
            match request {
                $(Request::$variant { $($arg),* } => turn.$method($($arg),*).map(Response::$variant),)*
            }
        }
    };
}

impl<C: Carrier + ?Sized> Books for C {}

operations! {
    /// Remembers a text under a key, such as the owner's public key.
    PutSetting: put_setting(key: String, value: String) -> ();
    /// The text under a key.
    Setting: setting(key: String) -> Option<String>;

    /// Adds a provider by hand, or updates what it says of itself; one that was removed before is taken back.
    PutProvider: put_provider(profile: ProviderProfile) -> ();
    /// Updates what a provider says of itself, but for its address. Nothing happens to one that is unknown: it may just have been
    /// removed.
    HearProvider: hear_provider(profile: ProviderProfile) -> ();
    /// Takes in what the registry of providers lists, and says how many providers are new. Those that the owner removed stay
    /// removed. An address that a person gave is replaced only when nobody answers there.
    MergeRegistered: merge_registered(entries: Vec<RegisteredProvider>) -> u64;
    /// Providers that the owner removed.
    RemovedProviders: removed_providers() -> Vec<PublicKey>;
    /// All providers, by key.
    Providers: providers() -> Vec<Provider>;
    /// Counts how requests to providers went. Contacts with unknown providers are ignored: they may just have been removed.
    RecordContacts: record_contacts(contacts: Vec<Contact>) -> ();
    /// Notes that a provider no longer holds anything for us; jobs find other holders. Says how many fragments that are.
    ForgetHoldings: forget_holdings(provider: PublicKey) -> u64;
    /// The same for some fragments. Those that it does not hold by the books are ignored.
    LoseFragments: lose_fragments(provider: PublicKey, fragments: Vec<FragmentId>) -> u64;
    /// Removes a provider, after [`Books::forget_holdings`]; [`CatalogError::NoSuchProvider`].
    RemoveProvider: remove_provider(provider: PublicKey) -> u64;

    /// Creates a dataset; [`CatalogError::NameTaken`], [`CatalogError::InvalidName`].
    CreateDataset: create_dataset(dataset: Dataset) -> ();
    /// Finds a dataset by its name or its whole id.
    Dataset: dataset(name: String) -> Dataset;
    /// All datasets, by name.
    Datasets: datasets() -> Vec<Dataset>;
    /// Gives a dataset another name; [`CatalogError::NameTaken`], [`CatalogError::InvalidName`].
    RenameDataset: rename_dataset(dataset: DatasetId, name: String) -> ();
    /// Replaces a dataset's policy.
    SetPolicy: set_policy(dataset: DatasetId, #[serde(with = "hex")] policy: Vec<u8>) -> ();
    /// Sets the key epoch that seals new data.
    SetEpoch: set_epoch(dataset: DatasetId, epoch: KeyEpoch) -> ();
    /// Removes a dataset with all its versions; jobs release its fragments. Pushes to it lose their lease.
    RemoveDataset: remove_dataset(dataset: DatasetId) -> Removed;
    /// What a dataset takes. Reads all its segments' rows.
    Usage: usage(dataset: DatasetId) -> Usage;

    /// Starts a push to a branch (or a repair, or a compaction): a lease of `hold_seconds`, and `reserve` segment numbers.
    /// `owner` tells people who it is. [`CatalogError::InvalidName`], [`CatalogError::TagFixed`].
    BeginPush: begin_push(
        dataset: DatasetId, branch: String, owner: String, hold_seconds: u64, reserve: u64
    ) -> Push;
    /// Sets `count` more segment numbers aside and says the first of them. Unused ones are lost.
    AllocateSegments: allocate_segments(lease: LeaseId, count: u64) -> SegmentNumber;
    /// Extends a lease to `hold_seconds` from now. One that ran out is good again if no collection came in between.
    RenewLease: renew_lease(lease: LeaseId, hold_seconds: u64) -> ();
    /// Notes durably that a segment's fragments are placed, with claims until `claims_until`. The lease pins it; it
    /// outlives the push until collected, so that an interrupted push may go on from there. May be repeated.
    RecordSegment: record_segment(lease: LeaseId, placement: SegmentPlacement, claims_until: Timestamp) -> ();
    /// Pins segments that the push deduplicates against; [`CatalogError::SegmentGone`] (nothing is pinned then).
    UseSegments: use_segments(lease: LeaseId, segments: Vec<SegmentNumber>) -> ();
    /// What the commit must build on. Take it when all data is recorded, before the metadata is written.
    CommitBase: commit_base(lease: LeaseId, branch: Option<String>) -> CommitBase;
    /// Makes everything in it true at once and ends the lease. Repeating one that succeeded succeeds.
    /// [`CatalogError::StaleParent`], [`CatalogError::StaleHead`], [`CatalogError::LeaseLost`],
    /// [`CatalogError::SegmentGone`], [`CatalogError::VersionGone`], [`CatalogError::NotDurable`],
    /// [`CatalogError::TagFixed`].
    Commit: commit(commit: Commit) -> ();
    /// Ends a push without a commit. What it recorded stays until collected. May be repeated.
    EndPush: end_push(lease: LeaseId) -> ();
    /// A dataset's leases.
    Leases: leases(dataset: DatasetId) -> Vec<Lease>;

    /// Placements of committed segments with numbers in `first..=last`, and of those that the lease records or uses:
    /// what belongs into a page of the placement map.
    SegmentsIn: segments_in(
        dataset: DatasetId, first: SegmentNumber, last: SegmentNumber, lease: Option<LeaseId>
    ) -> Vec<SegmentPlacement>;
    /// Placements of these segments, in this order; [`CatalogError::SegmentGone`].
    Placements: placements(dataset: DatasetId, segments: Vec<SegmentNumber>) -> Vec<SegmentPlacement>;
    /// Where the pages `first..=last` of one level of a numbered list lie, as far as they exist.
    Pages: pages(dataset: DatasetId, list: NumberedList, level: u8, first: u64, last: u64) -> Vec<NumberedPage>;
    /// The pages of a numbered list that lie in these segments.
    PagesIn: pages_in(
        dataset: DatasetId, list: NumberedList, segments: Vec<SegmentNumber>
    ) -> Vec<NumberedPage>;
    /// Entries of numbered lists that differ from what the newest head says.
    Changes: changes(dataset: DatasetId) -> Vec<Change>;
    /// Notes who holds a fragment, or that nobody does (a job then finds a holder). Says who held it before;
    /// [`CatalogError::SegmentGone`].
    SetHolder: set_holder(key: FragmentKey, holding: Option<Holding>) -> Option<PublicKey>;
    /// Fragments of committed segments that nobody holds, of one dataset or all.
    MissingFragments: missing_fragments(dataset: Option<DatasetId>, limit: u32) -> Vec<MissingFragment>;
    /// Claims that end before this time, of one dataset or all, soonest first, from behind a claim that was given before.
    DueClaims: due_claims(
        dataset: Option<DatasetId>, before: Timestamp, after: Option<DuePosition>, limit: u32
    ) -> Vec<DueClaim>;
    /// Those of these fragments, at most [`RELEASE_BATCH_MAX`](crate::records::RELEASE_BATCH_MAX), that the provider does not
    /// hold by the books.
    Unheld: unheld(provider: PublicKey, fragments: Vec<FragmentId>) -> Vec<FragmentId>;
    /// Notes renewed claims. Those on fragments that have moved or gone meanwhile are ignored.
    RenewClaims: renew_claims(claims: Vec<RenewedClaim>) -> ();

    /// A dataset's versions, newest first, from below the ordinal `before`.
    Versions: versions(dataset: DatasetId, before: Option<u64>, limit: u32) -> Vec<VersionRecord>;
    /// Finds a version by ref, by its whole id or by at least 8 digits of it; [`CatalogError::NoSuchVersion`],
    /// [`CatalogError::AmbiguousVersion`].
    Resolve: resolve(dataset: DatasetId, text: String) -> Resolved;
    /// Removes a version that no ref names; [`CatalogError::NoSuchVersion`], [`CatalogError::VersionInUse`].
    RemoveVersion: remove_version(dataset: DatasetId, version: VersionId) -> ();
    /// A dataset's refs, by name.
    Refs: refs(dataset: DatasetId) -> Vec<RefRecord>;
    /// Makes a branch or tag; [`CatalogError::NameTaken`], [`CatalogError::InvalidName`], [`CatalogError::NoSuchVersion`].
    CreateRef: create_ref(dataset: DatasetId, name: String, kind: RefKind, version: VersionId) -> RefRecord;
    /// Moves a branch from `from` (if given) to another version; [`CatalogError::StaleParent`],
    /// [`CatalogError::TagFixed`], [`CatalogError::NoSuchVersion`].
    MoveRef: move_ref(dataset: DatasetId, name: String, version: VersionId, from: Option<VersionId>) -> ();
    /// Deletes a branch or tag, not its version; [`CatalogError::NoSuchVersion`].
    DeleteRef: delete_ref(dataset: DatasetId, name: String) -> ();

    /// A dataset's newest head, and who has it.
    Head: head(dataset: DatasetId) -> Option<PendingHead>;
    /// Newest heads that fewer than `copies` providers have.
    PendingHeads: pending_heads(copies: u32) -> Vec<PendingHead>;
    /// Notes that a provider has a head.
    MarkPublished: mark_published(dataset: DatasetId, sequence: u64, provider: PublicKey) -> ();
    /// Datasets whose head is out of date and should be written anew without waiting for a commit.
    StaleHeads: stale_heads() -> Vec<DatasetId>;

    /// Segments that a lease pins.
    LeaseSegments: lease_segments(lease: LeaseId) -> Vec<SegmentNumber>;
    /// What is agreed with providers about pay, by provider.
    Agreements: agreements() -> Vec<Agreement>;
    /// Providers whose agreed set is not what they hold for committed segments, and, with a lease, for its own.
    Unagreed: unagreed(lease: Option<LeaseId>) -> Vec<PublicKey>;
    /// What would make a provider's agreed set that which it holds: up to `limit` fragments that come in, and as many that
    /// go out; with a lease, those only go out that go along with some that come in. Reads the whole set.
    DraftSet: draft_set(provider: PublicKey, lease: Option<LeaseId>, limit: u32) -> SetDraft;
    /// Notes what the provider is about to be asked to sign, before it is asked; [`CatalogError::StaleRevision`].
    BeginRevision: begin_revision(revision: NewRevision) -> ();
    /// Notes what became of it. Repeating one that succeeded succeeds; [`CatalogError::StaleRevision`].
    EndRevision: end_revision(provider: PublicKey, sequence: u32, end: RevisionEnd) -> ();
    /// Begins to take in the set that a provider keeps of an agreement that these books know less of. One that was begun
    /// before is dropped.
    BeginAdoption: begin_adoption(provider: PublicKey) -> Adoption;
    /// Takes in some of its fragments, which count for nothing yet. May be repeated; [`CatalogError::StaleRevision`] when
    /// another adoption was begun.
    Adopt: adopt(adoption: Adoption, items: Vec<SetItem>) -> ();
    /// Puts what was taken in in the place of what was known, if it is the set of these terms; otherwise nothing changes.
    /// [`CatalogError::StaleRevision`] also while a question to the provider waits for its answer.
    EndAdoption: end_adoption(adoption: Adoption, terms: AdoptedTerms) -> AdoptionEnd;
    /// Drops what was taken in. May be repeated.
    DropAdoption: drop_adoption(adoption: Adoption) -> ();
    /// Says whether anything new is placed with a provider and paid for. Nothing happens when there is no agreement.
    SetAgreementState: set_agreement_state(provider: PublicKey, state: AgreementState) -> ();
    /// Forgets an agreement that is closed on the chain. May be repeated.
    DropAgreement: drop_agreement(provider: PublicKey) -> ();

    /// Leaves something to do. The same work is kept once.
    AddJob: add_job(work: Work, not_before: Timestamp) -> JobId;
    /// Takes jobs that are due, for `hold_seconds`: then they are free again, in case the taker is no more. A release
    /// leaves out fragments that the provider holds by the books.
    TakeJobs: take_jobs(limit: u32, hold_seconds: u64) -> Vec<Job>;
    /// The job is done.
    FinishJob: finish_job(job: JobId) -> ();
    /// The job failed; it becomes due again, later each time.
    FailJob: fail_job(job: JobId, error: String) -> ();
    /// Jobs by due time, taken or not.
    Jobs: jobs(limit: u32) -> Vec<Job>;

    /// The moment from which a collection looks. Then mark from the retained versions, then [`Books::collect_finish`].
    CollectBegin: collect_begin(dataset: DatasetId) -> Snapshot;
    /// Dooms the segments that `live` (segments with reachable items) does not name, but for those that pushes rely on,
    /// the head or current pages lie in, or that are newer than the snapshot.
    CollectFinish: collect_finish(dataset: DatasetId, snapshot: Snapshot, live: Vec<LiveBytes>) -> Collected;
    /// Takes in a dataset, or part of it, from a checkpoint; [`CatalogError::NameTaken`] by another dataset.
    Restore: restore(part: Restoration) -> ();
}
