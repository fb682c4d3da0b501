//! A provider's store on a disk that says anything: its files are changed, and the store is opened and used.

use crate::input::Input;
use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, Timestamp};
use seedbank_store::testing::MemDisk;
use seedbank_store::{Access, Config, Disk, NewClaim, PutStart, ScrubCursor, Store, StoreId};
use std::sync::{Arc, OnceLock};

const STORE: StoreId = StoreId([5; 32]);
const NOW: Timestamp = Timestamp(1_900_000_000);
const CLIENT: PublicKey = PublicKey([1; 32]);
const DATASET: DatasetId = DatasetId([7; 32]);

fn config() -> Config {
    let mut config = Config::new(STORE, 1 << 26);
    config.reserve_bytes = 0;
    config.grace_s = 1000;
    config.quotas.others_bytes = 1 << 30;
    config.volume_bytes = 64 * 1024;
    config.pack_below_bytes = 1024;
    config.journal_slack_bytes = 2048;
    config
}

fn fragments() -> [Vec<u8>; 3] {
    [vec![1; 100], vec![2; 700], vec![3; 2000]]
}

fn put(store: &Store, bytes: &[u8]) {
    let claim = NewClaim {
        client: CLIENT,
        until: NOW.plus_seconds(1_000_000),
        access: Access::Owner,
        asked: Asked(1),
    };
    if let Ok(PutStart::Receive(mut put)) =
        store.begin_put(FragmentId::of(bytes), bytes.len() as u64, claim, NOW)
        && put.write(bytes).is_ok()
    {
        drop(put.finish(NOW));
    }
}

/// The files of a store that holds fragments and a head, and gave one fragment back.
fn files() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = MemDisk::default();
        Store::create(&disk, STORE).expect("an empty disk takes a store");
        let store = Store::open(Arc::new(disk.clone()), config()).expect("a new store opens");
        fragments().iter().for_each(|bytes| put(&store, bytes));
        store.put_head(&DATASET, 3, b"a head").expect("there is room");
        store.release(&CLIENT, &[FragmentId::of(&fragments()[0])], Asked(2), NOW).expect("it can be written");
        drop(store);
        let files: Vec<_> = disk.files().into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect();
        let store = Store::open(Arc::new(disk_of(&files)), config()).expect("the files alone are a store");
        assert!(store.fragment(&FragmentId::of(&fragments()[2])).is_some(), "it has what was put");
        drop(store);
        let disk = disk_of(&files);
        append_frame(&disk, &[]);
        Store::open(Arc::new(disk), config()).expect("a frame that says nothing is one");
        files
    })
}

fn disk_of(files: &[(String, Vec<u8>)]) -> MemDisk {
    let disk = MemDisk::default();
    Store::create(&disk, STORE).expect("an empty disk takes a store");
    for (name, bytes) in files {
        for (at, _) in name.match_indices('/') {
            // It is there already when another file lies in it.
            drop(disk.create_dir(&name[..at]));
        }
        replace(&disk, name, bytes);
    }
    disk
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let disk = disk_of(files());
    match input.below(3) {
        0 => overwrite(&disk, input),
        1 => append_frame(&disk, input.rest()),
        _ => {
            let name = ["marker", "journal", "journal.new", "volumes/00000001"][input.below(4)];
            replace(&disk, name, input.rest());
        }
    }
    let Ok(store) = Store::open(Arc::new(disk.clone()), config()) else { return };
    use_all(&store);
}

/// Every call that reads; then some that write. Bytes are given out only when they are what their id says.
fn use_all(store: &Store) {
    drop(store.usage());
    drop(store.head(&DATASET));
    let page = store.claims(&CLIENT, None, 100);
    let claimed = page.claims.iter().map(|claim| claim.fragment);
    for id in fragments().iter().map(|bytes| FragmentId::of(bytes)).chain(claimed) {
        let Some(info) = store.fragment(&id) else { continue };
        drop(store.access(&id, NOW));
        drop(store.slice(&id, 0..info.length.min(100)));
        // Plain reads are checked by whoever asked: they only must not fail us.
        drop(store.read(&id, 0..info.length.min(4096)));
    }
    let mut cursor = ScrubCursor::default();
    for _ in 0..20 {
        if store.scrub_step(&mut cursor, 1 << 20).finished {
            break;
        }
    }
    put(store, &[4; 300]);
    drop(store.renew(&CLIENT, &[(FragmentId::of(&fragments()[1]), NOW.plus_seconds(2_000_000))], Asked(3)));
    drop(store.collect(NOW.plus_seconds(5000), 1 << 20));
    drop(store.put_head(&DATASET, 4, b"another"));
}

/// Bytes written over a part of one file, which may be cut as well.
fn overwrite(disk: &MemDisk, mut input: Input<'_>) {
    let files = disk.files();
    let name = &files[input.below(files.len())];
    let mut bytes = disk.bytes(name);
    let (offset, cut) = (input.number(), input.below(4));
    let at = usize::try_from(offset % (bytes.len() as u64 + 1)).expect("files are short");
    for (to, from) in bytes[at..].iter_mut().zip(input.rest()) {
        *to = *from;
    }
    if cut == 0 {
        bytes.truncate(at);
    }
    replace(disk, name, &bytes);
}

fn replace(disk: &MemDisk, name: &str, bytes: &[u8]) {
    // It need not have been there.
    drop(disk.remove(name));
    let written = disk.create(name).and_then(|file| {
        file.write_at(0, bytes)?;
        file.sync()
    });
    written.expect("a disk in memory takes short files");
}

/// A whole frame behind the journal's last, under the right checksum, that says anything: what lies behind the
/// checksum must hold by itself. `docs/formats/store.md` draws it.
fn append_frame(disk: &MemDisk, payload: &[u8]) {
    const FILE_HEADER: usize = 4 + 1 + 32 + 8 + 8 + 8 + 16;
    const FRAME_HEADER: usize = 4 + 4 + 8 + 32;
    let mut journal = disk.bytes("journal");
    let generation = &journal[37..45];
    let key = blake3::derive_key("seedbank v1 store journal frame", &[&STORE.0[..], generation].concat());
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let (mut at, mut sequence) = (FILE_HEADER, 0);
    while let Some(header) = journal.get(at..at + FRAME_HEADER) {
        let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
        sequence = number(&header[8..16]) + 1;
        at += FRAME_HEADER + usize::try_from(length).expect("frames are short");
    }
    let offset = journal.len() as u64;
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&offset.to_le_bytes()).update(&sequence.to_le_bytes()).update(payload);
    journal.extend_from_slice(b"SBSF");
    journal.extend_from_slice(&u32::try_from(payload.len()).expect("an input is short").to_le_bytes());
    journal.extend_from_slice(&sequence.to_le_bytes());
    journal.extend_from_slice(hasher.finalize().as_bytes());
    journal.extend_from_slice(payload);
    replace(disk, "journal", &journal);
}
