//! Agreements about pay: which fragments each provider has signed for, and what it is being asked to sign.
//!
//! What is signed and what is held differ all the time: a push places fragments before anybody signs, a collection gives
//! fragments up that are still in a signed set. So a set has rows of its own, which change with the provider's signature
//! alone. What is asked is noted before it is asked: whoever comes after a crash asks the same again. A set that only its provider
//! knows is taken in beside what is known, and takes its place when it is whole and found to be what was signed.

use crate::error::CatalogError;
use crate::records::{
    AdoptedTerms, Adoption, AdoptionEnd, Agreement, AgreementState, LeaseId, NewRevision, PendingRevision,
    RevisionEnd, SetDraft, SetItem,
};
use crate::turn::{Turn, unknown};
use rusqlite::{Row, params};
use seedbank_agreement::Epoch;
use seedbank_agreement::fragment_set::{Fragment, FragmentSet};
use seedbank_erasure::Scheme;
use seedbank_formats::{FragmentId, PublicKey, SegmentNumber};
use std::collections::BTreeSet;

/// A fragment that comes in or goes out with what is pending.
const ADDED: u8 = 1;
const REMOVED: u8 = 2;

impl Turn<'_> {
    pub(crate) fn lease_segments(&self, lease: LeaseId) -> Result<Vec<SegmentNumber>, CatalogError> {
        let sql = "SELECT segment FROM lease_uses WHERE lease = ?1 ORDER BY segment";
        self.all(sql, [lease.0], |row| Ok(SegmentNumber(row.get(0)?)))
    }

    pub(crate) fn agreements(&self) -> Result<Vec<Agreement>, CatalogError> {
        let sql = "SELECT provider, id, sequence, fragments, bytes, signed, pending_sequence, pending, state
                   FROM agreements ORDER BY provider";
        self.all(sql, [], agreement_at)
    }

    pub(crate) fn unagreed(&self, lease: Option<LeaseId>) -> Result<Vec<PublicKey>, CatalogError> {
        let sql = match lease {
            Some(_) => {
                "SELECT DISTINCT f.holder FROM lease_uses u JOIN leases l ON l.id = u.lease
                 JOIN fragments f ON f.dataset = l.dataset AND f.segment = u.segment
                 WHERE u.lease = ?1 AND f.holder IS NOT NULL AND NOT EXISTS (
                     SELECT 1 FROM agreements n JOIN agreed a ON a.agreement = n.number
                     WHERE n.provider = f.holder AND a.id = f.id)
                 ORDER BY f.holder"
            }
            None => {
                "SELECT f.holder FROM fragments f JOIN segments s ON s.dataset = f.dataset AND s.number = f.segment
                 WHERE f.holder IS NOT NULL AND s.state = 'committed' AND ?1 IS NULL AND NOT EXISTS (
                     SELECT 1 FROM agreements n JOIN agreed a ON a.agreement = n.number
                     WHERE n.provider = f.holder AND a.id = f.id)
                 UNION
                 SELECT n.provider FROM agreed a JOIN agreements n ON n.number = a.agreement
                 WHERE NOT EXISTS (SELECT 1 FROM fragments f WHERE f.holder = n.provider AND f.id = a.id)
                 ORDER BY 1"
            }
        };
        self.all(sql, params![lease.map(|lease| lease.0)], |row| Ok(PublicKey(row.get(0)?)))
    }

    pub(crate) fn draft_set(
        &self,
        provider: PublicKey,
        lease: Option<LeaseId>,
        limit: u32,
    ) -> Result<SetDraft, CatalogError> {
        let number = self.agreement_number(&provider)?.unwrap_or(0);
        let one_more = u64::from(limit) + 1;
        let mut added = match lease {
            Some(lease) => {
                let sql = "SELECT DISTINCT f.id, s.data, s.total, s.sealed_len
                           FROM lease_uses u JOIN leases l ON l.id = u.lease
                           JOIN segments s ON s.dataset = l.dataset AND s.number = u.segment
                           JOIN fragments f ON f.dataset = s.dataset AND f.segment = s.number
                           WHERE u.lease = ?4 AND f.holder = ?1 AND NOT EXISTS (
                               SELECT 1 FROM agreed a WHERE a.agreement = ?2 AND a.id = f.id)
                           ORDER BY f.id LIMIT ?3";
                self.all(sql, params![provider.as_bytes(), number, one_more, lease.0], item_at)?
            }
            None => {
                let sql = "SELECT DISTINCT f.id, s.data, s.total, s.sealed_len
                           FROM fragments f JOIN segments s ON s.dataset = f.dataset AND s.number = f.segment
                           WHERE f.holder = ?1 AND s.state = 'committed' AND NOT EXISTS (
                               SELECT 1 FROM agreed a WHERE a.agreement = ?2 AND a.id = f.id)
                           ORDER BY f.id LIMIT ?3";
                self.all(sql, params![provider.as_bytes(), number, one_more], item_at)?
            }
        };
        // Equal fragments of two segments have one id, and one length.
        added.dedup_by_key(|item| item.fragment);
        let mut removed = match lease {
            // Whoever pushes does not wait for what is given up, and signs for no more of it than was signed before.
            Some(_) if added.is_empty() => Vec::new(),
            Some(_) | None => {
                let sql = "SELECT a.id FROM agreed a WHERE a.agreement = ?2 AND NOT EXISTS (
                               SELECT 1 FROM fragments f WHERE f.holder = ?1 AND f.id = a.id)
                           ORDER BY a.id LIMIT ?3";
                let which = params![provider.as_bytes(), number, one_more];
                self.all(sql, which, |row| Ok(FragmentId(row.get(0)?)))?
            }
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = added.len() > limit || removed.len() > limit;
        added.truncate(limit);
        removed.truncate(limit);
        let gone: BTreeSet<FragmentId> = removed.iter().copied().collect();
        let sql = "SELECT id, length FROM agreed WHERE agreement = ?1";
        let mut items = self.all(sql, [number], |row| {
            Ok(SetItem { fragment: FragmentId(row.get(0)?), length: row.get(1)? })
        })?;
        items.retain(|item| !gone.contains(&item.fragment));
        items.extend(&added);
        let set = FragmentSet::new(items.iter().map(leaf))
            .map_err(|error| CatalogError::Corrupt { message: format!("an agreed set: {error}") })?;
        let fragments = u64::try_from(items.len()).unwrap_or(u64::MAX);
        Ok(SetDraft { added, removed, more, root: set.root().0, bytes: set.total(), fragments })
    }

    pub(crate) fn begin_revision(&self, revision: NewRevision) -> Result<(), CatalogError> {
        let NewRevision { provider, sequence, added, removed, request } = revision;
        let stale = || CatalogError::StaleRevision { provider };
        let known = self.agreement(&provider)?;
        match &known {
            Some(known)
                if known
                    .pending
                    .as_ref()
                    .is_some_and(|pending| pending.sequence == sequence && pending.request == request) =>
            {
                // The answer to the first time was lost.
                return Ok(());
            }
            None if sequence == 0 => self.insert_agreement(&provider)?,
            // A proposal that was refused is made anew; an agreement is revised.
            Some(known) if known.pending.is_none() && known.id.is_none() && sequence == 0 => {}
            Some(known)
                if known.pending.is_none() && known.id.is_some() && sequence == known.sequence + 1 => {}
            Some(_) | None => return Err(stale()),
        }
        let number = self.agreement_number(&provider)?.ok_or_else(stale)?;
        for item in &added {
            let sql = "INSERT INTO agreed (agreement, id, length, change) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT DO NOTHING";
            if self.run(sql, params![number, item.fragment.as_bytes(), item.length, ADDED])? == 0 {
                return Err(stale());
            }
        }
        for fragment in &removed {
            let sql = "UPDATE agreed SET change = ?3 WHERE agreement = ?1 AND id = ?2";
            if self.run(sql, params![number, fragment.as_bytes(), REMOVED])? == 0 {
                return Err(stale());
            }
        }
        self.run(
            "UPDATE agreements SET pending_sequence = ?2, pending = ?3 WHERE number = ?1",
            params![number, sequence, request],
        )
        .map(drop)
    }

    pub(crate) fn end_revision(
        &self,
        provider: PublicKey,
        sequence: u32,
        end: RevisionEnd,
    ) -> Result<(), CatalogError> {
        let stale = || CatalogError::StaleRevision { provider };
        let known = self.agreement(&provider)?.ok_or_else(stale)?;
        let number = self.agreement_number(&provider)?.ok_or_else(stale)?;
        if known.pending.as_ref().map(|pending| pending.sequence) != Some(sequence) {
            let is_done = matches!(end, RevisionEnd::Signed { id, .. } if known.id == Some(id))
                && known.sequence == sequence;
            return if is_done { Ok(()) } else { Err(stale()) };
        }
        let (out, back) = match &end {
            RevisionEnd::Signed { .. } => (REMOVED, ADDED),
            RevisionEnd::Refused => (ADDED, REMOVED),
        };
        self.run("DELETE FROM agreed WHERE agreement = ?1 AND change = ?2", params![number, out])?;
        self.run("UPDATE agreed SET change = 0 WHERE agreement = ?1 AND change = ?2", params![number, back])?;
        self.run(
            "UPDATE agreements SET pending_sequence = NULL, pending = NULL WHERE number = ?1",
            params![number],
        )?;
        if let RevisionEnd::Signed { id, signed } = end {
            self.note_signed(number, id, sequence, signed)?;
        }
        Ok(())
    }

    pub(crate) fn begin_adoption(&self, provider: PublicKey) -> Result<Adoption, CatalogError> {
        self.run("DELETE FROM adoptions WHERE provider = ?1", [provider.as_bytes()])?;
        let sql = "INSERT INTO adoptions (provider) VALUES (?1) RETURNING number";
        let number = self.one(sql, [provider.as_bytes()], |row| row.get(0))?;
        Ok(Adoption { provider, number: number.expect("a row was inserted") })
    }

    pub(crate) fn adopt(&self, adoption: Adoption, items: Vec<SetItem>) -> Result<(), CatalogError> {
        if !self.is_under_way(&adoption)? {
            return Err(CatalogError::StaleRevision { provider: adoption.provider });
        }
        for item in items {
            let sql = "INSERT OR REPLACE INTO adopted (adoption, id, length) VALUES (?1, ?2, ?3)";
            self.run(sql, params![adoption.number, item.fragment.as_bytes(), item.length])?;
        }
        Ok(())
    }

    pub(crate) fn end_adoption(
        &self,
        adoption: Adoption,
        terms: AdoptedTerms,
    ) -> Result<AdoptionEnd, CatalogError> {
        let provider = adoption.provider;
        let stale = || CatalogError::StaleRevision { provider };
        let known = self.agreement(&provider)?;
        if !self.is_under_way(&adoption)? {
            let is_done = known.is_some_and(|known| {
                (known.id, known.sequence, known.signed)
                    == (Some(terms.id), terms.sequence, Some(terms.signed))
            });
            return if is_done { Ok(AdoptionEnd::Adopted) } else { Err(stale()) };
        }
        if known.as_ref().is_some_and(|known| known.pending.is_some()) {
            return Err(stale());
        }
        let items =
            self.all("SELECT id, length FROM adopted WHERE adoption = ?1", [adoption.number], |row| {
                Ok(SetItem { fragment: FragmentId(row.get(0)?), length: row.get(1)? })
            })?;
        // Fragments that make no set at all are no set of any terms.
        let is_the_set = FragmentSet::new(items.iter().map(leaf))
            .is_ok_and(|set| (set.root().0, set.total()) == (terms.root, terms.bytes));
        if !is_the_set {
            self.drop_adoption(adoption)?;
            return Ok(AdoptionEnd::OtherSet);
        }
        if known.is_none() {
            self.insert_agreement(&provider)?;
        }
        let number = self.agreement_number(&provider)?.ok_or_else(stale)?;
        self.run("DELETE FROM agreed WHERE agreement = ?1", [number])?;
        let sql = "INSERT INTO agreed (agreement, id, length, change)
                   SELECT ?1, id, length, 0 FROM adopted WHERE adoption = ?2";
        self.run(sql, params![number, adoption.number])?;
        self.note_signed(number, terms.id, terms.sequence, terms.signed)?;
        self.drop_adoption(adoption)?;
        Ok(AdoptionEnd::Adopted)
    }

    pub(crate) fn drop_adoption(&self, adoption: Adoption) -> Result<(), CatalogError> {
        self.run("DELETE FROM adoptions WHERE number = ?1", [adoption.number]).map(drop)
    }

    fn is_under_way(&self, adoption: &Adoption) -> Result<bool, CatalogError> {
        let sql = "SELECT 1 FROM adoptions WHERE number = ?1 AND provider = ?2";
        self.any(sql, params![adoption.number, adoption.provider.as_bytes()])
    }

    fn insert_agreement(&self, provider: &PublicKey) -> Result<(), CatalogError> {
        let sql = "INSERT INTO agreements (provider, sequence, fragments, bytes, state)
                   VALUES (?1, 0, 0, 0, 'open')";
        self.run(sql, [provider.as_bytes()]).map(drop)
    }

    fn note_signed(&self, number: i64, id: u32, sequence: u32, signed: String) -> Result<(), CatalogError> {
        self.run(
            "UPDATE agreements SET id = ?2, sequence = ?3, signed = ?4,
                 fragments = (SELECT count(*) FROM agreed WHERE agreement = ?1),
                 bytes = (SELECT coalesce(sum(length), 0) FROM agreed WHERE agreement = ?1)
             WHERE number = ?1",
            params![number, id, sequence, signed],
        )
        .map(drop)
    }

    pub(crate) fn set_agreement_state(
        &self,
        provider: PublicKey,
        state: AgreementState,
    ) -> Result<(), CatalogError> {
        let sql = "UPDATE agreements SET state = ?2 WHERE provider = ?1";
        self.run(sql, params![provider.as_bytes(), state_name(state)]).map(drop)
    }

    pub(crate) fn drop_agreement(&self, provider: PublicKey) -> Result<(), CatalogError> {
        self.run("DELETE FROM agreements WHERE provider = ?1", [provider.as_bytes()]).map(drop)
    }

    fn agreement(&self, provider: &PublicKey) -> Result<Option<Agreement>, CatalogError> {
        let sql = "SELECT provider, id, sequence, fragments, bytes, signed, pending_sequence, pending, state
                   FROM agreements WHERE provider = ?1";
        self.one(sql, [provider.as_bytes()], agreement_at)
    }

    fn agreement_number(&self, provider: &PublicKey) -> Result<Option<i64>, CatalogError> {
        self.one("SELECT number FROM agreements WHERE provider = ?1", [provider.as_bytes()], |row| row.get(0))
    }
}

fn agreement_at(row: &Row<'_>) -> rusqlite::Result<Agreement> {
    let pending = match (row.get::<_, Option<u32>>(6)?, row.get::<_, Option<String>>(7)?) {
        (Some(sequence), Some(request)) => Some(PendingRevision { sequence, request }),
        (Some(_) | None, _) => None,
    };
    let state = match row.get_ref(8)?.as_str()? {
        "open" => AgreementState::Open,
        "stopped" => AgreementState::Stopped,
        other => return Err(unknown(8, other)),
    };
    Ok(Agreement {
        provider: PublicKey(row.get(0)?),
        id: row.get(1)?,
        sequence: row.get(2)?,
        fragments: row.get(3)?,
        bytes: row.get(4)?,
        signed: row.get(5)?,
        pending,
        state,
    })
}

/// As this home has it signed: it asks nobody to keep anything longer than the set has it.
fn leaf(item: &SetItem) -> Fragment {
    Fragment { id: item.fragment, length: item.length, retain_until: Epoch(0) }
}

fn state_name(state: AgreementState) -> &'static str {
    match state {
        AgreementState::Open => "open",
        AgreementState::Stopped => "stopped",
    }
}

/// A fragment and its length, which its segment's scheme and length say.
fn item_at(row: &Row<'_>) -> rusqlite::Result<SetItem> {
    let scheme = Scheme::new(row.get(1)?, row.get(2)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Integer, Box::new(error))
    })?;
    let sealed_len = usize::try_from(row.get::<_, u32>(3)?).expect("32 bits fit");
    let length = u64::try_from(scheme.fragment_len(sealed_len)).expect("usize has at most 64 bits");
    Ok(SetItem { fragment: FragmentId(row.get(0)?), length })
}
