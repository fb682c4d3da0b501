//! The reference primitives: what this machine does with code that is not ours, one thread, in processor time.
//!
//! Each is the best of many short rounds: what another process takes meanwhile makes some rounds slow, not the best
//! one. What each name means stands in `bench/limit.toml`.

use super::data::Noise;
use super::meter::thread_cpu;
use super::timing::{CHUNK_BYTES, PIECE_BYTES, best, best_of_chunks};
use anyhow::Context;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;
use seedbank_erasure::{Decoder, Encoder, Scheme};
use seedbank_transport::bench::{Flow, Transport, ends};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tokio::task::block_in_place;

/// What no cache holds.
const COLD_BYTES: usize = 64 << 20;
/// A round over one buffer, and a provider's file.
const ROUND_BYTES: usize = 8 << 20;
const SYNCED_BYTES: usize = 16 << 20;
/// Columns that a cache holds.
const COLUMN_BYTES: usize = 16 * 1024;
/// Moved over a connection for one figure, so often.
const WIRE_BYTES: u64 = 128 << 20;
const WIRE_ROUNDS: u32 = 16;
/// The same mask and minimum as chunks are found with.
const GEAR_MASK: u64 = 0xffff << 48;
const GEAR_SKIP_BYTES: usize = 8 * 1024;
const PROBE_BYTES: usize = 4096;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reference {
    FileRead,
    FileWrite,
    FileWriteSynced,
    Memcpy,
    GearHash,
    Blake3,
    Blake3Keyed,
    Sha256,
    #[serde(rename = "lz4_probe")]
    Lz4Probe,
    #[serde(rename = "aes_256_gcm_seal")]
    Aes256GcmSeal,
    #[serde(rename = "aes_256_gcm_open")]
    Aes256GcmOpen,
    ReedSolomon,
    ReedSolomonRow,
    TlsSend,
    TlsReceive,
}

impl Reference {
    pub(crate) const ALL: [Reference; 15] = [
        Reference::FileRead,
        Reference::FileWrite,
        Reference::FileWriteSynced,
        Reference::Memcpy,
        Reference::GearHash,
        Reference::Blake3,
        Reference::Blake3Keyed,
        Reference::Sha256,
        Reference::Lz4Probe,
        Reference::Aes256GcmSeal,
        Reference::Aes256GcmOpen,
        Reference::ReedSolomon,
        Reference::ReedSolomonRow,
        Reference::TlsSend,
        Reference::TlsReceive,
    ];

    /// Its name in `bench/limit.toml`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Reference::FileRead => "file_read",
            Reference::FileWrite => "file_write",
            Reference::FileWriteSynced => "file_write_synced",
            Reference::Memcpy => "memcpy",
            Reference::GearHash => "gear_hash",
            Reference::Blake3 => "blake3",
            Reference::Blake3Keyed => "blake3_keyed",
            Reference::Sha256 => "sha256",
            Reference::Lz4Probe => "lz4_probe",
            Reference::Aes256GcmSeal => "aes_256_gcm_seal",
            Reference::Aes256GcmOpen => "aes_256_gcm_open",
            Reference::ReedSolomon => "reed_solomon",
            Reference::ReedSolomonRow => "reed_solomon_row",
            Reference::TlsSend => "tls_send",
            Reference::TlsReceive => "tls_receive",
        }
    }
}

/// What each costs: nanoseconds of one core for each byte.
#[derive(Debug, Clone)]
pub(crate) struct References(BTreeMap<Reference, f64>);

impl References {
    pub(crate) fn nanoseconds(&self, reference: Reference) -> f64 {
        *self.0.get(&reference).expect("all references are measured together")
    }

    #[cfg(test)]
    pub(crate) fn all_at(nanoseconds: f64) -> References {
        References(Reference::ALL.into_iter().map(|reference| (reference, nanoseconds)).collect())
    }
}

/// As 10^9 bytes per second of one core.
impl Serialize for References {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (reference, nanoseconds) in &self.0 {
            map.serialize_entry(reference, &(1.0 / nanoseconds))?;
        }
        map.end()
    }
}

/// Measures all of them, one after the other. Files go into `folder`, which is left empty.
pub(crate) async fn measure(scheme: Scheme, folder: &Path) -> anyhow::Result<References> {
    let mut noise = vec![0; COLD_BYTES];
    block_in_place(|| Noise::new(1).fill(&mut noise));
    let mut measured = BTreeMap::new();
    files(&mut measured, &noise, folder).await.context("measuring reads and writes of files")?;
    memory(&mut measured, &noise).await;
    hashes(&mut measured, &noise[..ROUND_BYTES]).await;
    ciphers(&mut measured, &noise[..CHUNK_BYTES]).await;
    coding(&mut measured, &noise, scheme).await;
    block_in_place(|| wire(&mut measured)).context("a local connection failed")?;
    Ok(References(measured))
}

type Measured = BTreeMap<Reference, f64>;

async fn files(measured: &mut Measured, noise: &[u8], folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("reference");
    let data = &noise[..SYNCED_BYTES];
    let offset = |index: usize| (index * PIECE_BYTES) as u64;
    // What failed is told once the rounds are over.
    let mut failed = None;
    let write = |sync: bool| -> std::io::Result<File> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        for (index, piece) in data.chunks(PIECE_BYTES).enumerate() {
            file.write_all_at(piece, offset(index))?;
        }
        if sync {
            file.sync_data()?;
        }
        std::fs::remove_file(&path)?;
        Ok(file)
    };
    let cached = best(SYNCED_BYTES, || write(false).map_err(|error| failed = Some(error))).await;
    let synced = best(SYNCED_BYTES, || write(true).map_err(|error| failed = Some(error))).await;
    let file = write(false)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let read = best(SYNCED_BYTES, || {
        for index in 0..SYNCED_BYTES / PIECE_BYTES {
            let read = file.read_exact_at(black_box(&mut buffer), offset(index));
            failed = failed.take().or(read.err());
        }
    });
    let read = read.await;
    failed.map_or(Ok(()), Err)?;
    measured.insert(Reference::FileWrite, cached);
    measured.insert(Reference::FileWriteSynced, synced);
    measured.insert(Reference::FileRead, read);
    Ok(())
}

async fn memory(measured: &mut Measured, noise: &[u8]) {
    let mut target = vec![0; COLD_BYTES];
    let copied = best(COLD_BYTES, || black_box(&mut target).copy_from_slice(black_box(noise))).await;
    measured.insert(Reference::Memcpy, copied);
}

async fn hashes(measured: &mut Measured, piece: &[u8]) {
    let gear = best(piece.len(), || {
        let mut rest = black_box(piece);
        while let Some(found) = gearhash::Hasher::default().next_match(rest, GEAR_MASK) {
            rest = rest.get(found + GEAR_SKIP_BYTES..).unwrap_or_default();
        }
    });
    measured.insert(Reference::GearHash, gear.await);
    let blake3 = best(piece.len(), || {
        black_box(blake3::hash(black_box(piece)));
    });
    measured.insert(Reference::Blake3, blake3.await);
    let sha256 = best(piece.len(), || {
        black_box(digest::digest(&digest::SHA256, black_box(piece)));
    });
    measured.insert(Reference::Sha256, sha256.await);
    let chunk = &piece[..CHUNK_BYTES];
    let keyed = best_of_chunks(|| {
        black_box(blake3::keyed_hash(&[7; 32], black_box(chunk)));
    });
    measured.insert(Reference::Blake3Keyed, keyed.await);
    let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(PROBE_BYTES)];
    let probe = best_of_chunks(|| {
        let packed = lz4_flex::block::compress_into(black_box(&chunk[..PROBE_BYTES]), &mut packed);
        black_box(packed.expect("the buffer holds the worst case"));
    });
    measured.insert(Reference::Lz4Probe, probe.await);
}

async fn ciphers(measured: &mut Measured, chunk: &[u8]) {
    let key = UnboundKey::new(&AES_256_GCM, &[3; 32]).expect("AES-256 takes 32 bytes");
    let key = LessSafeKey::new(key);
    let nonce = || Nonce::assume_unique_for_key([5; 12]);
    let mut work = chunk.to_vec();
    let seal = best_of_chunks(|| {
        let sealed = key.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut work));
        let _tag = black_box(sealed.expect("64 KiB can be sealed"));
    });
    measured.insert(Reference::Aes256GcmSeal, seal.await);
    let mut sealed = chunk.to_vec();
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).expect("64 KiB can be sealed");
    let mut plain = vec![0; chunk.len()];
    let (text, tag) = sealed.split_at(chunk.len());
    let open = best_of_chunks(|| {
        let opened = key.open_separate_gather(nonce(), Aad::empty(), black_box(text), tag, &mut plain);
        opened.expect("what was just sealed opens");
    });
    measured.insert(Reference::Aes256GcmOpen, open.await);
}

async fn coding(measured: &mut Measured, noise: &[u8], scheme: Scheme) {
    let columns: Vec<&[u8]> = noise.chunks(COLUMN_BYTES).take(scheme.data()).collect();
    let mut parity = vec![vec![0; COLUMN_BYTES]; scheme.parity()];
    let encoder = Encoder::new(scheme);
    let bytes = scheme.data() * COLUMN_BYTES;
    let rounds = (ROUND_BYTES / bytes).max(1);
    let encode = best(bytes * rounds, || {
        for _ in 0..rounds {
            let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            encoder.encode_columns(black_box(&columns), &mut parity).expect("the columns have one length");
        }
    });
    measured.insert(Reference::ReedSolomon, encode.await);
    let available: Vec<usize> = (1..=scheme.data()).collect();
    let decoder = Decoder::new(scheme, &available, &[0]).expect("a scheme has parity to decode from");
    let mut row = vec![0; COLUMN_BYTES];
    let decode = best(COLUMN_BYTES * rounds, || {
        for _ in 0..rounds {
            decoder.decode(black_box(&columns), &mut [&mut row]).expect("the columns have one length");
        }
    });
    measured.insert(Reference::ReedSolomonRow, decode.await);
}

fn wire(measured: &mut Measured) -> std::io::Result<()> {
    let (mut send, mut receive) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..WIRE_ROUNDS {
        let ends = ends(Transport::Tls, Flow::Upload, WIRE_BYTES, thread_cpu)?;
        send = send.min(ends.sender);
        receive = receive.min(ends.receiver);
    }
    measured.insert(Reference::TlsSend, send);
    measured.insert(Reference::TlsReceive, receive);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Reference;

    #[test]
    fn every_reference_is_listed_once_and_named_as_in_the_file() {
        let mut all = Reference::ALL.to_vec();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), Reference::ALL.len());
        for reference in Reference::ALL {
            assert_eq!(serde_json::to_value(reference).unwrap(), reference.name());
        }
    }
}
