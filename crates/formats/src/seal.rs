//! Seals chunks, pages and named parts for storage, and opens them again: compression where it pays, then AES-256-GCM
//! under a key of each item's own.
//!
//! Inside one dataset and key epoch equal items give equal bytes, so versions deduplicate; outside it nothing can be
//! linked, and a provider never sees an id. A key is derived from an item's id and seals that item only, but one item
//! may be sealed raw, as LZ4 or as zstd, or by another release of a library: the nonce is derived from the codec and
//! the payload as it is encrypted, so that one key and nonce never meet two payloads.
//!
//! A seal proves that someone with the key made the bytes. Chunks and pages are also checked against their id, which
//! proves that they are the right ones; a [`ItemKind::Named`] item has nothing but the seal. Of a public dataset
//! everybody has the key. What length and order tell an onlooker stands in `docs/formats/seal.md`.
//!
//! This module doesn't say where an item lies or what it means: `segment` and the page formats do.

use crate::chunking::chunk_id;
use crate::ids::ChunkId;
use crate::keys::SealKeys;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::sync::LazyLock;
use zeroize::Zeroizing;
use zstd::bulk::{Compressor, Decompressor};

/// Bytes of the nonce in front of each sealed item.
pub const NONCE_BYTES: usize = 12;
/// Bytes of the tag behind each sealed item.
pub const TAG_BYTES: usize = 16;
/// What sealing adds to a payload.
pub const SEAL_OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// The largest plaintext of one item. Chunks end at 128 KiB and pages stay far below; an opener allocates no more.
pub const ITEM_PLAIN_BYTES_MAX: usize = 1 << 20;

/// How an item's plaintext became its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As it is.
    Raw,
    /// An LZ4 block without a frame; the plaintext's length stands beside it.
    Lz4,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// The byte that stands for it in footers and associated data.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Codec> {
        match byte {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// What to try before sealing. Whatever is tried is kept only when it saves a sixteenth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Seal the plaintext as it is.
    Off,
    /// LZ4, if 4 KiB from the item's middle shrink: data that does not compress costs a small probe, not a pass.
    Auto,
    /// zstd, because the dataset's policy trades processor time for room. Levels outside zstd's range mean its nearest.
    Zstd {
        /// zstd's compression level.
        level: i32,
    },
}

/// What an item is, and so what its id says about its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// Part of a file. Its id is the Xet chunk hash of its bytes.
    Chunk,
    /// A page of a tree or a manifest. Its id is [`page_id`] of its bytes.
    Page,
    /// Something that may be replaced under its name. Its id is [`named_id`] of the name and says nothing of the bytes.
    Named,
}

impl ItemKind {
    /// The byte that stands for it in footers and associated data.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            ItemKind::Chunk => 0,
            ItemKind::Page => 1,
            ItemKind::Named => 2,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<ItemKind> {
        match byte {
            0 => Some(ItemKind::Chunk),
            1 => Some(ItemKind::Page),
            2 => Some(ItemKind::Named),
            _ => None,
        }
    }
}

/// One sealed item and where it lies in its segment.
///
/// A footer says this, and the footer of a public dataset can be forged by anyone: take an item with
/// [`crate::segment::Footer::find`], which compares kind and id with what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// What it is called.
    pub id: ChunkId,
    /// How its payload was made.
    pub codec: Codec,
    /// Its first sealed byte, counted from the segment's start.
    pub offset: u32,
    /// Bytes as sealed, with nonce and tag.
    pub sealed_len: u32,
    /// Bytes of its plaintext.
    pub plain_len: u32,
}

impl Item {
    /// Bytes of the payload between nonce and tag, if the lengths can be those of an item at all: a plaintext within
    /// the limit, and a payload that is as long when raw and shorter when compressed.
    pub(crate) fn payload_len(&self) -> Option<usize> {
        let plain_len = usize::try_from(self.plain_len).ok()?;
        let payload_len = usize::try_from(self.sealed_len).ok()?.checked_sub(SEAL_OVERHEAD_BYTES)?;
        let fits = match self.codec {
            Codec::Raw => payload_len == plain_len,
            Codec::Lz4 | Codec::Zstd => payload_len < plain_len,
        };
        (fits && plain_len <= ITEM_PLAIN_BYTES_MAX).then_some(payload_len)
    }
}

static PAGE_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key("seedbank v1 page id", b""));
static NAME_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key("seedbank v1 item name", b""));

/// The id of a tree or manifest page: keyed BLAKE3 of its bytes, so that no page shares an id with a chunk.
#[must_use]
pub fn page_id(page: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&PAGE_KEY, page).as_bytes())
}

/// The id of whatever is called `name` in its dataset.
#[must_use]
pub fn named_id(name: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&NAME_KEY, name).as_bytes())
}

/// What sealing made of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// How the payload was made.
    pub codec: Codec,
    /// Bytes appended: payload, nonce and tag.
    pub sealed_len: u32,
}

/// Seals items one after another. Buffers and tables are kept, so keep the sealer: one a thread.
#[derive(Default)]
pub struct Sealer {
    lz4: Lz4Tables,
    zstd: Option<(i32, Compressor<'static>)>,
    packed: Vec<u8>,
}

/// A table for each of LZ4's two widths. Which one is used must depend on the input's length alone, else a chunk's
/// bytes would depend on the chunks before it.
struct Lz4Tables {
    small: CompressTable,
    large: CompressTable,
}

impl Default for Lz4Tables {
    fn default() -> Lz4Tables {
        Lz4Tables { small: CompressTable::small(), large: CompressTable::large() }
    }
}

/// LZ4's narrow table serves inputs below this.
const LZ4_SMALL_BYTES: usize = 0xffff;

/// What [`Compression::Auto`] looks at. LZ4 tells within a microsecond whether this much repeats itself.
const PROBE_BYTES: usize = 4096;

impl Sealer {
    /// A sealer with empty buffers.
    #[must_use]
    pub fn new() -> Sealer {
        Sealer::default()
    }

    /// Appends the sealed item to `out`: nonce, encrypted payload, tag. `id` must be the id of `plain` by its `kind`.
    ///
    /// # Panics
    /// When `plain` is longer than [`ITEM_PLAIN_BYTES_MAX`]: nothing that we cut or write is.
    pub fn seal(
        &mut self,
        keys: &SealKeys,
        kind: ItemKind,
        id: &ChunkId,
        plain: &[u8],
        compression: Compression,
        out: &mut Vec<u8>,
    ) -> Sealed {
        assert!(plain.len() <= ITEM_PLAIN_BYTES_MAX, "an item's plaintext is within the limit");
        let plain_len = u32::try_from(plain.len()).expect("the limit fits 32 bits");
        let (codec, payload) = self.pack(plain, compression);
        let sealed_len = seal_payload(keys, kind, id, codec, plain_len, payload, out);
        Sealed { codec, sealed_len }
    }

    fn pack<'a>(&'a mut self, plain: &'a [u8], compression: Compression) -> (Codec, &'a [u8]) {
        let packed = match compression {
            Compression::Off => None,
            Compression::Auto => self.pack_lz4_if_promising(plain).map(|len| (Codec::Lz4, len)),
            Compression::Zstd { level } => self.pack_zstd(plain, level).map(|len| (Codec::Zstd, len)),
        };
        match packed {
            Some((codec, len)) => (codec, &self.packed[..len]),
            None => (Codec::Raw, plain),
        }
    }

    fn pack_lz4_if_promising(&mut self, plain: &[u8]) -> Option<usize> {
        if plain.len() > 2 * PROBE_BYTES {
            let start = (plain.len() - PROBE_BYTES) / 2;
            self.pack_lz4(&plain[start..start + PROBE_BYTES])?;
        }
        self.pack_lz4(plain)
    }

    /// The length of `plain` as LZ4 in `self.packed`, if that pays.
    fn pack_lz4(&mut self, plain: &[u8]) -> Option<usize> {
        let out = grown(&mut self.packed, get_maximum_output_size(plain.len()));
        let table = if plain.len() < LZ4_SMALL_BYTES { &mut self.lz4.small } else { &mut self.lz4.large };
        let len = compress_into_with_table(plain, out, table).expect("the buffer holds the worst case");
        (len <= packed_len_max(plain.len())).then_some(len)
    }

    /// The length of `plain` as zstd in `self.packed`, if that pays.
    fn pack_zstd(&mut self, plain: &[u8], level: i32) -> Option<usize> {
        if self.zstd.as_ref().is_none_or(|(prepared, _)| *prepared != level) {
            self.zstd = Some((level, Compressor::new(level).expect("zstd takes every level")));
        }
        let (_, zstd) = self.zstd.as_mut()?;
        // A buffer of the longest length that pays lets zstd give up as soon as it can't.
        zstd.compress_to_buffer(plain, grown(&mut self.packed, packed_len_max(plain.len()))).ok()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// The longest payload worth a decompression on every read: it saves a sixteenth, and a byte at least.
fn packed_len_max(plain_len: usize) -> usize {
    plain_len.saturating_sub((plain_len / 16).max(1))
}

/// The first `len` bytes of a buffer that only ever grows.
fn grown(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// Why a sealed item can't be had from these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are not those that were sealed, or the key is another's: ask the holder for proof, and another for
    /// the bytes.
    #[error("the seal does not fit: bytes or key are wrong")]
    Tag,
    /// The item's lengths contradict each other, a limit or the bytes at hand: its footer or layout is wrong.
    #[error("the sealed item's lengths do not fit")]
    Length,
    /// The seal fits but the payload is not what its codec says: whoever sealed it is at fault, no holder.
    #[error("the sealed item does not decompress")]
    Decompress,
    /// The seal fits but the plaintext has another id: whoever sealed it is at fault, no holder.
    #[error("the sealed item is not what its id says")]
    WrongId,
}

impl From<WrongSeal> for OpenError {
    fn from(WrongSeal: WrongSeal) -> OpenError {
        OpenError::Tag
    }
}

/// Opens items one after another. Buffers are kept, so keep the opener: one a thread.
#[derive(Default)]
pub struct Opener {
    packed: Vec<u8>,
    zstd: Option<Decompressor<'static>>,
}

impl Opener {
    /// An opener with empty buffers.
    #[must_use]
    pub fn new() -> Opener {
        Opener::default()
    }

    /// Opens `sealed`, the bytes of `item`, and appends its plaintext to `plain`.
    ///
    /// # Errors
    /// [`OpenError`]; then nothing is appended.
    pub fn open(
        &mut self,
        keys: &SealKeys,
        item: &Item,
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        // Before anything is allocated for a length that no item has.
        item.payload_len().ok_or(OpenError::Length)?;
        let start = plain.len();
        plain.resize(start + usize::try_from(item.plain_len).map_err(|_| OpenError::Length)?, 0);
        let opened = self.open_into(keys, item, sealed, &mut plain[start..]);
        if opened.is_err() {
            plain.truncate(start);
        }
        opened
    }

    /// Opens `sealed`, the bytes of `item`, into `plain`, which is as long as the item says. Nothing is allocated and
    /// nothing cleared beforehand: for whoever uses buffers again.
    ///
    /// # Errors
    /// [`OpenError`]; what `plain` then holds must not be used.
    pub fn open_into(
        &mut self,
        keys: &SealKeys,
        item: &Item,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), OpenError> {
        let payload_len = item.payload_len().ok_or(OpenError::Length)?;
        let is_as_long = usize::try_from(item.plain_len).is_ok_and(|len| len == plain.len());
        if sealed.len() != payload_len + SEAL_OVERHEAD_BYTES || !is_as_long {
            return Err(OpenError::Length);
        }
        let key = Zeroizing::new(keys.chunk_key(&item.id));
        let aad = item_aad(keys, item.kind, &item.id, item.codec, item.plain_len);
        let written = match item.codec {
            Codec::Raw => {
                decrypt(&key, &aad, sealed, plain)?;
                plain.len()
            }
            Codec::Lz4 => {
                let payload = grown(&mut self.packed, payload_len);
                decrypt(&key, &aad, sealed, payload)?;
                decompress_into(payload, plain).map_err(|_| OpenError::Decompress)?
            }
            Codec::Zstd => {
                let payload = grown(&mut self.packed, payload_len);
                decrypt(&key, &aad, sealed, payload)?;
                let zstd = self
                    .zstd
                    .get_or_insert_with(|| Decompressor::new().expect("zstd decodes without a dictionary"));
                zstd.decompress_to_buffer(payload, plain).map_err(|_| OpenError::Decompress)?
            }
        };
        if written != plain.len() {
            return Err(OpenError::Decompress);
        }
        let is_called = match item.kind {
            ItemKind::Chunk => chunk_id(plain),
            ItemKind::Page => page_id(plain),
            ItemKind::Named => item.id,
        };
        if is_called != item.id {
            return Err(OpenError::WrongId);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Opener").finish_non_exhaustive()
    }
}

/// Opens one item. Whoever opens many keeps an [`Opener`].
///
/// # Errors
/// [`OpenError`].
pub fn open(keys: &SealKeys, item: &Item, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut plain = Vec::new();
    Opener::new().open(keys, item, sealed, &mut plain)?;
    Ok(plain)
}

/// Seals a payload that is `codec` of the item's plaintext, appends it, and gives its sealed length.
pub(crate) fn seal_payload(
    keys: &SealKeys,
    kind: ItemKind,
    id: &ChunkId,
    codec: Codec,
    plain_len: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> u32 {
    let aad = item_aad(keys, kind, id, codec, plain_len);
    let sealed_len = u32::try_from(payload.len() + SEAL_OVERHEAD_BYTES).expect("the limit fits 32 bits");
    encrypt(keys, &Zeroizing::new(keys.chunk_key(id)), codec, &aad, payload, out);
    sealed_len
}

/// Seals one part of a stored format (a segment's footer, a head's body) under its name, which has to be known to
/// open it. Appends nonce, encrypted payload and tag: [`SEAL_OVERHEAD_BYTES`] more than `payload`.
pub(crate) fn seal_part(keys: &SealKeys, name: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    let key = Zeroizing::new(keys.part_key(name));
    encrypt(keys, &key, Codec::Raw, &part_aad(keys, name), payload, out);
}

/// Bytes that were not sealed under this key with this associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongSeal;

/// Opens what [`seal_part`] sealed. The caller has checked the length.
///
/// # Errors
/// [`WrongSeal`].
pub(crate) fn open_part(keys: &SealKeys, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, WrongSeal> {
    let payload_len = sealed.len().checked_sub(SEAL_OVERHEAD_BYTES).ok_or(WrongSeal)?;
    let mut payload = vec![0; payload_len];
    decrypt(&Zeroizing::new(keys.part_key(name)), &part_aad(keys, name), sealed, &mut payload)?;
    Ok(payload)
}

const ITEM_TAG: &[u8; 17] = b"seedbank v1 item\0";
const PART_TAG: &[u8; 17] = b"seedbank v1 part\0";
const ITEM_AAD_BYTES: usize = 17 + 32 + 4 + 1 + 32 + 1 + 4;

/// What an item's seal covers beside its payload. The segment is not in it: compaction moves sealed bytes.
fn item_aad(
    keys: &SealKeys,
    kind: ItemKind,
    id: &ChunkId,
    codec: Codec,
    plain_len: u32,
) -> [u8; ITEM_AAD_BYTES] {
    let fields: [&[u8]; 7] = [
        ITEM_TAG,
        keys.dataset().as_bytes(),
        &keys.epoch().0.to_le_bytes(),
        &[kind.byte()],
        id.as_bytes(),
        &[codec.byte()],
        &plain_len.to_le_bytes(),
    ];
    let (mut aad, mut at) = ([0; ITEM_AAD_BYTES], 0);
    for field in fields {
        aad[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    aad
}

fn part_aad(keys: &SealKeys, name: &[u8]) -> Vec<u8> {
    [PART_TAG, keys.dataset().as_bytes().as_slice(), &keys.epoch().0.to_le_bytes(), name].concat()
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes every key of 32 bytes"))
}

/// Appends nonce, encrypted payload and tag. The payload is copied once, to its place in `out`, and hashed and encrypted
/// there while it is in the caches.
fn encrypt(keys: &SealKeys, key: &[u8; 32], codec: Codec, aad: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + SEAL_OVERHEAD_BYTES);
    let nonce_at = out.len();
    out.extend_from_slice(&[0; NONCE_BYTES]);
    let start = out.len();
    out.extend_from_slice(payload);
    // Where the tag will begin.
    out.push(codec.byte());
    let nonce = keys.nonce(&out[start..]);
    out.pop();
    out[nonce_at..start].copy_from_slice(&nonce);
    let tag = cipher(key)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out[start..])
        .expect("GCM seals any payload below 64 GiB");
    out.extend_from_slice(tag.as_ref());
}

/// Decrypts `sealed` (nonce, payload, tag) into `payload`.
fn decrypt(key: &[u8; 32], aad: &[u8], sealed: &[u8], payload: &mut [u8]) -> Result<(), WrongSeal> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(WrongSeal)?;
    let (encrypted, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(WrongSeal)?;
    cipher(key)
        .open_separate_gather(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), encrypted, tag, payload)
        .map_err(|_| WrongSeal)
}

#[cfg(test)]
mod tests;
