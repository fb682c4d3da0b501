//! Proofs of possession from what is on the disk: a chunk's group and the nodes above it, about 17 KB a challenge.
//!
//! A proof is checked here before it costs gas. What does not check is looked at by the store, which repairs what follows from
//! right bytes and notes rot; so the second try is the last.

use crate::money::Money;
use crate::money::books::BooksError;
use seedbank_agreement::chunk_path::{CHUNK_BYTES, ChunkPath, Reads, chunk_path, reads};
use seedbank_agreement::{AgreementId, FragmentSet};
use seedbank_formats::FragmentId;
use seedbank_settlement::{Proof, Terms};
use seedbank_store::{ReadError, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProveError {
    /// The data is gone: no pay until the client's next revision drops it.
    #[error("fragment {0} is gone")]
    Gone(FragmentId),
    /// The data is wrong: the client may send it again.
    #[error("fragment {0} is rotten")]
    Rotten(FragmentId),
    /// Try again.
    #[error("the disk can't be read")]
    Disk(#[source] std::io::Error),
    /// The books don't have the set that the chain asks about: restore them.
    #[error("the books have no set of agreement {0} with the root that the chain has")]
    UnknownSet(AgreementId),
    /// See there.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The chain asks for what is not in the set.
    #[error("the chain asks for a byte that the set of agreement {0} does not have")]
    OutsideSet(AgreementId),
}

/// What a proof cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Bytes that were read from fragments and their outboards.
    pub(crate) bytes_read: u64,
}

impl Money {
    /// The sets that the chain asks about, by their agreements' terms there.
    pub(crate) fn sets_of(
        &self,
        asked: &BTreeMap<AgreementId, Terms>,
    ) -> Result<BTreeMap<AgreementId, Arc<FragmentSet>>, ProveError> {
        let books = self.books();
        let mut sets = BTreeMap::new();
        for (id, terms) in asked {
            let known = books.terms_with(*id, (&terms.set_root, terms.size), u32::MAX)?;
            let known = known.ok_or(ProveError::UnknownSet(*id))?;
            sets.insert(*id, self.set(&books, *id, known.sequence)?);
        }
        Ok(sets)
    }
}

/// The proofs for bytes of sets, in the order in which they are asked for.
pub(crate) fn build(
    store: &Store,
    sets: &BTreeMap<AgreementId, Arc<FragmentSet>>,
    asked: &[(AgreementId, u64)],
) -> Result<(Vec<Proof>, Cost), ProveError> {
    let mut cost = Cost::default();
    let mut proofs = Vec::with_capacity(asked.len());
    for (id, offset) in asked {
        let set = sets.get(id).ok_or(ProveError::UnknownSet(*id))?;
        let path = set.path(*offset).ok_or(ProveError::OutsideSet(*id))?;
        let inside = path.locate(&set.root(), set.total(), *offset);
        let inside = inside.map_err(|_| ProveError::OutsideSet(*id))?;
        let chunk = chunk(store, &path.fragment.id, path.fragment.length, inside, &mut cost)?;
        proofs.push(Proof { fragment: path, chunk });
    }
    Ok((proofs, cost))
}

fn chunk(
    store: &Store,
    id: &FragmentId,
    length: u64,
    offset: u64,
    cost: &mut Cost,
) -> Result<ChunkPath, ProveError> {
    let wanted = reads(length, offset).map_err(|_| ProveError::Gone(*id))?;
    if let Some(path) = try_chunk(store, id, length, offset, &wanted, cost)? {
        return Ok(path);
    }
    // Looks at the whole fragment, and repairs its outboard or notes the rot.
    let looked = store.slice(id, offset..offset + 1);
    if let Err(ReadError::Disk(error)) = looked {
        return Err(ProveError::Disk(error));
    }
    try_chunk(store, id, length, offset, &wanted, cost)?.ok_or(ProveError::Rotten(*id))
}

/// The chunk's path, if it leads to the fragment's id.
fn try_chunk(
    store: &Store,
    id: &FragmentId,
    length: u64,
    offset: u64,
    wanted: &Reads,
    cost: &mut Cost,
) -> Result<Option<ChunkPath>, ProveError> {
    let (group, nodes) = match store.read_with_nodes(id, wanted.group.clone(), &wanted.nodes) {
        Ok(read) => read,
        Err(ReadError::Absent(_)) => return Err(ProveError::Gone(*id)),
        Err(ReadError::Rotten(_)) => return Err(ProveError::Rotten(*id)),
        // Another length than was promised: not the fragment.
        Err(ReadError::OutOfRange { .. }) => return Err(ProveError::Gone(*id)),
        Err(ReadError::Disk(error)) => return Err(ProveError::Disk(error)),
    };
    cost.bytes_read += (wanted.group.end - wanted.group.start) + 64 * wanted.nodes.len() as u64;
    let path = chunk_path(length, offset, &group, &nodes).map_err(|_| ProveError::Gone(*id))?;
    let right = path.root(offset / CHUNK_BYTES, length) == Ok(*id);
    Ok(right.then_some(path))
}
