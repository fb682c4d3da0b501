//! What a provider earns that lost data: with share f lost of what it is paid for, (1 - f)^K of its epochs; with everything lost, nothing.

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
        let rates = vec![RATE; sets.len()];
        Held::paid(parameters, sets, &rates)
    }

    fn paid(parameters: Parameters, sets: Vec<FragmentSet>, rates: &[u128]) -> Held {
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
        let proposals = keys.iter().zip(&sets).zip(rates).map(|((key, set), rate)| {
            let proposal = Proposal {
                client: key.address(),
                provider,
                set_root: set.root(),
                size: set.total(),
                rate_per_epoch: Rate::new(*rate).unwrap(),
                end_epoch: Epoch(now.0 + 2_000),
                escrow: Amount(rate * 2_000),
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

    /// What the epoch asks, as the contract says it: the tree of rates and the seed are its own.
    fn asked(&self) -> Vec<(AgreementId, u64)> {
        let deployment = &self.pair.deployment;
        let told = deployment.ask(&MARKET, deployment.market, "challengesOf", &[Abi::address(self.provider)]);
        let mut words = Words::of(&told);
        let (_, _) = (words.u64(), words.u64());
        let ids: Vec<AgreementId> = (0..words.u32()).map(|_| AgreementId(words.u32())).collect();
        let offsets: Vec<u64> = (0..words.u32()).map(|_| words.u64()).collect();
        ids.into_iter().zip(offsets).collect()
    }

    /// In how many epochs a provider that lost fragments would have been paid, for each of several losses.
    fn earned(&mut self, epochs: u32, losses: &[BTreeSet<FragmentId>]) -> Vec<u32> {
        let mut earned = vec![0; losses.len()];
        for _ in 0..epochs {
            self.next_epoch();
            let deployment = &mut self.pair.deployment;
            let beacon = deployment.beacon;
            assert!(deployment.send(self.provider, &BEACON, beacon, "seal", &[]).is_ok());
            let seed = self.pair.deployment.ask(&BEACON, beacon, "seed", &[Abi::uint(self.pair.now().0)]);
            let seed = Words::of(&seed).word();
            let asked = self.asked();
            let expected = self.pair.model.challenges(self.provider, self.pair.now(), &seed);
            assert_eq!(Ok(&asked), expected.as_ref(), "the tree finds what lies end to end");
            let asked: Vec<FragmentId> = asked
                .into_iter()
                .map(|(id, offset)| self.set(id).path(offset).expect("a byte of the set").fragment.id)
                .collect();
            for (earned, lost) in earned.iter_mut().zip(losses) {
                *earned += u32::from(asked.iter().all(|fragment| !lost.contains(fragment)));
            }
        }
        earned
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

/// Fragments at random, of about a share of all bytes.
fn lose(sets: &[FragmentSet], percent: u64, dice: &mut Dice) -> BTreeSet<FragmentId> {
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
    lost
}

/// What share of its pay a provider gets for bytes that it lost.
fn share(sets: &[FragmentSet], rates: &[u128], lost: &BTreeSet<FragmentId>) -> f64 {
    let paid = |(set, rate): (&FragmentSet, &u128)| {
        let gone = set.fragments().iter().filter(|fragment| lost.contains(&fragment.id));
        let gone: u64 = gone.map(|fragment| fragment.length).sum();
        exact(u64::try_from(*rate).unwrap()) * exact(gone) / exact(set.total())
    };
    let pay: u128 = rates.iter().sum();
    sets.iter().zip(rates).map(paid).sum::<f64>() / exact(u64::try_from(pay).unwrap())
}

/// Whether as many epochs were proven as (1 - f)^K says, give or take four standard deviations, or one epoch where these are less than that.
fn is_likely(earned: u32, epochs: u32, share: f64, challenges: u32) -> (f64, bool) {
    let chance = (1.0 - share).powi(i32::try_from(challenges).unwrap());
    let expected = chance * f64::from(epochs);
    let tolerance = (4.0 * (expected * (1.0 - chance)).sqrt()).max(1.0);
    (expected, (f64::from(earned) - expected).abs() <= tolerance)
}

/// Sets of 200 fragments each, of 1 byte to 4 MiB.
fn some_sets(count: u64, dice: &mut Dice) -> Vec<FragmentSet> {
    let mut number = 0u64;
    let set = |_| {
        let fragments = (0..200).map(|_| {
            number += 1;
            let id = FragmentId::of(&number.to_le_bytes());
            Fragment { id, length: 1 + dice.below(4 << 20), retain_until: Epoch(0) }
        });
        FragmentSet::new(fragments.collect::<Vec<_>>()).unwrap()
    };
    (0..count).map(set).collect()
}

/// What sets earn at one price for each byte.
fn at_one_price(sets: &[FragmentSet]) -> Vec<u128> {
    sets.iter().map(|set| u128::from(set.total() >> 12)).collect()
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
    // What is lost is spread over twelve clients.
    let sets = some_sets(12, &mut dice);
    let rates = at_one_price(&sets);
    let mut table = String::from("| K | lost | formula | of 1,000 epochs |\n|---|---|---|---|\n");
    for challenges in [7, 21, 42] {
        let mut held = Held::paid(Parameters { challenges, ..PARAMETERS }, sets.clone(), &rates);
        let losses: Vec<_> = [1, 5, 20].into_iter().map(|percent| lose(&sets, percent, &mut dice)).collect();
        for (earned, lost) in held.earned(EPOCHS, &losses).into_iter().zip(&losses) {
            let share = share(&sets, &rates, lost);
            let (expected, likely) = is_likely(earned, EPOCHS, share, challenges);
            let percent = share * 100.0;
            writeln!(table, "| {challenges} | {percent:.2} % | {expected:.1} | {earned} |").unwrap();
            assert!(likely, "{table}");
        }
    }
    println!("{table}");
}

#[test]
fn an_agreement_with_itself_hides_a_loss_only_as_far_as_it_pays_for_it() {
    const EPOCHS: u32 = 1_000;
    const CHALLENGES: u32 = 21;
    let mut dice = Dice(0xd11);
    let honest = some_sets(1, &mut dice);
    let pay = at_one_price(&honest)[0];
    let losses: Vec<_> = [5, 20, 100].into_iter().map(|percent| lose(&honest, percent, &mut dice)).collect();
    // Ten thousand times the bytes, all made up, for as little as can be paid; and for one and for nine times what the others pay.
    let length = honest[0].total() * 10_000;
    let sham = Fragment { id: FragmentId::of(b"made up"), length, retain_until: Epoch(0) };
    let sets = vec![honest[0].clone(), FragmentSet::new([sham]).unwrap()];
    let mut table = String::from("| its pay | lost | formula | of 1,000 epochs |\n|---|---|---|---|\n");
    for (name, of_sham) in [("1 unit", 1), ("the same", pay), ("9 times", 9 * pay)] {
        let rates = [pay, of_sham];
        let mut held = Held::paid(Parameters { challenges: CHALLENGES, ..PARAMETERS }, sets.clone(), &rates);
        let stake = held.pair.model.stake_needed(&held.provider, &held.pair.deployment.evm.block());
        let covered = (pay + of_sham) * u128::from(PARAMETERS.stake_epochs);
        assert_eq!(stake, Ok(Some(Amount(covered))), "its stake covers what it pays itself");
        for (earned, lost) in held.earned(EPOCHS, &losses).into_iter().zip(&losses) {
            let of_all = share(&honest, &[pay], lost);
            let (expected, likely) = is_likely(earned, EPOCHS, share(&sets, &rates, lost), CHALLENGES);
            writeln!(table, "| {name} | {:.2} % | {expected:.1} | {earned} |", of_all * 100.0).unwrap();
            assert!(likely, "{table}");
            let (_, as_without) = is_likely(earned, EPOCHS, of_all, CHALLENGES);
            assert!(of_sham != 1 || as_without, "bytes that nobody pays for change nothing: {table}");
        }
    }
    println!("{table}");
}

#[test]
fn a_provider_that_lost_everything_earns_nothing_from_the_next_epoch() {
    let mut dice = Dice(1);
    let mut store = Store::default();
    let fragments: Vec<Fragment> = (0..7).map(|_| store.put(bytes(&mut dice, 41_000))).collect();
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
    let mut held = Held::paid(PARAMETERS, sets, &[RATE, RATE, RATE, RATE, RATE, 1]);
    let (provider, client, small) = (held.provider, held.clients[5], AgreementId(6));
    held.pair.act(client, &Step::Ask(small)).unwrap();
    held.next_epoch();
    assert_eq!(held.pair.model.set(&provider).unwrap().1, Amount(1 + 5 * RATE));
    // The big set is proven all the same: what is hardly paid for is hardly ever asked for.
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
    let slashed = u128::from(PARAMETERS.slash_epochs);
    assert_eq!(held.pair.model.provider(&provider).unwrap().stake.0, stake.0 - slashed);
    let bond = PARAMETERS.question_bond.0;
    assert_eq!(held.pair.model.free(&client).0, free.0 + slashed + bond, "the bond back, and the slash");

    held.prove(&store).unwrap();
    held.next_epoch();
    held.pair.act(client, &Step::Advance { provider, max: u32::MAX }).unwrap();
    held.pair.act(client, &Step::MoveOn(vec![small])).unwrap();
    assert_eq!(held.pair.model.agreement(small), None);
    assert_eq!(held.pair.model.set(&provider).unwrap().1, Amount(5 * RATE), "the others go on");
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
