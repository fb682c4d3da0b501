//! What proofs and paid reads cost the provider, measured: run with `--ignored --nocapture`.

use crate::money::prove::build;
use crate::money::testing::{opened, put, store};
use rustix::time::{ClockId, clock_gettime};
use seedbank_agreement::lane::Cover;
use seedbank_agreement::{
    Address, AgreementId, Amount, Domain, Fragment, FragmentSet, Lane, Typed, Voucher, WalletKey,
};
use seedbank_formats::{PublicKey, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_900_000_000);
const MIB: u64 = 1 << 20;

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (i32::try_from(time.tv_sec).unwrap(), i32::try_from(time.tv_nsec).unwrap());
    f64::from(seconds) + f64::from(nanos) / 1e9
}

fn mixed(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
#[ignore = "a measurement"]
fn proof_costs_the_same_however_much_is_stored() {
    const CHALLENGES: usize = 21;
    for fragments in [8u64, 64, 256] {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("data"));
        let length = 4 * MIB;
        let mut bytes = vec![7; usize::try_from(length).unwrap()];
        let ids = (0..fragments).map(|number| {
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            put(&store, PublicKey([2; 32]), &bytes)
        });
        let leaves: Vec<Fragment> =
            ids.map(|id| Fragment { id, length, retain_until: seedbank_agreement::Epoch(0) }).collect();
        let began = cpu_seconds();
        let set = FragmentSet::new(leaves).unwrap();
        let tree = cpu_seconds() - began;
        let total = set.total();
        let sets = BTreeMap::from([(AgreementId(1), Arc::new(set))]);
        let (mut state, rounds) = (0x9e37_79b9_7f4a_7c15, 50u32);
        let mut read = 0;
        let began = cpu_seconds();
        for _ in 0..rounds {
            let asked: Vec<_> =
                (0..CHALLENGES).map(|_| (AgreementId(1), mixed(&mut state) % total)).collect();
            let (proofs, cost) = build(&store, &sets, &asked).unwrap();
            assert_eq!(proofs.len(), CHALLENGES);
            read += cost.bytes_read;
        }
        let used = cpu_seconds() - began;
        println!(
            "{fragments} fragments, {} MiB: {} bytes read and {:.6} CPU s a challenge, {:.5} CPU s a proof of {CHALLENGES}; tree {tree:.6} s",
            total / MIB,
            read / (u64::from(rounds) * CHALLENGES as u64),
            used / f64::from(rounds) / 21.0,
            used / f64::from(rounds),
        );
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn paid_reads_cost_the_provider_next_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let money = Arc::new(opened(dir.path()));
    let (key, signer) = (PublicKey([9; 32]), WalletKey::from_secret(&[4; 32]).unwrap());
    let channels = Domain { chain_id: 199, contract: Address([5; 20]) };
    let payer = signer.address();
    let cover = Cover { deposit: Amount(u128::MAX >> 1), cap: Amount(u128::MAX >> 1), ..Cover::default() };
    let lane = Lane::new(payer, money.address(), payer, cover);
    money.books().keep_lane((payer, payer), &lane, NOW).unwrap();
    let remote = "192.0.2.7".parse().unwrap();
    // Ranges of 1 MiB, and a voucher for each 128 MiB: half of the credit.
    let (gibs, mut cumulative) = (20u32, 0);
    let began = cpu_seconds();
    for range in 0..u64::from(gibs) * 1_024 {
        if range % 128 == 0 {
            cumulative += 125_000_000_000_000;
            let voucher =
                Voucher { payer, payee: money.address(), signer: payer, cumulative: Amount(cumulative) };
            let signed = voucher.sign(&channels, &signer);
            let request = seedbank_protocol::payment::VoucherRequest { voucher: signed };
            let network = seedbank_agreement::credit::Network::of(remote);
            money.keep_voucher(key, network, request, cover, &channels).unwrap();
        }
        assert!(money.charge(key, remote, MIB).await.unwrap().is_some());
    }
    let used = cpu_seconds() - began;
    println!(
        "{:.6} CPU s of the provider for a GiB read in ranges of 1 MiB, signing the vouchers included",
        used / f64::from(gibs)
    );
}
