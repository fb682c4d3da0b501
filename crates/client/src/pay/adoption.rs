//! Takes over the set that a provider keeps of an agreement which the books know less of.
//!
//! Whoever is paid for bytes has reason to list some that nobody stored. So a list counts only if its root and size are
//! those of terms that the chain has, which takes only what both signed, or of a revision with this home's own signature,
//! and no older than what is known. The fragments are taken in beside the books' set and take its place when all are there
//! and make that root. Which of them are of use is for the next revision: what the books don't know at the provider goes out.

use super::agree::{AgreeError, AgreedSet, Agreeing, Terms};
use super::chain::OnChain;
use super::payer::Paid;
use crate::behind::{BehindError, Silence, check_newest};
use seedbank_agreement::{Address, AgreementId, Domain, Typed, recover};
use seedbank_catalog::records::{AdoptedTerms, Adoption, AdoptionEnd, SetItem};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::FragmentId;
use seedbank_protocol::payment::{SetPage, SetSummary, SignedTerms};
use seedbank_protocol::routes::{SET_FRAGMENTS_MAX, SET_PAGE_MAX};

/// A list comes in pages as large as they may be; who sends smaller ones gets five times as many.
const PAGES_MAX: usize = 5 * SET_FRAGMENTS_MAX / SET_PAGE_MAX;

/// Why a list is not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Disbelief {
    #[error("it lists the set of another agreement")]
    OtherAgreement,
    #[error("it lists the set of revision {listed}, and revision {newest} is signed")]
    Old { listed: u32, newest: u32 },
    #[error("it lists another set for revision {0} than the chain has")]
    NotOnChain(u32),
    #[error("it lists another set for revision {0} than it has signed for")]
    TwoSets(u32),
    #[error("it lists the set of revision {0}, and shows no signature of this home for it")]
    Unsigned(u32),
    #[error("the revision that it shows is of another set than the one that it lists")]
    OtherTerms,
    #[error("the revision that it shows is not signed by this home")]
    NotOurs,
    #[error("the revision that it shows is not signed by itself")]
    NotTheirs,
    #[error("its list is not in order")]
    Order,
    #[error("its list has more bytes than its set")]
    TooLarge,
    #[error("its list has fewer bytes than its set")]
    TooSmall,
    #[error("its list has more fragments than an agreement may have")]
    TooMany,
    #[error("its list has too many pages")]
    Endless,
    #[error("the fragments that it lists are not the set that was signed for")]
    OtherSet,
}

impl From<Disbelief> for AgreeError {
    fn from(disbelief: Disbelief) -> AgreeError {
        AgreeError::Unbelievable(disbelief.to_string())
    }
}

/// What is known of an agreement without its provider's word.
struct Facts<'a> {
    agreement: AgreementId,
    /// What its terms are signed for.
    market: Domain,
    /// Who signs for this home.
    client: &'a [Address],
    /// Who signs for the provider.
    provider: &'a [Address],
    chain: &'a OnChain,
    /// What the books know that both signed.
    known: Option<AgreedSet>,
}

/// Whether a set is one that this home signed for, and by which terms.
fn believe(set: &SetSummary, signed: Option<&SignedTerms>, facts: &Facts<'_>) -> Result<Terms, Disbelief> {
    let listed = AgreedSet { sequence: set.sequence, root: set.set_root, size: set.size };
    let chain = facts.chain;
    if set.agreement != Some(facts.agreement) {
        return Err(Disbelief::OtherAgreement);
    }
    let newest = facts.known.map_or(chain.sequence, |known| known.sequence.max(chain.sequence));
    if listed.sequence < newest {
        return Err(Disbelief::Old { listed: listed.sequence, newest });
    }
    let terms =
        signed.ok_or(Disbelief::Unsigned(listed.sequence)).and_then(|signed| check(signed, &listed, facts));
    if listed.sequence == chain.sequence {
        if (listed.root, listed.size) != (chain.last_root, chain.last_size) {
            return Err(Disbelief::NotOnChain(listed.sequence));
        }
        // Its signatures are only needed to post it, and that was done.
        return Ok(terms.unwrap_or(Terms::Posted {
            sequence: listed.sequence,
            set_root: listed.root,
            size: listed.size,
            rate_per_epoch: chain.next_rate,
            end_epoch: chain.end,
        }));
    }
    match facts.known {
        Some(known) if known.sequence == listed.sequence && known != listed => {
            Err(Disbelief::TwoSets(listed.sequence))
        }
        Some(_) | None => terms,
    }
}

/// Whether terms are of this set, and signed by both.
fn check(signed: &SignedTerms, listed: &AgreedSet, facts: &Facts<'_>) -> Result<Terms, Disbelief> {
    let (revision, digest) = (&signed.revision.message, signed.revision.message.digest(&facts.market));
    let is_theirs = (revision.agreement, revision.sequence, revision.set_root, revision.size)
        == (facts.agreement, listed.sequence, listed.root, listed.size);
    if !is_theirs {
        return Err(Disbelief::OtherTerms);
    }
    let is_by =
        |signature, keys: &[Address]| recover(&digest, signature).is_ok_and(|key| keys.contains(&key));
    if !is_by(&signed.revision.signature, facts.client) {
        return Err(Disbelief::NotOurs);
    }
    if !is_by(&signed.provider, facts.provider) {
        return Err(Disbelief::NotTheirs);
    }
    let (client, provider) = (signed.revision.signature, signed.provider);
    Ok(Terms::Revision { revision: revision.clone(), client, provider })
}

/// A list as far as it was read.
struct Listing {
    set: SetSummary,
    /// Bytes that must still come.
    left: u64,
    fragments: usize,
    pages: usize,
    last: Option<FragmentId>,
}

/// How far a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    More,
    All,
    /// Somebody had it signed anew meanwhile.
    Changed,
}

impl Listing {
    fn of(set: SetSummary) -> Listing {
        Listing { set, left: set.size, fragments: 0, pages: 0, last: None }
    }

    /// Checks the next page. A list ends, since every page brings it nearer to the bytes that were signed for.
    fn take(&mut self, page: &SetPage) -> Result<Listed, Disbelief> {
        if page.set != self.set {
            return Ok(Listed::Changed);
        }
        self.pages += 1;
        if self.pages > PAGES_MAX {
            return Err(Disbelief::Endless);
        }
        for leaf in &page.leaves {
            if self.last.is_some_and(|last| leaf.fragment <= last) {
                return Err(Disbelief::Order);
            }
            self.last = Some(leaf.fragment);
            self.left = self.left.checked_sub(leaf.length).ok_or(Disbelief::TooLarge)?;
            self.fragments += 1;
            if self.fragments > SET_FRAGMENTS_MAX {
                return Err(Disbelief::TooMany);
            }
        }
        match (self.left, page.leaves.is_empty()) {
            (0, _) => Ok(Listed::All),
            (_, true) => Err(Disbelief::TooSmall),
            (_, false) => Ok(Listed::More),
        }
    }
}

impl Agreeing<'_> {
    /// Takes the provider's set in place of the books', if it is what was signed. When somebody else changes it meanwhile,
    /// nothing is taken over, and the next question tells.
    pub(super) async fn adopt(&self) -> Result<(), AgreeError> {
        let Paid::By(payee) = self.payer.payee(self.network, &self.provider).await? else { return Ok(()) };
        let (provider, chain) = (self.provider, self.payer.chain());
        let id = chain.agreement_with(payee.wallet).await?;
        let state = match id {
            Some(id) => chain.agreement(id).await?.map(|state| (id, state)),
            None => None,
        };
        let Some((id, state)) = state else {
            return self.ask_books(move |books| books.drop_agreement(provider)).await;
        };
        self.check_books().await?;
        let known = self.known().await?.filter(|known| known.id == Some(id.0));
        let operator = chain.provider(payee.wallet).await?.map(|entry| entry.operator);
        let theirs = [Some(payee.wallet), operator.filter(|operator| *operator != Address::ZERO)];
        let theirs: Vec<Address> = theirs.into_iter().flatten().collect();
        let facts = Facts {
            agreement: id,
            market: chain.place().market_domain(),
            client: &[self.payer.wallet(), self.payer.signer()],
            provider: &theirs,
            chain: &state,
            known: known.as_ref().and_then(Terms::of).map(|terms| terms.set()),
        };
        let first = self.network.list_set(&provider, None, SET_PAGE_MAX).await?;
        let terms = believe(&first.set, first.signed.as_ref(), &facts)?;
        let set = terms.set();
        let adopted = AdoptedTerms {
            id: id.0,
            sequence: set.sequence,
            root: set.root.0,
            bytes: set.size,
            signed: terms.text(),
        };
        let adoption = self.ask_books(move |books| books.begin_adoption(provider)).await?;
        match self.take_in(adoption, first, adopted).await {
            Ok(Listed::All) => {
                tracing::info!(%provider, agreement = %id, sequence = set.sequence, "took over the provider's set of an agreement");
                Ok(())
            }
            Ok(Listed::More | Listed::Changed)
            | Err(AgreeError::Catalog(CatalogError::StaleRevision { .. })) => {
                self.ask_books(move |books| books.drop_adoption(adoption)).await
            }
            Err(error) => {
                self.ask_books(move |books| books.drop_adoption(adoption)).await?;
                Err(error)
            }
        }
    }

    /// Reads a list into the books, page by page.
    async fn take_in(
        &self,
        adoption: Adoption,
        first: SetPage,
        terms: AdoptedTerms,
    ) -> Result<Listed, AgreeError> {
        let mut listing = Listing::of(first.set);
        let mut page = first;
        loop {
            let listed = listing.take(&page)?;
            if listed == Listed::Changed {
                return Ok(listed);
            }
            let item = |leaf: seedbank_protocol::payment::SetLeaf| SetItem {
                fragment: leaf.fragment,
                length: leaf.length,
            };
            let items = page.leaves.into_iter().map(item).collect();
            self.ask_books(move |books| books.adopt(adoption, items)).await?;
            if listed == Listed::All {
                break;
            }
            page = self.network.list_set(&self.provider, listing.last, SET_PAGE_MAX).await?;
        }
        match self.ask_books(move |books| books.end_adoption(adoption, terms)).await? {
            AdoptionEnd::Adopted => Ok(Listed::All),
            AdoptionEnd::OtherSet => Err(Disbelief::OtherSet.into()),
        }
    }

    /// Books that are an old copy don't know what newer ones stored, and the next revision would take it out of the set.
    async fn check_books(&self) -> Result<(), AgreeError> {
        for dataset in self.ask_books(|books| books.datasets()).await? {
            match check_newest(self.books, self.network, dataset.id, Silence::Tolerated).await {
                // The latter was removed meanwhile.
                Ok(_) | Err(BehindError::Catalog(CatalogError::NoSuchDataset { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
