//! Quotes, offers and revisions: what requests ask for, decided by `terms`, written down, then answered.

use crate::money::books::{Books, BooksError, PendingProposal, Quoted, State, Terms};
use crate::money::terms::{
    OpenFacts, Own, Presence, Rules, Signer, Stake, Standing, behind, charge, check_proposal, check_revision,
    check_signer, check_signer_of, not_held, room, still_to_come,
};
use crate::money::{Money, PINNED_UNTIL, books_failed, no_chain};
use crate::service::now;
use seedbank_agreement::fragment_set::{SetChange, SetError};
use seedbank_agreement::price::Prices;
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Fragment, FragmentSet, Quote, Rate, Revision, Signature, Typed,
};
use seedbank_formats::{Asked, FragmentId, PublicKey};
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::payment::{
    ProposalAnswer, ProposalRequest, QuoteAnswer, Refusal, RefusalReason, RevisionAnswer, RevisionRequest,
    SetLeaf, SetPage, SetSummary, SignedTerms,
};
use seedbank_protocol::routes::SET_FRAGMENTS_MAX;
use seedbank_settlement::{Outcome, ProofSet, ReadError, Wallet};
use seedbank_store::{CLAIMS_PER_CALL_MAX, Health, Renewal};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a request waits for an agreement's transaction: less than clients wait for an answer.
const ACTIVATION_WAIT: Duration = Duration::from_secs(15);
/// Offers under way: more would fill an epoch with opening agreements.
const OFFERS_MAX: u64 = 1_000;
/// Revisions of one agreement for one epoch.
const REVISIONS_MAX: u64 = 1_000;
/// Gas of an agreement's way through the market: opened, begun, ended.
const OPENING_GAS: u64 = 400_000;

/// After how long it may ask again.
const ACTIVATION_RETRY_S: u64 = 2;

/// Why an agreement or new terms are not made.
enum Stop {
    Refused(Box<Refusal>),
    Problem(Problem),
}

impl From<Box<Refusal>> for Stop {
    fn from(refusal: Box<Refusal>) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<BooksError> for Stop {
    fn from(error: BooksError) -> Stop {
        Stop::Problem(books_failed(&error))
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        tracing::warn!(%error, "the chain does not say what an agreement needs");
        refuse(RefusalReason::ChainUnreachable, "this provider can't ask its chain at the moment")
    }
}

fn refuse(reason: RefusalReason, message: &str) -> Stop {
    Stop::Refused(Box::new(Refusal::new(reason, message)))
}

impl Money {
    /// What this provider asks for, signed. A quote that was given is honoured until it ends.
    pub(crate) async fn quote(self: &Arc<Money>) -> Result<QuoteAnswer, Problem> {
        let deployment = self.link().ok_or_else(no_chain)?.chain().deployment();
        let (domain, directory) = (deployment.market_domain(), deployment.directory);
        let quoted = self.blocking(|money| money.quoted()).await.map_err(|error| books_failed(&error))?;
        let quote = Quote {
            provider: self.address(),
            prices: Prices { rent_per_gib_month: quoted.rent, egress_per_gib: quoted.egress },
            epochs_min: quoted.epochs_min,
            expires: quoted.expires,
            credit_bytes: self.config.credit.per_key.0,
        };
        Ok(QuoteAnswer {
            chain_id: domain.chain_id,
            directory,
            quote: quote.sign(&domain, &self.key),
            pay_min: self.pay_min(),
        })
    }

    /// What an agreement must bring at this price of gas.
    fn pay_min(&self) -> Amount {
        self.config.worth(self.gas_price(), OPENING_GAS)
    }

    /// The prices of today, in the books until they end; the same for half of that time.
    fn quoted(&self) -> Result<Quoted, BooksError> {
        let mut books = self.books();
        let now = now();
        let today = Quoted {
            rent: Amount(self.prices.storage_per_gib_month.0),
            egress: self.egress_price(),
            epochs_min: self.config.epochs_min,
            expires: now.plus_seconds(self.config.quote_s),
        };
        let same = |quoted: &Quoted| {
            (quoted.rent, quoted.egress, quoted.epochs_min) == (today.rent, today.egress, today.epochs_min)
                && quoted.expires >= now.plus_seconds(self.config.quote_s / 2)
        };
        if let Some(quoted) = books.quotes(now)?.into_iter().find(same) {
            return Ok(quoted);
        }
        books.add_quote(&today, now)?;
        Ok(today)
    }

    /// Takes an offer of a first agreement, if it is one that can be kept.
    pub(crate) async fn propose(
        self: &Arc<Money>,
        peer: PublicKey,
        request: ProposalRequest,
    ) -> Result<ProposalAnswer, Problem> {
        match self.try_propose(peer, request).await {
            Ok(answer) => Ok(answer),
            Err(Stop::Refused(refusal)) => Ok(ProposalAnswer::Refused(*refusal)),
            Err(Stop::Problem(problem)) => Err(problem),
        }
    }

    async fn try_propose(
        self: &Arc<Money>,
        peer: PublicKey,
        request: ProposalRequest,
    ) -> Result<ProposalAnswer, Stop> {
        let wallet = self.link().ok_or_else(|| Stop::Problem(no_chain()))?;
        let chain = wallet.chain();
        let domain = chain.deployment().market_domain();
        let digest = request.proposal.message.digest(&domain);
        // Heard before anything is looked up, so that no news is missed.
        let mut offers = self.offers.subscribe();
        if let Some(answer) = self.offer_outcome(peer, digest).await? {
            return Ok(answer);
        }
        let client = request.proposal.message.client;
        if chain.binding(client).check(&peer, &request.binding).is_err() {
            return Err(refuse(RefusalReason::Binding, "this key is not bound to the client's wallet"));
        }
        let (signer, rules) = tokio::try_join!(
            self.signer(wallet, &client, request.proposal.signer(&domain).ok()),
            self.rules(wallet),
        )?;
        // The rest is asked of the chain, and the set is made, for those only who may sign.
        check_signer(signer, request.proposal.message.escrow, rules.now)?;
        let set = FragmentSet::new(request.added.iter().map(fragment)).map_err(|error| wrong_set(&error))?;
        let promised = self.promised(rules.epoch, None).await?;
        let (agreement, free, own_set, staked, entry) = tokio::try_join!(
            chain.market().agreement_of(client, self.payee),
            chain.market().free(client),
            chain.market().get_set(self.payee),
            chain.registry().stake_of(self.payee),
            chain.registry().get(self.payee),
        )?;
        let dead = own_set.is_some_and(|set| set.dead_at.is_some());
        let takes_agreements = !dead && entry.is_some_and(|entry| !entry.leaving);
        let stake = stake(own_set.as_ref(), staked, promised);
        let facts = OpenFacts { signer, agreement, free, stake, takes_agreements };
        let rent = check_proposal(&request.proposal.message, &set, &facts, &rules)?;

        let pending = PendingProposal { digest, key: peer, request, rent };
        self.blocking(move |money| money.take_offer(&pending)).await?;
        self.wake.notify_one();
        let decided = async {
            loop {
                if let Some(answer) = self.offer_outcome(peer, digest).await?
                    && !matches!(answer, ProposalAnswer::Pending { .. })
                {
                    return Ok(answer);
                }
                if offers.changed().await.is_err() {
                    return Ok(ProposalAnswer::Pending { retry_after_s: ACTIVATION_RETRY_S });
                }
            }
        };
        match timeout(ACTIVATION_WAIT, decided).await {
            Ok(answer) => answer,
            Err(_late) => Ok(ProposalAnswer::Pending { retry_after_s: ACTIVATION_RETRY_S }),
        }
    }

    /// What became of an offer that was made before. One that the chain refused may be made again.
    async fn offer_outcome(
        self: &Arc<Money>,
        peer: PublicKey,
        digest: [u8; 32],
    ) -> Result<Option<ProposalAnswer>, Stop> {
        let found = self.blocking(move |money| -> Result<_, BooksError> {
            let books = money.books();
            Ok((books.agreement_of_proposal(&digest)?, books.proposal_outcome(&digest)?))
        });
        Ok(match found.await? {
            // The chain lost it, and it is on its way there again.
            (_, Some(None)) => Some(ProposalAnswer::Pending { retry_after_s: ACTIVATION_RETRY_S }),
            (Some(row), _) if row.key == peer => {
                Some(ProposalAnswer::Accepted { agreement: row.id, transaction: row.opened })
            }
            (Some(_), _) => return Err(refuse(RefusalReason::WrongParty, "another key made this offer")),
            (None, Some(Some(_)) | None) => None,
        })
    }

    /// Writes an offer down, once everything in its set is held for good.
    fn take_offer(&self, pending: &PendingProposal) -> Result<(), Stop> {
        let books = self.books();
        let message = &pending.request.proposal.message;
        if books.has_other_proposal(message.client, &pending.digest)? {
            return Err(refuse(RefusalReason::Exists, "another offer of this client is under way"));
        }
        if let Some(bound) = books.wallet_of(&pending.key)?
            && bound != message.client
            && books.agreement_of(bound)?.is_some()
        {
            return Err(refuse(RefusalReason::WrongParty, "this key acts for another wallet here"));
        }
        if books.offers_under_way()? >= OFFERS_MAX {
            return Err(refuse(RefusalReason::Other, "too many offers are under way here: try again later"));
        }
        let added: Vec<Fragment> = pending.request.added.iter().map(fragment).collect();
        let others = books.proposals_of(&pending.key, &pending.digest)?;
        let offered: Vec<Fragment> =
            others.iter().flat_map(|offer| offer.request.added.iter().map(fragment)).collect();
        let of_set = charge(&added).saturating_add(charge(&offered));
        self.check_room(&books, &pending.key, (of_set, None))?;
        let kept = self.hold(&pending.key, &added).and_then(|()| {
            books.bind(&pending.key, message.client, &pending.request.binding)?;
            books.add_proposal(pending, now())?;
            Ok(())
        });
        if kept.is_err() {
            self.let_go_unpromised(&books, added.iter().map(|leaf| leaf.id))?;
        }
        kept
    }

    /// The chain refused an offer: its fragments are its client's business again.
    pub(super) fn refuse_offer(&self, offer: &PendingProposal, why: &str) -> Result<(), BooksError> {
        let books = self.books();
        books.refuse_proposal(&offer.digest, why)?;
        self.let_go_unpromised(&books, offer.request.added.iter().map(|leaf| leaf.fragment))
    }

    /// Whether a key's sets leave room for one of this size, and for what it drops: the provider keeps both, whatever its client does with
    /// its own claims.
    fn check_room(
        &self,
        books: &Books,
        key: &PublicKey,
        (of_set, agreement): (u64, Option<AgreementId>),
    ) -> Result<(), Stop> {
        let quota = self.store.client_usage(key).quota_bytes;
        let dropped = books.dropped_bytes(key)?;
        let elsewhere = books.agreed_bytes(key, agreement)?;
        match room(of_set.saturating_add(elsewhere), dropped, quota) {
            Ok(()) => Ok(()),
            Err(message) => Err(refuse(RefusalReason::Other, message)),
        }
    }

    /// Signs new terms, if they can be kept.
    pub(crate) async fn revise(
        self: &Arc<Money>,
        peer: PublicKey,
        request: RevisionRequest,
    ) -> Result<RevisionAnswer, Problem> {
        match self.try_revise(peer, request).await {
            Ok(signature) => Ok(RevisionAnswer::Accepted { signature }),
            Err(Stop::Refused(refusal)) => Ok(RevisionAnswer::Refused(*refusal)),
            Err(Stop::Problem(problem)) => Err(problem),
        }
    }

    async fn try_revise(
        self: &Arc<Money>,
        peer: PublicKey,
        request: RevisionRequest,
    ) -> Result<Signature, Stop> {
        let wallet = self.link().ok_or_else(|| Stop::Problem(no_chain()))?;
        let known = match self.look_up(peer, &request).await? {
            Looked::Signed(signature) => return Ok(signature),
            Looked::New(known) => known,
        };
        let domain = wallet.chain().deployment().market_domain();
        let (signer, rules) = tokio::try_join!(
            self.signer(wallet, &known.client, request.revision.signer(&domain).ok()),
            self.rules(wallet),
        )?;
        // A set takes memory and time: it is made for those only who may sign.
        check_signer_of(&request.revision.message, signer, &rules)?;
        let (facts, revise) = tokio::try_join!(
            self.standing(wallet, known.id, signer, &rules),
            self.set_after(*known, request),
        )?;
        let own = Own { id: revise.id, last: &revise.last, rent: revise.rent };
        let revision = &revise.request.revision.message;
        check_revision(revision, (&revise.before, &revise.after), &own, &facts, &rules)?;
        let signature = self.key.sign(&revision.digest(&domain));
        let epoch = rules.epoch;
        let signed = self.blocking(move |money| money.keep_terms(&peer, &revise, signature, epoch)).await?;
        self.wake.notify_one();
        Ok(signed)
    }

    /// What the books say of a revision.
    async fn look_up(self: &Arc<Money>, peer: PublicKey, request: &RevisionRequest) -> Result<Looked, Stop> {
        let (revision, base) = (request.revision.message.clone(), request.base_sequence);
        self.blocking(move |money| {
            let books = money.books();
            let stranger =
                || refuse(RefusalReason::Binding, "this key acts for no wallet here: make an offer first");
            let client = books.wallet_of(&peer)?.ok_or_else(stranger)?;
            let none = || refuse(RefusalReason::WrongParty, "there is no such agreement with this client");
            let row = books.agreement_of(client)?.ok_or_else(none)?;
            if row.id != revision.agreement || row.state != State::Open {
                return Err(none());
            }
            let last = books.terms(row.id, row.sequence)?.ok_or_else(none)?;
            if let Some((signed, signature)) = books.signed(row.id, revision.sequence)?
                && signed.message == revision
            {
                return Ok(Looked::Signed(signature));
            }
            if base != row.sequence {
                return Err(behind(row.id, &last).into());
            }
            Ok(Looked::New(Box::new(Known { id: row.id, client, rent: row.rent, last })))
        })
        .await
    }

    /// The set that a revision makes.
    async fn set_after(
        self: &Arc<Money>,
        known: Known,
        request: RevisionRequest,
    ) -> Result<Box<NewTerms>, Stop> {
        self.blocking(move |money| {
            let Known { id, client, rent, last } = known;
            let before = money.set(&money.books(), id, last.sequence)?;
            let change = change(&request);
            let count = before.fragments().len().saturating_add(change.put.len());
            if count.saturating_sub(change.dropped.len()) > SET_FRAGMENTS_MAX {
                let message = format!("an agreement is about {SET_FRAGMENTS_MAX} fragments at most");
                return Err(refuse(RefusalReason::WrongSet, &message));
            }
            let after = before.changed(&change).map_err(|error| match error {
                SetError::Missing(_) => Stop::Refused(behind(id, &last)),
                error => wrong_set(&error),
            })?;
            Ok(Box::new(NewTerms { id, client, rent, last, before, after, change, request }))
        })
        .await
    }

    /// Writes new terms down, once everything in the set is held for good. Only then may the signature leave.
    fn keep_terms(
        &self,
        peer: &PublicKey,
        new: &NewTerms,
        signature: Signature,
        epoch: Epoch,
    ) -> Result<Signature, Stop> {
        let mut books = self.books();
        if books.terms_for(new.id, epoch)? >= REVISIONS_MAX {
            return Err(refuse(
                RefusalReason::Epochs,
                "so many revisions of one epoch are enough: try again in the next",
            ));
        }
        if new.after.total() > new.before.total() {
            if self.is_refused(new.id, epoch) {
                let message = "the market refused what was signed last: so soon after nothing more is taken";
                return Err(refuse(RefusalReason::Escrow, message));
            }
            self.check_room(&books, peer, (charge(new.after.fragments()), Some(new.id)))?;
        }
        let fresh = new.change.put.values().filter(|leaf| new.before.get(&leaf.id).is_none());
        let fresh: Vec<Fragment> = fresh.copied().collect();
        let kept = self.hold(peer, &fresh).and_then(|()| self.put_terms(&mut books, new, signature));
        if kept.is_err() {
            self.let_go_unpromised(&books, fresh.iter().map(|leaf| leaf.id))?;
        }
        kept
    }

    fn put_terms(&self, books: &mut Books, new: &NewTerms, signature: Signature) -> Result<Signature, Stop> {
        let revision = &new.request.revision;
        let terms = terms_of(&revision.message);
        let kept =
            books.add_revision(new.id, new.last.sequence, &terms, &new.change, (revision, &signature))?;
        if !kept {
            // Another request of this client was faster.
            let last =
                books.agreement_of(new.client)?.map(|row| books.terms(row.id, row.sequence)).transpose()?;
            return Err(behind(new.id, &last.flatten().unwrap_or(new.last)).into());
        }
        self.keep_set(new.id, terms.sequence, Arc::new(new.after.clone()));
        Ok(signature)
    }

    /// Makes sure that fragments are here, sound, of the promised length and claimed by this key, and claims them for the
    /// provider itself: whatever the client releases, they stay until the set lets go of them.
    fn hold(&self, peer: &PublicKey, leaves: &[Fragment]) -> Result<(), Stop> {
        let now = now();
        let (mut missing, mut held) = (Vec::new(), Vec::new());
        for leaf in leaves {
            let info = self.store.fragment(&leaf.id);
            let is_right =
                info.is_some_and(|info| info.length == leaf.length && info.health == Health::Sound);
            let grants = self.store.access(&leaf.id, now).unwrap_or_default();
            let is_theirs = grants.iter().any(|grant| grant.client == *peer);
            if is_right && is_theirs { held.push(leaf.id) } else { missing.push(leaf.id) }
        }
        if !missing.is_empty() {
            return Err(not_held(missing).into());
        }
        for batch in held.chunks(CLAIMS_PER_CALL_MAX) {
            let claimed = self
                .store
                .claim_held(&self.identity.public(), batch, PINNED_UNTIL, Asked(0))
                .map_err(|error| Stop::Problem(Problem::new(ProblemCode::ReadOnly, error.to_string())))?;
            let lost = batch.iter().zip(claimed);
            let lost = lost.filter(|(_, claimed)| !matches!(claimed, Renewal::Renewed { .. }));
            missing.extend(lost.map(|(id, _)| *id));
        }
        if missing.is_empty() { Ok(()) } else { Err(not_held(missing).into()) }
    }

    /// Gives up own claims on fragments that are in no set and no offer under way.
    pub(super) fn let_go_unpromised(
        &self,
        books: &Books,
        fragments: impl Iterator<Item = FragmentId>,
    ) -> Result<(), BooksError> {
        let mut gone = Vec::new();
        for fragment in fragments {
            if !books.is_promised(&fragment)? {
                gone.push(fragment);
            }
        }
        self.let_go_unless_offered(books, &gone)
    }

    /// A page of the set that is kept for a client.
    pub(crate) async fn list_set(
        self: &Arc<Money>,
        peer: PublicKey,
        after: Option<FragmentId>,
        limit: usize,
    ) -> Result<SetPage, Problem> {
        let page = self.blocking(move |money| -> Result<Option<SetPage>, BooksError> {
            let books = money.books();
            let Some(client) = books.wallet_of(&peer)? else { return Ok(None) };
            let Some(row) = books.agreement_of(client)? else { return Ok(None) };
            let Some(last) = books.terms(row.id, row.sequence)? else { return Ok(None) };
            let set = money.set(&books, row.id, row.sequence)?;
            let signed = books.signed(row.id, row.sequence)?;
            let signed = signed.map(|(revision, provider)| SignedTerms { revision, provider });
            let leaves = set.fragments();
            let from = after.map_or(0, |after| leaves.partition_point(|leaf| leaf.id <= after));
            let page = leaves[from..].iter().take(limit).map(|leaf| SetLeaf {
                fragment: leaf.id,
                length: leaf.length,
                retain_until: leaf.retain_until,
            });
            let set = SetSummary {
                agreement: Some(row.id),
                sequence: row.sequence,
                set_root: last.set_root,
                size: last.size,
                rate_per_epoch: last.rate,
            };
            Ok(Some(SetPage { set, signed, leaves: page.collect() }))
        });
        let none = || Problem::new(ProblemCode::NotFound, "there is no agreement with this key's wallet");
        page.await.map_err(|error| books_failed(&error))?.ok_or_else(none)
    }

    /// Who signed for a client, and whether the chain lets it.
    async fn signer(
        &self,
        wallet: &Wallet,
        client: &Address,
        signer: Option<Address>,
    ) -> Result<Signer, Stop> {
        match signer {
            None => Ok(Signer::Stranger),
            Some(signer) if signer == *client => Ok(Signer::Client),
            Some(signer) => {
                let found = wallet.chain().market().authority(*client, signer).await?;
                // A key that was never authorised has an authority that ended in 1970.
                Ok(Signer::Authorized { cap: found.cap, until: found.until })
            }
        }
    }

    /// By how much an epoch gets dearer for what was signed and is not posted yet, in other agreements than this one.
    async fn promised(self: &Arc<Money>, epoch: Epoch, but: Option<AgreementId>) -> Result<Amount, Stop> {
        Ok(self.blocking(move |money| money.books().dearer_unposted(epoch, but)).await?)
    }

    /// What the chain says of an agreement in this epoch.
    async fn standing(
        self: &Arc<Money>,
        wallet: &Wallet,
        id: AgreementId,
        signer: Signer,
        rules: &Rules,
    ) -> Result<Standing, Stop> {
        let promised = self.promised(rules.epoch, Some(id)).await?;
        let (chain, own) = (wallet.chain(), rules.provider);
        let (agreement, set, standing, outcome, staked, entry, release) = tokio::try_join!(
            chain.market().get_agreement(id),
            chain.market().get_set(own),
            chain.market().standing(id),
            chain.market().outcome(own, rules.epoch),
            chain.registry().stake_of(own),
            chain.registry().get(own),
            chain.market().get_release(id),
        )?;
        let closed = || refuse(RefusalReason::WrongParty, "the agreement is closed");
        let (agreement, set) = (agreement.ok_or_else(closed)?, set.ok_or_else(closed)?);
        if set.dead_at.is_some() {
            return Err(closed());
        }
        if set.epoch != rules.epoch || set.due != 0 {
            let message = "this provider's set is being brought to the present epoch: again in a moment";
            return Err(refuse(RefusalReason::ChainUnreachable, message));
        }
        let now = agreement.current.map_or(Rate::ZERO, |terms| terms.rate_per_epoch);
        let of_this_epoch = if outcome == Outcome::Proven { Amount::from(now) } else { Amount::ZERO };
        let leaves = entry.is_some_and(|entry| entry.leaving);
        Ok(Standing {
            signer,
            escrow: agreement.escrow,
            released: release.map_or(Amount::ZERO, |release| still_to_come(&release, rules.epoch)),
            earned: standing.earned.saturating_sub(of_this_epoch),
            current: agreement.current.map(|terms| terms.rate_per_epoch),
            next: agreement.next.map(|terms| terms.rate_per_epoch),
            end: agreement.latest().map_or(rules.epoch, |terms| terms.end),
            ending: agreement.ending,
            retained_bytes: agreement.retained_bytes,
            retained_until: agreement.retained_until,
            stake: stake(Some(&set), staked, promised),
            presence: if leaves { Presence::Leaves } else { Presence::Stays },
        })
    }

    async fn rules(self: &Arc<Money>, wallet: &Wallet) -> Result<Rules, Stop> {
        let head = wallet.chain().head().await?;
        let before = || refuse(RefusalReason::Epochs, "the first epoch has not begun");
        let parameters = &wallet.chain().deployment().parameters;
        let mut rents = vec![Amount(self.prices.storage_per_gib_month.0)];
        let quoted = self.blocking(|money| money.books().quotes(now())).await?;
        rents.extend(quoted.into_iter().map(|quoted| quoted.rent));
        Ok(Rules {
            provider: self.payee,
            epoch: head.epoch.ok_or_else(before)?,
            now: head.time,
            clock: wallet.chain().deployment().clock(),
            epochs_max: self.config.epochs_max,
            pay_min: self.pay_min(),
            stake_epochs: parameters.market.stake_epochs,
            rents,
            epochs_min: self.config.epochs_min,
        })
    }
}

/// What the books say of a revision.
enum Looked {
    /// It was signed before.
    Signed(Signature),
    New(Box<Known>),
}

/// The agreement that a revision is about.
struct Known {
    id: AgreementId,
    client: Address,
    rent: Amount,
    last: Terms,
}

/// A revision with everything that decides about it.
struct NewTerms {
    id: AgreementId,
    client: Address,
    rent: Amount,
    last: Terms,
    before: Arc<FragmentSet>,
    after: FragmentSet,
    change: SetChange,
    request: RevisionRequest,
}

fn fragment(leaf: &SetLeaf) -> Fragment {
    Fragment { id: leaf.fragment, length: leaf.length, retain_until: leaf.retain_until }
}

fn change(request: &RevisionRequest) -> SetChange {
    SetChange {
        put: request.added.iter().map(|leaf| (leaf.fragment, fragment(leaf))).collect(),
        dropped: request.removed.iter().copied().collect(),
    }
}

fn wrong_set(error: &SetError) -> Stop {
    Stop::Refused(Box::new(Refusal::new(RefusalReason::WrongSet, error.to_string())))
}

fn terms_of(revision: &Revision) -> Terms {
    Terms {
        sequence: revision.sequence,
        set_root: revision.set_root,
        size: revision.size,
        rate: revision.rate_per_epoch,
        from: revision.from_epoch,
        end: revision.end_epoch,
        retained_bytes: revision.retained_bytes,
        retained_until: revision.retained_until,
    }
}

/// `set`: all that the provider holds, if it holds anything.
fn stake(set: Option<&ProofSet>, stake: Amount, promised: Amount) -> Stake {
    Stake { stake, rate_max: set.map_or(Amount::ZERO, |set| set.rate_max), promised }
}

#[cfg(test)]
mod tests;
