//! What was used lately, within a bound: whatever was not used for longest goes first.
//!
//! A bounded map for caches that pulls walk through once and random reads come back to. Values are cheap to clone,
//! usually an `Arc`; what somebody still holds outlives its entry.

use std::collections::BTreeMap;

/// A bounded map. Weights are in the owner's unit, bytes or one each.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Keys by when they were used.
    order: BTreeMap<u64, K>,
    uses: u64,
    weight: u64,
    weight_max: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Ord + Copy, V: Clone> Recent<K, V> {
    pub(crate) fn new(weight_max: u64) -> Recent<K, V> {
        Recent { entries: BTreeMap::new(), order: BTreeMap::new(), uses: 0, weight: 0, weight_max }
    }

    /// The value of a key, which is now the one used last.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.order.insert(entry.used, *key);
        Some(entry.value.clone())
    }

    /// Puts a value in and drops what has no room beside it. The new one always stays.
    pub(crate) fn put(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        self.uses += 1;
        self.order.insert(self.uses, key);
        self.entries.insert(key, Entry { value, weight, used: self.uses });
        self.weight = self.weight.saturating_add(weight);
        while self.weight > self.weight_max && self.entries.len() > 1 {
            let (_, oldest) = self.order.pop_first().expect("every entry has its turn");
            let dropped = self.entries.remove(&oldest).expect("every turn has its entry");
            self.weight -= dropped.weight;
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut recent = Recent::new(3);
        for key in 1..=3 {
            recent.put(key, key * 10, 1);
        }
        assert_eq!(recent.get(&1), Some(10));
        recent.put(4, 40, 1);
        assert_eq!([1, 2, 3, 4].map(|key| recent.get(&key)), [Some(10), None, Some(30), Some(40)]);
    }

    #[test]
    fn heavy_values_push_out_several_and_the_newest_always_stays() {
        let mut recent = Recent::new(10);
        for key in 1..=5 {
            recent.put(key, key, 2);
        }
        recent.put(6, 6, 7);
        assert_eq!([4, 5, 6].map(|key| recent.get(&key)), [None, Some(5), Some(6)]);
        recent.put(7, 7, 100);
        assert_eq!([5, 6, 7].map(|key| recent.get(&key)), [None, None, Some(7)]);
        recent.put(7, 8, 1);
        recent.put(1, 1, 9);
        assert_eq!([7, 1].map(|key| recent.get(&key)), [Some(8), Some(1)]);
    }
}
