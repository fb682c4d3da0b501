//! Vouchers, what was cashed, and what readers owe.

use super::{Books, BooksError, address, amount, bytes, json, put_meta, text, to_json};
use rusqlite::{OptionalExtension, Transaction, params};
use seedbank_agreement::credit::{Account, Network};
use seedbank_agreement::{Address, Amount, Lane, Signed, Voucher};
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::payment::TransactionHash;
use std::collections::BTreeMap;

/// What may have been read and is not in the books, in `meta`.
const MISSING: &str = "unwritten_reads";
/// Nobody's key: no signature is valid for it.
const NOBODY: PublicKey = PublicKey([0; 32]);

/// A voucher that was cashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedemptionRow {
    pub(crate) transaction: TransactionHash,
    pub(crate) paid: Amount,
    pub(crate) time: Timestamp,
    /// The evidence.
    pub(crate) voucher: Signed<Voucher>,
}

/// Accounts as they are to be in the books; `None` for those that are even.
pub(crate) type Accounts = BTreeMap<PublicKey, Option<Account>>;

/// Until the next time, reads worth `may_miss` may be counted that are not in the books; `None` leaves what they say of that.
fn put_accounts(
    transaction: &Transaction<'_>,
    accounts: &Accounts,
    may_miss: Option<Amount>,
) -> rusqlite::Result<()> {
    for (key, account) in accounts {
        put_account(transaction, key, account.as_ref())?;
    }
    match may_miss {
        Some(may_miss) => put_meta(transaction, MISSING, &text(may_miss)),
        None => Ok(()),
    }
}

fn put_account(
    transaction: &Transaction<'_>,
    key: &PublicKey,
    account: Option<&Account>,
) -> rusqlite::Result<()> {
    match account {
        None => transaction.execute("DELETE FROM accounts WHERE key = ?1", [key.0])?,
        Some(account) => transaction.execute(
            "INSERT OR REPLACE INTO accounts VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                key.0,
                network_bytes(account.network),
                text(account.owed),
                text(account.ahead),
                account.since.0,
            ],
        )?,
    };
    Ok(())
}

fn network_bytes(network: Network) -> Vec<u8> {
    match network {
        Network::V4(bytes) => bytes.to_vec(),
        Network::V6(bytes) => bytes.to_vec(),
    }
}

fn network(bytes: &[u8]) -> Option<Network> {
    match bytes.len() {
        3 => bytes.try_into().ok().map(Network::V4),
        6 => bytes.try_into().ok().map(Network::V6),
        _ => None,
    }
}

impl Books {
    /// A lane as it was kept.
    pub(crate) fn lane(
        &self,
        payer: Address,
        signer: Address,
    ) -> Result<Option<(Lane, Timestamp)>, BooksError> {
        let found = self.connection.query_row(
            "SELECT lane, since FROM lanes WHERE payer = ?1 AND signer = ?2",
            params![payer.0, signer.0],
            |row| Ok((json(row, 0)?, Timestamp(row.get(1)?))),
        );
        Ok(found.optional()?)
    }

    /// All lanes, with the time since when their oldest voucher waits.
    pub(crate) fn lanes(&self) -> Result<Vec<(Address, Address, Lane, Timestamp)>, BooksError> {
        let mut found = self.connection.prepare_cached("SELECT payer, signer, lane, since FROM lanes")?;
        let rows = found.query_map([], |row| {
            Ok((address(row, 0)?, address(row, 1)?, json(row, 2)?, Timestamp(row.get(3)?)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a lane with a newer voucher, the account that it pays for, and others with it, in one commit.
    pub(crate) fn keep_payment(
        &mut self,
        (payer, signer): (Address, Address),
        lane: &Lane,
        since: Timestamp,
        accounts: &Accounts,
        may_miss: Option<Amount>,
    ) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        put_lane(&transaction, payer, signer, lane, since)?;
        put_accounts(&transaction, accounts, may_miss)?;
        transaction.commit()?;
        Ok(())
    }

    /// Keeps what was cashed, and the lane as it is after.
    pub(crate) fn keep_redemption(
        &mut self,
        redemption: &RedemptionRow,
        lane: &Lane,
    ) -> Result<(), BooksError> {
        let Voucher { payer, signer, cumulative, .. } = redemption.voucher.message;
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT OR REPLACE INTO redemptions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                redemption.transaction.0,
                payer.0,
                signer.0,
                text(redemption.paid),
                text(cumulative),
                redemption.time.0,
                to_json(&redemption.voucher),
            ],
        )?;
        put_lane(&transaction, payer, signer, lane, redemption.time)?;
        transaction.commit()?;
        Ok(())
    }

    /// The chain has paid this lane less than the books say: what was cashed beyond that never was, and waits again. How much that is.
    pub(crate) fn take_back_redemptions(
        &mut self,
        (payer, signer): (Address, Address),
        lane: &Lane,
        since: Timestamp,
    ) -> Result<Amount, BooksError> {
        let redeemed = lane.cover().redeemed;
        let transaction = self.connection.transaction()?;
        let mut vanished = Amount::ZERO;
        {
            let mut found = transaction.prepare_cached(
                "SELECT txn, cumulative, paid FROM redemptions WHERE payer = ?1 AND signer = ?2",
            )?;
            let rows = found.query_map(params![payer.0, signer.0], |row| {
                Ok((bytes::<32>(row, 0)?, amount(row, 1)?, amount(row, 2)?))
            })?;
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            let mut remove = transaction
                .prepare_cached("DELETE FROM redemptions WHERE txn = ?1 AND payer = ?2 AND signer = ?3")?;
            for (txn, _, paid) in rows.into_iter().filter(|(_, cumulative, _)| *cumulative > redeemed) {
                remove.execute(params![txn, payer.0, signer.0])?;
                vanished = vanished.checked_add(paid).unwrap_or(Amount::MAX);
            }
        }
        put_lane(&transaction, payer, signer, lane, since)?;
        transaction.commit()?;
        Ok(vanished)
    }

    /// Keeps a lane as the chain has it now.
    pub(crate) fn keep_lane(
        &mut self,
        (payer, signer): (Address, Address),
        lane: &Lane,
        since: Timestamp,
    ) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        put_lane(&transaction, payer, signer, lane, since)?;
        transaction.commit()?;
        Ok(())
    }

    /// Forgets lanes, but for those that had a voucher since.
    pub(crate) fn forget_lanes(
        &mut self,
        lanes: &[(Address, Address)],
        before: Timestamp,
    ) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        for (payer, signer) in lanes {
            transaction.execute(
                "DELETE FROM lanes WHERE payer = ?1 AND signer = ?2 AND since < ?3",
                params![payer.0, signer.0, before.0],
            )?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Everything that was cashed.
    pub(crate) fn redemptions(&self) -> Result<Vec<RedemptionRow>, BooksError> {
        let mut found = self
            .connection
            .prepare_cached("SELECT txn, paid, time, voucher FROM redemptions ORDER BY time")?;
        let rows = found.query_map([], |row| {
            Ok(RedemptionRow {
                transaction: TransactionHash(bytes(row, 0)?),
                paid: amount(row, 1)?,
                time: Timestamp(row.get(2)?),
                voucher: json(row, 3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Everybody's account.
    pub(crate) fn accounts(&self) -> Result<Vec<(PublicKey, Account)>, BooksError> {
        let mut found =
            self.connection.prepare_cached("SELECT key, network, owed, ahead, since FROM accounts")?;
        let rows = found.query_map([], |row| {
            let network_bytes: Vec<u8> = row.get(1)?;
            let network =
                network(&network_bytes).ok_or(rusqlite::Error::InvalidColumnName("network".to_owned()))?;
            let account = Account {
                network,
                owed: amount(row, 2)?,
                ahead: amount(row, 3)?,
                since: Timestamp(row.get(4)?),
            };
            Ok((PublicKey(bytes(row, 0)?), account))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps accounts as they are; `None` for those that are even. Until the next time so much may be read that is not in the books.
    pub(crate) fn keep_accounts(&mut self, accounts: &Accounts, may_miss: Amount) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        put_accounts(&transaction, accounts, Some(may_miss))?;
        transaction.commit()?;
        Ok(())
    }

    /// Sets aside what a daemon that was killed may have served and not written down, as the debt of nobody. How much that is.
    pub(crate) fn charge_what_was_lost(&mut self, now: Timestamp) -> Result<Amount, BooksError> {
        let missing: Amount = self.meta(MISSING)?.and_then(|text| text.parse().ok()).unwrap_or_default();
        if missing == Amount::ZERO {
            return Ok(missing);
        }
        let before = self.accounts()?.into_iter().find(|(key, _)| *key == NOBODY).map(|(_, account)| account);
        let owed = before.map_or(Amount::ZERO, |account| account.owed).checked_add(missing);
        let account = Account {
            network: Network::V4([0; 3]),
            owed: owed.unwrap_or(Amount::MAX),
            ahead: Amount::ZERO,
            since: now,
        };
        self.keep_accounts(&Accounts::from([(NOBODY, Some(account))]), Amount::ZERO)?;
        Ok(missing)
    }
}

fn put_lane(
    transaction: &Transaction<'_>,
    payer: Address,
    signer: Address,
    lane: &Lane,
    since: Timestamp,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT OR REPLACE INTO lanes VALUES (?1, ?2, ?3, ?4)",
        params![payer.0, signer.0, to_json(lane), since.0],
    )?;
    Ok(())
}
