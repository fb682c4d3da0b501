//! Ranges of fragments that prove themselves: from a hostile provider, and made by an honest one.

use crate::input::Input;
use seedbank_formats::FragmentId;
use seedbank_formats::slice::{FragmentHasher, covered, encode, outboard_len, verify};

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(2) {
        0 => {
            let (length, start, end) = (input.number(), input.number(), input.number());
            let mut id = [0; 32];
            id.fill_with(|| input.byte());
            let slice = input.rest();
            if let Ok(bytes) = verify(&FragmentId(id), length, &(start..end), slice) {
                assert_eq!(bytes.len() as u64, end - start);
            }
        }
        _ => honest(input),
    }
}

/// A fragment of up to five groups. Its slice verifies; the slice with one bit changed, or with another length, does not.
fn honest(mut input: Input<'_>) {
    let (length, start, end) = (input.number() % 80_000, input.number() % 80_000, input.number() % 80_000);
    let (flip, seed) = (input.number(), input.number());
    let length = usize::try_from(length).expect("it is short");
    let mut fragment = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut fragment);
    let mut hasher = FragmentHasher::default();
    for piece in fragment.chunks(1000 + input.below(256) * 100) {
        hasher.update(piece);
    }
    let (id, outboard) = hasher.finish();
    assert_eq!(id, FragmentId::of(&fragment));
    let len = length as u64;
    assert_eq!(outboard.len() as u64, outboard_len(len));
    let range = start..end;
    let Ok(covered) = covered(len, &range) else { return };
    let at = |offset: u64| usize::try_from(offset).expect("it is short");
    let mut slice =
        encode(len, &outboard, &range, &fragment[at(covered.start)..at(covered.end)]).expect("lengths fit");
    let verified = verify(&id, len, &range, &slice).expect("an honest slice verifies");
    assert!(verified == fragment[at(start)..at(end)], "a slice gives the range");
    let bit = at(flip % (slice.len() as u64 * 8));
    slice[bit / 8] ^= 1 << (bit % 8);
    assert!(verify(&id, len, &range, &slice).is_err(), "a flipped bit is noticed");
    slice[bit / 8] ^= 1 << (bit % 8);
    slice.push(0);
    assert!(verify(&id, len, &range, &slice).is_err(), "a longer slice is refused");
}
