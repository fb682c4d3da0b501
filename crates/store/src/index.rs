//! The store's memory: which fragments, claims and heads there are and where their bytes lie.
//!
//! A pure state machine. The same [`Index::apply`] runs when an operation happens and when the journal is read again, so
//! the two can't disagree. A million fragments of one claim each take about 160 MB.

use crate::config::charge;
use crate::entry::{Claim, ClaimAccess, Entry, Head, KeyNumber};
use crate::record::{Place, record_len};
use seedbank_formats::codec::Writer;
use seedbank_formats::{DatasetId, FragmentId, PublicKey, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a fragment's bytes match its id, as far as anybody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing speaks against them.
    Sound,
    /// They don't: the fragment must be sent again.
    Rotten,
}

/// A fragment.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub(crate) length: u32,
    pub(crate) health: Health,
    /// `None`: its bytes are lost.
    pub(crate) place: Option<Place>,
    holders: Holders,
}

/// One claim is what nearly all fragments have, so it costs no allocation.
#[derive(Debug, Clone)]
enum Holders {
    Trash { since: Timestamp },
    One(Claim),
    Many(Vec<Claim>),
}

impl Fragment {
    /// Claims; none means that it lies in trash.
    pub(crate) fn claims(&self) -> &[Claim] {
        match &self.holders {
            Holders::Trash { .. } => &[],
            Holders::One(claim) => std::slice::from_ref(claim),
            Holders::Many(claims) => claims,
        }
    }

    pub(crate) fn claim_of(&self, client: KeyNumber) -> Option<&Claim> {
        self.claims().iter().find(|claim| claim.client == client)
    }
}

/// A key that claims refer to.
#[derive(Debug)]
struct Key {
    key: PublicKey,
    /// Claims that name it, as client or as reader.
    references: u64,
    /// As a client: claims, and what they cost of its quota.
    claims: u64,
    charged: u64,
}

/// A volume's bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Volume {
    /// Of records that the index refers to.
    pub(crate) live: u64,
    /// Of the file.
    pub(crate) end: u64,
}

impl Volume {
    pub(crate) fn dead(&self) -> u64 {
        // As in `Totals::dead_bytes`.
        self.end.saturating_sub(self.live)
    }
}

/// Sums over the index, kept up to date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) claims: u64,
    pub(crate) rotten: u64,
    /// Bytes of records in trash.
    pub(crate) trash_bytes: u64,
    /// Bytes of all volumes, and of what is live in them.
    pub(crate) volume_bytes: u64,
    pub(crate) volume_live_bytes: u64,
    /// Bytes of loose files.
    pub(crate) loose_bytes: u64,
    pub(crate) head_bytes: u64,
}

impl Totals {
    /// Bytes of volumes that no live record takes. None when records overlap, which only a forged journal can say; what
    /// reads there finds rot.
    pub(crate) fn dead_bytes(&self) -> u64 {
        self.volume_bytes.saturating_sub(self.volume_live_bytes)
    }
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    fragments: BTreeMap<FragmentId, Fragment>,
    /// Oldest first.
    trash: BTreeSet<(Timestamp, FragmentId)>,
    heads: BTreeMap<DatasetId, Head>,
    keys: BTreeMap<KeyNumber, Key>,
    numbers: BTreeMap<PublicKey, KeyNumber>,
    volumes: BTreeMap<u32, Volume>,
    totals: Totals,
}

type Contradiction = &'static str;

impl Index {
    /// Changes the index, or says why the entry can't follow what came before and changes nothing.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), Contradiction> {
        match entry {
            Entry::Key { number, key } => self.name_key(*number, *key),
            Entry::Placed { id, length, place } => self.place(*id, *length, *place),
            Entry::Claimed { id, claim } => self.claim(id, *claim),
            Entry::Released { id, client, at } => self.release(id, *client, *at),
            Entry::Trashed { id, since } => self.trash_since(id, *since),
            Entry::Freed { id } => self.free(id),
            Entry::Moved { id, place } => self.relocate(id, *place),
            Entry::Rotten { id } => self.rot(id),
            Entry::Head { dataset, head } => {
                self.set_head(*dataset, *head);
                Ok(())
            }
        }
    }

    fn name_key(&mut self, number: KeyNumber, key: PublicKey) -> Result<(), Contradiction> {
        if self.keys.contains_key(&number) || self.numbers.contains_key(&key) {
            return Err("a key or its number is taken");
        }
        self.keys.insert(number, Key { key, references: 0, claims: 0, charged: 0 });
        self.numbers.insert(key, number);
        Ok(())
    }

    fn place(&mut self, id: FragmentId, length: u32, place: Place) -> Result<(), Contradiction> {
        let size = record_len(length);
        match self.fragments.get_mut(&id) {
            Some(fragment) if fragment.length != length => return Err("a fragment changes its length"),
            Some(fragment) => {
                let before = fragment.place.replace(place);
                if std::mem::replace(&mut fragment.health, Health::Sound) == Health::Rotten {
                    self.totals.rotten -= 1;
                }
                self.vacate(before, size);
            }
            None => {
                let since = Timestamp(0);
                let holders = Holders::Trash { since };
                let fragment = Fragment { length, health: Health::Sound, place: Some(place), holders };
                self.fragments.insert(id, fragment);
                self.trash.insert((since, id));
                self.totals.trash_bytes += size;
            }
        }
        self.occupy(Some(place), size);
        Ok(())
    }

    fn claim(&mut self, id: &FragmentId, claim: Claim) -> Result<(), Contradiction> {
        let reader_known = match claim.access {
            ClaimAccess::Reader(number) => self.keys.contains_key(&number),
            ClaimAccess::Owner | ClaimAccess::Public => true,
        };
        if !reader_known || !self.keys.contains_key(&claim.client) {
            return Err("a claim names an unknown key");
        }
        let fragment = self.fragments.get_mut(id).ok_or("a claim on an unknown fragment")?;
        let length = fragment.length;
        let before = match &mut fragment.holders {
            Holders::Trash { since } => {
                self.trash.remove(&(*since, *id));
                self.totals.trash_bytes -= record_len(length);
                fragment.holders = Holders::One(claim);
                None
            }
            Holders::One(one) if one.client == claim.client => Some(std::mem::replace(one, claim)),
            Holders::One(one) => {
                fragment.holders = Holders::Many(vec![*one, claim]);
                None
            }
            Holders::Many(claims) => match claims.iter_mut().find(|held| held.client == claim.client) {
                Some(held) => Some(std::mem::replace(held, claim)),
                None => {
                    claims.push(claim);
                    None
                }
            },
        };
        // In this order, so that a key which stays in use is not forgotten between.
        self.count_claim(&claim, length);
        if let Some(before) = before {
            self.uncount_claim(&before, length);
        }
        Ok(())
    }

    fn release(&mut self, id: &FragmentId, client: KeyNumber, at: Timestamp) -> Result<(), Contradiction> {
        let fragment = self.fragments.get_mut(id).ok_or("a release of an unknown fragment")?;
        let claim = *fragment.claim_of(client).ok_or("a release without a claim")?;
        let length = fragment.length;
        match &mut fragment.holders {
            Holders::Many(claims) => {
                claims.retain(|held| held.client != client);
                if let [one] = claims.as_slice() {
                    fragment.holders = Holders::One(*one);
                }
            }
            Holders::One(_) | Holders::Trash { .. } => {
                fragment.holders = Holders::Trash { since: at };
                self.trash.insert((at, *id));
                self.totals.trash_bytes += record_len(length);
            }
        }
        self.uncount_claim(&claim, length);
        Ok(())
    }

    fn trash_since(&mut self, id: &FragmentId, at: Timestamp) -> Result<(), Contradiction> {
        let fragment = self.fragments.get_mut(id).ok_or("an unknown fragment in trash")?;
        let Holders::Trash { since } = &mut fragment.holders else {
            return Err("a claimed fragment in trash");
        };
        self.trash.remove(&(*since, *id));
        self.trash.insert((at, *id));
        *since = at;
        Ok(())
    }

    fn free(&mut self, id: &FragmentId) -> Result<(), Contradiction> {
        let fragment = self.fragments.get(id).ok_or("an unknown fragment is freed")?;
        let Holders::Trash { since } = fragment.holders else {
            return Err("a claimed fragment is freed");
        };
        let (place, health, size) = (fragment.place, fragment.health, record_len(fragment.length));
        self.trash.remove(&(since, *id));
        self.fragments.remove(id);
        self.totals.trash_bytes -= size;
        if health == Health::Rotten {
            self.totals.rotten -= 1;
        }
        self.vacate(place, size);
        Ok(())
    }

    fn relocate(&mut self, id: &FragmentId, place: Option<Place>) -> Result<(), Contradiction> {
        let fragment = self.fragments.get_mut(id).ok_or("an unknown fragment moves")?;
        let size = record_len(fragment.length);
        let before = std::mem::replace(&mut fragment.place, place);
        self.vacate(before, size);
        self.occupy(place, size);
        Ok(())
    }

    fn rot(&mut self, id: &FragmentId) -> Result<(), Contradiction> {
        let fragment = self.fragments.get_mut(id).ok_or("an unknown fragment rots")?;
        if std::mem::replace(&mut fragment.health, Health::Rotten) == Health::Sound {
            self.totals.rotten += 1;
        }
        Ok(())
    }

    fn set_head(&mut self, dataset: DatasetId, head: Head) {
        if let Some(before) = self.heads.insert(dataset, head) {
            self.totals.head_bytes -= u64::from(before.length);
            self.vacate(before.place, record_len(before.length));
        }
        self.totals.head_bytes += u64::from(head.length);
        self.occupy(head.place, record_len(head.length));
    }

    fn count_claim(&mut self, claim: &Claim, length: u32) {
        let client = self.keys.get_mut(&claim.client).expect("checked before");
        client.references += 1;
        client.claims += 1;
        client.charged += charge(length);
        if let ClaimAccess::Reader(number) = claim.access {
            self.keys.get_mut(&number).expect("checked before").references += 1;
        }
        self.totals.claims += 1;
    }

    fn uncount_claim(&mut self, claim: &Claim, length: u32) {
        let client = self.keys.get_mut(&claim.client).expect("a claim's client is known");
        client.claims -= 1;
        client.charged -= charge(length);
        self.totals.claims -= 1;
        self.unrefer(claim.client);
        if let ClaimAccess::Reader(number) = claim.access {
            self.unrefer(number);
        }
    }

    /// Forgets a key with its last reference: else everybody who ever asked would stay in memory.
    fn unrefer(&mut self, number: KeyNumber) {
        let key = self.keys.get_mut(&number).expect("a claim's keys are known");
        key.references -= 1;
        if key.references == 0 {
            let key = key.key;
            self.keys.remove(&number);
            self.numbers.remove(&key);
        }
    }

    fn occupy(&mut self, place: Option<Place>, size: u64) {
        match place {
            Some(Place::Volume { number, offset }) => {
                self.grow_volume(number, u64::from(offset) + size);
                self.volumes.entry(number).or_default().live += size;
                self.totals.volume_live_bytes += size;
            }
            Some(Place::Loose { .. }) => self.totals.loose_bytes += size,
            None => {}
        }
    }

    fn vacate(&mut self, place: Option<Place>, size: u64) {
        match place {
            Some(Place::Volume { number, .. }) => {
                let volume = self.volumes.get_mut(&number).expect("a record's volume is known");
                volume.live -= size;
                self.totals.volume_live_bytes -= size;
            }
            Some(Place::Loose { .. }) => self.totals.loose_bytes -= size,
            None => {}
        }
    }

    /// Notes that a volume has at least `end` bytes.
    pub(crate) fn grow_volume(&mut self, number: u32, end: u64) {
        let volume = self.volumes.entry(number).or_default();
        let growth = end.saturating_sub(volume.end);
        volume.end += growth;
        self.totals.volume_bytes += growth;
    }

    /// Forgets a volume without live records, whose file is gone or about to go.
    pub(crate) fn remove_volume(&mut self, number: u32) {
        if let Some(volume) = self.volumes.remove(&number) {
            assert_eq!(volume.live, 0, "a volume with live records stays");
            self.totals.volume_bytes -= volume.end;
        }
    }

    /// The fragment, in trash or not.
    pub(crate) fn fragment(&self, id: &FragmentId) -> Option<&Fragment> {
        self.fragments.get(id)
    }

    /// The fragment, if anybody claims it.
    pub(crate) fn claimed(&self, id: &FragmentId) -> Option<&Fragment> {
        self.fragments.get(id).filter(|fragment| !fragment.claims().is_empty())
    }

    /// Fragments in the order of their ids, from the one after `after`.
    pub(crate) fn fragments_after(
        &self,
        after: Option<FragmentId>,
    ) -> impl Iterator<Item = (&FragmentId, &Fragment)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.fragments.range((after.map_or(Unbounded, Excluded), Unbounded))
    }

    /// Fragments in trash, oldest first.
    pub(crate) fn trash(&self) -> impl Iterator<Item = (Timestamp, FragmentId, u64)> {
        self.trash.iter().map(|(since, id)| (*since, *id, record_len(self.fragments[id].length)))
    }

    /// The newest head of a dataset.
    pub(crate) fn head(&self, dataset: &DatasetId) -> Option<&Head> {
        self.heads.get(dataset)
    }

    /// All heads.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&DatasetId, &Head)> {
        self.heads.iter()
    }

    /// All volumes.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = (u32, Volume)> {
        self.volumes.iter().map(|(number, volume)| (*number, *volume))
    }

    /// The sums.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// How many fragments there are, how many of them in trash, and how many clients.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let clients = self.keys.values().filter(|key| key.claims > 0).count();
        (self.fragments.len(), self.trash.len(), clients)
    }

    /// The number that a key goes by.
    pub(crate) fn number_of(&self, key: &PublicKey) -> Option<KeyNumber> {
        self.numbers.get(key).copied()
    }

    /// The key that goes by a number.
    pub(crate) fn key(&self, number: KeyNumber) -> PublicKey {
        self.keys.get(&number).expect("a claim's keys are known").key
    }

    /// A number that is not taken.
    pub(crate) fn vacant_number(&self) -> KeyNumber {
        match self.keys.last_key_value() {
            None => KeyNumber(0),
            Some((KeyNumber(last), _)) if *last < u32::MAX => KeyNumber(last + 1),
            Some(_) => (0..=u32::MAX)
                .map(KeyNumber)
                .find(|number| !self.keys.contains_key(number))
                .expect("memory ends before four thousand million keys"),
        }
    }

    /// A client's claims: how many, and what they cost of its quota in bytes.
    pub(crate) fn client(&self, key: &PublicKey) -> (u64, u64) {
        self.number_of(key).map_or((0, 0), |number| (self.keys[&number].claims, self.keys[&number].charged))
    }

    /// About how many bytes of journal the index needs.
    pub(crate) fn journal_estimate(&self) -> u64 {
        let count = |count: usize| u64::try_from(count).expect("usize has at most 64 bits");
        count(self.fragments.len()) * 46
            + self.totals.claims * 42
            + count(self.trash.len()) * 39
            + count(self.keys.len()) * 36
            + count(self.heads.len()) * 80
    }

    /// The entries that make this index out of an empty one, in payloads of about `payload_bytes`.
    pub(crate) fn snapshot(&self, payload_bytes: usize) -> Vec<Vec<u8>> {
        let mut payloads = Payloads { done: Vec::new(), open: Writer::default(), payload_bytes };
        for (number, key) in &self.keys {
            payloads.add(&Entry::Key { number: *number, key: key.key });
        }
        for (id, fragment) in &self.fragments {
            // A lost fragment is placed first like any other: then one kind of entry makes fragments.
            let place = fragment.place.unwrap_or(Place::Loose { generation: 0 });
            payloads.add(&Entry::Placed { id: *id, length: fragment.length, place });
            if fragment.place.is_none() {
                payloads.add(&Entry::Moved { id: *id, place: None });
            }
            if fragment.health == Health::Rotten {
                payloads.add(&Entry::Rotten { id: *id });
            }
            for claim in fragment.claims() {
                payloads.add(&Entry::Claimed { id: *id, claim: *claim });
            }
            if let Holders::Trash { since } = fragment.holders {
                payloads.add(&Entry::Trashed { id: *id, since });
            }
        }
        for (dataset, head) in &self.heads {
            payloads.add(&Entry::Head { dataset: *dataset, head: *head });
        }
        payloads.finish()
    }
}

struct Payloads {
    done: Vec<Vec<u8>>,
    open: Writer,
    payload_bytes: usize,
}

impl Payloads {
    fn add(&mut self, entry: &Entry) {
        entry.write(&mut self.open);
        if self.open.written() >= self.payload_bytes {
            self.done.push(std::mem::take(&mut self.open).finish());
        }
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        if self.open.written() > 0 {
            self.done.push(self.open.finish());
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::Index;
    use crate::entry::{self, Claim, ClaimAccess, Entry, Head, KeyNumber};
    use crate::record::Place;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, Timestamp};

    fn any_place() -> impl Strategy<Value = Place> {
        prop_oneof![
            (0..4u32, 0..9u32).prop_map(|(number, slot)| Place::Volume { number, offset: slot * 1000 }),
            (0..9u64).prop_map(|generation| Place::Loose { generation }),
        ]
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let id = || (0..4u8).prop_map(|tag| FragmentId([tag; 32]));
        let number = || (0..4u32).prop_map(KeyNumber);
        let time = || (0..9u64).prop_map(Timestamp);
        let access = prop_oneof![
            Just(ClaimAccess::Owner),
            Just(ClaimAccess::Public),
            (0..4u32).prop_map(|number| ClaimAccess::Reader(KeyNumber(number))),
        ];
        let place = || proptest::option::of(any_place());
        prop_oneof![
            (number(), any::<u8>())
                .prop_map(|(number, tag)| Entry::Key { number, key: PublicKey([tag; 32]) }),
            (id(), any_place()).prop_map(|(id, place)| {
                // A fragment's length follows from its id, as it does in the world.
                Entry::Placed { id, length: 100 + u32::from(id.as_bytes()[0]), place }
            }),
            (id(), number(), access, time(), any::<u8>()).prop_map(|(id, client, access, until, asked)| {
                let asked = Asked(u64::from(asked));
                Entry::Claimed { id, claim: Claim { client, access, until, asked } }
            }),
            (id(), number(), time()).prop_map(|(id, client, at)| Entry::Released { id, client, at }),
            (id(), time()).prop_map(|(id, since)| Entry::Trashed { id, since }),
            id().prop_map(|id| Entry::Freed { id }),
            (id(), place()).prop_map(|(id, place)| Entry::Moved { id, place }),
            id().prop_map(|id| Entry::Rotten { id }),
            (any::<u64>(), id(), place()).prop_map(|(sequence, id, place)| Entry::Head {
                dataset: DatasetId([1; 32]),
                head: Head { sequence, id, length: 50, place },
            }),
        ]
    }

    #[test]
    fn records_that_overlap_leave_nothing_dead() {
        let mut index = Index::default();
        for tag in 1..=3 {
            let place = Place::Volume { number: 1, offset: 0 };
            index.apply(&Entry::Placed { id: FragmentId([tag; 32]), length: 100, place }).unwrap();
        }
        assert_eq!(index.totals().dead_bytes(), 0);
        assert!(index.volumes().all(|(_, volume)| volume.dead() == 0));
    }

    proptest! {
        /// Any history that is accepted gives an index whose snapshot makes the same index, with the same sums.
        #[test]
        fn snapshot_makes_the_same_index(entries in proptest::collection::vec(any_entry(), 0..120)) {
            let mut index = Index::default();
            for entry in &entries {
                let _refused = index.apply(entry);
            }
            let mut again = Index::default();
            for payload in index.snapshot(200) {
                for entry in entry::read_all(&payload).unwrap() {
                    again.apply(&entry).unwrap();
                }
            }
            assert_eq!(again.snapshot(200), index.snapshot(200));
            let (totals, mut again_totals) = (index.totals(), again.totals());
            // The ends of volumes are what the files say, not the journal.
            again_totals.volume_bytes = totals.volume_bytes;
            assert_eq!(again_totals, totals);
            assert_eq!(again.counts().0, index.counts().0);
        }
    }
}
