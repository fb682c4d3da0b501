//! Segments and what lies in them: from anyone, and as a hostile holder of the dataset's key seals them.

use crate::input::Input;
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys};
use seedbank_formats::seal::{
    Codec, Compression, ITEM_PLAIN_BYTES_MAX, Item, ItemKind, Opener, Sealer, named_id,
};
use seedbank_formats::segment::{Footer, SegmentHeader};
use seedbank_formats::testing::{seal_item, seal_part};
use seedbank_formats::{DatasetId, SegmentNumber};

const NUMBER: SegmentNumber = SegmentNumber(7);

/// Those of `testdata/segment-vector.bin`.
fn keys() -> SealKeys {
    SealKeys::new(DatasetId([1; 32]), KeyEpoch(3), &DatasetSecret::new([2; 32]))
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(6) {
        0 => drop(SegmentHeader::open(&keys(), input.rest())),
        1 => {
            let mut sealed = b"SBSG\x01".to_vec();
            seal_part(&keys(), b"segment header", input.rest(), &mut sealed);
            if let Ok(header) = SegmentHeader::open(&keys(), &sealed) {
                assert!(header.footer_len <= header.sealed_len, "the footer lies inside");
            }
        }
        2 => footer(input),
        3 => hostile_item(input),
        4 => round_trip(input),
        _ => {
            let item = item(&mut input);
            assert!(Opener::new().open(&keys(), &item, input.rest(), &mut Vec::new()).is_err());
        }
    }
}

fn footer(mut input: Input<'_>) {
    let sealed_len = u32::try_from(input.number() % (1 << 33)).unwrap_or(u32::MAX);
    let mut sealed = Vec::new();
    let name = [b"segment footer".as_slice(), &NUMBER.0.to_le_bytes()].concat();
    seal_part(&keys(), &name, input.rest(), &mut sealed);
    let Ok(footer) = Footer::open(&keys(), NUMBER, sealed_len, &sealed) else { return };
    let footer_len = u32::try_from(sealed.len()).expect("an input is short");
    let items: u32 = footer.items.iter().map(|item| item.sealed_len).sum();
    let header = u32::try_from(SegmentHeader::LEN).expect("it is short");
    assert_eq!(header + items + footer_len, sealed_len, "items fill the segment");
    for (index, item) in (0..).zip(&footer.items) {
        assert_eq!(footer.find(index, item.kind, &item.id), Some(item));
    }
}

fn item(input: &mut Input<'_>) -> Item {
    let codec = [Codec::Raw, Codec::Lz4, Codec::Zstd][input.below(3)];
    let kind = [ItemKind::Chunk, ItemKind::Page, ItemKind::Named][input.below(3)];
    let plain_len = u32::try_from(input.number() % (2 << 20)).expect("two megabytes");
    let sealed_len = u32::try_from(input.number() % (2 << 20)).expect("two megabytes");
    Item { kind, id: named_id(b"an item"), codec, offset: 0, sealed_len, plain_len }
}

/// A payload that its writer sealed properly and that is not what its codec says.
fn hostile_item(mut input: Input<'_>) {
    let item = Item { kind: ItemKind::Named, ..item(&mut input) };
    let payload = input.rest();
    let mut sealed = Vec::new();
    let item = Item { sealed_len: seal_item(&keys(), &item, payload, &mut sealed), ..item };
    let mut plain = b"before".to_vec();
    match Opener::new().open(&keys(), &item, &sealed, &mut plain) {
        Ok(()) => assert_eq!(plain.len() - 6, usize::try_from(item.plain_len).expect("it is short")),
        Err(_) => assert_eq!(plain, b"before", "nothing is appended"),
    }
    assert!(plain.len() <= ITEM_PLAIN_BYTES_MAX + 6);
}

fn round_trip(mut input: Input<'_>) {
    let compression = [Compression::Off, Compression::Auto, Compression::Zstd { level: 1 }][input.below(3)];
    let repeats = 1 + input.below(64);
    let plain = input.rest().repeat(repeats);
    let id = named_id(b"an item");
    let mut bytes = Vec::new();
    let sealed = Sealer::new().seal(&keys(), ItemKind::Named, &id, &plain, compression, &mut bytes);
    let plain_len = u32::try_from(plain.len()).expect("an input is short");
    let item = Item {
        kind: ItemKind::Named,
        id,
        codec: sealed.codec,
        offset: 0,
        sealed_len: sealed.sealed_len,
        plain_len,
    };
    let mut opened = Vec::new();
    Opener::new().open(&keys(), &item, &bytes, &mut opened).expect("what was sealed opens");
    assert!(opened == plain, "an item reads back");
}
