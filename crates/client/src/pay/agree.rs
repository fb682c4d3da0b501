//! Has a provider sign for what it holds: a proposal the first time, revisions of its set from then on.
//!
//! What is asked is in the books before it is asked, and the same question gets the same answer; so whoever comes after a
//! process that died asks again, and client and provider always agree on one of two sets. Books that know less than the
//! provider (an old copy, or recovered ones) take the provider's list, if it is what this home signed: see `adoption`.

use super::budget::{Purse, first_escrow, monthly};
use super::chain::{ChainError, Order, SignedRevision};
use super::lanes::LaneError;
use super::payer::{FundsError, Paid, Payee, Payer, PlanError, QuoteRefused};
use crate::behind::BehindError;
use crate::network::{Network, wall_clock};
use crate::uploader::SharedBooks;
use seedbank_agreement::price::{TooDear, rate_per_epoch};
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Nonce, Proposal, Rate, Revision, SetRoot, Signature, Signed, Typed,
    recover,
};
use seedbank_catalog::records::{Agreement, LeaseId, NewRevision, RevisionEnd, SetDraft, SetItem};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::{FragmentId, PublicKey};
use seedbank_protocol::payment::{
    ProposalAnswer, ProposalRequest, Refusal, RefusalReason, RevisionAnswer, RevisionRequest, SetLeaf,
};
use seedbank_protocol::routes::SET_CHANGE_MAX;
use seedbank_transport::CallError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Rounds of questions to one provider in a row: each ends one, or the reason why it can't be. A set of a million fragments
/// takes 200.
const ROUNDS_MAX: u32 = 1000;

/// Questions in a row that were refused, before the refusal is taken for an answer: an epoch may have ended in between, or
/// another process of this home may have been faster.
const REFUSALS_MAX: u32 = 3;

/// How long a provider may take to open an agreement on the chain.
const OPENING_PATIENCE: Duration = Duration::from_secs(120);

/// What a set may become at once, as the books count it.
const CHANGE_MAX: u32 = 5_000;
const _: () = assert!(CHANGE_MAX as usize <= SET_CHANGE_MAX);

/// Why a provider is asked to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A push is about to commit what it stored there under this lease.
    Push(LeaseId),
    /// Its set is not what it holds.
    Upkeep,
    /// Its terms end soon, or were not posted in time.
    Renewal,
}

/// Why a provider did not sign. What it had signed stands.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    /// It asks too much, or is not to be believed.
    #[error(transparent)]
    Quote(#[from] QuoteRefused),
    /// There is no money for it, or the budget is exhausted.
    #[error(transparent)]
    Funds(#[from] FundsError),
    /// The price makes a sum that nobody could pay.
    #[error(transparent)]
    TooDear(#[from] TooDear),
    /// The provider says no.
    #[error("it refused: {message}")]
    Refused {
        /// What programs decide by.
        reason: RefusalReason,
        /// What it says.
        message: String,
        /// The fragments that the reason is about.
        fragments: Vec<FragmentId>,
    },
    /// Its answer is not what was asked for: it, or this program, is broken.
    #[error("its answer is not to be believed: {0}")]
    Unbelievable(String),
    /// It can't be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The chain can't be asked, or refuses.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// What was paid for reads can't be told.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The books say no.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The books are an old copy, and would take what newer ones had signed out of the set.
    #[error(transparent)]
    OldBooks(#[from] BehindError),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// The process is ending.
    #[error("stopped")]
    Stopped,
}

impl From<PlanError> for AgreeError {
    fn from(error: PlanError) -> AgreeError {
        match error {
            PlanError::Budget(error) => AgreeError::Funds(error.into()),
            PlanError::Lane(error) => AgreeError::Lane(error),
        }
    }
}

/// A set as terms name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreedSet {
    /// Of the revision; 0 for the agreement as it was opened.
    pub sequence: u32,
    /// Its root.
    pub root: SetRoot,
    /// Its bytes.
    pub size: u64,
}

/// The last terms that both signed, as they lie in the books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Terms {
    /// The agreement as it was opened.
    Proposal {
        /// What the client signed, and the chain took.
        proposal: Proposal,
    },
    /// Revised terms.
    Revision {
        /// What both signed.
        revision: Revision,
        /// The client's signature.
        client: Signature,
        /// The provider's.
        provider: Signature,
    },
    /// Terms that the chain has: their signatures are not here, and are of no use any more.
    Posted {
        /// Of the revision.
        sequence: u32,
        /// The set's root.
        set_root: SetRoot,
        /// The set's bytes.
        size: u64,
        /// What an epoch costs.
        rate_per_epoch: Rate,
        /// The first epoch that no longer belongs to them.
        end_epoch: Epoch,
    },
}

impl Terms {
    /// Reads what the books have.
    #[must_use]
    pub fn of(agreement: &Agreement) -> Option<Terms> {
        serde_json::from_str(agreement.signed.as_ref()?).ok()
    }

    /// What an epoch costs.
    #[must_use]
    pub fn rate(&self) -> Rate {
        match self {
            Terms::Proposal { proposal } => proposal.rate_per_epoch,
            Terms::Revision { revision, .. } => revision.rate_per_epoch,
            Terms::Posted { rate_per_epoch, .. } => *rate_per_epoch,
        }
    }

    /// The first epoch that no longer belongs to them.
    #[must_use]
    pub fn end(&self) -> Epoch {
        match self {
            Terms::Proposal { proposal } => proposal.end_epoch,
            Terms::Revision { revision, .. } => revision.end_epoch,
            Terms::Posted { end_epoch, .. } => *end_epoch,
        }
    }

    /// Their set.
    #[must_use]
    pub fn set(&self) -> AgreedSet {
        match self {
            Terms::Proposal { proposal } => {
                AgreedSet { sequence: 0, root: proposal.set_root, size: proposal.size }
            }
            Terms::Revision { revision, .. } => {
                AgreedSet { sequence: revision.sequence, root: revision.set_root, size: revision.size }
            }
            Terms::Posted { sequence, set_root, size, .. } => {
                AgreedSet { sequence: *sequence, root: *set_root, size: *size }
            }
        }
    }

    /// As it is posted; a proposal is on the chain already.
    #[must_use]
    pub fn posted(&self) -> Option<SignedRevision> {
        match self {
            Terms::Proposal { .. } | Terms::Posted { .. } => None,
            Terms::Revision { revision, client, provider } => {
                Some(SignedRevision { revision: revision.clone(), client: *client, provider: *provider })
            }
        }
    }

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("terms have text keys")
    }
}

/// A question as it lies in the books until it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Question {
    Proposal(ProposalRequest),
    Revision(RevisionRequest),
}

/// What became of a question.
enum Answer {
    Signed,
    /// The books know another set than the provider.
    Behind,
    Refused(Refusal),
}

/// Has one provider sign for what it holds.
pub struct Agreeing<'a> {
    /// Who pays.
    pub payer: &'a Payer,
    /// The books.
    pub books: &'a SharedBooks,
    /// The providers.
    pub network: &'a Arc<Network>,
    /// Whom.
    pub provider: PublicKey,
}

impl Agreeing<'_> {
    /// Asks until the provider has signed for all that it holds, as far as the purpose goes. Nothing is asked when it has.
    ///
    /// # Errors
    /// [`AgreeError`].
    pub async fn run(&self, purpose: Purpose) -> Result<(), AgreeError> {
        let result = self.rounds(purpose).await;
        if self.payer.has_planned(&self.provider) {
            let agreed = self.rates().await?;
            self.payer.planned(&self.provider, &agreed, wall_clock())?;
        }
        result
    }

    async fn rounds(&self, purpose: Purpose) -> Result<(), AgreeError> {
        let mut refusals = 0;
        let mut renewed = false;
        for _ in 0..ROUNDS_MAX {
            let answer = match self.known().await? {
                Some(Agreement { pending: Some(pending), .. }) => {
                    let question = serde_json::from_str(&pending.request)
                        .map_err(|error| AgreeError::Unbelievable(format!("the books' question: {error}")))?;
                    self.ask(pending.sequence, question).await?
                }
                known => {
                    let Paid::By(payee) = self.payer.payee(self.network, &self.provider).await? else {
                        return Ok(());
                    };
                    let id = known.as_ref().and_then(|known| known.id).map(AgreementId);
                    match (known, id) {
                        (Some(known), Some(id)) => {
                            let renew = purpose == Purpose::Renewal && !renewed;
                            renewed = true;
                            match self.revise(&known, id, &payee, purpose, renew).await? {
                                Some(answer) => answer,
                                None => return Ok(()),
                            }
                        }
                        (Some(_), None) | (None, _) => match self.open(&payee, purpose).await? {
                            Some(answer) => answer,
                            None => return Ok(()),
                        },
                    }
                }
            };
            match answer {
                Answer::Signed => {
                    tracing::debug!(provider = %self.provider, "provider has signed");
                    refusals = 0;
                }
                Answer::Behind => {
                    self.adopt().await?;
                    refusals += 1;
                }
                Answer::Refused(refusal) => {
                    refusals += 1;
                    // An epoch ended between signing and answering, or others have used the money or the signer's cap.
                    let may_pass = matches!(
                        refusal.reason,
                        RefusalReason::Epochs | RefusalReason::Escrow | RefusalReason::Signature
                    );
                    if !may_pass || refusals > REFUSALS_MAX {
                        let Refusal { reason, message, fragments, .. } = refusal;
                        return Err(AgreeError::Refused { reason, message, fragments });
                    }
                }
            }
            if refusals > REFUSALS_MAX {
                return Err(AgreeError::Unbelievable("it answers differently each time".to_owned()));
            }
        }
        Err(AgreeError::Unbelievable("its set does not come to an end".to_owned()))
    }

    pub(super) async fn ask_books<T: Send + 'static>(
        &self,
        question: impl FnOnce(&SharedBooks) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, AgreeError> {
        let books = Arc::clone(self.books);
        let asked = tokio::task::spawn_blocking(move || question(&books)).await;
        Ok(asked.map_err(|_ended| AgreeError::Stopped)??)
    }

    pub(super) async fn known(&self) -> Result<Option<Agreement>, AgreeError> {
        let provider = self.provider;
        let all = self.ask_books(|books| books.agreements()).await?;
        Ok(all.into_iter().find(|agreement| agreement.provider == provider))
    }

    async fn draft(&self, purpose: Purpose) -> Result<SetDraft, AgreeError> {
        let provider = self.provider;
        let lease = match purpose {
            Purpose::Push(lease) => Some(lease),
            Purpose::Upkeep | Purpose::Renewal => None,
        };
        self.ask_books(move |books| books.draft_set(provider, lease, CHANGE_MAX)).await
    }

    /// Notes a question in the books, then asks it. Somebody who was faster is no error: theirs is asked next.
    async fn begin(
        &self,
        sequence: u32,
        draft: SetDraft,
        question: Question,
    ) -> Result<Option<Answer>, AgreeError> {
        let request = serde_json::to_string(&question).expect("messages have text keys");
        let SetDraft { added, removed, .. } = draft;
        let revision = NewRevision { provider: self.provider, sequence, added, removed, request };
        match self.ask_books(move |books| books.begin_revision(revision)).await {
            Ok(()) => self.ask(sequence, question).await.map(Some),
            Err(AgreeError::Catalog(CatalogError::StaleRevision { .. })) => Ok(Some(Answer::Signed)),
            Err(error) => Err(error),
        }
    }

    /// The first agreement, unless the chain knows one already.
    async fn open(&self, payee: &Payee, purpose: Purpose) -> Result<Option<Answer>, AgreeError> {
        let (payer, chain) = (self.payer, self.payer.chain());
        if chain.agreement_with(payee.wallet).await?.is_some() {
            return Ok(Some(Answer::Behind));
        }
        let draft = self.draft(purpose).await?;
        if draft.added.is_empty() {
            return Ok(None);
        }
        let (place, now) = (*chain.place(), chain.epoch().await?);
        let rate = rate_per_epoch(draft.bytes, payee.prices.rent_per_gib_month, place.clock.epoch_seconds)?;
        let (pay, pay_min) = (rate.over(payer.limits().term_epochs), payee.pay_min);
        if pay < pay_min {
            // Before anything is sent for it. Gas may be cheaper by the next attempt.
            payer.forget_quote(&self.provider);
            return Err(QuoteRefused::TooLittle { pay_min, pay }.into());
        }
        self.allow(rate).await?;
        let escrow = first_escrow(rate, payer.limits().term_epochs);
        payer.authorise(escrow).await?;
        // Until the provider has opened the agreement, or has not.
        let _mark = payer.provide(escrow).await?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(AgreeError::Random)?;
        let proposal = Proposal {
            client: payer.wallet(),
            provider: payee.wallet,
            set_root: SetRoot(draft.root),
            size: draft.bytes,
            rate_per_epoch: rate,
            end_epoch: after(now, payer.limits().term_epochs),
            escrow,
            retained_bytes: 0,
            retained_until: Epoch(0),
            accept_by: after(now, 0),
            nonce: Nonce(nonce),
        };
        let request = ProposalRequest {
            proposal: proposal.sign(&place.market_domain(), &payer.keys().signer),
            binding: payer.binding().sign(&payer.keys().identity),
            added: draft.added.iter().map(leaf).collect(),
        };
        self.begin(0, draft, Question::Proposal(request)).await
    }

    /// The next revision; `None` when there is nothing to sign.
    async fn revise(
        &self,
        known: &Agreement,
        id: AgreementId,
        payee: &Payee,
        purpose: Purpose,
        renew: bool,
    ) -> Result<Option<Answer>, AgreeError> {
        let draft = self.draft(purpose).await?;
        if draft.added.is_empty() && draft.removed.is_empty() && !renew {
            return Ok(None);
        }
        let (payer, chain) = (self.payer, self.payer.chain());
        let Some(state) = chain.agreement(id).await? else {
            // Closed on the chain: what is held now needs a new one.
            let provider = self.provider;
            self.ask_books(move |books| books.drop_agreement(provider)).await?;
            return Ok(Some(Answer::Signed));
        };
        let (place, now) = (*chain.place(), chain.epoch().await?);
        let rate = rate_per_epoch(draft.bytes, payee.prices.rent_per_gib_month, place.clock.epoch_seconds)?;
        if rate > Terms::of(known).map_or(Rate::ZERO, |terms| terms.rate()) {
            self.allow(rate).await?;
        }
        let purse = Purse { now, locked: state.locked, rate: state.rate.max(state.next_rate) };
        // Terms never end sooner than those before: that would be a notice.
        let end = Terms::of(known).map_or(state.end, |terms| terms.end().max(state.end));
        let rest = end.0.saturating_sub(after(now, 0).0);
        let wanted = payer.limits().term_epochs.max(rest);
        // A renewal is made for the whole term; others take what is there.
        let least = if renew { wanted } else { rest };
        let epochs = match purse.term(rate, least, wanted) {
            Some(epochs) => epochs,
            None => {
                let missing = purse.missing(rate, wanted.saturating_mul(2));
                let _mark = payer.provide(missing).await?;
                chain.order(Order::Reserve(id, missing)).await?;
                wanted
            }
        };
        payer.authorise(Amount::ZERO).await?;
        let sequence = known.sequence.max(state.sequence) + 1;
        if sequence != known.sequence + 1 {
            return Ok(Some(Answer::Behind));
        }
        let revision = Revision {
            agreement: id,
            sequence,
            set_root: SetRoot(draft.root),
            size: draft.bytes,
            rate_per_epoch: rate,
            from_epoch: after(now, 0),
            end_epoch: after(now, epochs),
            retained_bytes: 0,
            retained_until: Epoch(0),
        };
        let request = RevisionRequest {
            base_sequence: known.sequence,
            added: draft.added.iter().map(leaf).collect(),
            removed: draft.removed.clone(),
            revision: revision.sign(&place.market_domain(), &payer.keys().signer),
        };
        self.begin(sequence, draft, Question::Revision(request)).await
    }

    /// What is agreed with each provider, or asked of it.
    async fn rates(&self) -> Result<BTreeMap<PublicKey, Rate>, AgreeError> {
        let known = self.ask_books(|books| books.agreements()).await?;
        Ok(rates(&known, self.payer))
    }

    /// Whether the budget has room for this rate beside all others.
    async fn allow(&self, rate: Rate) -> Result<(), AgreeError> {
        let agreed = self.rates().await?;
        let epoch_seconds = self.payer.chain().place().clock.epoch_seconds;
        let more = monthly(rate, epoch_seconds);
        self.payer.plan(self.provider, rate, &agreed, more, wall_clock())?;
        Ok(())
    }

    /// Asks what the books say is to be asked, and tells them what came of it.
    async fn ask(&self, sequence: u32, question: Question) -> Result<Answer, AgreeError> {
        match question {
            Question::Proposal(request) => self.ask_proposal(request).await,
            Question::Revision(request) => self.ask_revision(sequence, request).await,
        }
    }

    async fn ask_proposal(&self, request: ProposalRequest) -> Result<Answer, AgreeError> {
        let deadline = tokio::time::Instant::now() + OPENING_PATIENCE;
        let answer = loop {
            match self.network.propose(&self.provider, &request).await? {
                ProposalAnswer::Pending { retry_after_s } if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_secs(retry_after_s.clamp(1, 10))).await;
                }
                answer => break answer,
            }
        };
        match answer {
            ProposalAnswer::Accepted { agreement, .. } => {
                let signed = Terms::Proposal { proposal: request.proposal.message }.text();
                self.end(0, RevisionEnd::Signed { id: agreement.0, signed }).await?;
                Ok(Answer::Signed)
            }
            // It stays in the books: whoever comes next asks again.
            ProposalAnswer::Pending { .. } => Err(AgreeError::Refused {
                reason: RefusalReason::ChainUnreachable,
                message: "its transaction is under way for minutes".to_owned(),
                fragments: Vec::new(),
            }),
            ProposalAnswer::Refused(refusal) => {
                self.end(0, RevisionEnd::Refused).await?;
                Ok(match refusal.reason {
                    RefusalReason::Exists => Answer::Behind,
                    _ => Answer::Refused(refusal),
                })
            }
        }
    }

    async fn ask_revision(&self, sequence: u32, request: RevisionRequest) -> Result<Answer, AgreeError> {
        let Signed { message: revision, signature: client } = request.revision.clone();
        let id = revision.agreement;
        match self.network.revise(&self.provider, &request).await? {
            RevisionAnswer::Accepted { signature } => {
                self.check_signer(&revision, &signature).await?;
                let signed = Terms::Revision { revision, client, provider: signature }.text();
                self.end(sequence, RevisionEnd::Signed { id: id.0, signed }).await?;
                Ok(Answer::Signed)
            }
            RevisionAnswer::Refused(refusal) => {
                // Even if it says that it has this set already: without a signature that is nothing, and its list brings one.
                self.end(sequence, RevisionEnd::Refused).await?;
                Ok(match refusal.reason {
                    RefusalReason::Behind => Answer::Behind,
                    _ => Answer::Refused(refusal),
                })
            }
        }
    }

    async fn end(&self, sequence: u32, end: RevisionEnd) -> Result<(), AgreeError> {
        let provider = self.provider;
        match self.ask_books(move |books| books.end_revision(provider, sequence, end)).await {
            // Another process has asked the same, and told first.
            Err(AgreeError::Catalog(CatalogError::StaleRevision { .. })) => Ok(()),
            other => other,
        }
    }

    /// Only the provider's wallet, or its operator, signs for it.
    async fn check_signer(&self, revision: &Revision, signature: &Signature) -> Result<(), AgreeError> {
        let chain = self.payer.chain();
        let digest = revision.digest(&chain.place().market_domain());
        let signer =
            recover(&digest, signature).map_err(|error| AgreeError::Unbelievable(error.to_string()))?;
        let Paid::By(payee) = self.payer.payee(self.network, &self.provider).await? else {
            return Err(AgreeError::Unbelievable("it signs and takes no money".to_owned()));
        };
        if signer == payee.wallet {
            return Ok(());
        }
        let operator = chain.provider(payee.wallet).await?.map(|entry| entry.operator);
        if operator == Some(signer) && signer != Address::ZERO {
            return Ok(());
        }
        Err(AgreeError::Unbelievable("the revision is signed by somebody else".to_owned()))
    }
}

/// What each agreement of the books costs an epoch, or may soon.
#[must_use]
pub fn rates(known: &[Agreement], payer: &Payer) -> BTreeMap<PublicKey, Rate> {
    let ceiling = payer.limits().ceiling.rent_per_gib_month;
    let epoch_seconds = payer.chain().place().clock.epoch_seconds;
    known.iter().map(|known| (known.provider, rate_at_most(known, ceiling, epoch_seconds))).collect()
}

/// What an agreement costs an epoch, or may soon: by what both signed, and by what waits for the provider's signature. One
/// whose terms are not known here costs no more than is accepted.
fn rate_at_most(known: &Agreement, ceiling: Amount, epoch_seconds: u32) -> Rate {
    let signed = match (Terms::of(known), known.id) {
        (Some(terms), _) => terms.rate(),
        (None, None) => Rate::ZERO,
        (None, Some(_)) => rate_per_epoch(known.bytes, ceiling, epoch_seconds).unwrap_or(Rate::MAX),
    };
    let asked = known.pending.as_ref().and_then(|pending| serde_json::from_str(&pending.request).ok());
    let asked = match asked {
        Some(Question::Proposal(request)) => request.proposal.message.rate_per_epoch,
        Some(Question::Revision(request)) => request.revision.message.rate_per_epoch,
        None => Rate::ZERO,
    };
    signed.max(asked)
}

/// The epoch that begins so many after the next one.
fn after(now: Epoch, epochs: u32) -> Epoch {
    Epoch(now.0.saturating_add(1).saturating_add(epochs))
}

fn leaf(item: &SetItem) -> SetLeaf {
    SetLeaf { fragment: item.fragment, length: item.length, retain_until: Epoch(0) }
}
