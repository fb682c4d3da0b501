//! What agreements rest on, from hostile hands: signatures, amounts, addresses, paths of fragments and chunks, vouchers in any order.

use crate::input::Input;
use seedbank_agreement::chunk_path::ChunkPath;
use seedbank_agreement::fragment_set::{Fragment, FragmentSet, SetPath};
use seedbank_agreement::lane::{Cover, Exit, Lane};
use seedbank_agreement::{
    Address, Amount, Domain, Epoch, Rate, SetRoot, Signature, Typed, Voucher, WalletKey, price, recover,
};
use seedbank_formats::FragmentId;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(7) {
        0 => signature(input.rest()),
        1 => text(input),
        2 => set_path(input),
        3 => chunk_path(input),
        4 => set(input),
        5 => prices(input),
        _ => vouchers(input),
    }
}

fn word(input: &mut Input<'_>) -> [u8; 32] {
    std::array::from_fn(|_| input.byte())
}

fn amount(input: &mut Input<'_>) -> Amount {
    Amount(u128::from(input.number()) << 64 | u128::from(input.number()))
}

/// What is taken has one encoding, and whoever it is of, it is of one key only.
fn signature(bytes: &[u8]) {
    let Ok(signature) = Signature::from_bytes(bytes) else { return };
    assert_eq!(&signature.as_bytes()[..], bytes);
    let Ok(signer) = recover(&[7; 32], &signature) else { return };
    let mut other = *signature.as_bytes();
    other[64] = 27 + 28 - other[64];
    let other = Signature::from_bytes(&other).expect("the other parity is as canonical");
    assert_ne!(recover(&[7; 32], &other), Ok(signer));
}

fn text(mut input: Input<'_>) {
    let decimals = input.byte();
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    if let Ok(amount) = Amount::from_tokens(&text, decimals) {
        assert_eq!(Amount::from_tokens(&amount.in_tokens(decimals), decimals), Ok(amount));
    }
    if let Ok(address) = text.parse::<Address>() {
        let shown = address.to_string();
        assert!(shown.eq_ignore_ascii_case(&text), "an address is its own text");
        assert_eq!(shown.parse(), Ok(address));
    }
}

/// Nobody finds a path to a root that was not made of it.
fn set_path(mut input: Input<'_>) {
    let levels = input.below(50);
    let path = SetPath {
        fragment: Fragment {
            id: FragmentId(word(&mut input)),
            length: input.number(),
            retain_until: Epoch(0),
        },
        turns: input.number(),
        hashes: (0..levels).map(|_| word(&mut input)).collect(),
        sums: (0..levels + input.below(2)).map(|_| input.number()).collect(),
    };
    let root = SetRoot(word(&mut input));
    assert!(path.locate(&root, input.number(), input.number()).is_err());
}

fn chunk_path(mut input: Input<'_>) {
    let (index, length) = (input.number() % 2_000, input.number() % 2_000_000);
    let siblings = (0..input.below(20)).map(|_| word(&mut input)).collect();
    let path = ChunkPath { siblings, chunk: input.rest().to_vec() };
    if let Ok(id) = path.root(index, length) {
        assert!(path.siblings.is_empty() == (length <= 1024));
        assert!(path.siblings.is_empty() || id != FragmentId::of(&path.chunk));
    }
}

/// Leaves that somebody sends make a set in which every byte is found, or none.
fn set(mut input: Input<'_>) {
    let mut fragments = Vec::new();
    while !input.is_empty() && fragments.len() < 100 {
        let id = FragmentId([input.byte(); 32]);
        let length = input.number() >> (8 * input.below(8));
        fragments.push(Fragment { id, length, retain_until: Epoch(0) });
    }
    let Ok(set) = FragmentSet::new(fragments) else { return };
    let mut first = 0;
    for fragment in set.fragments() {
        let last = first + (fragment.length - 1);
        for offset in [first, last] {
            let path = set.path(offset).expect("a byte of the set");
            assert_eq!(path.fragment, *fragment);
            assert_eq!(path.locate(&set.root(), set.total(), offset), Ok(offset - first));
        }
        // The set may end with the last byte that can be counted.
        first = last.wrapping_add(1);
    }
    assert_eq!(first, set.total());
    assert!(set.path(set.total()).is_none());
}

fn prices(mut input: Input<'_>) {
    let (bytes, price) = (input.number(), amount(&mut input));
    let epoch_seconds = u32::try_from(input.number() >> 32).expect("32 bits");
    if let Ok(rate) = price::rate_per_epoch(bytes, price, epoch_seconds) {
        assert!(rate <= Rate::MAX);
        assert_eq!(rate == Rate::ZERO, bytes == 0 || price == Amount::ZERO || epoch_seconds == 0);
        if let Some(asked) = price::rent_per_gib_month(rate, bytes, epoch_seconds) {
            assert!(asked >= price, "a rate that was rounded up is worth what it was made of, or more");
        }
    }
    if let Ok(cost) = price::egress(bytes, price) {
        assert_eq!(cost == Amount::ZERO, bytes == 0 || price == Amount::ZERO);
    }
}

/// Whatever comes in whatever order, a lane holds no more than the chain covers, and never goes back.
fn vouchers(mut input: Input<'_>) {
    let channels = Domain { chain_id: 1, contract: Address([1; 20]) };
    let keys = [1, 2].map(|byte| WalletKey::from_secret(&[byte; 32]).expect("a secret key"));
    let (payer, payee) = (Address([2; 20]), Address([3; 20]));
    let mut cover = Cover::default();
    let mut lane = Lane::new(payer, payee, keys[0].address(), cover);
    for _ in 0..8 {
        let before = lane.promised();
        match input.below(4) {
            0 => {
                let exit = if input.below(2) == 0 { Exit::None } else { Exit::Pending };
                cover =
                    Cover { deposit: amount(&mut input), cap: amount(&mut input), redeemed: Amount(0), exit };
                lane.set_cover(cover);
            }
            _ => {
                let key = &keys[input.below(2)];
                let signer = keys[input.below(2)].address();
                let voucher = Voucher { payer, payee, signer, cumulative: amount(&mut input) };
                let signed = voucher.sign(&channels, key);
                let cumulative = signed.message.cumulative;
                match lane.accept(signed, &channels) {
                    Ok(more) => {
                        assert_eq!(key.address(), signer);
                        assert_eq!(before.checked_add(more), Some(cumulative));
                        assert!(cumulative <= cover.cap && cumulative <= cover.deposit);
                        assert_eq!(cover.exit, Exit::None);
                    }
                    Err(_) => assert_eq!(lane.promised(), before),
                }
            }
        }
    }
}
