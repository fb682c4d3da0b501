//! Vouchers that a payee accepted are money, whatever the payer does.

use crate::Dice;
use crate::abi::{Abi, Words};
use crate::digests;
use crate::evm::{CHANNELS, Deployment, EXIT_SECONDS, GENESIS, Ran, TOKEN};
use crate::market::PARAMETERS;
use seedbank_agreement::lane::{Cover, Exit, Lane};
use seedbank_agreement::{Address, Amount, Domain, Signed, Typed, Voucher, WalletKey};
use std::collections::BTreeMap;

/// Payers, payees and signers in one deployment.
struct World {
    deployment: Deployment,
    domain: Domain,
    payers: Vec<Address>,
    payees: Vec<Address>,
    signers: Vec<WalletKey>,
    /// What payees keep.
    lanes: BTreeMap<(Address, Address, Address), Lane>,
}

impl World {
    fn new(deployment: &Deployment, signers: u8) -> World {
        let mut deployment = deployment.clone();
        let payers = vec![Address([0xa1; 20]), Address([0xa2; 20])];
        for payer in &payers {
            let mint = [Abi::address(*payer), Abi::uint(1u128 << 60)];
            let approve = [Abi::address(deployment.channels), Abi::uint(u128::MAX)];
            let token = deployment.token;
            assert!(deployment.send(*payer, &TOKEN, token, "mint", &mint).is_ok());
            assert!(deployment.send(*payer, &TOKEN, token, "approve", &approve).is_ok());
        }
        deployment.evm.time = GENESIS;
        World {
            domain: Deployment::domain(deployment.channels),
            payers,
            payees: vec![Address([0xb1; 20]), Address([0xb2; 20])],
            signers: (1..=signers).map(|byte| WalletKey::from_secret(&[byte; 32]).unwrap()).collect(),
            lanes: BTreeMap::new(),
            deployment,
        }
    }

    fn send(&mut self, sender: Address, function: &str, arguments: &[Abi]) -> Ran {
        self.deployment.evm.number += 1;
        let to = self.deployment.channels;
        self.deployment.send(sender, &CHANNELS, to, function, arguments)
    }

    fn read(&self, function: &str, arguments: &[Address]) -> Vec<u8> {
        let arguments: Vec<Abi> = arguments.iter().map(|address| Abi::address(*address)).collect();
        self.deployment.ask(&CHANNELS, self.deployment.channels, function, &arguments)
    }

    fn cover(&self, payer: Address, payee: Address, signer: Address) -> Cover {
        let channel = self.read("channels", &[payer, payee]);
        let mut words = Words::of(&channel);
        let deposit = words.amount();
        let (_promised, _leaving, exit_at) = (words.amount(), words.amount(), words.u64());
        let lane = self.read("lanes", &[payer, payee, signer]);
        let mut words = Words::of(&lane);
        let exit = if exit_at == 0 { Exit::None } else { Exit::Pending };
        Cover { deposit, cap: words.amount(), redeemed: words.amount(), exit }
    }

    /// The payee takes a voucher as it does on the wire, after a look at the chain.
    fn offer(&mut self, payer: Address, payee: Address, signer: usize, cumulative: Amount) -> bool {
        let key = self.signers[signer].clone();
        let cover = self.cover(payer, payee, key.address());
        let domain = self.domain;
        let new = || Lane::new(payer, payee, key.address(), cover);
        let lane = self.lanes.entry((payer, payee, key.address())).or_insert_with(new);
        lane.set_cover(cover);
        let voucher = Voucher { payer, payee, signer: key.address(), cumulative }.sign(&domain, &key);
        lane.accept(voucher, &domain).is_ok()
    }

    /// The payee redeems what it has of some payers, and gets exactly what its lanes say.
    fn redeem(&mut self, payee: Address, of: impl Fn(&Address) -> bool) {
        let mut vouchers = Vec::new();
        let mut expected = Amount::ZERO;
        for lane in self.lanes.values() {
            let Some(voucher) = lane.newest() else { continue };
            if voucher.message.payee == payee && of(&voucher.message.payer) {
                vouchers.push(voucher.clone());
            }
        }
        for voucher in &vouchers {
            let Voucher { payer, payee, signer, .. } = voucher.message;
            let cover = self.cover(payer, payee, signer);
            let lane = self.lanes.get_mut(&(payer, payee, signer)).unwrap();
            lane.set_cover(cover);
            expected = expected.checked_add(lane.redeemable()).unwrap();
            let newest = voucher.message.cumulative;
            let short = newest.saturating_sub(lane.cover().redeemed) != lane.redeemable();
            assert!(!short, "a voucher that was accepted is not covered: {lane:?}");
        }
        let earned = |world: &World| Words::of(&world.read("earned", &[payee])).amount();
        let before = earned(self);
        assert!(self.send(payee, "redeem", &batch(&vouchers)).is_ok());
        assert_eq!(earned(self), before.checked_add(expected).unwrap());
        for voucher in &vouchers {
            let Voucher { payer, payee, signer, cumulative } = voucher.message;
            let cover = self.cover(payer, payee, signer);
            assert_eq!(cover.redeemed, cumulative, "all of it was paid");
            self.lanes.get_mut(&(payer, payee, signer)).unwrap().set_cover(cover);
        }
    }

    /// Redeemable vouchers never add up to more than the deposits, and the contract holds what it owes.
    fn check(&self) {
        let mut redeemable: BTreeMap<(Address, Address), Amount> = BTreeMap::new();
        for ((payer, payee, signer), lane) in &self.lanes {
            let mut lane = lane.clone();
            lane.set_cover(self.cover(*payer, *payee, *signer));
            let sum = redeemable.entry((*payer, *payee)).or_default();
            *sum = sum.checked_add(lane.redeemable()).unwrap();
        }
        for ((payer, payee), sum) in redeemable {
            let deposit = Words::of(&self.read("channels", &[payer, payee])).amount();
            assert!(sum <= deposit, "{sum} can be redeemed of {deposit}");
        }
        let held = Abi::address(self.deployment.channels);
        let held = self.deployment.ask(&TOKEN, self.deployment.token, "balanceOf", &[held]);
        let total = |of: &str| Words::of(&self.read(of, &[])).amount();
        let owed = total("totalDeposits").checked_add(total("totalEarned")).unwrap();
        assert_eq!(Words::of(&held).amount(), owed);
    }
}

fn batch(vouchers: &[Signed<Voucher>]) -> [Abi; 2] {
    let signature = |voucher: &Signed<Voucher>| Abi::Bytes(voucher.signature.as_bytes().to_vec());
    let messages = vouchers.iter().map(|voucher| digests::voucher(&voucher.message)).collect();
    [Abi::Array(messages), Abi::Array(vouchers.iter().map(signature).collect())]
}

#[test]
fn what_a_payee_accepted_is_paid_in_every_history() {
    let deployment = Deployment::new(&PARAMETERS);
    let (mut accepted, mut exits) = (0, 0);
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut world = World::new(&deployment, 3);
        for _ in 0..60 {
            // No payee is away for as long as an exit takes.
            world.deployment.evm.time = world.deployment.evm.time.plus_seconds(dice.below(EXIT_SECONDS / 2));
            let (payer, payee) = (*dice.one(&world.payers), *dice.one(&world.payees));
            let at = usize::try_from(dice.below(3)).unwrap();
            let signer = world.signers[at].address();
            let amount = 1 + u128::from(dice.below(300));
            match dice.below(24) {
                0..5 => {
                    let deposit = [Abi::address(payer), Abi::address(payee), Abi::uint(amount * 4)];
                    assert!(world.send(payer, "deposit", &deposit).is_ok());
                }
                5..11 => {
                    let cap = world.cover(payer, payee, signer).cap.0 + amount;
                    drop(world.send(
                        payer,
                        "setLane",
                        &[Abi::address(payee), Abi::address(signer), Abi::uint(cap)],
                    ));
                }
                11..18 => {
                    let promised =
                        world.lanes.get(&(payer, payee, signer)).map_or(0, |lane| lane.promised().0);
                    accepted += u32::from(world.offer(payer, payee, at, Amount(promised + 1 + amount / 10)));
                }
                18..20 => world.redeem(payee, |_| true),
                20 => drop(world.send(payer, "requestExit", &[Abi::address(payee), Abi::uint(amount * 2)])),
                21..23 => {
                    let named = world.signers.iter().filter(|_| dice.percent(70));
                    let named = named.map(|key| Abi::address(key.address())).collect();
                    let exit = [Abi::address(payee), Abi::Array(named), Abi::address(payer)];
                    exits += u32::from(world.send(payer, "exit", &exit).is_ok());
                }
                _ => drop(world.send(payer, "cancelExit", &[Abi::address(payee)])),
            }
            // Payees see that somebody is leaving, and redeem what they have of it.
            for payee in world.payees.clone() {
                let leaving: Vec<Address> = world
                    .payers
                    .iter()
                    .filter(|payer| world.cover(**payer, payee, Address::ZERO).exit == Exit::Pending)
                    .copied()
                    .collect();
                if !leaving.is_empty() {
                    world.redeem(payee, |payer| leaving.contains(payer));
                }
            }
            world.check();
        }
        world.payees.clone().into_iter().for_each(|payee| world.redeem(payee, |_| true));
        world.check();
    }
    println!("{accepted} vouchers accepted, {exits} exits");
    assert!(accepted > 100 && exits > 10, "the histories say something: {accepted}, {exits}");
}

#[test]
fn sixteen_signers_of_one_payer_read_at_once_without_talking_to_each_other() {
    let mut world = World::new(&Deployment::new(&PARAMETERS), 16);
    let (payer, payee) = (world.payers[0], world.payees[0]);
    let deposit = [Abi::address(payer), Abi::address(payee), Abi::uint(1_600u128)];
    assert!(world.send(payer, "deposit", &deposit).is_ok());
    for at in 0..16 {
        let signer = world.signers[at].address();
        let lane = [Abi::address(payee), Abi::address(signer), Abi::uint(100u128)];
        assert!(world.send(payer, "setLane", &lane).is_ok());
    }
    // Caps never exceed the deposit.
    let one_more = [Abi::address(payee), Abi::address(payee), Abi::uint(1u128)];
    assert!(world.send(payer, "setLane", &one_more).is_err());
    for round in [30, 60, 100u128] {
        for at in 0..16 {
            assert!(world.offer(payer, payee, at, Amount(round)));
        }
    }
    assert!(!world.offer(payer, payee, 3, Amount(101)), "above the cap");
    world.redeem(payee, |_| true);
    assert_eq!(Words::of(&world.read("earned", &[payee])).amount(), Amount(1_600));
}

#[test]
fn one_voucher_in_three_encodings_is_one_voucher() {
    let mut world = World::new(&Deployment::new(&PARAMETERS), 1);
    let (payer, payee) = (world.payers[0], world.payees[0]);
    let deposit = [Abi::address(payer), Abi::address(payee), Abi::uint(1_000u128)];
    assert!(world.send(payer, "deposit", &deposit).is_ok());
    let key = world.signers[0].clone();
    let lane = [Abi::address(payee), Abi::address(key.address()), Abi::uint(1_000u128)];
    assert!(world.send(payer, "setLane", &lane).is_ok());
    let voucher = |cumulative| {
        Voucher { payer, payee, signer: key.address(), cumulative: Amount(cumulative) }
            .sign(&world.domain, &key)
    };
    let (first, second) = (voucher(100), voucher(250));
    let redeem = |world: &mut World, voucher: &Signed<Voucher>, signature: Vec<u8>| {
        let arguments =
            [Abi::Array(vec![digests::voucher(&voucher.message)]), Abi::Array(vec![Abi::Bytes(signature)])];
        assert!(world.send(payee, "redeem", &arguments).is_ok());
        Words::of(&world.read("earned", &[payee])).amount()
    };
    // 64 bytes: the parity of v in the top bit of s.
    let compact = |voucher: &Signed<Voucher>| {
        let mut bytes = voucher.signature.as_bytes()[..64].to_vec();
        bytes[32] |= if voucher.signature.as_bytes()[64] == 28 { 0x80 } else { 0 };
        bytes
    };
    let mirrored = |voucher: &Signed<Voucher>| {
        let scalars = k256::ecdsa::Signature::from_slice(&voucher.signature.as_bytes()[..64]).unwrap();
        let (r, s) = scalars.split_scalars();
        let high = k256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
        let mut bytes = high.to_bytes().to_vec();
        bytes.push(27 + 28 - voucher.signature.as_bytes()[64]);
        bytes
    };
    assert_eq!(redeem(&mut world, &first, mirrored(&first)), Amount(0), "its mirror image is no signature");
    assert_eq!(redeem(&mut world, &first, first.signature.as_bytes().to_vec()), Amount(100));
    assert_eq!(redeem(&mut world, &first, compact(&first)), Amount(100), "the same again pays nothing");
    assert_eq!(
        redeem(&mut world, &second, compact(&second)),
        Amount(250),
        "the chain reads the short form too"
    );
    assert_eq!(redeem(&mut world, &second, second.signature.as_bytes().to_vec()), Amount(250));
}
