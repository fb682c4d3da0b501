//! Agreements, their terms and their sets.

use super::{Books, BooksError, address, amount, bytes, json, parsed, text, to_json};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, params};
use seedbank_agreement::fragment_set::SetChange;
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Fragment, Rate, Revision, SetRoot, Signature, Signed,
};
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::payment::{ProposalRequest, TransactionHash};
use seedbank_store::CLAIM_CHARGE_MIN;
use std::collections::BTreeSet;

/// Whether an agreement goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Since this epoch.
    Closed(Epoch),
}

/// An agreement as the provider keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgreementRow {
    pub(crate) id: AgreementId,
    /// Whose wallet pays.
    pub(crate) client: Address,
    /// The key that the client speaks with.
    pub(crate) key: PublicKey,
    /// The price at which it was opened.
    pub(crate) rent: Amount,
    /// Of the last terms that the provider signed.
    pub(crate) sequence: u32,
    /// The transaction that opened it.
    pub(crate) opened: TransactionHash,
    pub(crate) state: State,
}

/// Terms that both sides signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) sequence: u32,
    pub(crate) set_root: SetRoot,
    pub(crate) size: u64,
    pub(crate) rate: Rate,
    pub(crate) from: Epoch,
    pub(crate) end: Epoch,
    pub(crate) retained_bytes: u64,
    pub(crate) retained_until: Epoch,
}

/// An offer that was accepted and is on its way to the chain, or was refused there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingProposal {
    pub(crate) digest: [u8; 32],
    pub(crate) key: PublicKey,
    pub(crate) request: ProposalRequest,
    pub(crate) rent: Amount,
}

/// The outcome of an offer that became an agreement; whatever else stands there is why it did not.
const OPENED: &str = "opened";

const AGREEMENT: &str = "SELECT id, client, key, rent, sequence, opened, closed FROM agreements";
const TERMS: &str =
    "SELECT sequence, set_root, size, rate, from_epoch, end_epoch, retained_bytes, retained_until FROM terms";

fn agreement(row: &Row<'_>) -> rusqlite::Result<AgreementRow> {
    let closed: Option<u32> = row.get(6)?;
    Ok(AgreementRow {
        id: AgreementId(row.get(0)?),
        client: address(row, 1)?,
        key: PublicKey(bytes(row, 2)?),
        rent: parsed(row, 3)?,
        sequence: row.get(4)?,
        opened: TransactionHash(bytes(row, 5)?),
        state: closed.map_or(State::Open, |epoch| State::Closed(Epoch(epoch))),
    })
}

fn terms(row: &Row<'_>) -> rusqlite::Result<Terms> {
    let rate: Amount = parsed(row, 3)?;
    let rate = Rate::try_from(rate);
    Ok(Terms {
        sequence: row.get(0)?,
        set_root: SetRoot(bytes(row, 1)?),
        size: row.get(2)?,
        rate: rate.map_err(|_| rusqlite::Error::IntegralValueOutOfRange(3, i64::MAX))?,
        from: Epoch(row.get(4)?),
        end: Epoch(row.get(5)?),
        retained_bytes: row.get(6)?,
        retained_until: Epoch(row.get(7)?),
    })
}

fn put_terms(
    transaction: &Transaction<'_>,
    id: AgreementId,
    terms: &Terms,
    signed: Option<(&Signed<Revision>, &Signature)>,
    posted: Option<&TransactionHash>,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO terms VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            id.0,
            terms.sequence,
            terms.set_root.0,
            terms.size,
            text(terms.rate),
            terms.from.0,
            terms.end.0,
            terms.retained_bytes,
            terms.retained_until.0,
            signed.map(|(revision, _)| to_json(revision)),
            signed.map(|(_, signature)| to_json(signature)),
            posted.map(|hash| hash.0),
        ],
    )?;
    Ok(())
}

fn put_leaf(
    transaction: &Transaction<'_>,
    id: AgreementId,
    sequence: u32,
    leaf: &Fragment,
) -> rusqlite::Result<()> {
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO leaves VALUES (?1, ?2, ?3, NULL, ?4, ?5)")?;
    put.execute(params![id.0, leaf.id.0, sequence, leaf.length, leaf.retain_until.0])?;
    Ok(())
}

fn offer_again(connection: &Connection, id: AgreementId) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE proposals SET outcome = NULL
         WHERE digest = (SELECT proposal FROM agreements WHERE id = ?1) AND outcome = ?2",
        params![id.0, OPENED],
    )?;
    Ok(changed > 0)
}

impl Books {
    /// Lets a key act for a wallet from now on. A key acts for one wallet.
    pub(crate) fn bind(
        &self,
        key: &PublicKey,
        client: Address,
        binding: &seedbank_formats::Signature,
    ) -> Result<(), BooksError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO wallets VALUES (?1, ?2, ?3)",
            params![key.0, client.0, binding.0],
        )?;
        Ok(())
    }

    /// The wallet that a key acts for.
    pub(crate) fn wallet_of(&self, key: &PublicKey) -> Result<Option<Address>, BooksError> {
        let found = self
            .connection
            .query_row("SELECT client FROM wallets WHERE key = ?1", [key.0], |row| address(row, 0));
        Ok(found.optional()?)
    }

    /// Keeps an offer that is to become an agreement. One for each client: a newer one takes the place of what was refused.
    pub(crate) fn add_proposal(&self, proposal: &PendingProposal, now: Timestamp) -> Result<(), BooksError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO proposals VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)",
            params![
                proposal.digest,
                proposal.request.proposal.message.client.0,
                proposal.key.0,
                proposal.request.encode(),
                text(proposal.rent),
                now.0,
            ],
        )?;
        Ok(())
    }

    /// Offers on their way to the chain.
    pub(crate) fn proposals(&self) -> Result<Vec<PendingProposal>, BooksError> {
        self.proposals_where("ORDER BY received, digest", &[])
    }

    /// Those of them that came first.
    pub(crate) fn first_proposals(&self, count: usize) -> Result<Vec<PendingProposal>, BooksError> {
        self.proposals_where("ORDER BY received, digest LIMIT ?1", params![count])
    }

    /// Those that a key made, but for one.
    pub(crate) fn proposals_of(
        &self,
        key: &PublicKey,
        but: &[u8; 32],
    ) -> Result<Vec<PendingProposal>, BooksError> {
        self.proposals_where("AND key = ?1 AND digest <> ?2", params![key.0, but])
    }

    fn proposals_where(&self, rest: &str, params: &[&dyn ToSql]) -> Result<Vec<PendingProposal>, BooksError> {
        let sql = format!("SELECT digest, key, request, rent FROM proposals WHERE outcome IS NULL {rest}");
        let mut found = self.connection.prepare_cached(&sql)?;
        let rows = found.query_map(params, |row| {
            let request: Vec<u8> = row.get(2)?;
            let request = ProposalRequest::decode(&request).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Blob, Box::new(error))
            })?;
            Ok(PendingProposal {
                digest: bytes(row, 0)?,
                key: PublicKey(bytes(row, 1)?),
                request,
                rent: parsed(row, 3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether an offer of this client is under way, other than this one.
    pub(crate) fn has_other_proposal(&self, client: Address, digest: &[u8; 32]) -> Result<bool, BooksError> {
        let mut found = self.connection.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM proposals WHERE client = ?1 AND digest <> ?2 AND outcome IS NULL)",
        )?;
        Ok(found.query_row(params![client.0, digest], |row| row.get(0))?)
    }

    /// What became of an offer: nothing is known of it, it is under way, or the chain refused it for this reason.
    pub(crate) fn proposal_outcome(&self, digest: &[u8; 32]) -> Result<Option<Option<String>>, BooksError> {
        let found =
            self.connection
                .query_row("SELECT outcome FROM proposals WHERE digest = ?1", [digest], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// The chain refused an offer.
    pub(crate) fn refuse_proposal(&self, digest: &[u8; 32], why: &str) -> Result<(), BooksError> {
        self.connection
            .execute("UPDATE proposals SET outcome = ?2 WHERE digest = ?1", params![digest, why])?;
        Ok(())
    }

    /// The chain has lost an agreement before its first epoch was over: its offer is under way again, if it is still kept.
    pub(crate) fn offer_again(&self, id: AgreementId) -> Result<bool, BooksError> {
        Ok(offer_again(&self.connection, id)?)
    }

    /// Agreements whose offers are under way again.
    pub(crate) fn offered_again(&self) -> Result<BTreeSet<AgreementId>, BooksError> {
        let mut found = self.connection.prepare_cached(
            "SELECT id FROM agreements JOIN proposals ON proposal = digest WHERE outcome IS NULL",
        )?;
        let rows = found.query_map([], |row| row.get(0).map(AgreementId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets offers that were refused and that came before this time.
    pub(crate) fn forget_refused(&self, before: Timestamp) -> Result<(), BooksError> {
        self.connection.execute(
            "DELETE FROM proposals WHERE outcome IS NOT NULL AND outcome <> ?2 AND received < ?1",
            params![before.0, OPENED],
        )?;
        Ok(())
    }

    /// Forgets the offers of agreements that have begun before this epoch: no reorganisation takes those back.
    pub(crate) fn forget_offers(&self, before: Epoch) -> Result<(), BooksError> {
        self.connection.execute(
            "DELETE FROM proposals WHERE outcome = ?2 AND digest IN (
                 SELECT proposal FROM agreements JOIN terms ON agreements.id = terms.agreement
                 WHERE terms.sequence = 0 AND from_epoch < ?1)",
            params![before.0, OPENED],
        )?;
        Ok(())
    }

    /// An offer became an agreement, whose first terms begin with `from`. It is kept for a while, since the chain may lose the agreement
    /// again; one that comes back under its old number is as it was.
    pub(crate) fn open_agreement(
        &mut self,
        proposal: &PendingProposal,
        id: AgreementId,
        from: Epoch,
        opened: TransactionHash,
    ) -> Result<(), BooksError> {
        let message = &proposal.request.proposal.message;
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "UPDATE proposals SET outcome = ?2 WHERE digest = ?1",
            params![proposal.digest, OPENED],
        )?;
        let before: Option<u32> = transaction
            .query_row("SELECT id FROM agreements WHERE proposal = ?1", [proposal.digest], |row| row.get(0))
            .optional()?;
        if before == Some(id.0) {
            let at = params![id.0, opened.0];
            transaction.execute("UPDATE agreements SET opened = ?2, closed = NULL WHERE id = ?1", at)?;
            transaction.commit()?;
            return Ok(());
        }
        // What had this number is lost too, and if it is as young its offer may be under way again. From what is older no number is taken:
        // whoever says that it is another's is wrong, and nothing is written.
        offer_again(&transaction, id)?;
        let sql = "SELECT id FROM agreements JOIN proposals ON proposal = digest WHERE id = ?1";
        let other: Option<u32> = transaction.query_row(sql, [id.0], |row| row.get(0)).optional()?;
        // Under its old number it never was.
        for number in [before, other] {
            for table in ["agreements WHERE id", "terms WHERE agreement", "leaves WHERE agreement"] {
                transaction.execute(&format!("DELETE FROM {table} = ?1"), [number])?;
            }
        }
        transaction.execute(
            "INSERT INTO agreements VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, NULL)",
            params![id.0, message.client.0, proposal.key.0, proposal.digest, text(proposal.rent), opened.0],
        )?;
        let terms = Terms {
            sequence: 0,
            set_root: message.set_root,
            size: message.size,
            rate: message.rate_per_epoch,
            from,
            end: message.end_epoch,
            retained_bytes: message.retained_bytes,
            retained_until: message.retained_until,
        };
        put_terms(&transaction, id, &terms, None, Some(&opened))?;
        for leaf in &proposal.request.added {
            let leaf = Fragment { id: leaf.fragment, length: leaf.length, retain_until: leaf.retain_until };
            put_leaf(&transaction, id, 0, &leaf)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The agreement that an offer became.
    pub(crate) fn agreement_of_proposal(
        &self,
        digest: &[u8; 32],
    ) -> Result<Option<AgreementRow>, BooksError> {
        self.one_agreement("proposal = ?1", digest)
    }

    /// The open agreement with a client.
    pub(crate) fn agreement_of(&self, client: Address) -> Result<Option<AgreementRow>, BooksError> {
        self.one_agreement("client = ?1 AND closed IS NULL", &client.0)
    }

    fn one_agreement(&self, which: &str, value: &[u8]) -> Result<Option<AgreementRow>, BooksError> {
        // The newest: one that ended may not be closed yet when the client's next one is opened.
        let sql = format!("{AGREEMENT} WHERE {which} ORDER BY id DESC LIMIT 1");
        let found = self.connection.query_row(&sql, [value], agreement);
        Ok(found.optional()?)
    }

    /// All agreements, open and closed.
    pub(crate) fn agreements(&self) -> Result<Vec<AgreementRow>, BooksError> {
        let mut found = self.connection.prepare_cached(&format!("{AGREEMENT} ORDER BY id"))?;
        let rows = found.query_map([], agreement)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// An agreement ended.
    pub(crate) fn close_agreement(&self, id: AgreementId, epoch: Epoch) -> Result<(), BooksError> {
        self.connection.execute(
            "UPDATE agreements SET closed = ?2 WHERE id = ?1 AND closed IS NULL",
            params![id.0, epoch.0],
        )?;
        Ok(())
    }

    /// An agreement goes on after all.
    pub(crate) fn reopen(&self, id: AgreementId) -> Result<(), BooksError> {
        self.connection.execute("UPDATE agreements SET closed = NULL WHERE id = ?1", [id.0])?;
        Ok(())
    }

    /// Agreements that were closed before an epoch and whose sets are still kept.
    pub(crate) fn closed_with_leaves(&self, before: Epoch) -> Result<Vec<AgreementId>, BooksError> {
        let mut found = self.connection.prepare_cached(
            "SELECT id FROM agreements
             WHERE closed < ?1 AND EXISTS (SELECT 1 FROM leaves WHERE agreement = id) ORDER BY id",
        )?;
        let rows = found.query_map([before.0], |row| row.get(0).map(AgreementId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// When the terms end that were posted last.
    pub(crate) fn posted_end(&self, id: AgreementId) -> Result<Option<Epoch>, BooksError> {
        Ok(self.posted_terms(id)?.map(|terms| terms.end))
    }

    /// Terms of an agreement.
    pub(crate) fn terms(&self, id: AgreementId, sequence: u32) -> Result<Option<Terms>, BooksError> {
        let sql = format!("{TERMS} WHERE agreement = ?1 AND sequence = ?2");
        Ok(self.connection.query_row(&sql, params![id.0, sequence], terms).optional()?)
    }

    /// The terms that held in an epoch: the last ones that were posted for it or before.
    pub(crate) fn terms_in(&self, id: AgreementId, epoch: Epoch) -> Result<Option<Terms>, BooksError> {
        let sql = format!(
            "{TERMS} WHERE agreement = ?1 AND posted IS NOT NULL AND from_epoch <= ?2 ORDER BY sequence DESC LIMIT 1"
        );
        let found = self.connection.query_row(&sql, params![id.0, epoch.0], terms).optional()?;
        Ok(found.filter(|terms| terms.end > epoch))
    }

    /// The last terms with this root, among those up to a sequence: a set may come back.
    pub(crate) fn terms_with(
        &self,
        id: AgreementId,
        (root, size): (&SetRoot, u64),
        up_to: u32,
    ) -> Result<Option<Terms>, BooksError> {
        let sql = format!(
            "{TERMS} WHERE agreement = ?1 AND set_root = ?2 AND size = ?3 AND sequence <= ?4 ORDER BY sequence DESC LIMIT 1"
        );
        Ok(self.connection.query_row(&sql, params![id.0, root.0, size, up_to], terms).optional()?)
    }

    /// What both signed, word for word.
    pub(crate) fn signed(
        &self,
        id: AgreementId,
        sequence: u32,
    ) -> Result<Option<(Signed<Revision>, Signature)>, BooksError> {
        let sql = "SELECT signed, signature FROM terms WHERE agreement = ?1 AND sequence = ?2 AND signed IS NOT NULL";
        let found =
            self.connection.query_row(sql, params![id.0, sequence], |row| Ok((json(row, 0)?, json(row, 1)?)));
        Ok(found.optional()?)
    }

    /// The fragments of an agreement's set at a sequence, in rising order.
    pub(crate) fn leaves(&self, id: AgreementId, sequence: u32) -> Result<Vec<Fragment>, BooksError> {
        let mut found = self.connection.prepare_cached(
            "SELECT fragment, length, retain_until FROM leaves
             WHERE agreement = ?1 AND since <= ?2 AND (gone IS NULL OR gone > ?2) ORDER BY fragment",
        )?;
        let rows = found.query_map(params![id.0, sequence], |row| {
            Ok(Fragment {
                id: FragmentId(bytes(row, 0)?),
                length: row.get(1)?,
                retain_until: Epoch(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps new terms, if the agreement is still at `base`. Only then may the signature leave.
    pub(crate) fn add_revision(
        &mut self,
        id: AgreementId,
        base: u32,
        new: &Terms,
        change: &SetChange,
        signed: (&Signed<Revision>, &Signature),
    ) -> Result<bool, BooksError> {
        let transaction = self.connection.transaction()?;
        let moved = transaction.execute(
            "UPDATE agreements SET sequence = ?3 WHERE id = ?1 AND sequence = ?2 AND closed IS NULL",
            params![id.0, base, new.sequence],
        )?;
        if moved == 0 {
            return Ok(false);
        }
        put_terms(&transaction, id, new, Some(signed), None)?;
        {
            let mut gone = transaction.prepare_cached(
                "UPDATE leaves SET gone = ?3 WHERE agreement = ?1 AND fragment = ?2 AND gone IS NULL",
            )?;
            for fragment in change.dropped.iter().chain(change.put.keys()) {
                gone.execute(params![id.0, fragment.0, new.sequence])?;
            }
        }
        for leaf in change.put.values() {
            put_leaf(&transaction, id, new.sequence, leaf)?;
        }
        transaction.commit()?;
        Ok(true)
    }

    /// Offers that are under way.
    pub(crate) fn offers_under_way(&self) -> Result<u64, BooksError> {
        let sql = "SELECT count(*) FROM proposals WHERE outcome IS NULL";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// How many revisions of an agreement are signed for epochs after this one.
    pub(crate) fn terms_for(&self, id: AgreementId, epoch: Epoch) -> Result<u64, BooksError> {
        let sql = "SELECT count(*) FROM terms WHERE agreement = ?1 AND from_epoch > ?2";
        Ok(self.connection.query_row(sql, params![id.0, epoch.0], |row| row.get(0))?)
    }

    /// What is kept for a key although its sets dropped it, and all that closed agreements had.
    pub(crate) fn dropped_bytes(&self, key: &PublicKey) -> Result<u64, BooksError> {
        let sql = "SELECT coalesce(sum(bytes), 0) FROM (
                 SELECT max(length, ?2) AS bytes FROM (
                     SELECT fragment, length FROM agreements JOIN leaves ON agreement = id
                     WHERE key = ?1 AND gone IS NOT NULL
                     UNION SELECT fragment, length FROM agreements JOIN leaves ON agreement = id
                     WHERE key = ?1 AND closed IS NOT NULL) AS old
                 WHERE NOT EXISTS (
                     SELECT 1 FROM leaves AS live JOIN agreements AS a ON a.id = live.agreement
                     WHERE live.fragment = old.fragment AND live.gone IS NULL AND a.key = ?1 AND a.closed IS NULL))";
        Ok(self.connection.query_row(sql, params![key.0, CLAIM_CHARGE_MIN], |row| row.get(0))?)
    }

    /// The size of a key's open agreements, but for one.
    pub(crate) fn agreed_bytes(&self, key: &PublicKey, but: Option<AgreementId>) -> Result<u64, BooksError> {
        let sql = "SELECT coalesce(sum(size), 0) FROM agreements JOIN terms
                 ON terms.agreement = agreements.id AND terms.sequence = agreements.sequence
                 WHERE key = ?1 AND closed IS NULL AND id <> ?2";
        let but = but.map_or(0, |but| but.0);
        Ok(self.connection.query_row(sql, params![key.0, but], |row| row.get(0))?)
    }

    /// By how much an epoch gets dearer once everything is posted that was signed for epochs after this one, but for one agreement's.
    pub(crate) fn dearer_unposted(
        &self,
        epoch: Epoch,
        but: Option<AgreementId>,
    ) -> Result<Amount, BooksError> {
        let mut found = self.connection.prepare_cached(
            "SELECT new.rate, coalesce((SELECT old.rate FROM terms AS old
                 WHERE old.agreement = id AND old.posted IS NOT NULL ORDER BY old.sequence DESC LIMIT 1), '0')
             FROM agreements JOIN terms AS new ON new.agreement = id AND new.sequence = agreements.sequence
             WHERE closed IS NULL AND new.posted IS NULL AND new.from_epoch > ?1 AND id <> ?2",
        )?;
        let but = but.map_or(0, |but| but.0);
        let rows = found
            .query_map(params![epoch.0, but], |row| Ok(amount(row, 0)?.saturating_sub(amount(row, 1)?)))?;
        let mut sum = Amount::ZERO;
        for more in rows {
            sum = sum.checked_add(more?).unwrap_or(Amount::MAX);
        }
        Ok(sum)
    }

    /// Forgets revisions that were never posted and whose time is over, but for the last one. Those that may have been posted without the
    /// books having seen it are young.
    pub(crate) fn prune_terms(&self, id: AgreementId, epoch: Epoch) -> Result<(), BooksError> {
        self.connection.execute(
            "DELETE FROM terms WHERE agreement = ?1 AND posted IS NULL AND from_epoch + 2 <= ?2
             AND sequence < (SELECT sequence FROM agreements WHERE id = ?1)",
            params![id.0, epoch.0],
        )?;
        Ok(())
    }

    /// What an agreement brings on the chain as far as the books know: since when, and how much an epoch.
    pub(crate) fn posted_terms(&self, id: AgreementId) -> Result<Option<Terms>, BooksError> {
        let sql =
            format!("{TERMS} WHERE agreement = ?1 AND posted IS NOT NULL ORDER BY sequence DESC LIMIT 1");
        Ok(self.connection.query_row(&sql, [id.0], terms).optional()?)
    }

    /// The last revision of each open agreement that is for this epoch and was not posted yet.
    pub(crate) fn unposted(&self, from: Epoch) -> Result<Vec<(Signed<Revision>, Signature)>, BooksError> {
        let mut found = self.connection.prepare_cached(
            "SELECT signed, signature FROM terms JOIN agreements
             ON terms.agreement = agreements.id AND terms.sequence = agreements.sequence
             WHERE posted IS NULL AND from_epoch = ?1 AND closed IS NULL AND signed IS NOT NULL ORDER BY id",
        )?;
        let rows = found.query_map([from.0], |row| Ok((json(row, 0)?, json(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The chain has these terms. Whoever posted them: by which transaction is known only for one's own.
    pub(crate) fn mark_posted(
        &self,
        id: AgreementId,
        sequence: u32,
        by: Option<&TransactionHash>,
    ) -> Result<(), BooksError> {
        let by = by.map_or([0; 32], |hash| hash.0);
        self.connection.execute(
            "UPDATE terms SET posted = ?3 WHERE agreement = ?1 AND sequence = ?2 AND posted IS NULL",
            params![id.0, sequence, by],
        )?;
        Ok(())
    }

    /// The chain has lost terms beyond this sequence that were posted: they wait to be posted again. How many.
    pub(crate) fn unmark_posted(&self, id: AgreementId, beyond: u32) -> Result<usize, BooksError> {
        let sql =
            "UPDATE terms SET posted = NULL WHERE agreement = ?1 AND sequence > ?2 AND posted IS NOT NULL";
        Ok(self.connection.execute(sql, params![id.0, beyond])?)
    }

    /// Open agreements with terms that begin or end with an epoch, as far as the books know.
    pub(crate) fn due(&self, epoch: Epoch) -> Result<Vec<AgreementId>, BooksError> {
        let mut found = self.connection.prepare_cached(
            "SELECT DISTINCT id FROM agreements JOIN terms ON agreements.id = terms.agreement
             WHERE closed IS NULL AND posted IS NOT NULL AND (from_epoch = ?1 OR end_epoch = ?1) ORDER BY id",
        )?;
        let rows = found.query_map([epoch.0], |row| row.get(0).map(AgreementId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// An agreement ends sooner than its terms say.
    pub(crate) fn end_at(&self, id: AgreementId, sequence: u32, end: Epoch) -> Result<(), BooksError> {
        self.connection.execute(
            "UPDATE terms SET end_epoch = ?3 WHERE agreement = ?1 AND sequence = ?2 AND end_epoch > ?3",
            params![id.0, sequence, end.0],
        )?;
        Ok(())
    }

    /// Forgets fragments that belong to no set from `sequence` on (`None`: to no set at all), and says which are in no
    /// other agreement's set either.
    pub(crate) fn forget_leaves(
        &mut self,
        id: AgreementId,
        sequence: Option<u32>,
    ) -> Result<Vec<FragmentId>, BooksError> {
        let transaction = self.connection.transaction()?;
        let delete = |and: &str, params: &[&dyn ToSql]| -> rusqlite::Result<BTreeSet<[u8; 32]>> {
            let sql = format!("DELETE FROM leaves WHERE agreement = ?1 {and} RETURNING fragment");
            transaction.prepare_cached(&sql)?.query_map(params, |row| row.get(0))?.collect()
        };
        let gone = match sequence {
            Some(sequence) => delete("AND gone <= ?2", params![id.0, sequence])?,
            None => delete("", params![id.0])?,
        };
        let mut free = Vec::new();
        {
            let mut wanted =
                transaction.prepare_cached("SELECT EXISTS (SELECT 1 FROM leaves WHERE fragment = ?1)")?;
            for fragment in gone {
                if !wanted.query_row([fragment], |row| row.get(0))? {
                    free.push(FragmentId(fragment));
                }
            }
        }
        transaction.commit()?;
        Ok(free)
    }

    /// Whether a fragment belongs to any set that is kept.
    pub(crate) fn is_promised(&self, fragment: &FragmentId) -> Result<bool, BooksError> {
        let mut found =
            self.connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM leaves WHERE fragment = ?1)")?;
        Ok(found.query_row([fragment.0], |row| row.get(0))?)
    }
}
