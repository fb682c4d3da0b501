//! The bytes on the disk, against `testdata/store-vectors.txt`: a change of format must be a decision.

use super::{LAST, NOW, bytes, created, open, put};
use seedbank_formats::DatasetId;
use std::fmt::Write;

const VECTORS: &str = include_str!("../../../../testdata/store-vectors.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn the_bytes_are_those_of_the_vectors() {
    let disk = created();
    let store = open(&disk);
    put(&store, 1, &bytes(1, 100)).unwrap();
    put(&store, 2, &bytes(2, 20_000)).unwrap();
    store.put_head(&DatasetId([7; 32]), 3, b"a head").unwrap();
    store.release(&super::client(1), &[seedbank_formats::FragmentId::of(&bytes(1, 100))], LAST, NOW).unwrap();
    drop(store);
    let mut entries = seedbank_formats::codec::Writer::default();
    crate::entry::tests::every_kind().iter().for_each(|entry| entry.write(&mut entries));
    let loose_path = disk.files().into_iter().find(|path| path.starts_with("loose/")).unwrap();
    let loose = disk.bytes(&loose_path);
    let found = [
        ("marker", hex(&disk.bytes("marker"))),
        ("journal", hex(&disk.bytes("journal"))),
        ("volume", hex(&disk.bytes("volumes/00000001"))),
        ("loose-path", loose_path),
        ("loose-header", hex(&loose[..80])),
        ("loose-outboard", hex(&loose[80 + 20_000..])),
        ("entries", hex(&entries.finish())),
    ];
    let found = found.iter().map(|(name, value)| format!("{name} {value}\n")).collect::<String>();
    let expected = VECTORS.lines().filter(|line| !line.starts_with('#'));
    let expected = expected.map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(found, expected, "found:\n{found}");
}
