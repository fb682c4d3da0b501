//! Finds providers in the registry, and brings the books up to date with it.
//!
//! An entry is believed when the key in it gave its word for the wallet that wrote it. Anybody may register at the price of a
//! transaction, so whoever is new comes into the books only when it answered under that key where its profile says: entries
//! that lead nowhere cost each home a few connections and nothing else.

use super::Registries;
use super::profile::Profile;
use crate::greeting::greet;
use crate::network::Network;
use crate::pay::ChainError;
use crate::uploader::SharedBooks;
use seedbank_agreement::Address;
use seedbank_catalog::records::RegisteredProvider;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_settlement::{Chain, ProviderEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinSet;

/// A look that is younger than this is not repeated: providers come, move and leave in days.
pub const LOOK_SECONDS: u64 = 300;

/// Entries read in one look. Of more, each look reads the next so many.
const ENTRIES_MAX: u64 = 4096;

/// Addresses asked for at once.
const PAGE_ENTRIES: u64 = 256;

/// Entries asked for at once.
const QUESTIONS_AT_ONCE: usize = 16;

/// New providers greeted in one look. Of more, each look chooses others.
const GREETED_MAX: usize = 256;

/// What a look at the registry found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Discovered {
    /// Entries that were read.
    pub entries: u64,
    /// Those of them whose key did not give its word for the wallet: somebody squats on it.
    pub squatted: u64,
    /// Those whose profile says nothing that can be used.
    pub unreadable: u64,
    /// Providers that are new in the books.
    pub added: u64,
    /// New ones that did not answer where their profile says.
    pub silent: u64,
}

/// Why the registry was not looked at. The books are as they were.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// Try again later.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The books can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The process is ending.
    #[error("the look at the registry was stopped")]
    Stopped,
}

/// A provider whose entry is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    key: PublicKey,
    wallet: Address,
    address: String,
    leaving: bool,
}

impl Registries {
    /// Looks at the registry if nobody has for [`LOOK_SECONDS`]; `None` if somebody has.
    ///
    /// # Errors
    /// [`DiscoverError`].
    pub async fn discover_if_due(
        &self,
        books: &SharedBooks,
        network: &Arc<Network>,
        now: Timestamp,
    ) -> Result<Option<Discovered>, DiscoverError> {
        let key = self.look_setting();
        let last = ask(books, move |books| books.setting(key)).await?;
        let last = last.and_then(|text| text.parse::<u64>().ok());
        // A clock that was put back does not keep anybody from looking.
        let is_due = last.is_none_or(|last| last > now.0 || now.0 - last >= LOOK_SECONDS);
        if is_due { self.discover(books, network, now).await.map(Some) } else { Ok(None) }
    }

    /// Looks at the registry, and brings the books and the network up to date with it.
    ///
    /// # Errors
    /// [`DiscoverError`].
    pub async fn discover(
        &self,
        books: &SharedBooks,
        network: &Arc<Network>,
        now: Timestamp,
    ) -> Result<Discovered, DiscoverError> {
        let chain = self.chain.chain().await?;
        let entries = read_entries(chain, now).await?;
        let mut found = Discovered { entries: entries.len() as u64, ..Discovered::default() };
        let listed = believed(entries, |entry| entry.identity(chain), &mut found);
        let look = |books: &SharedBooks| Ok((books.providers()?, books.removed_providers()?));
        let (known, removed) = ask(books, look).await?;
        let known: BTreeSet<PublicKey> =
            known.iter().map(|provider| provider.profile.key).chain(removed).collect();
        let strangers = strangers(&listed, &known, now);
        network.learn(strangers.iter().map(|listed| (&listed.key, listed.address.as_str())));
        let keys: Vec<PublicKey> = strangers.iter().map(|listed| listed.key).collect();
        let greeted = greet(network, &keys).await.map_err(|_ended| DiscoverError::Stopped)?;
        found.silent = (keys.len() - greeted.len()) as u64;
        let mut greeted: BTreeMap<PublicKey, _> =
            greeted.into_iter().map(|profile| (profile.key, profile)).collect();
        let entries = listed
            .into_iter()
            .map(|Listed { key, wallet, address, leaving }| RegisteredProvider {
                key,
                wallet,
                address,
                leaving,
                greeted: greeted.remove(&key),
            })
            .collect();
        let key = self.look_setting();
        let (added, known) = ask(books, move |books| {
            let added = books.merge_registered(entries)?;
            books.put_setting(key, now.0.to_string())?;
            Ok((added, books.providers()?))
        })
        .await?;
        network.learn(known.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
        Ok(Discovered { added, ..found })
    }

    /// Where the books keep the time of the last look; another deployment is another matter.
    fn look_setting(&self) -> String {
        let place = crate::pay::Chain::place(self.chain.as_ref());
        format!("registry-look-{}-{}", place.chain_id, place.registry).to_lowercase()
    }
}

/// Reads the registry's entries; of very many, those that are due.
async fn read_entries(chain: &Chain, now: Timestamp) -> Result<Vec<ProviderEntry>, DiscoverError> {
    let registry = chain.registry();
    let count = registry.count().await.map_err(ChainError::from)?;
    let first = window(count, now);
    let mut entries = Vec::new();
    let mut from = first;
    while from < count.min(first + ENTRIES_MAX) {
        let page = registry.page(from, PAGE_ENTRIES).await.map_err(ChainError::from)?;
        if page.is_empty() {
            break;
        }
        from += page.len() as u64;
        let (mut waiting, mut asked) = (page.into_iter().enumerate(), JoinSet::new());
        let mut answers = BTreeMap::new();
        loop {
            for (at, wallet) in waiting.by_ref().take(QUESTIONS_AT_ONCE - asked.len()) {
                let chain = chain.clone();
                asked.spawn(async move { (at, chain.registry().get(wallet).await) });
            }
            let Some(answer) = asked.join_next().await else { break };
            let (at, answer) = answer.map_err(|_ended| DiscoverError::Stopped)?;
            answers.insert(at, answer.map_err(ChainError::from)?);
        }
        entries.extend(answers.into_values().flatten());
    }
    Ok(entries)
}

/// The first entry that a look at `now` reads.
fn window(count: u64, now: Timestamp) -> u64 {
    let windows = count.div_ceil(ENTRIES_MAX).max(1);
    (now.0 / LOOK_SECONDS) % windows * ENTRIES_MAX
}

/// The providers whose entries are believed, each once: a key that gave its word for several wallets is taken at the first of
/// them that is not leaving.
fn believed(
    entries: Vec<ProviderEntry>,
    identity: impl Fn(&ProviderEntry) -> Option<PublicKey>,
    found: &mut Discovered,
) -> Vec<Listed> {
    let mut listed: Vec<Listed> = Vec::new();
    let mut places: BTreeMap<PublicKey, usize> = BTreeMap::new();
    for entry in entries {
        let Some(key) = identity(&entry) else {
            tracing::warn!(wallet = %entry.provider, key = %entry.claimed_identity, "an entry of the registry squats on a key");
            found.squatted += 1;
            continue;
        };
        let profile = match Profile::parse(&entry.profile) {
            Ok(profile) => profile,
            Err(error) => {
                tracing::debug!(wallet = %entry.provider, %error, "an entry of the registry can't be used");
                found.unreadable += 1;
                continue;
            }
        };
        let entry = Listed { key, wallet: entry.provider, address: profile.address, leaving: entry.leaving };
        match places.get(&key) {
            None => {
                places.insert(key, listed.len());
                listed.push(entry);
            }
            Some(&at) if listed[at].leaving && !entry.leaving => listed[at] = entry,
            Some(_) => {}
        }
    }
    listed
}

/// Those to greet that are not known: of very many, others with each look.
fn strangers<'a>(listed: &'a [Listed], known: &BTreeSet<PublicKey>, now: Timestamp) -> Vec<&'a Listed> {
    let mut strangers: Vec<&Listed> = listed.iter().filter(|listed| !known.contains(&listed.key)).collect();
    if strangers.len() > GREETED_MAX {
        strangers.sort_by_cached_key(|listed| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&now.0.to_le_bytes());
            hasher.update(listed.key.as_bytes());
            *hasher.finalize().as_bytes()
        });
        strangers.truncate(GREETED_MAX);
    }
    strangers
}

/// Asks the books where waiting holds nobody else up.
async fn ask<T: Send + 'static>(
    books: &SharedBooks,
    question: impl FnOnce(&SharedBooks) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, DiscoverError> {
    let books = Arc::clone(books);
    let asked = tokio::task::spawn_blocking(move || question(&books)).await;
    Ok(asked.map_err(|_ended| DiscoverError::Stopped)??)
}

#[cfg(test)]
mod tests {
    use super::{Discovered, ENTRIES_MAX, GREETED_MAX, LOOK_SECONDS, Listed, believed, strangers, window};
    use seedbank_agreement::{Address, Amount};
    use seedbank_formats::{PublicKey, Timestamp};
    use seedbank_settlement::ProviderEntry;
    use std::collections::BTreeSet;

    fn entry(wallet: u8, key: u8, leaving: bool) -> ProviderEntry {
        let profile = format!(
            r#"{{"address":"host-{wallet}:1","operator":"a","region":"b","rent_per_gib_month":"1","egress_per_gib":"1"}}"#
        );
        ProviderEntry {
            provider: Address([wallet; 20]),
            operator: Address([wallet; 20]),
            stake: Amount::ZERO,
            leaving,
            claimed_identity: PublicKey([key; 32]),
            identity_signature: None,
            profile,
        }
    }

    #[test]
    fn squatters_and_nonsense_are_passed_over_and_counted() {
        let entries = vec![
            entry(1, 1, false),
            entry(2, 1, false),
            ProviderEntry { profile: "{}".into(), ..entry(3, 3, false) },
        ];
        let mut found = Discovered::default();
        // Key 1 gave its word for wallet 1 alone.
        let words =
            |entry: &ProviderEntry| (entry.provider != Address([2; 20])).then_some(entry.claimed_identity);
        let listed = believed(entries, words, &mut found);
        assert_eq!(listed.iter().map(|listed| listed.wallet).collect::<Vec<_>>(), [Address([1; 20])]);
        assert_eq!((found.squatted, found.unreadable), (1, 1));
    }

    #[test]
    fn a_key_of_several_wallets_is_taken_where_it_stays() {
        let entries = vec![entry(1, 7, true), entry(2, 7, false), entry(3, 7, false), entry(4, 7, true)];
        let listed = believed(entries, |entry| Some(entry.claimed_identity), &mut Discovered::default());
        assert_eq!((listed.len(), listed[0].wallet), (1, Address([2; 20])));
    }

    #[test]
    fn of_very_many_entries_each_is_read_and_greeted_in_some_look() {
        assert_eq!((window(0, Timestamp(9)), window(ENTRIES_MAX, Timestamp(u64::MAX))), (0, 0));
        let count = 2 * ENTRIES_MAX + 1;
        let firsts: BTreeSet<u64> =
            (0..6).map(|look| window(count, Timestamp(look * LOOK_SECONDS))).collect();
        assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [0, ENTRIES_MAX, 2 * ENTRIES_MAX]);

        let listed: Vec<Listed> = (0..1000u16)
            .map(|number| {
                let mut key = [0; 32];
                key[..2].copy_from_slice(&number.to_le_bytes());
                let (wallet, address) = (Address::ZERO, String::new());
                Listed { key: PublicKey(key), wallet, address, leaving: false }
            })
            .collect();
        let mut greeted = BTreeSet::new();
        for look in 0..60 {
            let chosen = strangers(&listed, &BTreeSet::new(), Timestamp(look));
            assert_eq!(chosen.len(), GREETED_MAX);
            greeted.extend(chosen.into_iter().map(|listed| listed.key));
        }
        assert_eq!(greeted.len(), 1000);
        let known = listed[10..].iter().map(|listed| listed.key).collect();
        assert_eq!(strangers(&listed, &known, Timestamp(0)).len(), 10);
    }
}
