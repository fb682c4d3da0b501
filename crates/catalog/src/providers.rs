//! Providers: what they say of themselves and what we saw of them.

use crate::error::CatalogError;
use crate::records::{
    Contact, Outcome, Provider, ProviderProfile, ProviderSource, ProviderStats, RegisteredProvider, Work,
};
use crate::segments::key_at;
use crate::turn::{DatasetNumber, Turn, Urgency};
use rusqlite::{Row, params};
use seedbank_agreement::Address;
use seedbank_formats::{DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp};
use std::collections::BTreeSet;

/// An address that a person gave is replaced by the registry's when so many requests in a row failed there.
const FAILURES_BEFORE_FOLLOWING: u64 = 3;

impl Turn<'_> {
    pub(crate) fn put_provider(&self, profile: ProviderProfile) -> Result<(), CatalogError> {
        let key = *profile.key.as_bytes();
        self.run("DELETE FROM removed_providers WHERE key = ?1", [key])?;
        self.insert_provider(&profile, "hand")?;
        let sql = "UPDATE providers SET source = 'hand', address = ?2 WHERE key = ?1";
        self.run(sql, params![key, profile.address])?;
        self.hear_provider(profile)
    }

    fn insert_provider(&self, profile: &ProviderProfile, source: &str) -> Result<(), CatalogError> {
        let ProviderProfile { key, address, operator, region, capacity_bytes, free_bytes, accepting } =
            profile;
        let sql = "INSERT INTO providers
                       (key, address, operator, region, capacity_bytes, free_bytes, accepting, added, source)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                   ON CONFLICT (key) DO NOTHING";
        let key = key.as_bytes();
        let values = params![
            key,
            address,
            operator,
            region,
            capacity_bytes,
            free_bytes,
            accepting,
            self.now.0,
            source
        ];
        self.run(sql, values).map(drop)
    }

    pub(crate) fn hear_provider(&self, profile: ProviderProfile) -> Result<(), CatalogError> {
        let ProviderProfile { key, address: _, operator, region, capacity_bytes, free_bytes, accepting } =
            profile;
        let sql = "UPDATE providers SET operator = ?2, region = ?3, capacity_bytes = ?4, free_bytes = ?5,
                       accepting = ?6
                   WHERE key = ?1";
        let key = key.as_bytes();
        self.run(sql, params![key, operator, region, capacity_bytes, free_bytes, accepting]).map(drop)
    }

    pub(crate) fn merge_registered(&self, entries: Vec<RegisteredProvider>) -> Result<u64, CatalogError> {
        let removed: BTreeSet<PublicKey> = self.removed_providers()?.into_iter().collect();
        let known: BTreeSet<PublicKey> =
            self.providers()?.into_iter().map(|provider| provider.profile.key).collect();
        let mut added = 0;
        for RegisteredProvider { key, wallet, address, leaving, greeted } in entries {
            // Its wallet names this key now: what it named before is no longer its.
            let sql = "UPDATE providers SET wallet = NULL, leaving = (source = 'registry')
                       WHERE wallet = ?1 AND key <> ?2";
            self.run(sql, params![wallet.0, key.as_bytes()])?;
            if removed.contains(&key) {
                continue;
            }
            match greeted {
                Some(profile) if !known.contains(&key) && profile.key == key => {
                    self.insert_provider(&profile, "registry")?;
                    added += 1;
                }
                _ => {}
            }
            let sql = "UPDATE providers SET wallet = ?2, leaving = ?3,
                           address = CASE WHEN source = 'registry' OR failures_in_row >= ?5
                                     THEN ?4 ELSE address END
                       WHERE key = ?1";
            let values = params![key.as_bytes(), wallet.0, leaving, address, FAILURES_BEFORE_FOLLOWING];
            self.run(sql, values)?;
        }
        Ok(added)
    }

    pub(crate) fn removed_providers(&self) -> Result<Vec<PublicKey>, CatalogError> {
        self.all("SELECT key FROM removed_providers ORDER BY key", [], |row| Ok(PublicKey(row.get(0)?)))
    }

    pub(crate) fn providers(&self) -> Result<Vec<Provider>, CatalogError> {
        // Whoever leaves or stopped proving takes nothing more from us, whatever it says.
        let sql = "SELECT key, address, operator, region, capacity_bytes, free_bytes,
                       accepting AND NOT leaving AND NOT EXISTS (
                           SELECT 1 FROM agreements a WHERE a.provider = key AND a.state = 'stopped'),
                       added, last_seen, requests, failures, failures_in_row, lies, latency_us,
                       latency_deviation_us, source = 'registry', wallet, leaving
                   FROM providers ORDER BY key";
        self.all(sql, [], |row| {
            let profile = ProviderProfile {
                key: PublicKey(row.get(0)?),
                address: row.get(1)?,
                operator: row.get(2)?,
                region: row.get(3)?,
                capacity_bytes: row.get(4)?,
                free_bytes: row.get(5)?,
                accepting: row.get(6)?,
            };
            let is_registered: bool = row.get(15)?;
            Ok(Provider {
                profile,
                stats: stats_at(row, 8)?,
                added: Timestamp(row.get(7)?),
                source: if is_registered { ProviderSource::Registry } else { ProviderSource::Hand },
                wallet: row.get::<_, Option<[u8; 20]>>(16)?.map(Address),
                leaving: row.get(17)?,
            })
        })
    }

    pub(crate) fn record_contacts(&self, contacts: Vec<Contact>) -> Result<(), CatalogError> {
        for Contact { provider, outcome } in contacts {
            let sql = "SELECT last_seen, requests, failures, failures_in_row, lies, latency_us,
                           latency_deviation_us
                       FROM providers WHERE key = ?1";
            let known = self.one(sql, [provider.as_bytes()], |row| stats_at(row, 0))?;
            let Some(before) = known else { continue };
            let after = observe(before, outcome, self.now);
            self.run(
                "UPDATE providers SET last_seen = ?2, requests = ?3, failures = ?4, failures_in_row = ?5,
                     lies = ?6, latency_us = ?7, latency_deviation_us = ?8
                 WHERE key = ?1",
                params![
                    provider.as_bytes(),
                    after.last_seen.map(|time| time.0),
                    after.requests,
                    after.failures,
                    after.failures_in_row,
                    after.lies,
                    after.latency_us,
                    after.latency_deviation_us
                ],
            )?;
        }
        Ok(())
    }

    pub(crate) fn forget_holdings(&self, provider: PublicKey) -> Result<u64, CatalogError> {
        let sql = "SELECT DISTINCT f.dataset, d.id, f.segment
                   FROM fragments f JOIN datasets d ON d.number = f.dataset WHERE f.holder = ?1";
        let segments = self.all(sql, [provider.as_bytes()], |row| {
            Ok((DatasetNumber(row.get(0)?), DatasetId(row.get(1)?), SegmentNumber(row.get(2)?)))
        })?;
        let sql = "UPDATE fragments SET holder = NULL, claim_until = 0 WHERE holder = ?1";
        let lost = self.run(sql, [provider.as_bytes()])?;
        for (number, dataset, segment) in segments {
            self.note_placement_change(number, segment, Urgency::Urgent)?;
            self.add_job(Work::CompleteFragments { dataset, segment }, self.now)?;
        }
        Ok(u64::try_from(lost).unwrap_or(u64::MAX))
    }

    pub(crate) fn lose_fragments(
        &self,
        provider: PublicKey,
        fragments: Vec<FragmentId>,
    ) -> Result<u64, CatalogError> {
        let mut lost = 0;
        for fragment in fragments {
            let sql =
                "SELECT d.id, f.segment, f.position FROM fragments f JOIN datasets d ON d.number = f.dataset
                       WHERE f.holder = ?1 AND f.id = ?2";
            let keys = self.all(sql, params![provider.as_bytes(), fragment.as_bytes()], key_at)?;
            for key in keys {
                self.set_holder(key, None)?;
                lost += 1;
            }
        }
        Ok(lost)
    }

    pub(crate) fn remove_provider(&self, provider: PublicKey) -> Result<u64, CatalogError> {
        let lost = self.forget_holdings(provider)?;
        self.run("DELETE FROM publications WHERE provider = ?1", [provider.as_bytes()])?;
        // Whoever is added again may be paid again; an agreement that is open stays to be ended.
        let sql = "DELETE FROM agreements WHERE provider = ?1 AND state = 'stopped'";
        self.run(sql, [provider.as_bytes()])?;
        match self.run("DELETE FROM providers WHERE key = ?1", [provider.as_bytes()])? {
            0 => Err(CatalogError::NoSuchProvider { key: provider }),
            _ => {
                let sql = "INSERT INTO removed_providers (key) VALUES (?1) ON CONFLICT (key) DO NOTHING";
                self.run(sql, [provider.as_bytes()])?;
                Ok(lost)
            }
        }
    }
}

fn stats_at(row: &Row<'_>, first: usize) -> rusqlite::Result<ProviderStats> {
    Ok(ProviderStats {
        last_seen: row.get::<_, Option<u64>>(first)?.map(Timestamp),
        requests: row.get(first + 1)?,
        failures: row.get(first + 2)?,
        failures_in_row: row.get(first + 3)?,
        lies: row.get(first + 4)?,
        latency_us: row.get(first + 5)?,
        latency_deviation_us: row.get(first + 6)?,
    })
}

/// Longer answers count as this long: a quarter of an hour says all, and sums can't overflow.
const LATENCY_US_MAX: u64 = 15 * 60 * 1_000_000;

/// Takes one more outcome in. Latency is smoothed as TCP smooths its round trips (RFC 6298).
fn observe(before: ProviderStats, outcome: Outcome, now: Timestamp) -> ProviderStats {
    let mut stats = before;
    stats.requests += 1;
    match outcome {
        Outcome::Answered { latency_us } => {
            let sample = latency_us.min(LATENCY_US_MAX);
            if before.latency_us == 0 {
                (stats.latency_us, stats.latency_deviation_us) = (sample, sample / 2);
            } else {
                let deviation = before.latency_us.abs_diff(sample);
                stats.latency_deviation_us = (3 * before.latency_deviation_us + deviation) / 4;
                stats.latency_us = (7 * before.latency_us + sample) / 8;
            }
            stats.failures_in_row = 0;
            stats.last_seen = Some(now);
        }
        Outcome::Failed => {
            stats.failures += 1;
            stats.failures_in_row += 1;
        }
        Outcome::Lied => {
            stats.lies += 1;
            stats.last_seen = Some(now);
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::{LATENCY_US_MAX, observe};
    use crate::records::{Outcome, ProviderStats};
    use seedbank_formats::Timestamp;

    #[test]
    fn latency_follows_the_answers_and_failures_count_in_a_row() {
        let see = |stats, outcome| observe(stats, outcome, Timestamp(7));
        let first = see(ProviderStats::default(), Outcome::Answered { latency_us: 800 });
        assert_eq!((first.latency_us, first.latency_deviation_us), (800, 400));
        let second = see(first, Outcome::Answered { latency_us: 1600 });
        assert_eq!((second.latency_us, second.latency_deviation_us), (900, 500));
        let failed = see(see(second, Outcome::Failed), Outcome::Failed);
        assert_eq!((failed.requests, failed.failures, failed.failures_in_row), (4, 2, 2));
        assert_eq!(see(failed, Outcome::Lied).lies, 1);
        let slow = see(failed, Outcome::Answered { latency_us: u64::MAX });
        assert_eq!(slow.failures_in_row, 0);
        assert!(slow.latency_us < LATENCY_US_MAX);
    }
}
