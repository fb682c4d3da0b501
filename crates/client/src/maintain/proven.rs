//! Reads a segment trusting nobody: every byte comes with its proof against the fragment ids that the books name.
//!
//! A healthy read does without proofs because it opens the seal. Whoever rebuilds a fragment can't: there is no seal over
//! it. Whoever collects could, but of a public dataset everybody has the key, and a forged page would cost live data.

use crate::network::{Finding, Network, Tokens};
use crate::range_read::fragment_len;
use bytes::Bytes;
use seedbank_erasure::Decoder;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::receipt::Answer;
use seedbank_formats::slice;
use seedbank_formats::{PublicKey, SegmentNumber};
use seedbank_protocol::read_exchange::{RequestId, Verdict};
use seedbank_protocol::routes::PROOF_RANGE_BYTES_MAX;
use seedbank_transport::Proof;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

/// Too few holders gave proven bytes. Try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} can't be read: {usable} fragments are there and {needed} are needed")]
pub struct TooFew {
    /// The segment.
    pub segment: SegmentNumber,
    /// Fragments whose holders gave proven bytes.
    pub usable: usize,
    /// Fragments that bring it back.
    pub needed: usize,
}

/// Reads one segment. Remembers which holders were of no use.
pub(super) struct ProvenReader {
    network: Arc<Network>,
    token: Option<Bytes>,
    placement: Arc<SegmentPlacement>,
    given_up: BTreeSet<usize>,
    lost: Vec<(usize, PublicKey)>,
}

impl ProvenReader {
    pub(super) fn new(
        network: &Arc<Network>,
        tokens: &Tokens,
        placement: Arc<SegmentPlacement>,
    ) -> ProvenReader {
        ProvenReader {
            network: Arc::clone(network),
            token: tokens.get(),
            placement,
            given_up: BTreeSet::new(),
            lost: Vec::new(),
        }
    }

    /// Fragments of which the holder said, signed, that it does not have them any more.
    pub(super) fn lost(&self) -> &[(usize, PublicKey)] {
        &self.lost
    }

    /// Whole fragments, rebuilt if nobody holds them. Memory is these fragments and a few MiB of each source.
    pub(super) async fn fragments(&mut self, wanted: &[usize]) -> Result<Vec<Vec<u8>>, TooFew> {
        let len = fragment_len(&self.placement);
        let capacity = usize::try_from(len).expect("a fragment fits into memory");
        let mut fragments: Vec<Vec<u8>> = wanted.iter().map(|_| Vec::with_capacity(capacity)).collect();
        for window in windows(&(0..len)) {
            for (fragment, part) in fragments.iter_mut().zip(self.parts(wanted, &window).await?) {
                fragment.extend_from_slice(&part);
            }
        }
        Ok(fragments)
    }

    /// Bytes `range` of the segment.
    pub(super) async fn range(&mut self, range: Range<u64>) -> Result<Vec<u8>, TooFew> {
        let mut bytes = Vec::new();
        for (index, range) in crate::range_read::split(&self.placement, &range) {
            for window in windows(&range) {
                let parts = self.parts(&[index], &window).await?;
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
            }
        }
        Ok(bytes)
    }

    /// The same range of each wanted fragment: from its holder if that one can prove it, else decoded.
    async fn parts(&mut self, wanted: &[usize], range: &Range<u64>) -> Result<Vec<Bytes>, TooFew> {
        let needed = self.placement.scheme.data();
        let mut have = BTreeMap::new();
        self.fetch(wanted.to_vec(), range, &mut have).await;
        while !wanted.iter().all(|index| have.contains_key(index)) {
            if have.len() >= needed {
                return Ok(self.decode(wanted, &have));
            }
            let next = self.next_sources(&have, needed - have.len(), range.end - range.start);
            if next.is_empty() {
                return Err(TooFew { segment: self.placement.number, usable: have.len(), needed });
            }
            self.fetch(next, range, &mut have).await;
        }
        Ok(wanted.iter().map(|index| have[index].clone()).collect())
    }

    /// The likeliest fragments that were not asked for yet.
    fn next_sources(&self, have: &BTreeMap<usize, Bytes>, count: usize, bytes: u64) -> Vec<usize> {
        let mut left: Vec<(usize, PublicKey)> = self
            .placement
            .fragments
            .iter()
            .enumerate()
            .filter(|(index, _)| !have.contains_key(index) && !self.given_up.contains(index))
            .filter_map(|(index, fragment)| Some((index, fragment.holder?)))
            .collect();
        self.network.latency().rank(&mut left, |(_, provider)| *provider, bytes, self.network.now());
        left.into_iter().take(count).map(|(index, _)| index).collect()
    }

    /// Asks the holders of `indices` at once. Who has nothing to offer is not asked again.
    async fn fetch(&mut self, indices: Vec<usize>, range: &Range<u64>, have: &mut BTreeMap<usize, Bytes>) {
        let mut asked = JoinSet::new();
        for index in indices {
            let fragment = self.placement.fragments[index];
            match fragment.holder {
                Some(provider) if !self.given_up.contains(&index) => {
                    let (network, token, range) =
                        (Arc::clone(&self.network), self.token.clone(), range.clone());
                    asked.spawn(async move {
                        (index, network.get_proof(&provider, &fragment.id, range, token.as_deref()).await)
                    });
                    // Until it has answered well.
                    self.given_up.insert(index);
                }
                Some(_) | None => {}
            }
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok((index, Ok(proof))) = answer
                && let Some(bytes) = self.check(index, range, &proof)
            {
                self.given_up.remove(&index);
                have.insert(index, bytes);
            }
        }
    }

    fn check(&mut self, index: usize, range: &Range<u64>, proof: &Proof) -> Option<Bytes> {
        let fragment = self.placement.fragments[index];
        let verdict = match proof.statement.answer {
            Answer::Slice(_) => {
                match slice::verify(&fragment.id, fragment_len(&self.placement), range, &proof.slice) {
                    Ok(bytes) => return Some(Bytes::from(bytes)),
                    Err(_) => Verdict::Liar { evidence: RequestId(0) },
                }
            }
            Answer::Rotten => Verdict::Rotten,
            Answer::Absent => Verdict::Absent,
        };
        let provider = proof.statement.provider;
        if matches!(verdict, Verdict::Rotten | Verdict::Absent) {
            self.lost.push((index, provider));
        }
        self.network.found(Finding {
            provider,
            fragment: fragment.id,
            range: range.clone(),
            verdict,
            statement: Some(proof.statement.bytes.clone()),
            slice: Some(proof.slice.clone()),
        });
        None
    }

    /// `have` holds at least `k` fragments' parts.
    fn decode(&self, wanted: &[usize], have: &BTreeMap<usize, Bytes>) -> Vec<Bytes> {
        let scheme = self.placement.scheme;
        let sources: Vec<(&usize, &Bytes)> = have.iter().take(scheme.data()).collect();
        if scheme.is_copies() {
            return wanted.iter().map(|_| sources[0].1.clone()).collect();
        }
        self.network.traffic.decodes.fetch_add(1, Ordering::Relaxed);
        let indices: Vec<usize> = sources.iter().map(|(index, _)| **index).collect();
        let parts: Vec<&[u8]> = sources.iter().map(|(_, bytes)| &bytes[..]).collect();
        let mut decoded = vec![vec![0; parts[0].len()]; wanted.len()];
        let mut out: Vec<&mut [u8]> = decoded.iter_mut().map(Vec::as_mut_slice).collect();
        Decoder::new(scheme, &indices, wanted)
            .expect("k distinct fragments are there, and the wanted ones exist and are distinct")
            .decode(&parts, &mut out)
            .expect("proven ranges have the length that was asked for");
        decoded.into_iter().map(Bytes::from).collect()
    }
}

/// The range in pieces that a proof may cover.
fn windows(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = range.end;
    let mut start = range.start;
    std::iter::from_fn(move || {
        let window = start..end.min(start + PROOF_RANGE_BYTES_MAX);
        start = window.end;
        (!window.is_empty()).then_some(window)
    })
}

#[cfg(test)]
mod tests {
    use super::windows;

    #[test]
    fn windows_cover_the_range_once_and_in_order() {
        let mib = 1024 * 1024;
        let cut: Vec<_> = windows(&(mib..9 * mib + 1)).collect();
        assert_eq!(cut, [mib..5 * mib, 5 * mib..9 * mib, 9 * mib..9 * mib + 1]);
        assert_eq!(windows(&(5..5)).count(), 0);
    }
}
