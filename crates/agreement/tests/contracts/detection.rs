//! What a provider earns that lost data: with share f lost, (1 - f)^K of its epochs; with everything lost, nothing.

use crate::Dice;
use crate::abi::{Abi, Words};
use crate::evm::{BEACON, Deployment, EPOCH_SECONDS, MARKET};
use crate::market::{PARAMETERS, Pair, Step};
use crate::stored::Store;

use seedbank_agreement::chunk_path::CHUNK_BYTES;
use seedbank_agreement::fragment_set::{Fragment, FragmentSet};
use seedbank_agreement::market::{Call, Parameters, Proof, Refusal};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, Nonce, Proposal, Rate, Typed, WalletKey};
use seedbank_formats::FragmentId;
use std::collections::BTreeSet;
use std::fmt::Write;

const RATE: u128 = 100;

/// A provider with one agreement for each set, in the first epoch in which they hold.
struct Held {
    pair: Pair,
    provider: Address,
    clients: Vec<Address>,
    sets: Vec<FragmentSet>,
}

impl Held {
    fn new(parameters: Parameters, sets: Vec<FragmentSet>) -> Held {
        let provider = WalletKey::from_secret(&[99; 32]).unwrap();
        let keys: Vec<WalletKey> = (1..=sets.len())
            .map(|number| WalletKey::from_secret(&[u8::try_from(number).unwrap(); 32]).unwrap())
            .collect();
        let provider = provider.address();
        let clients: Vec<Address> = keys.iter().map(WalletKey::address).collect();
        let everyone = [&clients[..], &[provider]].concat();
        let mut pair = Pair::new(&Deployment::new(&parameters), parameters, &everyone, &[provider]);
        let plenty = Amount(1 << 40);
        let mut done = |sender, step: Step| pair.act(sender, &step).unwrap();
        done(provider, Step::Register);
        done(provider, Step::Deposit { to: provider, amount: plenty });
        done(provider, Step::AddStake { provider, amount: Amount(1 << 39) });
        clients.iter().for_each(|client| done(*client, Step::Deposit { to: *client, amount: plenty }));
        let domain = Deployment::domain(pair.deployment.market);
        let now = pair.now();
        let proposals = keys.iter().zip(&sets).map(|(key, set)| {
            let proposal = Proposal {
                client: key.address(),
                provider,
                set_root: set.root(),
                size: set.total(),
                rate_per_epoch: Rate::new(RATE).unwrap(),
                end_epoch: Epoch(now.0 + 2_000),
                escrow: Amount(RATE * 2_000),
                retained_bytes: 0,
                retained_until: Epoch(0),
                accept_by: now,
                nonce: Nonce([0; 32]),
            };
            proposal.sign(&domain, key)
        });
        pair.act(provider, &Step::Activate(proposals.collect())).unwrap();
        let mut held = Held { pair, provider, clients, sets };
        held.next_epoch();
        held.pair.act(provider, &Step::Advance { provider, max: u32::MAX }).unwrap();
        let ids = (1..=held.sets.len()).map(|number| AgreementId(u32::try_from(number).unwrap())).collect();
        held.pair.act(provider, &Step::MoveOn(ids)).unwrap();
        held
    }

    fn next_epoch(&mut self) {
        let evm = &mut self.pair.deployment.evm;
        evm.time = evm.time.plus_seconds(EPOCH_SECONDS.into());
        // Others' blocks, so that the epoch counts.
        evm.number += 5;
    }

    fn set(&self, id: AgreementId) -> &FragmentSet {
        &self.sets[usize::try_from(id.0).unwrap() - 1]
    }

    fn seal(&mut self) -> [u8; 32] {
        self.pair.act(self.provider, &Step::Seal).unwrap();
        let call = Call { sender: self.provider, block: self.pair.deployment.evm.block() };
        self.pair.model.seal(&call).unwrap()
    }

    /// What the epoch asks, as the contract says it: the tree of sizes and the seed are its own.
    fn asked(&self) -> Vec<(AgreementId, u64)> {
        let deployment = &self.pair.deployment;
        let told = deployment.ask(&MARKET, deployment.market, "challengesOf", &[Abi::address(self.provider)]);
        let mut words = Words::of(&told);
        let (_, _) = (words.u64(), words.u64());
        let ids: Vec<AgreementId> = (0..words.u32()).map(|_| AgreementId(words.u32())).collect();
        let offsets: Vec<u64> = (0..words.u32()).map(|_| words.u64()).collect();
        ids.into_iter().zip(offsets).collect()
    }

    fn prove(&mut self, store: &Store) -> Result<(), Refusal> {
        let seed = self.seal();
        let asked = self.pair.model.challenges(self.provider, self.pair.now(), &seed).unwrap();
        let proofs: Vec<Proof> =
            asked.iter().map(|(id, offset)| store.show(self.set(*id), *offset)).collect();
        self.pair.act(self.provider, &Step::Prove { provider: self.provider, proofs })
    }
}

fn bytes(dice: &mut Dice, length: u64) -> Vec<u8> {
    (0..length).map(|_| u8::try_from(dice.below(256)).unwrap()).collect()
}

/// Which fragments a provider still has, after it lost about a share of its bytes, and what share that is exactly.
fn lose(sets: &[FragmentSet], percent: u64, dice: &mut Dice) -> (BTreeSet<FragmentId>, f64) {
    let total: u64 = sets.iter().map(FragmentSet::total).sum();
    let mut all: Vec<Fragment> = sets.iter().flat_map(|set| set.fragments().to_vec()).collect();
    let mut lost = BTreeSet::new();
    let mut bytes = 0;
    while bytes * 100 < total * percent {
        let at = usize::try_from(dice.below(all.len() as u64)).unwrap();
        let fragment = all.swap_remove(at);
        bytes += fragment.length;
        lost.insert(fragment.id);
    }
    (lost, exact(bytes) / exact(total))
}

/// Below 2^53, as everything here.
fn exact(number: u64) -> f64 {
    let high = u32::try_from(number >> 32).unwrap();
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap();
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[test]
fn with_a_share_lost_a_provider_earns_in_as_many_epochs_as_the_formula_says() {
    const EPOCHS: u32 = 1_000;
    let mut dice = Dice(0x5_7a71_5710);
    // Twelve clients with 2,400 fragments in all, of 1 byte to 4 MiB: what is lost is spread over all of them.
    let mut number = 0u64;
    let sets: Vec<FragmentSet> = (0..12)
        .map(|_| {
            let fragments = (0..200).map(|_| {
                number += 1;
                let id = FragmentId::of(&number.to_le_bytes());
                Fragment { id, length: 1 + dice.below(4 << 20), retain_until: Epoch(0) }
            });
            FragmentSet::new(fragments.collect::<Vec<_>>()).unwrap()
        })
        .collect();
    let mut table = String::from("| K | lost | formula | of 1,000 epochs |\n|---|---|---|---|\n");
    for challenges in [7, 21, 42] {
        let parameters = Parameters { challenges, ..PARAMETERS };
        let mut held = Held::new(parameters, sets.clone());
        let shares: Vec<_> = [1, 5, 20].into_iter().map(|percent| lose(&sets, percent, &mut dice)).collect();
        let mut earned = [0u32; 3];
        for _ in 0..EPOCHS {
            held.next_epoch();
            let deployment = &mut held.pair.deployment;
            let beacon = deployment.beacon;
            assert!(deployment.send(held.provider, &BEACON, beacon, "seal", &[]).is_ok());
            let seed = held.pair.deployment.ask(&BEACON, beacon, "seed", &[Abi::uint(held.pair.now().0)]);
            let seed = Words::of(&seed).word();
            let asked = held.asked();
            let expected = held.pair.model.challenges(held.provider, held.pair.now(), &seed);
            assert_eq!(Ok(&asked), expected.as_ref(), "the tree finds what lies end to end");
            let asked: Vec<Fragment> = asked
                .into_iter()
                .map(|(id, offset)| held.set(id).path(offset).expect("a byte of the set").fragment)
                .collect();
            assert_eq!(asked.len(), usize::try_from(challenges).unwrap());
            for (earned, (lost, _)) in earned.iter_mut().zip(&shares) {
                *earned += u32::from(asked.iter().all(|fragment| !lost.contains(&fragment.id)));
            }
        }
        for (earned, (_, share)) in earned.into_iter().zip(&shares) {
            let chance = (1.0 - share).powi(i32::try_from(challenges).unwrap());
            let expected = chance * f64::from(EPOCHS);
            // Four standard deviations, and one epoch where these are less than that.
            let tolerance = (4.0 * (expected * (1.0 - chance)).sqrt()).max(1.0);
            let percent = share * 100.0;
            writeln!(table, "| {challenges} | {percent:.2} % | {expected:.1} | {earned} |").unwrap();
            assert!((f64::from(earned) - expected).abs() <= tolerance, "{table}");
        }
    }
    println!("{table}");
}

#[test]
fn a_provider_that_lost_everything_earns_nothing_from_the_next_epoch() {
    let mut dice = Dice(1);
    let mut store = Store::default();
    let fragments: Vec<Fragment> = (0..6).map(|_| store.put(bytes(&mut dice, 40_000))).collect();
    let mut held = Held::new(PARAMETERS, vec![FragmentSet::new(fragments.clone()).unwrap()]);
    let (provider, client) = (held.provider, held.clients[0]);
    held.prove(&store).unwrap();
    let (earned, refundable) = (held.pair.model.free(&provider), held.pair.model.free(&client));
    let seed = held.seal();
    let asked = held.pair.model.challenges(provider, held.pair.now(), &seed).unwrap();
    let old: Vec<Proof> = asked.iter().map(|(id, offset)| store.show(held.set(*id), *offset)).collect();

    // It has the fragments' ids, the set with all its paths, and the chunks that it showed before.
    for epoch in 0..PARAMETERS.misses_max {
        held.next_epoch();
        let seed = held.seal();
        let asked = held.pair.model.challenges(provider, held.pair.now(), &seed).unwrap();
        let guess = |(id, offset): &(AgreementId, u64)| {
            let fragment = held.set(*id).path(*offset).unwrap();
            let inside = fragment.locate(&held.set(*id).root(), held.set(*id).total(), *offset).unwrap();
            let same_place = old.iter().find(|proof| proof.fragment.fragment == fragment.fragment);
            let chunk = same_place.unwrap_or(&old[0]).chunk.clone();
            // Another chunk than the one that it once showed.
            assert_ne!(chunk.root(inside / CHUNK_BYTES, fragment.fragment.length), Ok(fragment.fragment.id));
            Proof { fragment, chunk }
        };
        let made_up: Vec<Proof> = asked.iter().map(guess).collect();
        for proofs in [old.clone(), made_up] {
            assert!(held.pair.act(provider, &Step::Prove { provider, proofs }).is_err(), "epoch {epoch}");
        }
        assert_eq!(held.pair.model.free(&provider), earned);
    }
    held.next_epoch();
    held.pair.act(client, &Step::Advance { provider, max: u32::MAX }).unwrap();
    assert!(held.pair.model.set(&provider).unwrap().0.dead_at.is_some());
    held.pair.act(client, &Step::CloseDead(AgreementId(1))).unwrap();
    assert_eq!(held.pair.model.free(&provider), earned);
    // Escrow of all epochs but the proven one, and its part of three slashes; it recorded the misses itself.
    let slashed = RATE * u128::from(PARAMETERS.slash_epochs) * u128::from(PARAMETERS.misses_max);
    let back = held.pair.model.free(&client).0 - refundable.0;
    assert_eq!(back, RATE * 1_999 + slashed, "escrow of 2,000 epochs less one, and what was slashed");
}

#[test]
fn a_question_ends_pay_for_the_one_agreement_that_lost_data_inside_a_big_set() {
    let mut dice = Dice(2);
    let mut store = Store::default();
    let big = (0..5).map(|_| {
        let fragments = (0..8).map(|_| store.put(bytes(&mut dice, 60_000)));
        FragmentSet::new(fragments.collect::<Vec<_>>()).unwrap()
    });
    let mut sets: Vec<FragmentSet> = big.collect();
    // One fragment of 2 KB in 2.4 MB, and nobody has it any more.
    let mut gone = Store::default();
    sets.push(FragmentSet::new([gone.put(bytes(&mut dice, 2_000))]).unwrap());
    let mut held = Held::new(PARAMETERS, sets);
    let (provider, client, small) = (held.provider, held.clients[5], AgreementId(6));
    held.pair.act(client, &Step::Ask(small)).unwrap();
    held.next_epoch();
    let set = held.pair.model.set(&provider).unwrap().0.clone();
    assert_eq!(set.rate, Amount(6 * RATE));
    // The big set is proven all the same: the little one is hardly ever asked for.
    held.prove(&store).unwrap();
    let seed = held.seal();
    let told =
        held.pair.deployment.ask(&MARKET, held.pair.deployment.market, "questionOf", &[Abi::uint(small.0)]);
    let mut words = Words::of(&told);
    let (_, count) = (words.u64(), words.u32());
    let offsets: Vec<u64> = (0..count).map(|_| words.u64()).collect();
    assert_eq!(Ok(&offsets), held.pair.model.question_offsets(small, held.pair.now(), &seed).as_ref());
    assert!(!offsets.is_empty() && offsets.iter().all(|offset| *offset < 2_000));
    let wrong = store.show(held.set(AgreementId(1)), 0);
    let proofs = vec![wrong; 2];
    held.pair.act(provider, &Step::Answer { id: small, proofs }).unwrap_err();

    held.next_epoch();
    let (stake, free) = (held.pair.model.provider(&provider).unwrap().stake, held.pair.model.free(&client));
    held.pair.act(client, &Step::Fail(small)).unwrap();
    let slashed = RATE * u128::from(PARAMETERS.slash_epochs);
    assert_eq!(held.pair.model.provider(&provider).unwrap().stake.0, stake.0 - slashed);
    let bond = PARAMETERS.question_bond.0;
    assert_eq!(held.pair.model.free(&client).0, free.0 + slashed + bond, "the bond back, and the slash");

    held.prove(&store).unwrap();
    held.next_epoch();
    held.pair.act(client, &Step::Advance { provider, max: u32::MAX }).unwrap();
    held.pair.act(client, &Step::MoveOn(vec![small])).unwrap();
    assert_eq!(held.pair.model.agreement(small), None);
    assert_eq!(held.pair.model.set(&provider).unwrap().0.rate, Amount(5 * RATE), "the others go on");
    held.prove(&store).unwrap();
}

#[test]
fn a_set_whose_stake_does_not_cover_another_miss_dies_before_its_misses_are_used_up() {
    let mut dice = Dice(3);
    let set = FragmentSet::new([Store::default().put(bytes(&mut dice, 2_000))]).unwrap();
    let mut held = Held::new(PARAMETERS, vec![set]);
    let (provider, client, id) = (held.provider, held.clients[0], AgreementId(1));
    // As little as may stay: six epochs' pay.
    let stake = |held: &Held| held.pair.model.provider(&provider).unwrap().stake.0;
    let least = RATE * u128::from(PARAMETERS.stake_epochs);
    let amount = Amount(stake(&held) - least);
    held.pair.act(provider, &Step::WithdrawStake { amount: Amount(amount.0 + 1), to: provider }).unwrap_err();
    held.pair.act(provider, &Step::WithdrawStake { amount, to: provider }).unwrap();
    held.pair.act(client, &Step::Ask(id)).unwrap();
    // An epoch missed, and the question in it.
    let slash = RATE * u128::from(PARAMETERS.slash_epochs);
    held.next_epoch();
    held.seal();
    held.next_epoch();
    held.pair.act(client, &Step::Fail(id)).unwrap();
    assert_eq!(stake(&held), least - 2 * slash);
    let set = held.pair.model.set(&provider).unwrap().0.clone();
    assert_eq!((set.misses, set.dead_at), (1, None));
    // The next miss takes the rest.
    held.next_epoch();
    held.pair.act(client, &Step::Advance { provider, max: u32::MAX }).unwrap();
    assert_eq!(stake(&held), 0);
    let set = held.pair.model.set(&provider).unwrap().0.clone();
    assert!(set.misses < PARAMETERS.misses_max && set.dead_at.is_some());
    held.pair.act(client, &Step::CloseDead(id)).unwrap();
    assert_eq!(held.pair.model.agreement(id), None);
}
