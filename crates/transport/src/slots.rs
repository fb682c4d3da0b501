//! Which connections a server lives with: bounds on all of them, on those of one address, on those of one key, and on
//! those that have not yet proven a key.
//!
//! A connection that is still in its handshake costs its peer nothing, so it never keeps an honest one out: when there
//! are too many, the oldest of them makes room. A flood has to open more connections than the bound in the time that
//! one handshake takes.

use seedbank_formats::PublicKey;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, which one machine usually has whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Source::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotLimits {
    pub(crate) total: usize,
    pub(crate) of_source: usize,
    pub(crate) of_key: usize,
    pub(crate) handshakes_total: usize,
    pub(crate) handshakes_of_source: usize,
}

/// All live connections of a server.
#[derive(Debug)]
pub(crate) struct Slots {
    limits: SlotLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    live: HashMap<u64, (Source, Option<PublicKey>)>,
    of_source: HashMap<Source, usize>,
    of_key: HashMap<PublicKey, usize>,
    /// Oldest first. Abort handles only cancel: the tasks are owned, and awaited, by the server.
    handshakes: VecDeque<(u64, Source, AbortHandle)>,
}

impl State {
    fn remove(&mut self, id: u64) {
        let Some((source, key)) = self.live.remove(&id) else {
            return; // Evicted before.
        };
        self.handshakes.retain(|(other, ..)| *other != id);
        uncount(&mut self.of_source, &source);
        if let Some(key) = key {
            uncount(&mut self.of_key, &key);
        }
    }

    fn handshakes_of(&self, source: Source) -> usize {
        self.handshakes.iter().filter(|(_, other, _)| *other == source).count()
    }

    /// Ends the oldest handshake, of this source if one is given. Says whether there was one.
    fn evict(&mut self, source: Option<Source>) -> bool {
        let oldest =
            self.handshakes.iter().find(|(_, other, _)| source.is_none_or(|source| source == *other));
        let Some((id, _, task)) = oldest else {
            return false;
        };
        task.abort();
        let id = *id;
        self.remove(id);
        true
    }
}

fn uncount<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    id: u64,
    slots: Arc<Slots>,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Arc<Slots> {
        Arc::new(Slots { limits, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections live.
    pub(crate) fn count(&self) -> usize {
        self.state().live.len()
    }

    /// Starts a connection's task if there is room, or if an unproven connection can make room. Says whether it did.
    pub(crate) fn admit(self: &Arc<Slots>, source: Source, start: impl FnOnce(Slot) -> AbortHandle) -> bool {
        let mut state = self.state();
        if state.handshakes_of(source) >= self.limits.handshakes_of_source {
            state.evict(Some(source));
        } else if state.handshakes.len() >= self.limits.handshakes_total {
            state.evict(None);
        }
        let of_source = state.of_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.limits.of_source && !state.evict(Some(source)) {
            return false;
        }
        if state.live.len() >= self.limits.total && !state.evict(None) {
            return false;
        }
        state.last_id += 1;
        let id = state.last_id;
        state.live.insert(id, (source, None));
        *state.of_source.entry(source).or_default() += 1;
        // Still under the lock, so that the task can't report its handshake before it is listed.
        let task = start(Slot { id, slots: Arc::clone(self) });
        state.handshakes.push_back((id, source, task));
        true
    }

    /// Ends the oldest connection that has not proven a key, to free its descriptor. Says whether there was one.
    pub(crate) fn evict(&self) -> bool {
        self.state().evict(None)
    }
}

impl Slot {
    /// The connection has proven its key: it is no longer the first to go. Says whether that key may have one more.
    pub(crate) fn proven(&self, key: PublicKey) -> bool {
        let mut state = self.slots.state();
        let state = &mut *state;
        state.handshakes.retain(|(other, ..)| *other != self.id);
        let count = state.of_key.get(&key).copied().unwrap_or(0);
        let Some((_, proven)) = state.live.get_mut(&self.id) else {
            return false; // Evicted at this moment.
        };
        if count >= self.slots.limits.of_key {
            return false;
        }
        *proven = Some(key);
        state.of_key.insert(key, count + 1);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.state().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::{Slot, SlotLimits, Slots, Source};
    use seedbank_formats::PublicKey;
    use std::net::IpAddr;
    use std::sync::Arc;
    use tokio::task::JoinSet;

    const A: Source = Source::V4([127, 0, 0, 1]);
    const B: Source = Source::V4([127, 0, 0, 2]);

    fn slots() -> Arc<Slots> {
        Slots::new(SlotLimits {
            total: 4,
            of_source: 3,
            of_key: 2,
            handshakes_total: 3,
            handshakes_of_source: 2,
        })
    }

    /// A connection that waits for ever, in its handshake or after it.
    fn open(slots: &Arc<Slots>, tasks: &mut JoinSet<Slot>, source: Source, proven: bool) -> bool {
        slots.admit(source, |slot| {
            tasks.spawn(async move {
                if proven {
                    slot.proven(PublicKey([slot.id.to_le_bytes()[0]; 32]));
                }
                std::future::pending::<()>().await;
                slot
            })
        })
    }

    async fn settle() {
        tokio::task::yield_now().await;
    }

    #[test]
    fn one_machines_ipv6_network_is_one_source() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:127.0.0.1"), A);
    }

    #[tokio::test]
    async fn oldest_handshake_makes_room() {
        let (slots, mut tasks) = (slots(), JoinSet::new());
        for _ in 0..50 {
            assert!(open(&slots, &mut tasks, A, false));
        }
        assert_eq!(slots.count(), 2);
        assert!(open(&slots, &mut tasks, B, false));
        assert!(open(&slots, &mut tasks, B, false));
        assert_eq!(slots.count(), 3);
        tasks.shutdown().await;
        assert_eq!(slots.count(), 0);
    }

    #[tokio::test]
    async fn one_key_has_its_share_and_gets_it_back() {
        let slots = slots();
        let mut held = Vec::new();
        for source in [A, B, A] {
            assert!(slots.admit(source, |slot| {
                held.push(slot);
                tokio::spawn(async {}).abort_handle()
            }));
        }
        let (key, other) = (PublicKey([7; 32]), PublicKey([8; 32]));
        assert!(held[0].proven(key) && held[1].proven(key));
        assert!(!held[2].proven(key) && held[2].proven(other));
        held.remove(0);
        assert_eq!(slots.state().of_key.get(&key), Some(&1));
        held.clear();
        assert!(slots.state().of_key.is_empty());
    }

    #[tokio::test]
    async fn proven_connections_stay_and_are_bounded() {
        let (slots, mut tasks) = (slots(), JoinSet::new());
        for expected in [true, true, true, false] {
            assert_eq!(open(&slots, &mut tasks, A, true), expected);
            settle().await;
        }
        assert!(open(&slots, &mut tasks, B, false));
        assert!(open(&slots, &mut tasks, B, true));
        settle().await;
        assert!(!open(&slots, &mut tasks, B, true));
        assert_eq!(slots.count(), 4);
        tasks.shutdown().await;
        assert_eq!(slots.count(), 0);
    }
}
