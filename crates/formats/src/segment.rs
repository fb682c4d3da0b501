//! A segment: up to 64 MiB of sealed items, one after another, between a sealed header and a sealed footer.
//!
//! A segment is what is erasure-coded and placed. Only its magic and version are in clear. The footer says what lies
//! where, and is all that a reader needs: its length stands in the placement map, so that one range read of a segment's
//! last bytes opens it. The header says the same lengths again, for whoever has the bytes and no map.
//!
//! Items move between segments as they are sealed, so nothing here depends on which segment an item was sealed for.
//! Padding and coding are done by `seedbank-erasure`; see `docs/formats/fragment.md`.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, SegmentNumber};
use crate::keys::{KeyEpoch, SealKeys};
use crate::seal::{
    Codec, Compression, Item, ItemKind, SEAL_OVERHEAD_BYTES, Sealer, WrongSeal, open_part, seal_part,
};
use seedbank_erasure::{FRAGMENT_ALIGNMENT_BYTES, TOTAL_MAX};

/// The longest segment, before padding.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// The most items of one segment: its footer stays below 340 KiB.
pub const SEGMENT_ITEMS_MAX: usize = 8192;
/// A buffer of this capacity takes any segment and the zeros that pad it for coding, without growing.
pub const SEGMENT_BUFFER_BYTES: usize = SEGMENT_BYTES_MAX + PADDING_BYTES_MAX;

/// Coding rounds every one of at most 254 data fragments up to 64 bytes.
const PADDING_BYTES_MAX: usize = TOTAL_MAX * FRAGMENT_ALIGNMENT_BYTES;

const SEGMENT_MAGIC: &[u8; 4] = b"SBSG";
const FOOTER_MAGIC: &[u8; 4] = b"SBSF";
const VERSION: u8 = 1;

const CLEAR_BYTES: usize = 4 + 1;
const HEADER_PAYLOAD_BYTES: usize = 8 + 4 + 4;
const HEADER_NAME: &[u8] = b"segment header";

/// Magic, version and the count of items.
const FOOTER_FIXED_BYTES: usize = 4 + 1 + 4;
/// Kind, codec, id and two lengths.
const FOOTER_ITEM_BYTES: usize = 1 + 1 + 32 + 4 + 4;

/// What an item takes in a segment beside its payload: its seal, and its line in the footer.
pub const ITEM_OVERHEAD_BYTES: usize = SEAL_OVERHEAD_BYTES + FOOTER_ITEM_BYTES;

/// Bytes of the sealed footer of so many items.
const fn footer_bytes(items: usize) -> usize {
    SEAL_OVERHEAD_BYTES + FOOTER_FIXED_BYTES + items * FOOTER_ITEM_BYTES
}

fn footer_name(number: SegmentNumber) -> Vec<u8> {
    [b"segment footer".as_slice(), &number.0.to_le_bytes()].concat()
}

/// Fills one segment.
#[derive(Debug)]
pub struct SegmentBuilder {
    keys: SealKeys,
    number: SegmentNumber,
    bytes: Vec<u8>,
    items: Vec<Item>,
    sealer: Sealer,
}

/// The segment has no room for this item: finish it, and push the item into the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the segment is full")]
pub struct SegmentFull;

impl SegmentBuilder {
    /// Starts segment `number` in `buffer`, whose contents are dropped and whose memory is used again. One with
    /// [`SEGMENT_BUFFER_BYTES`] of capacity never grows.
    #[must_use]
    pub fn new(keys: &SealKeys, number: SegmentNumber, mut buffer: Vec<u8>) -> SegmentBuilder {
        buffer.clear();
        buffer.resize(SegmentHeader::LEN, 0);
        SegmentBuilder { keys: keys.clone(), number, bytes: buffer, items: Vec::new(), sealer: Sealer::new() }
    }

    /// Seals an item into the segment, and gives its index. `id` must be the id of `plain` by its `kind`.
    ///
    /// Room is judged as if `plain` did not compress, so that no work is done in vain: a segment ends up to one item
    /// short of its limit.
    ///
    /// # Errors
    /// [`SegmentFull`]; the segment is then unchanged. An empty segment takes every item.
    ///
    /// # Panics
    /// When `plain` is longer than [`crate::seal::ITEM_PLAIN_BYTES_MAX`].
    pub fn push(
        &mut self,
        kind: ItemKind,
        id: &ChunkId,
        plain: &[u8],
        compression: Compression,
    ) -> Result<u32, SegmentFull> {
        let (index, offset) = self.room_for(plain.len() + SEAL_OVERHEAD_BYTES)?;
        let sealed = self.sealer.seal(&self.keys, kind, id, plain, compression, &mut self.bytes);
        let plain_len = u32::try_from(plain.len()).expect("the sealer refuses longer ones");
        self.items.push(Item {
            kind,
            id: *id,
            codec: sealed.codec,
            offset,
            sealed_len: sealed.sealed_len,
            plain_len,
        });
        Ok(index)
    }

    /// Takes an item that was sealed elsewhere under the keys of this dataset and epoch, and gives its index. The
    /// item's offset is ignored. The seal is not checked here: a caller who got the bytes from a provider opens them
    /// first.
    ///
    /// # Errors
    /// [`SegmentFull`]; the segment is then unchanged. An empty segment takes every item.
    ///
    /// # Panics
    /// When `sealed` has not the length that `item` says, or the item's lengths contradict each other.
    pub fn push_sealed(&mut self, item: &Item, sealed: &[u8]) -> Result<u32, SegmentFull> {
        let payload_len = item.payload_len().expect("an item's lengths fit its codec and the limit");
        assert_eq!(
            sealed.len(),
            payload_len + SEAL_OVERHEAD_BYTES,
            "sealed bytes are as long as their item says"
        );
        let (index, offset) = self.room_for(sealed.len())?;
        self.bytes.extend_from_slice(sealed);
        self.items.push(Item { offset, ..*item });
        Ok(index)
    }

    /// Index and offset of the next item, if so many bytes and its line in the footer still fit.
    fn room_for(&self, sealed_len: usize) -> Result<(u32, u32), SegmentFull> {
        let total = self.bytes.len() + sealed_len + footer_bytes(self.items.len() + 1);
        if self.items.len() == SEGMENT_ITEMS_MAX || total > SEGMENT_BYTES_MAX {
            return Err(SegmentFull);
        }
        Ok((small(self.items.len()), small(self.bytes.len())))
    }

    /// Bytes that the segment has if it is finished now, footer included.
    #[must_use]
    pub fn sealed_len(&self) -> usize {
        self.bytes.len() + footer_bytes(self.items.len())
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What was pushed, in order.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The segment's number.
    #[must_use]
    pub fn number(&self) -> SegmentNumber {
        self.number
    }

    /// Seals footer and header.
    #[must_use]
    pub fn finish(self) -> SealedSegment {
        let SegmentBuilder { keys, number, mut bytes, items, .. } = self;
        let footer_len = footer_bytes(items.len());
        bytes.reserve(footer_len + PADDING_BYTES_MAX);
        seal_part(&keys, &footer_name(number), &encode_footer(&items), &mut bytes);

        let header = SegmentHeader { number, sealed_len: small(bytes.len()), footer_len: small(footer_len) };
        bytes[..SegmentHeader::LEN].copy_from_slice(&header.seal(&keys));
        SealedSegment { number, epoch: keys.epoch(), bytes, footer_len: header.footer_len, items }
    }
}

fn small(len: usize) -> u32 {
    u32::try_from(len).expect("nothing in a segment is longer than 64 MiB")
}

fn length(value: u32) -> usize {
    usize::try_from(value).expect("a 32-bit length is an index on every machine that this runs on")
}

fn encode_footer(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::format(FOOTER_MAGIC, VERSION);
    writer.u32(small(items.len()));
    for item in items {
        writer.u8(item.kind.byte());
        writer.u8(item.codec.byte());
        writer.raw(item.id.as_bytes());
        writer.u32(item.sealed_len);
        writer.u32(item.plain_len);
    }
    writer.finish()
}

/// A finished segment, ready to be coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// The epoch of the keys that sealed it.
    pub epoch: KeyEpoch,
    /// All of it, unpadded, in a buffer that has room for the padding of any scheme.
    pub bytes: Vec<u8>,
    /// Bytes of its sealed footer, which ends it.
    pub footer_len: u32,
    /// What is in it, in order.
    pub items: Vec<Item>,
}

impl SealedSegment {
    /// `S`: bytes of the segment without padding.
    #[must_use]
    pub fn sealed_len(&self) -> u32 {
        small(self.bytes.len())
    }
}

/// Why a segment's header or footer can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenSegmentError {
    /// The bytes are not those that were sealed, or key or segment are others: ask the holder for proof, and another
    /// for the bytes.
    #[error("the segment's seal does not fit: bytes, key or segment number are wrong")]
    Seal,
    /// The bytes are no such format, or the seal fits and what is in it contradicts itself: whoever wrote the segment
    /// is at fault, or newer than this build.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl From<WrongSeal> for OpenSegmentError {
    fn from(WrongSeal: WrongSeal) -> OpenSegmentError {
        OpenSegmentError::Seal
    }
}

/// What a segment's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which segment this is. Who wants a certain one compares.
    pub number: SegmentNumber,
    /// `S`: its bytes without padding.
    pub sealed_len: u32,
    /// Bytes of its sealed footer, which ends at `sealed_len`.
    pub footer_len: u32,
}

impl SegmentHeader {
    /// Bytes of the clear magic and version and the sealed header after them.
    pub const LEN: usize = CLEAR_BYTES + HEADER_PAYLOAD_BYTES + SEAL_OVERHEAD_BYTES;

    /// Reads the first [`SegmentHeader::LEN`] bytes of a segment.
    ///
    /// # Errors
    /// [`OpenSegmentError`].
    pub fn open(keys: &SealKeys, bytes: &[u8]) -> Result<SegmentHeader, OpenSegmentError> {
        let mut clear = Reader::format("segment", SEGMENT_MAGIC, VERSION, bytes)?;
        let sealed = clear.raw(SegmentHeader::LEN - CLEAR_BYTES)?;
        clear.finish()?;
        let payload = open_part(keys, HEADER_NAME, sealed)?;
        let mut reader = Reader::bare("segment header", &payload);
        let header = SegmentHeader {
            number: SegmentNumber(reader.u64()?),
            sealed_len: reader.u32()?,
            footer_len: reader.u32()?,
        };
        within("segment header", "sealed length", length(header.sealed_len), SEGMENT_BYTES_MAX)?;
        let footer_start = header.sealed_len.checked_sub(header.footer_len);
        if footer_start.is_none_or(|start| length(start) < SegmentHeader::LEN) {
            return Err(reader.invalid("its footer does not lie behind it").into());
        }
        reader.finish()?;
        Ok(header)
    }

    fn seal(&self, keys: &SealKeys) -> Vec<u8> {
        let mut payload = Writer::default();
        payload.u64(self.number.0);
        payload.u32(self.sealed_len);
        payload.u32(self.footer_len);
        let mut bytes = Writer::format(SEGMENT_MAGIC, VERSION).finish();
        seal_part(keys, HEADER_NAME, &payload.finish(), &mut bytes);
        bytes
    }
}

/// What a segment's last bytes say: every item, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The items, with their offsets in the segment.
    pub items: Vec<Item>,
}

impl Footer {
    /// Opens the footer of segment `number`, which is `sealed_len` bytes long without padding and ends with
    /// `sealed_footer`. The items fill the segment exactly and are within the limits.
    ///
    /// # Errors
    /// [`OpenSegmentError`].
    pub fn open(
        keys: &SealKeys,
        number: SegmentNumber,
        sealed_len: u32,
        sealed_footer: &[u8],
    ) -> Result<Footer, OpenSegmentError> {
        const FORMAT: &str = "segment footer";
        within(FORMAT, "sealed length", length(sealed_len), SEGMENT_BYTES_MAX)?;
        within(FORMAT, "footer length", sealed_footer.len(), footer_bytes(SEGMENT_ITEMS_MAX))?;
        let payload = open_part(keys, &footer_name(number), sealed_footer)?;

        let mut reader = Reader::format(FORMAT, FOOTER_MAGIC, VERSION, &payload)?;
        let count = length(reader.u32()?);
        within(FORMAT, "count of items", count, SEGMENT_ITEMS_MAX)?;
        if count * FOOTER_ITEM_BYTES > reader.remaining() {
            return Err(DecodeError::Truncated { format: FORMAT }.into());
        }
        let mut items = Vec::with_capacity(count);
        let mut offset = small(SegmentHeader::LEN);
        for _ in 0..count {
            let item = read_item(&mut reader, offset)?;
            offset = offset
                .checked_add(item.sealed_len)
                .ok_or_else(|| reader.invalid("its items are longer than a segment"))?;
            items.push(item);
        }
        if offset.checked_add(small(sealed_footer.len())) != Some(sealed_len) {
            return Err(reader.invalid("its items do not fill the segment").into());
        }
        reader.finish()?;
        Ok(Footer { items })
    }

    /// The item at `index`, if it is of this kind and has this id. `None` means that whoever said so is wrong.
    ///
    /// This comparison is what makes a forged footer harmless for chunks and pages: [`crate::seal::open`] checks them
    /// against the id wanted, and nothing else opens in their place.
    #[must_use]
    pub fn find(&self, index: u32, kind: ItemKind, id: &ChunkId) -> Option<&Item> {
        let item = self.items.get(usize::try_from(index).ok()?)?;
        (item.kind == kind && item.id == *id).then_some(item)
    }
}

fn read_item(reader: &mut Reader<'_>, offset: u32) -> Result<Item, DecodeError> {
    let kind = ItemKind::from_byte(reader.u8()?).ok_or_else(|| reader.invalid("an unknown kind of item"))?;
    let codec = Codec::from_byte(reader.u8()?).ok_or_else(|| reader.invalid("an unknown codec"))?;
    let id = ChunkId(reader.array()?);
    let (sealed_len, plain_len) = (reader.u32()?, reader.u32()?);
    let item = Item { kind, id, codec, offset, sealed_len, plain_len };
    item.payload_len().ok_or_else(|| reader.invalid("an item's lengths do not fit"))?;
    Ok(item)
}

fn within(format: &'static str, field: &'static str, found: usize, limit: usize) -> Result<(), DecodeError> {
    if found > limit {
        return Err(DecodeError::OverLimit { format, field, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        CLEAR_BYTES, FOOTER_MAGIC, Footer, OpenSegmentError, SEGMENT_BYTES_MAX, SEGMENT_ITEMS_MAX,
        SealedSegment, SegmentBuilder, SegmentFull, SegmentHeader, footer_bytes, footer_name, small,
    };
    use crate::chunking::chunk_id;
    use crate::codec::{DecodeError, Writer};
    use crate::ids::{ChunkId, DatasetId, SegmentNumber};
    use crate::keys::{DatasetSecret, KeyEpoch, SealKeys};
    use crate::seal::{
        Codec, Compression, ITEM_PLAIN_BYTES_MAX, ItemKind, SEAL_OVERHEAD_BYTES, named_id, open, page_id,
        seal_part,
    };
    use proptest::prelude::{ProptestConfig, any, proptest};

    const NUMBER: SegmentNumber = SegmentNumber(7);

    fn keys() -> SealKeys {
        SealKeys::new(DatasetId([1; 32]), KeyEpoch(3), &DatasetSecret::new([2; 32]))
    }

    fn plains() -> Vec<(ItemKind, ChunkId, Vec<u8>)> {
        let chunk = |plain: Vec<u8>| (ItemKind::Chunk, chunk_id(&plain), plain);
        let page = |plain: Vec<u8>| (ItemKind::Page, page_id(&plain), plain);
        vec![
            chunk(b"all work and no play".repeat(1_000)),
            chunk((0..=255).collect()),
            chunk(Vec::new()),
            page(vec![0; 3_000]),
            (ItemKind::Named, named_id(b"checkpoint"), b"whatever it holds".to_vec()),
        ]
    }

    fn built() -> SealedSegment {
        let mut builder = SegmentBuilder::new(&keys(), NUMBER, vec![0xee; 100]);
        for (expected, (kind, id, plain)) in plains().iter().enumerate() {
            assert_eq!(builder.push(*kind, id, plain, Compression::Auto), Ok(small(expected)));
        }
        let announced = builder.sealed_len();
        let segment = builder.finish();
        assert_eq!(segment.bytes.len(), announced);
        segment
    }

    fn footer_of(segment: &SealedSegment) -> &[u8] {
        &segment.bytes[segment.bytes.len() - usize::try_from(segment.footer_len).unwrap()..]
    }

    #[test]
    fn every_item_opens_from_what_the_footer_says() {
        let segment = built();
        let footer = Footer::open(&keys(), NUMBER, segment.sealed_len(), footer_of(&segment)).unwrap();
        assert_eq!(footer.items, segment.items);
        for (index, (kind, id, plain)) in plains().iter().enumerate() {
            let item = footer.find(small(index), *kind, id).unwrap();
            let start = usize::try_from(item.offset).unwrap();
            let sealed = &segment.bytes[start..start + usize::try_from(item.sealed_len).unwrap()];
            assert_eq!(open(&keys(), item, sealed).unwrap(), *plain);
        }
    }

    fn committed() -> &'static [u8] {
        include_bytes!("../../../testdata/segment-vector.bin")
    }

    #[test]
    fn committed_segment_is_what_building_gives() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&built().bytes), hex(committed()));
    }

    #[test]
    fn committed_segment_opens() {
        let bytes = committed();
        let header = SegmentHeader::open(&keys(), &bytes[..SegmentHeader::LEN]).unwrap();
        assert_eq!((header.number, header.sealed_len), (NUMBER, small(bytes.len())));
        let footer_at = usize::try_from(header.sealed_len - header.footer_len).unwrap();
        let footer = Footer::open(&keys(), NUMBER, header.sealed_len, &bytes[footer_at..]).unwrap();
        assert_eq!(footer.items.len(), plains().len());
        for (item, (_, _, plain)) in footer.items.iter().zip(plains()) {
            let start = usize::try_from(item.offset).unwrap();
            let sealed = &bytes[start..start + usize::try_from(item.sealed_len).unwrap()];
            assert_eq!(open(&keys(), item, sealed).unwrap(), plain);
        }
    }

    #[test]
    fn header_says_what_the_map_says() {
        let segment = built();
        let header = SegmentHeader::open(&keys(), &segment.bytes[..SegmentHeader::LEN]).unwrap();
        let (sealed_len, footer_len) = (segment.sealed_len(), segment.footer_len);
        assert_eq!(header, SegmentHeader { number: NUMBER, sealed_len, footer_len });
        assert_eq!(segment.epoch, KeyEpoch(3));
    }

    #[test]
    fn segment_without_items_opens() {
        let segment = SegmentBuilder::new(&keys(), NUMBER, Vec::new()).finish();
        assert_eq!(segment.bytes.len(), SegmentHeader::LEN + footer_bytes(0));
        let footer = Footer::open(&keys(), NUMBER, segment.sealed_len(), footer_of(&segment)).unwrap();
        assert_eq!(footer.items, []);
    }

    #[test]
    fn nothing_but_magic_and_version_is_in_clear() {
        let segment = built();
        assert_eq!(segment.bytes[..CLEAR_BYTES], *b"SBSG\x01");
        let occurs = |needle: &[u8]| segment.bytes.windows(needle.len()).any(|window| window == needle);
        for (_, id, plain) in plains() {
            assert!(!occurs(&id.0), "no id is in clear");
            assert!(!occurs(&id.0[..8]) && !occurs(&id.0[24..]), "nor part of one");
            assert!(plain.len() < 16 || !occurs(&plain[..16]), "no plaintext is in clear");
        }
        assert!(!occurs(FOOTER_MAGIC));
    }

    #[test]
    fn footer_fits_its_own_segment_dataset_and_epoch_only() {
        let segment = built();
        let (sealed_len, footer) = (segment.sealed_len(), footer_of(&segment));
        let open = |keys: &SealKeys, number: u64, sealed_len: u32| {
            Footer::open(keys, SegmentNumber(number), sealed_len, footer).map(|_| ())
        };
        assert_eq!(open(&keys(), 7, sealed_len), Ok(()));
        assert_eq!(open(&keys(), 8, sealed_len), Err(OpenSegmentError::Seal));
        let secret = DatasetSecret::new([2; 32]);
        for other in [
            SealKeys::new(DatasetId([1; 32]), KeyEpoch(4), &secret),
            SealKeys::new(DatasetId([2; 32]), KeyEpoch(3), &secret),
            SealKeys::new(DatasetId([1; 32]), KeyEpoch(3), &DatasetSecret::new([3; 32])),
        ] {
            assert_eq!(open(&other, 7, sealed_len), Err(OpenSegmentError::Seal));
        }
        assert!(matches!(
            open(&keys(), 7, sealed_len + 64),
            Err(OpenSegmentError::Decode(DecodeError::Invalid { .. }))
        ));
        assert!(matches!(
            open(&keys(), 7, u32::MAX),
            Err(OpenSegmentError::Decode(DecodeError::OverLimit { .. }))
        ));
    }

    #[test]
    fn items_moved_by_compaction_keep_their_sealed_bytes() {
        let old = built();
        let mut builder = SegmentBuilder::new(&keys(), SegmentNumber(8), Vec::new());
        for index in [3, 0] {
            let item = &old.items[index];
            let start = usize::try_from(item.offset).unwrap();
            let sealed = &old.bytes[start..start + usize::try_from(item.sealed_len).unwrap()];
            builder.push_sealed(item, sealed).unwrap();
        }
        let new = builder.finish();
        for (item, (kind, id, plain)) in new.items.iter().zip([&plains()[3], &plains()[0]]) {
            assert_eq!((item.kind, item.id), (*kind, *id));
            let start = usize::try_from(item.offset).unwrap();
            let sealed = &new.bytes[start..start + usize::try_from(item.sealed_len).unwrap()];
            assert_eq!(open(&keys(), item, sealed).unwrap(), *plain);
        }
    }

    #[test]
    fn full_segment_refuses_an_item_and_stays_as_it_is() {
        let mut builder = SegmentBuilder::new(&keys(), NUMBER, Vec::new());
        let plain = vec![0; ITEM_PLAIN_BYTES_MAX];
        let id = named_id(b"large");
        while builder.push(ItemKind::Named, &id, &plain, Compression::Off).is_ok() {}
        assert_eq!(builder.items().len(), 63);
        // The exact rest still fits.
        let rest = SEGMENT_BYTES_MAX - builder.sealed_len() - SEAL_OVERHEAD_BYTES - 42;
        let before = builder.sealed_len();
        assert_eq!(
            builder.push(ItemKind::Named, &id, &plain[..rest + 1], Compression::Off),
            Err(SegmentFull)
        );
        assert_eq!(builder.sealed_len(), before);
        builder.push(ItemKind::Named, &id, &plain[..rest], Compression::Off).unwrap();
        let segment = builder.finish();
        assert_eq!(segment.bytes.len(), SEGMENT_BYTES_MAX);
        let footer = Footer::open(&keys(), NUMBER, segment.sealed_len(), footer_of(&segment)).unwrap();
        assert_eq!(footer.items.len(), 64);
    }

    #[test]
    fn items_beyond_the_most_are_refused() {
        let mut builder = SegmentBuilder::new(&keys(), NUMBER, Vec::new());
        for _ in 0..SEGMENT_ITEMS_MAX {
            builder.push(ItemKind::Named, &named_id(b"x"), b"", Compression::Auto).unwrap();
        }
        assert_eq!(builder.push(ItemKind::Named, &named_id(b"x"), b"", Compression::Auto), Err(SegmentFull));
        let segment = builder.finish();
        let footer = Footer::open(&keys(), NUMBER, segment.sealed_len(), footer_of(&segment)).unwrap();
        assert_eq!(footer.items.len(), SEGMENT_ITEMS_MAX);
    }

    #[test]
    fn unknown_version_is_refused_by_name() {
        let mut bytes = built().bytes[..SegmentHeader::LEN].to_vec();
        bytes[4] = 2;
        assert!(matches!(
            SegmentHeader::open(&keys(), &bytes),
            Err(OpenSegmentError::Decode(DecodeError::UnknownVersion { format: "segment", found: 2 }))
        ));
    }

    #[test]
    fn every_flipped_bit_of_header_and_footer_is_refused() {
        let segment = built();
        let header = &segment.bytes[..SegmentHeader::LEN];
        for bit in 0..header.len() * 8 {
            let mut flipped = header.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::open(&keys(), &flipped).is_err(), "bit {bit}");
        }
        let footer = footer_of(&segment);
        for bit in 0..footer.len() * 8 {
            let mut flipped = footer.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let opened = Footer::open(&keys(), NUMBER, segment.sealed_len(), &flipped);
            assert_eq!(opened, Err(OpenSegmentError::Seal), "bit {bit}");
        }
    }

    /// A footer under a good seal, as a malicious holder of the key could make it.
    fn open_forged(sealed_len: u32, payload: &[u8]) -> Result<Footer, OpenSegmentError> {
        let mut sealed = Vec::new();
        seal_part(&keys(), &footer_name(NUMBER), payload, &mut sealed);
        Footer::open(&keys(), NUMBER, sealed_len, &sealed)
    }

    fn forged(count: u32, items: &[(u8, u8, u32, u32)]) -> Vec<u8> {
        let mut writer = Writer::format(FOOTER_MAGIC, 1);
        writer.u32(count);
        for (kind, codec, sealed_len, plain_len) in items {
            writer.u8(*kind);
            writer.u8(*codec);
            writer.raw(&[9; 32]);
            writer.u32(*sealed_len);
            writer.u32(*plain_len);
        }
        writer.finish()
    }

    #[test]
    fn footers_that_contradict_themselves_are_refused() {
        let total = |items: usize, sealed: usize| small(SegmentHeader::LEN + sealed + footer_bytes(items));
        assert_eq!(open_forged(total(1, 128), &forged(1, &[(0, 0, 128, 100)])).unwrap().items.len(), 1);
        for (count, items) in [
            (8_193, vec![]),
            (u32::MAX, vec![]),
            (2, vec![(0, 0, 128, 100)]),
            (0, vec![(0, 0, 128, 100)]),
            (1, vec![(3, 0, 128, 100)]),
            (1, vec![(0, 3, 128, 100)]),
            (1, vec![(0, 0, 128, 101)]),
            (1, vec![(0, 1, 128, 100)]),
            (1, vec![(0, 0, 27, 0)]),
            (1, vec![(0, 2, 128, u32::MAX)]),
        ] {
            let opened = open_forged(total(items.len(), 128), &forged(count, &items));
            assert!(matches!(opened, Err(OpenSegmentError::Decode(_))), "{count} {items:?}");
        }
    }

    #[test]
    fn item_is_found_under_its_own_kind_and_id_only() {
        let segment = built();
        let footer = Footer { items: segment.items };
        let id = plains()[0].1;
        assert!(footer.find(0, ItemKind::Chunk, &id).is_some_and(|item| item.codec == Codec::Lz4));
        assert_eq!(footer.find(0, ItemKind::Named, &id), None);
        assert_eq!(footer.find(1, ItemKind::Chunk, &id), None);
        assert_eq!(footer.find(5, ItemKind::Chunk, &id), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn hostile_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..300), len in any::<u32>()) {
            assert!(SegmentHeader::open(&keys(), &bytes).is_err());
            assert!(Footer::open(&keys(), NUMBER, len, &bytes).is_err());
        }

        #[test]
        fn hostile_footer_under_a_good_seal_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>(), len in any::<u32>()
        ) {
            let payload = if magic { [b"SBSF\x01".as_slice(), &bytes].concat() } else { bytes };
            assert!(matches!(open_forged(len, &payload), Err(OpenSegmentError::Decode(_))));
        }
    }
}
