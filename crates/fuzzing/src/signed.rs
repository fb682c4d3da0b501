//! What is signed: as it comes, and as whoever owns the key that it names would sign it.

use crate::canonical;
use crate::input::Input;
use seedbank_formats::head::Head;
use seedbank_formats::keys::{DatasetSecret, SealKeys, SignatureDomain, SigningKey};
use seedbank_formats::receipt::{ReaderToken, Receipt, Statement};
use seedbank_formats::testing::seal_part;
use seedbank_formats::version::Version;

/// Magic and format version stand before every field.
const FIELDS: usize = 5;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.below(6);
    let body = input.rest();
    let key = SigningKey::from_seed([1; 32]);
    match kind {
        0 => {
            drop(Receipt::check(body));
            let bytes = signed(&key, SignatureDomain::Receipt, body, FIELDS);
            canonical(&bytes, Receipt::check, |receipt| receipt.sign(&key));
        }
        1 => {
            drop(ReaderToken::check(body));
            let bytes = signed(&key, SignatureDomain::ReaderToken, body, FIELDS);
            canonical(&bytes, ReaderToken::check, |token| token.sign(&key));
        }
        2 => {
            drop(Statement::check(body));
            let bytes = signed(&key, SignatureDomain::Statement, body, FIELDS);
            canonical(&bytes, Statement::check, |statement| statement.sign(&key));
        }
        3 => {
            drop(Version::check(body));
            // The author stands behind the dataset and the parents, of which there are fewer than 128.
            let parents = body.get(FIELDS + 32).copied().map_or(0, usize::from);
            let bytes = signed(&key, SignatureDomain::Version, body, FIELDS + 33 + 32 * parents);
            canonical(&bytes, Version::check, |(id, version)| {
                let (again, bytes) = version.sign(&key).expect("what was read can be signed");
                assert_eq!(again, *id);
                bytes
            });
        }
        4 => {
            drop(Head::check(body));
            let bytes = signed(&key, SignatureDomain::Head, body, FIELDS);
            if let Ok(head) = Head::check(&bytes) {
                drop(head.open(&keys_of(&head)));
            }
        }
        _ => head_body(&key, body),
    }
}

/// The body with the key put where its signer is named, and the signature behind it.
fn signed(key: &SigningKey, domain: SignatureDomain, body: &[u8], signer_at: usize) -> Vec<u8> {
    let mut bytes = body.to_vec();
    if let Some(signer) = bytes.get_mut(signer_at..signer_at + 32) {
        signer.copy_from_slice(key.public().as_bytes());
    }
    let signature = key.sign(domain, &bytes);
    bytes.extend_from_slice(signature.as_bytes());
    bytes
}

fn keys_of(head: &Head) -> SealKeys {
    SealKeys::new(head.dataset(), head.epoch(), &DatasetSecret::new([2; 32]))
}

/// A head whose owner sealed and signed any body at all.
fn head_body(key: &SigningKey, body: &[u8]) {
    let (salt, sequence) = ([6; 32], 17u64);
    let dataset = seedbank_formats::keys::dataset_id(&key.public(), &salt);
    let epoch = seedbank_formats::keys::KeyEpoch(1);
    let keys = SealKeys::new(dataset, epoch, &DatasetSecret::new([2; 32]));
    let mut sealed = Vec::new();
    seal_part(&keys, b"head body", body, &mut sealed);
    let mut writer = seedbank_formats::codec::Writer::format(b"SBHD", 1);
    writer.raw(key.public().as_bytes());
    writer.raw(&salt);
    writer.u64(sequence);
    writer.u64(1_900_000_000);
    writer.u32(epoch.0);
    writer.bytes(&sealed);
    let unsigned = writer.finish();
    let bytes = signed(key, SignatureDomain::Head, &unsigned, FIELDS);
    let head = Head::check(&bytes).expect("it is signed and short");
    let Ok(body) = head.open(&keys) else { return };
    let again =
        Head::sign(&body, &keys, key, &salt, sequence, head.time()).expect("what was read can be signed");
    assert!(again == bytes, "a head's body has one encoding");
}
