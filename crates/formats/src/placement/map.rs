//! The pages of the placement map.

use super::{Hints, ReadProviders, SegmentPlacement, write_providers};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::SegmentNumber;
use crate::numbered::{RADIX, Slots, slot_of};
use crate::pages::PageId;
use crate::seal::ITEM_PLAIN_BYTES_MAX;
use std::collections::BTreeMap;

const LEAF_MAGIC: &[u8; 4] = b"SBML";
const INNER_MAGIC: &[u8; 4] = b"SBMI";
const VERSION: u8 = 1;
const LEAF: &str = "map leaf";
const INNER: &str = "map inner page";

/// A leaf of the map: the placements of 64 segments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapLeaf {
    placements: Slots<SegmentPlacement>,
    /// Where holders were last reached. Of providers that hold nothing here none is written.
    pub hints: Hints,
}

impl MapLeaf {
    /// A segment's placement. `None` also when the segment belongs to another leaf.
    #[must_use]
    pub fn get(&self, segment: SegmentNumber) -> Option<&SegmentPlacement> {
        self.placements.get(slot_of(segment.0, 0)).filter(|placement| placement.number == segment)
    }

    /// Puts a segment's placement in its slot. The caller has picked the leaf ([`crate::numbered::page_of`]).
    pub fn put(&mut self, placement: SegmentPlacement) {
        self.placements.set(slot_of(placement.number.0, 0), Some(placement));
    }

    /// Forgets a segment.
    pub fn remove(&mut self, segment: SegmentNumber) {
        if self.get(segment).is_some() {
            self.placements.set(slot_of(segment.0, 0), None);
        }
    }

    /// All placements by rising segment number.
    pub fn iter(&self) -> impl Iterator<Item = &SegmentPlacement> {
        self.placements.iter().map(|(_, placement)| placement)
    }

    /// The page's bytes.
    ///
    /// # Panics
    /// When a placement has not as many fragments as its scheme.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::format(LEAF_MAGIC, VERSION);
        let providers = write_providers(self.iter(), &self.hints, &mut writer);
        self.placements.write(&mut writer, |writer, placement| placement.write(&providers, writer));
        writer.finish()
    }

    /// Reads a page.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no map leaf in canonical form.
    pub fn decode(bytes: &[u8]) -> Result<MapLeaf, DecodeError> {
        let mut reader = open(LEAF, LEAF_MAGIC, bytes)?;
        let mut providers = ReadProviders::read(&mut reader)?;
        let mut group = None;
        let placements = Slots::read(&mut reader, |reader, slot| {
            let placement = SegmentPlacement::read(&mut providers, reader)?;
            let number = placement.number.0;
            if slot_of(number, 0) != slot
                || *group.get_or_insert(number / RADIX as u64) != number / RADIX as u64
            {
                return Err(reader.invalid("a segment is in a slot of another"));
            }
            Ok(placement)
        })?;
        let hints = providers.finish(&reader)?;
        reader.finish()?;
        Ok(MapLeaf { placements, hints })
    }
}

/// An inner page of the map: where up to 64 pages of the level below lie, each with the placement of its segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapInner {
    children: Slots<Child>,
    /// Exactly the segments that children name.
    segments: BTreeMap<SegmentNumber, SegmentPlacement>,
    /// Where holders were last reached. Of providers that hold nothing here none is written.
    pub hints: Hints,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Child {
    index: u32,
    hash: PageId,
    /// `None` when the child lies in the same segment as this page.
    segment: Option<SegmentNumber>,
}

/// A page below an inner page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapChild<'a> {
    /// Its position in its segment's footer.
    pub index: u32,
    /// The segment that it lies in.
    pub segment: ChildSegment<'a>,
    /// [`crate::seal::page_id`] of its plaintext: whoever reads it compares.
    pub hash: PageId,
}

/// The segment that a page below lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildSegment<'a> {
    /// The one that the inner page was read from. Its placement, which names the hashes of its fragments, can't stand
    /// inside it.
    Same,
    /// Another one.
    Other(&'a SegmentPlacement),
}

impl MapInner {
    /// The page below in `slot`.
    #[must_use]
    pub fn child(&self, slot: usize) -> Option<MapChild<'_>> {
        let Child { index, hash, segment } = self.children.get(slot)?.clone();
        let segment = match segment {
            None => ChildSegment::Same,
            Some(number) => ChildSegment::Other(&self.segments[&number]),
        };
        Some(MapChild { index, segment, hash })
    }

    /// Puts a page below that lies in the segment which this page will lie in.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn put_beside(&mut self, slot: usize, index: u32, hash: PageId) {
        self.children.set(slot, Some(Child { index, hash, segment: None }));
        self.forget_unused();
    }

    /// Puts a page below that lies in another segment.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn put_in(&mut self, slot: usize, index: u32, placement: &SegmentPlacement, hash: PageId) {
        self.children.set(slot, Some(Child { index, hash, segment: Some(placement.number) }));
        self.segments.insert(placement.number, placement.clone());
        self.forget_unused();
    }

    /// Says where this page lay so far, before it is written to another segment: pages below that lay beside it are
    /// from now on found through that segment's placement.
    pub fn leave(&mut self, placement: &SegmentPlacement) {
        let mut is_named = false;
        for child in self.children.values_mut().filter(|child| child.segment.is_none()) {
            child.segment = Some(placement.number);
            is_named = true;
        }
        if is_named {
            self.segments.insert(placement.number, placement.clone());
        }
    }

    /// Replaces the placement of a segment that pages below lie in, and says whether there are any: when fragments move,
    /// pages that carry the placement have to be written anew.
    pub fn replace(&mut self, placement: &SegmentPlacement) -> bool {
        match self.segments.get_mut(&placement.number) {
            Some(old) => {
                old.clone_from(placement);
                true
            }
            None => false,
        }
    }

    /// The placements that the page carries.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentPlacement> {
        self.segments.values()
    }

    fn forget_unused(&mut self) {
        let children = &self.children;
        self.segments.retain(|number, _| children.iter().any(|(_, child)| child.segment == Some(*number)));
    }

    /// The page's bytes.
    ///
    /// # Panics
    /// When a placement has not as many fragments as its scheme.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::format(INNER_MAGIC, VERSION);
        let providers = write_providers(self.segments.values(), &self.hints, &mut writer);
        writer.len(self.segments.len());
        for placement in self.segments.values() {
            placement.write(&providers, &mut writer);
        }
        let numbers: BTreeMap<_, u64> = self.segments.keys().copied().zip(1..).collect();
        self.children.write(&mut writer, |writer, child| {
            writer.varint(child.segment.map_or(0, |segment| numbers[&segment]));
            writer.varint(u64::from(child.index));
            writer.raw(child.hash.as_bytes());
        });
        writer.finish()
    }

    /// Reads a page.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no inner page of a map in canonical form.
    pub fn decode(bytes: &[u8]) -> Result<MapInner, DecodeError> {
        let mut reader = open(INNER, INNER_MAGIC, bytes)?;
        let mut providers = ReadProviders::read(&mut reader)?;
        let count = reader.count("segments", RADIX, 40)?;
        let mut placements: Vec<SegmentPlacement> = Vec::with_capacity(count);
        for _ in 0..count {
            let placement = SegmentPlacement::read(&mut providers, &mut reader)?;
            if placements.last().is_some_and(|last| last.number >= placement.number) {
                return Err(reader.invalid("segments do not rise"));
            }
            placements.push(placement);
        }
        let hints = providers.finish(&reader)?;
        let mut is_named = vec![false; count];
        let children = Slots::read(&mut reader, |reader, _| {
            let segment = reader.len("a child's segment", count)?.checked_sub(1).map(|position| {
                is_named[position] = true;
                placements[position].number
            });
            let index = reader.varint_u32("an item's position")?;
            Ok(Child { index, hash: crate::ids::ChunkId(reader.array()?), segment })
        })?;
        if !is_named.into_iter().all(|is_named| is_named) {
            return Err(reader.invalid("no page lies in a segment"));
        }
        reader.finish()?;
        let segments = placements.into_iter().map(|placement| (placement.number, placement)).collect();
        Ok(MapInner { children, segments, hints })
    }
}

fn open<'a>(format: &'static str, magic: &[u8; 4], bytes: &'a [u8]) -> Result<Reader<'a>, DecodeError> {
    if bytes.len() > ITEM_PLAIN_BYTES_MAX {
        let (found, limit) = (bytes.len() as u64, ITEM_PLAIN_BYTES_MAX as u64);
        return Err(DecodeError::OverLimit { format, field: "length", found, limit });
    }
    Reader::format(format, magic, VERSION, bytes)
}

#[cfg(test)]
mod tests;
