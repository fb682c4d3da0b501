//! Who holds a segment's fragments, and the placement map that says it for every segment.
//!
//! The map is a numbered tree ([`crate::numbered`]) over segment numbers, kept on the network like data: a reader with
//! the key needs no catalog. It can't be used to find itself, so its inner pages carry, for every page below, the whole
//! placement of the segment which that page lies in; the head does so for the root. Placements name providers by key.
//! Where a provider was last reached is a hint, kept once a page; the key is what is dialled.

mod map;

pub use map::{ChildSegment, MapChild, MapInner, MapLeaf};

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{FragmentId, PublicKey, SegmentNumber};
use crate::keys::KeyEpoch;
use crate::policy::{read_scheme, write_scheme};
use crate::segment::SEGMENT_BYTES_MAX;
use seedbank_erasure::Scheme;
use std::collections::{BTreeMap, BTreeSet};

/// One fragment of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FragmentPlacement {
    /// The hash of its bytes.
    pub id: FragmentId,
    /// The provider that holds it; `None` while nobody does.
    pub holder: Option<PublicKey>,
}

/// What a reader must know to fetch and open a segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentPlacement {
    /// The segment.
    pub number: SegmentNumber,
    /// The key epoch that sealed it.
    pub epoch: KeyEpoch,
    /// How it was coded.
    #[serde(with = "scheme")]
    pub scheme: Scheme,
    /// Its bytes before padding.
    pub sealed_len: u32,
    /// The last so many of them are the footer.
    pub footer_len: u32,
    /// All fragments by index, as many as the scheme has. Copies share an id.
    pub fragments: Vec<FragmentPlacement>,
}

/// Where providers were last reached, as `host:port`. An address above [`ADDRESS_BYTES_MAX`] is not kept.
pub type Hints = BTreeMap<PublicKey, String>;

/// Longest address hint.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// More providers than one page or head can name.
const PROVIDERS_MAX: usize = 16_384;

impl SegmentPlacement {
    /// The providers that hold a fragment of it.
    pub fn holders(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.fragments.iter().filter_map(|fragment| fragment.holder)
    }

    /// # Panics
    /// When there are not as many fragments as the scheme has, or copies have different ids: no code makes such.
    pub(crate) fn write(&self, providers: &BTreeMap<PublicKey, u64>, writer: &mut Writer) {
        assert_eq!(self.fragments.len(), self.scheme.total(), "a placement has every fragment of its scheme");
        writer.varint(self.number.0);
        writer.varint(u64::from(self.epoch.0));
        write_scheme(self.scheme, writer);
        writer.varint(u64::from(self.sealed_len));
        writer.varint(u64::from(self.footer_len));
        for (index, fragment) in self.fragments.iter().enumerate() {
            if index == 0 || !self.scheme.is_copies() {
                writer.raw(fragment.id.as_bytes());
            } else {
                assert_eq!(fragment.id, self.fragments[0].id, "copies share an id");
            }
            writer.varint(fragment.holder.map_or(0, |holder| 1 + providers[&holder]));
        }
    }

    pub(crate) fn read(
        providers: &mut ReadProviders,
        reader: &mut Reader<'_>,
    ) -> Result<SegmentPlacement, DecodeError> {
        let number = SegmentNumber(reader.varint()?);
        let epoch = KeyEpoch(reader.varint_u32("a key epoch")?);
        let scheme = read_scheme(reader)?;
        let sealed_len = reader.len("a segment's length", SEGMENT_BYTES_MAX)?;
        let footer_len = reader.len("a footer's length", sealed_len)?;
        let length = |len: usize| u32::try_from(len).expect("a segment has at most 64 MiB");
        let mut fragments: Vec<FragmentPlacement> = Vec::with_capacity(scheme.total());
        for _ in 0..scheme.total() {
            let id = match fragments.first().filter(|_| scheme.is_copies()) {
                Some(copy) => copy.id,
                None => FragmentId(reader.array()?),
            };
            fragments.push(FragmentPlacement { id, holder: providers.holder(reader)? });
        }
        let (sealed_len, footer_len) = (length(sealed_len), length(footer_len));
        Ok(SegmentPlacement { number, epoch, scheme, sealed_len, footer_len, fragments })
    }
}

/// Writes the providers that `placements` name, with their hints, and gives each one's number.
pub(crate) fn write_providers<'a>(
    placements: impl Iterator<Item = &'a SegmentPlacement>,
    hints: &Hints,
    writer: &mut Writer,
) -> BTreeMap<PublicKey, u64> {
    let providers: BTreeSet<_> = placements.flat_map(SegmentPlacement::holders).collect();
    writer.len(providers.len());
    for provider in &providers {
        provider.write(writer);
        let hint = hints.get(provider).filter(|address| address.len() <= ADDRESS_BYTES_MAX);
        writer.str(hint.map_or("", |address| address.as_str()));
    }
    providers.into_iter().zip(0..).collect()
}

/// The providers of a page that is being read. Each must be named by a placement.
pub(crate) struct ReadProviders {
    keys: Vec<(PublicKey, bool)>,
    hints: Hints,
}

impl ReadProviders {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<ReadProviders, DecodeError> {
        let count = reader.count("providers", PROVIDERS_MAX, 33)?;
        let mut keys: Vec<(PublicKey, bool)> = Vec::with_capacity(count);
        let mut hints = Hints::new();
        for _ in 0..count {
            let key = PublicKey::read(reader)?;
            if keys.last().is_some_and(|(last, _)| *last >= key) {
                return Err(reader.invalid("providers do not rise"));
            }
            let hint = reader.str("an address hint", ADDRESS_BYTES_MAX)?;
            if !hint.is_empty() {
                hints.insert(key, hint.to_owned());
            }
            keys.push((key, false));
        }
        Ok(ReadProviders { keys, hints })
    }

    fn holder(&mut self, reader: &mut Reader<'_>) -> Result<Option<PublicKey>, DecodeError> {
        let number = reader.len("a holder", self.keys.len())?;
        let Some(position) = number.checked_sub(1) else { return Ok(None) };
        let (key, is_named) = &mut self.keys[position];
        *is_named = true;
        Ok(Some(*key))
    }

    pub(crate) fn finish(self, reader: &Reader<'_>) -> Result<Hints, DecodeError> {
        if self.keys.iter().all(|(_, is_named)| *is_named) {
            return Ok(self.hints);
        }
        Err(reader.invalid("a provider holds nothing"))
    }
}

/// A scheme as `[data, total]`.
mod scheme {
    use seedbank_erasure::Scheme;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(scheme: &Scheme, serializer: S) -> Result<S::Ok, S::Error> {
        (scheme.data(), scheme.total()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scheme, D::Error> {
        let (data, total) = <(usize, usize)>::deserialize(deserializer)?;
        Scheme::new(data, total).map_err(de::Error::custom)
    }
}
