//! The provider's stages and the wire between: our HTTP at each end, the store's way in and its way out.

use super::Measured;
use crate::commands::bench::data::Noise;
use crate::commands::bench::meter::{float, process_cpu, thread_cpu};
use crate::commands::bench::references::Reference;
use crate::commands::bench::timing::{PIECE_BYTES, best};
use anyhow::{Context, bail};
use seedbank_client::network::wall_clock;
use seedbank_formats::{Asked, FragmentId, PublicKey};
use seedbank_store::{Access, Config, NewClaim, PutStart, RealDisk, Store, StoreId};
use seedbank_transport::bench::{Flow, Transport, ends};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use tokio::task::block_in_place;

const FRAGMENT_BYTES: usize = 16 << 20;
const WIRE_BYTES: u64 = 256 << 20;
const WIRE_ROUNDS: u32 = 3;
/// So many are stored; each is a round.
const FRAGMENTS: usize = 24;
const CLIENT: PublicKey = PublicKey([3; 32]);

pub(super) async fn measure(folder: &Path, expansion: f64) -> anyhow::Result<Vec<Measured>> {
    let upload = block_in_place(|| wire(Flow::Upload)).context("a local connection failed")?;
    let download = block_in_place(|| wire(Flow::Download)).context("a local connection failed")?;
    let (put, read) = store(folder).await?;
    let stored = vec![(Reference::Blake3, 1.0), (Reference::FileWriteSynced, 1.0)];
    let stage = |path, stage, per, nanoseconds, made_of| Measured { path, stage, per, nanoseconds, made_of };
    Ok(vec![
        stage("push", "send over HTTP", "fragments", upload.0, vec![(Reference::TlsSend, 1.0)]),
        stage(
            "push",
            "provider receives over HTTP",
            "fragments",
            upload.1,
            vec![(Reference::TlsReceive, 1.0)],
        ),
        stage("push", "provider hashes, writes, syncs", "fragments", put, stored),
        stage(
            "push",
            "wire and provider together",
            "file",
            expansion * (upload.0 + upload.1 + put),
            vec![
                (Reference::TlsSend, expansion),
                (Reference::TlsReceive, expansion),
                (Reference::Blake3, expansion),
                (Reference::FileWriteSynced, expansion),
            ],
        ),
        stage("pull", "provider reads", "file", read, vec![(Reference::FileRead, 1.0)]),
        stage("pull", "provider sends over HTTP", "file", download.0, vec![(Reference::TlsSend, 1.0)]),
        stage("pull", "receive over HTTP", "file", download.1, vec![(Reference::TlsReceive, 1.0)]),
    ])
}

/// Nanoseconds a byte of the sender and of the receiver.
fn wire(flow: Flow) -> std::io::Result<(f64, f64)> {
    let mut best = (f64::INFINITY, f64::INFINITY);
    for _ in 0..WIRE_ROUNDS {
        let ends = ends(Transport::Http, flow, WIRE_BYTES, thread_cpu)?;
        best = (best.0.min(ends.sender), best.1.min(ends.receiver));
    }
    Ok(best)
}

/// A store of its own: fragments in by the clock of all its threads, then ranges out.
async fn store(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let id = StoreId([1; 32]);
    let disk = RealDisk::create(&folder.join("store")).context("making a store")?;
    Store::create(&disk, id).context("making a store")?;
    let mut config = Config::new(id, 1 << 40);
    config.quotas.others_bytes = 1 << 40;
    config.reserve_bytes = 0;
    let store = Store::open(Arc::new(disk), config).context("opening a store")?;
    let mut data = vec![0; FRAGMENT_BYTES];
    let fragments: Vec<FragmentId> = block_in_place(|| {
        Noise::new(4).fill(&mut data);
        (0..FRAGMENTS).map(|number| FragmentId::of(numbered(&mut data, number))).collect()
    });
    let mut put = f64::INFINITY;
    for (number, id) in fragments.iter().enumerate() {
        let bytes = numbered(&mut data, number);
        let used = block_in_place(|| {
            let at = process_cpu();
            put_one(&store, *id, bytes).map(|()| process_cpu() - at)
        })?;
        put = put.min(used.as_secs_f64() * 1e9 / float(FRAGMENT_BYTES as u64));
        tokio::task::yield_now().await;
    }
    let mut buffer = vec![0; PIECE_BYTES];
    let mut failed = None;
    let read = best(FRAGMENT_BYTES, || {
        for start in (0..FRAGMENT_BYTES).step_by(PIECE_BYTES) {
            let read = store.read_into(&fragments[0], start as u64, black_box(&mut buffer));
            failed = failed.take().or(read.err());
        }
    });
    let read = read.await;
    failed.map_or(Ok(()), Err)?;
    Ok((put, read))
}

fn put_one(store: &Store, id: FragmentId, bytes: &[u8]) -> anyhow::Result<()> {
    let until = wall_clock().plus_seconds(3600);
    let claim = NewClaim { client: CLIENT, until, access: Access::Owner, asked: Asked(0) };
    match store.begin_put(id, bytes.len() as u64, claim, wall_clock())? {
        PutStart::Held(_) => bail!("a new fragment is said to be held"),
        PutStart::Receive(mut put) => {
            for piece in bytes.chunks(PIECE_BYTES) {
                put.write(piece)?;
            }
            put.finish(wall_clock())?;
            Ok(())
        }
    }
}

/// The same bytes with another beginning, so that each fragment is a new one.
fn numbered(data: &mut [u8], number: usize) -> &[u8] {
    data[..8].copy_from_slice(&(number as u64).to_le_bytes());
    data
}
