//! Seals of every codec against golden vectors, changed bytes and wrong keys.

use super::{
    Codec, Compression, Item, ItemKind, OpenError, Opener, SEAL_OVERHEAD_BYTES, Sealer, encrypt, item_aad,
    named_id, open, page_id,
};
use crate::chunking::chunk_id;
use crate::ids::{ChunkId, DatasetId};
use crate::keys::{DatasetSecret, KeyEpoch, SealKeys};
use proptest::prelude::{ProptestConfig, any, proptest};

const EVERY_COMPRESSION: [Compression; 3] =
    [Compression::Off, Compression::Auto, Compression::Zstd { level: 1 }];

fn keys() -> SealKeys {
    SealKeys::new(DatasetId([1; 32]), KeyEpoch(0), &DatasetSecret::new([2; 32]))
}

fn text(len: usize) -> Vec<u8> {
    b"species,island,bill_length_mm\nAdelie,Torgersen,39.1\n".iter().copied().cycle().take(len).collect()
}

/// Bytes that no compressor shortens.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn seal_as(kind: ItemKind, id: ChunkId, plain: &[u8], compression: Compression) -> (Item, Vec<u8>) {
    let mut out = Vec::new();
    let sealed = Sealer::new().seal(&keys(), kind, &id, plain, compression, &mut out);
    assert_eq!(u32::try_from(out.len()).unwrap(), sealed.sealed_len);
    let plain_len = u32::try_from(plain.len()).unwrap();
    let item = Item { kind, id, codec: sealed.codec, offset: 0, sealed_len: sealed.sealed_len, plain_len };
    (item, out)
}

fn seal(plain: &[u8], compression: Compression) -> (Item, Vec<u8>) {
    seal_as(ItemKind::Chunk, chunk_id(plain), plain, compression)
}

/// What the committed vectors seal: kind, name of a named item, plaintext, compression.
fn vector_inputs() -> Vec<(ItemKind, &'static str, Vec<u8>, &'static str, Compression)> {
    let zstd = Compression::Zstd { level: 1 };
    vec![
        (ItemKind::Chunk, "-", Vec::new(), "off", Compression::Off),
        (ItemKind::Chunk, "-", b"Adelie".to_vec(), "off", Compression::Off),
        (ItemKind::Chunk, "-", text(300), "off", Compression::Off),
        (ItemKind::Chunk, "-", text(300), "auto", Compression::Auto),
        (ItemKind::Chunk, "-", text(300), "zstd1", zstd),
        (ItemKind::Chunk, "-", noise(1, 40), "auto", Compression::Auto),
        (ItemKind::Page, "-", text(80), "auto", Compression::Auto),
        (ItemKind::Named, "checkpoint", text(80), "off", Compression::Off),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn vectors() -> &'static str {
    include_str!("../../../../testdata/seal-vectors.txt")
}

#[test]
fn committed_vectors_are_what_sealing_gives() {
    let committed: Vec<&str> = vectors().lines().filter(|line| !line.starts_with('#')).collect();
    let sealed = vector_inputs().into_iter().map(|(kind, name, plain, how, compression)| {
        let id = match kind {
            ItemKind::Chunk => chunk_id(&plain),
            ItemKind::Page => page_id(&plain),
            ItemKind::Named => named_id(name.as_bytes()),
        };
        let (item, bytes) = seal_as(kind, id, &plain, compression);
        let plain = if plain.is_empty() { String::from("-") } else { hex(&plain) };
        let (kind, codec) = (kind.byte(), item.codec.byte());
        format!("{kind} {name} {how} {codec} {id} {plain} {}", hex(&bytes))
    });
    assert_eq!(sealed.collect::<Vec<_>>(), committed);
}

#[test]
fn committed_vectors_open() {
    let bytes = |text: &str| -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    for line in vectors().lines().filter(|line| !line.starts_with('#')) {
        let [kind, _, _, codec, id, plain, sealed] =
            line.split(' ').collect::<Vec<_>>().try_into().expect("a vector has seven fields");
        let (plain, sealed) = (if plain == "-" { Vec::new() } else { bytes(plain) }, bytes(sealed));
        let item = Item {
            kind: ItemKind::from_byte(kind.parse().unwrap()).unwrap(),
            id: id.parse().unwrap(),
            codec: Codec::from_byte(codec.parse().unwrap()).unwrap(),
            offset: 0,
            sealed_len: u32::try_from(sealed.len()).unwrap(),
            plain_len: u32::try_from(plain.len()).unwrap(),
        };
        assert_eq!(open(&keys(), &item, &sealed).unwrap(), plain);
    }
}

#[test]
fn one_chunk_sealed_raw_as_lz4_and_as_zstd_has_three_nonces() {
    let plain = text(60_000);
    let sealed = EVERY_COMPRESSION.map(|compression| seal(&plain, compression));
    assert_eq!(sealed.each_ref().map(|(item, _)| item.codec), [Codec::Raw, Codec::Lz4, Codec::Zstd]);
    let nonces = sealed.each_ref().map(|(_, bytes)| &bytes[..12]);
    assert!(nonces[0] != nonces[1] && nonces[1] != nonces[2] && nonces[0] != nonces[2]);
    for (item, bytes) in &sealed {
        assert_eq!(open(&keys(), item, bytes).unwrap(), plain);
    }
}

#[test]
fn another_level_of_one_codec_has_another_nonce() {
    let plain: Vec<u8> = (0..4000_u32).flat_map(|i| (i * i / 7).to_string().into_bytes()).collect();
    let [fast, slow] = [1, 19].map(|level| seal(&plain, Compression::Zstd { level }));
    assert_ne!(fast.1, slow.1, "the levels pack differently, else this shows nothing");
    assert_ne!(fast.1[..12], slow.1[..12]);
}

#[test]
fn equal_payloads_give_equal_bytes_whatever_was_sealed_before() {
    let (large, small) = (text(100_000), text(9_000));
    let mut sealer = Sealer::new();
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for compression in EVERY_COMPRESSION {
        let mut put = |plain: &[u8], out: &mut Vec<u8>| {
            sealer.seal(&keys(), ItemKind::Chunk, &chunk_id(plain), plain, compression, out);
        };
        put(&small, &mut first);
        put(&large, &mut Vec::new());
        put(&small, &mut again);
    }
    assert_eq!(first, again);
}

#[test]
fn equal_chunks_of_two_datasets_or_epochs_have_nothing_in_common() {
    let (plain, secret) = (text(1_000), DatasetSecret::new([2; 32]));
    let id = chunk_id(&plain);
    let (item, bytes) = seal(&plain, Compression::Off);
    for other in [
        SealKeys::new(DatasetId([1; 32]), KeyEpoch(0), &DatasetSecret::new([3; 32])),
        SealKeys::new(DatasetId([1; 32]), KeyEpoch(1), &secret),
        SealKeys::new(DatasetId([9; 32]), KeyEpoch(0), &secret),
    ] {
        assert_eq!(open(&other, &item, &bytes), Err(OpenError::Tag));
        let mut foreign = Vec::new();
        Sealer::new().seal(&other, ItemKind::Chunk, &id, &plain, Compression::Off, &mut foreign);
        assert!(!foreign.windows(8).any(|window| bytes.windows(8).any(|own| own == window)));
    }
}

#[test]
fn only_what_saves_a_sixteenth_is_kept_compressed() {
    assert_eq!(seal(&noise(1, 70_000), Compression::Auto).0.codec, Codec::Raw);
    assert_eq!(seal(&noise(1, 70_000), Compression::Zstd { level: 3 }).0.codec, Codec::Raw);
    for len in 0..20 {
        assert_eq!(seal(&noise(2, len), Compression::Auto).0.codec, Codec::Raw, "{len} bytes");
    }
    // A thirty-second of zeros at the end is within reach of LZ4 but not worth it.
    let slightly = [noise(3, 3_900), vec![0; 125]].concat();
    assert_eq!(seal(&slightly, Compression::Auto).0.codec, Codec::Raw);
    let somewhat = [noise(3, 3_500), vec![0; 500]].concat();
    assert_eq!(seal(&somewhat, Compression::Auto).0.codec, Codec::Lz4);
}

#[test]
fn noisy_middle_is_taken_for_the_whole() {
    let plain = [text(30_000), noise(4, 8_000), text(30_000)].concat();
    assert_eq!(seal(&plain, Compression::Auto).0.codec, Codec::Raw);
    assert_eq!(seal(&plain, Compression::Zstd { level: 1 }).0.codec, Codec::Zstd);
}

#[test]
fn every_flipped_bit_is_noticed() {
    for compression in EVERY_COMPRESSION {
        let (item, bytes) = seal(&text(300), compression);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&keys(), &item, &flipped), Err(OpenError::Tag), "bit {bit}");
        }
    }
}

#[test]
fn seal_covers_kind_id_codec_and_length() {
    let (item, bytes) = seal(&text(3_000), Compression::Auto);
    let other = |change: fn(&mut Item)| {
        let mut other = item;
        change(&mut other);
        open(&keys(), &other, &bytes)
    };
    assert_eq!(other(|item| item.kind = ItemKind::Named), Err(OpenError::Tag));
    assert_eq!(other(|item| item.id = ChunkId([0; 32])), Err(OpenError::Tag));
    assert_eq!(other(|item| item.codec = Codec::Zstd), Err(OpenError::Tag));
    assert_eq!(other(|item| item.plain_len += 1), Err(OpenError::Tag));
    assert_eq!(other(|item| item.codec = Codec::Raw), Err(OpenError::Length));
    assert_eq!(other(|item| item.sealed_len -= 1), Err(OpenError::Length));
    assert_eq!(other(|item| item.plain_len = u32::MAX), Err(OpenError::Length));
}

#[test]
fn chunk_and_page_are_held_to_their_id_and_a_named_item_is_not() {
    let (wrong, plain) = (ChunkId([7; 32]), text(100));
    for kind in [ItemKind::Chunk, ItemKind::Page] {
        let (item, bytes) = seal_as(kind, wrong, &plain, Compression::Off);
        assert_eq!(open(&keys(), &item, &bytes), Err(OpenError::WrongId));
    }
    for (kind, id) in [(ItemKind::Page, page_id(&plain)), (ItemKind::Named, named_id(b"checkpoint"))] {
        let (item, bytes) = seal_as(kind, id, &plain, Compression::Auto);
        assert_eq!(open(&keys(), &item, &bytes).unwrap(), plain);
    }
    assert_ne!(page_id(&plain), chunk_id(&plain));
    assert_ne!(page_id(&plain), named_id(&plain));
}

#[test]
fn failed_item_leaves_what_was_opened_before() {
    let (item, mut bytes) = seal(&text(2_000), Compression::Off);
    bytes[100] ^= 1;
    let mut plain = b"before".to_vec();
    assert_eq!(Opener::new().open(&keys(), &item, &bytes, &mut plain), Err(OpenError::Tag));
    assert_eq!(plain, b"before");
}

/// Seals a payload that no sealer makes, as a malicious holder of the key could.
fn forge(codec: Codec, payload: &[u8], plain_len: u32) -> (Item, Vec<u8>) {
    let (kind, id, mut out) = (ItemKind::Named, named_id(b"forged"), Vec::new());
    let aad = item_aad(&keys(), kind, &id, codec, plain_len);
    encrypt(&keys(), &keys().chunk_key(&id), codec, &aad, payload, &mut out);
    let sealed_len = u32::try_from(out.len()).unwrap();
    (Item { kind, id, codec, offset: 0, sealed_len, plain_len }, out)
}

#[test]
fn payload_that_grows_beyond_its_length_is_refused() {
    let lz4 = lz4_flex::block::compress(&[0; 5_000]);
    let zstd = zstd::bulk::compress(&[0; 5_000], 1).unwrap();
    for plain_len in [4_999, 5_001] {
        for (codec, payload) in [(Codec::Lz4, &lz4), (Codec::Zstd, &zstd)] {
            let (item, bytes) = forge(codec, payload, plain_len);
            assert_eq!(open(&keys(), &item, &bytes), Err(OpenError::Decompress));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_item_opens(
        noise_len in 0usize..70_000, text_len in 0usize..70_000, seed in any::<u64>(), level in -5i32..6
    ) {
        let plain = [noise(seed, noise_len), text(text_len)].concat();
        for compression in [Compression::Off, Compression::Auto, Compression::Zstd { level }] {
            let (item, bytes) = seal(&plain, compression);
            assert!(bytes.len() <= plain.len() + SEAL_OVERHEAD_BYTES);
            assert_eq!(open(&keys(), &item, &bytes).unwrap(), plain);
        }
    }

    #[test]
    fn hostile_payload_under_a_good_seal_never_panics(
        payload in proptest::collection::vec(any::<u8>(), 0..300), zstd in any::<bool>(), longer in 1u32..2_000
    ) {
        let codec = if zstd { Codec::Zstd } else { Codec::Lz4 };
        let plain_len = u32::try_from(payload.len()).unwrap() + longer;
        let (item, bytes) = forge(codec, &payload, plain_len);
        match open(&keys(), &item, &bytes) {
            Ok(plain) => assert_eq!(plain.len(), usize::try_from(plain_len).unwrap()),
            Err(error) => assert_eq!(error, OpenError::Decompress),
        }
    }

    #[test]
    fn hostile_items_and_bytes_never_open(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0u8..3, codec in 0u8..3, sealed_len in any::<u32>(), plain_len in any::<u32>(), fit in any::<bool>()
    ) {
        let sealed_len = if fit { u32::try_from(bytes.len()).unwrap() } else { sealed_len };
        let item = Item {
            kind: ItemKind::from_byte(kind).unwrap(),
            id: ChunkId([5; 32]),
            codec: Codec::from_byte(codec).unwrap(),
            offset: 0,
            sealed_len,
            plain_len,
        };
        assert!(open(&keys(), &item, &bytes).is_err());
    }
}
