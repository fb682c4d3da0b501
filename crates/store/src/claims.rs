//! Renewing, releasing and listing claims, and letting them expire.

use crate::config::CLAIMS_PER_CALL_MAX;
use crate::entry::Entry;
use crate::index::Health;
use crate::put::Access;
use crate::shared::Refusal;
use crate::store::Store;
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};

/// How many fragments are looked at before others may have the lock.
const LOOKED_AT_ONCE: usize = 16 * 1024;

/// Why claims were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// More than [`CLAIMS_PER_CALL_MAX`] claims in one call: split it.
    #[error("{0} claims in one call, {CLAIMS_PER_CALL_MAX} are allowed")]
    TooMany(usize),
    /// Not even the reserve had room. Try again later.
    #[error("the disk is full")]
    Full,
    /// The claims are what they were.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
}

impl From<Refusal> for ClaimError {
    fn from(refusal: Refusal) -> ClaimError {
        match refusal {
            Refusal::Full => ClaimError::Full,
            Refusal::ReadOnly { reason } => ClaimError::ReadOnly { reason },
        }
    }
}

/// What became of one renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The claim lasts until then: durable, and may be signed for.
    Renewed {
        /// The fragment's bytes.
        length: u64,
        /// The new end, or the old one where that is later.
        until: Timestamp,
    },
    /// The client has no claim on it: it must send the fragment again.
    Absent,
    /// The fragment rotted here; the claim is as it was. The client should send it again, or release it.
    Rotten,
}

/// What became of one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The claim is gone, durably.
    Released,
    /// There was none.
    Absent,
    /// The client has asked for the claim again since: this release is a late one, and nothing was done.
    Kept,
}

/// A client's claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimInfo {
    /// On what.
    pub fragment: FragmentId,
    /// The fragment's bytes.
    pub length: u64,
    /// Until when.
    pub until: Timestamp,
    /// Whether the bytes are right, as far as anybody looked.
    pub health: Health,
}

/// Some of a client's claims, in the order of their fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPage {
    /// The claims. There may be none although more follow.
    pub claims: Vec<ClaimInfo>,
    /// Where to go on; `None` at the end.
    pub next: Option<FragmentId>,
}

fn check_count(count: usize) -> Result<(), ClaimError> {
    if count > CLAIMS_PER_CALL_MAX { Err(ClaimError::TooMany(count)) } else { Ok(()) }
}

impl Store {
    /// Lets a client's claims last until the given times, all in one commit. The answers come in the order of the
    /// questions.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn renew(
        &self,
        client: &PublicKey,
        renewals: &[(FragmentId, Timestamp)],
        asked: Asked,
    ) -> Result<Vec<Renewal>, ClaimError> {
        check_count(renewals.len())?;
        let mut state = self.shared.admit()?;
        let number = state.index.number_of(client);
        let mut answers = Vec::with_capacity(renewals.len());
        for (id, until) in renewals {
            let fragment = state.index.fragment(id);
            let found = fragment.and_then(|fragment| Some((fragment, fragment.claim_of(number?)?)));
            answers.push(match found {
                None => Renewal::Absent,
                Some((fragment, _)) if fragment.health == Health::Rotten => Renewal::Rotten,
                Some((fragment, claim)) => {
                    let (length, mut claim) = (u64::from(fragment.length), *claim);
                    if claim.until < *until || claim.asked < asked {
                        (claim.until, claim.asked) = (claim.until.max(*until), claim.asked.max(asked));
                        state.record(&Entry::Claimed { id: *id, claim });
                    }
                    Renewal::Renewed { length, until: claim.until }
                }
            });
        }
        self.shared.commit(state)?;
        Ok(answers)
    }

    /// Claims fragments that are here already, all in one commit and whatever the quota: a provider's own claim on what it has
    /// promised to keep. Answers as [`Store::renew`] does; absent is what nobody claims.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn claim_held(
        &self,
        client: &PublicKey,
        ids: &[FragmentId],
        until: Timestamp,
        asked: Asked,
    ) -> Result<Vec<Renewal>, ClaimError> {
        check_count(ids.len())?;
        let mut state = self.shared.admit()?;
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            let found = state.index.claimed(id).map(|fragment| (fragment.length, fragment.health));
            answers.push(match found {
                None => Renewal::Absent,
                Some((_, Health::Rotten)) => Renewal::Rotten,
                Some((length, Health::Sound)) => {
                    let until = state.record_claim(*id, client, Access::Owner, (until, asked));
                    Renewal::Renewed { length: u64::from(length), until }
                }
            });
        }
        self.shared.commit(state)?;
        Ok(answers)
    }

    /// Drops a client's claims, all in one commit, but for those that it has asked for again since. The answers come in
    /// the order of the questions.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn release(
        &self,
        client: &PublicKey,
        ids: &[FragmentId],
        asked: Asked,
        now: Timestamp,
    ) -> Result<Vec<Release>, ClaimError> {
        check_count(ids.len())?;
        let mut state = self.shared.admit()?;
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            // Asked again for each: a key is forgotten with its last claim.
            let number = state.index.number_of(client);
            let fragment = state.index.fragment(id);
            let claim = number.and_then(|number| fragment?.claim_of(number)).copied();
            answers.push(match claim {
                None => Release::Absent,
                Some(claim) if claim.asked > asked => Release::Kept,
                Some(claim) => {
                    state.record(&Entry::Released { id: *id, client: claim.client, at: now });
                    Release::Released
                }
            });
        }
        self.shared.commit(state)?;
        Ok(answers)
    }

    /// A page of a client's claims, those after `after`, at most `limit`.
    #[must_use]
    pub fn claims(&self, client: &PublicKey, after: Option<FragmentId>, limit: usize) -> ClaimPage {
        let mut page = ClaimPage { claims: Vec::new(), next: None };
        let state = self.shared.lock();
        let Some(number) = state.index.number_of(client) else {
            return page;
        };
        for (looked, (id, fragment)) in state.index.fragments_after(after).enumerate() {
            if let Some(claim) = fragment.claim_of(number) {
                page.claims.push(ClaimInfo {
                    fragment: *id,
                    length: u64::from(fragment.length),
                    until: claim.until,
                    health: fragment.health,
                });
            }
            if page.claims.len() >= limit.max(1) || looked >= LOOKED_AT_ONCE {
                page.next = Some(*id);
                break;
            }
        }
        page
    }

    /// Drops all claims whose end is before `now`; says how many. It walks through the index, letting others in between,
    /// only when a claim may have ended since the last walk.
    ///
    /// # Errors
    /// [`ClaimError`]; some claims may be dropped then.
    pub fn expire(&self, now: Timestamp) -> Result<u64, ClaimError> {
        {
            let mut state = self.shared.lock();
            if now <= state.no_end_before {
                return Ok(0);
            }
            // Claims that come in the meantime lower it again.
            state.no_end_before = Timestamp(u64::MAX);
        }
        let (expired, earliest) = match self.expire_all(now) {
            Ok((expired, earliest)) => (Ok(expired), earliest),
            Err(error) => (Err(error), Timestamp(0)),
        };
        let mut state = self.shared.lock();
        state.no_end_before = state.no_end_before.min(earliest);
        expired
    }

    /// How many claims were dropped, and when the first of the others ends.
    fn expire_all(&self, now: Timestamp) -> Result<(u64, Timestamp), ClaimError> {
        let (mut expired, mut after, mut at_end) = (0, None, false);
        let mut earliest = Timestamp(u64::MAX);
        while !at_end {
            let mut state = self.shared.admit()?;
            let mut due = Vec::new();
            at_end = true;
            let mut seen = after;
            for (looked, (id, fragment)) in state.index.fragments_after(after).enumerate() {
                for claim in fragment.claims() {
                    if claim.until < now {
                        due.push((*id, claim.client));
                    } else {
                        earliest = earliest.min(claim.until);
                    }
                }
                if due.len() > CLAIMS_PER_CALL_MAX {
                    // The rest of this fragment's claims come next time.
                    due.truncate(CLAIMS_PER_CALL_MAX);
                    at_end = false;
                    break;
                }
                seen = Some(*id);
                if looked >= LOOKED_AT_ONCE {
                    at_end = false;
                    break;
                }
            }
            after = seen;
            for (id, client) in &due {
                state.record(&Entry::Released { id: *id, client: *client, at: now });
            }
            expired += u64::try_from(due.len()).expect("usize has at most 64 bits");
            if due.is_empty() {
                drop(state);
            } else {
                self.shared.commit(state)?;
            }
        }
        Ok((expired, earliest))
    }
}
