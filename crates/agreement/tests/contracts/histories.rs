//! Random histories of a market: clients, providers, a hot key, an operator and a stranger do what may be done and much that may not.

use crate::Dice;
use crate::evm::{Deployment, EPOCH_SECONDS, GENESIS};
use crate::market::{PARAMETERS, Pair, Step};
use crate::stored::Store;
use seedbank_agreement::fragment_set::{Fragment, FragmentSet};
use seedbank_agreement::market::{Agreement, Call, Proof, SignedRevision};
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Market, Nonce, Proposal, Rate, Revision, SetRoot, Signature, Signed,
    Typed, WalletKey,
};
use seedbank_formats::Timestamp;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Everyone, and what lies on the disks.
struct World {
    dice: Dice,
    pair: Pair,
    clients: Vec<WalletKey>,
    hot: WalletKey,
    providers: Vec<WalletKey>,
    operator: WalletKey,
    stranger: WalletKey,
    store: Store,
    fragments: Vec<Fragment>,
    /// Every set that was ever spoken of.
    sets: BTreeMap<SetRoot, FragmentSet>,
    proposals: Vec<Signed<Proposal>>,
    revisions: Vec<SignedRevision>,
    announced: Vec<(AgreementId, Epoch)>,
}

impl World {
    fn new(deployment: &Deployment, seed: u64) -> World {
        let mut dice = Dice(seed);
        let key = |byte| WalletKey::from_secret(&[byte; 32]).unwrap();
        let clients = vec![key(1), key(2), key(3)];
        let providers = vec![key(11), key(12)];
        let (hot, operator, stranger) = (key(21), key(22), key(23));
        let everyone: Vec<Address> =
            [&clients[..], &providers[..], &[hot.clone(), operator.clone(), stranger.clone()]]
                .iter()
                .flat_map(|keys| keys.iter().map(WalletKey::address))
                .collect();
        let stores: Vec<Address> = providers.iter().map(WalletKey::address).collect();
        let mut pair = Pair::new(deployment, PARAMETERS, &everyone, &stores);
        // Some begin where the bits of epochs go on in another word.
        let first = *dice.one(&[0, 1, 250, 253, 255, 300]);
        pair.deployment.evm.time = GENESIS.plus_seconds(first * u64::from(EPOCH_SECONDS) + dice.below(900));
        let mut store = Store::default();
        let lengths = [1, 700, 1_024, 1_500, 4_096, 20_000, 33_000];
        let fragments = lengths
            .map(|length| store.put((0..length).map(|_| u8::try_from(dice.below(256)).unwrap()).collect()));
        World {
            dice,
            pair,
            clients,
            hot,
            providers,
            operator,
            stranger,
            store,
            fragments: fragments.to_vec(),
            sets: BTreeMap::new(),
            proposals: Vec::new(),
            revisions: Vec::new(),
            announced: Vec::new(),
        }
    }

    fn act(&mut self, sender: Address, step: &Step) {
        let told = format!("{step:?}");
        let pair = &mut self.pair;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| pair.act(sender, step).is_ok())) {
            eprintln!("at {:?}, {sender} does {}", self.pair.now(), &told[..told.len().min(2_000)]);
            resume_unwind(panic);
        }
    }

    fn begin(&mut self) {
        for provider in self.providers.clone() {
            let address = provider.address();
            self.act(address, &Step::Register);
            let amount = Amount(10_000 + u128::from(self.dice.below(20_000)));
            self.act(address, &Step::Deposit { to: address, amount });
            self.act(address, &Step::AddStake { provider: address, amount: Amount(amount.0 / 4 * 3) });
        }
        let operator = self.operator.address();
        self.act(self.providers[0].address(), &Step::SetOperator { operator });
        for client in self.clients.clone() {
            let amount = Amount(20_000 + u128::from(self.dice.below(20_000)));
            self.act(client.address(), &Step::Deposit { to: client.address(), amount });
        }
        let until = self.pair.deployment.evm.time.plus_seconds(self.dice.below(30_000));
        let signer = self.hot.address();
        self.act(self.clients[0].address(), &Step::Authorize { signer, cap: Amount(6_000), until });
        for provider in 0..self.providers.len() {
            let proposals = (0..self.clients.len()).map(|client| self.proposal(client, provider)).collect();
            self.act(self.providers[provider].address(), &Step::Activate(proposals));
        }
    }

    fn set(&mut self) -> FragmentSet {
        let dice = &mut self.dice;
        let some: Vec<Fragment> = self.fragments.iter().filter(|_| dice.percent(50)).copied().collect();
        let some = if some.is_empty() { vec![self.fragments[1]] } else { some };
        let set = FragmentSet::new(some).unwrap();
        self.sets.insert(set.root(), set.clone());
        set
    }

    /// Sometimes another number than the right one.
    fn slip(&mut self, right: u32) -> u32 {
        if self.dice.percent(4) {
            self.dice.below(u64::from(right) * 2 + 3).try_into().unwrap()
        } else {
            right
        }
    }

    fn proposal(&mut self, client: usize, provider: usize) -> Signed<Proposal> {
        if self.dice.percent(6) && !self.proposals.is_empty() {
            return self.dice.one(&self.proposals).clone();
        }
        let (client, provider) = (self.clients[client].clone(), self.providers[provider].address());
        let set = self.set();
        let now = self.pair.now().0;
        let longest = *self.dice.one(&[3, 8, 25]);
        let epochs = 1 + u32::try_from(self.dice.below(longest)).unwrap();
        let limit = if self.dice.percent(5) { 3_000 } else { 150 };
        let rate = u128::from(self.dice.below(limit));
        let spare = u128::from(self.dice.below(800));
        let size = match self.dice.below(40) {
            0 => 0,
            1 => set.total() + 1,
            2 => u64::MAX,
            _ => set.total(),
        };
        let retains = self.dice.percent(30);
        let mut message = Proposal {
            client: client.address(),
            provider,
            set_root: set.root(),
            size,
            rate_per_epoch: Rate::new(rate).unwrap(),
            end_epoch: Epoch(self.slip(now + 1 + epochs)),
            escrow: Amount(rate * u128::from(epochs) + spare),
            retained_bytes: if retains { size / 2 } else { 0 },
            retained_until: Epoch(if retains {
                now + u32::try_from(self.dice.below(10)).unwrap()
            } else {
                0
            }),
            accept_by: Epoch(if self.dice.percent(4) { now.saturating_sub(1) } else { now + 1 }),
            nonce: Nonce(self.dice.word()),
        };
        if self.dice.percent(4) {
            message.escrow = Amount(message.escrow.0 / 2);
        }
        if self.dice.percent(3) {
            message.retained_bytes = size.saturating_add(1);
        }
        let signer = match self.dice.below(20) {
            0 => self.stranger.clone(),
            1..=4 => self.hot.clone(),
            _ => client,
        };
        let domain = Deployment::domain(self.pair.deployment.market);
        let mut signed = message.sign(&domain, &signer);
        if self.dice.percent(3) {
            signed.signature = self.nobodys();
        }
        self.proposals.push(signed.clone());
        signed
    }

    /// A signature in the right form that some key or none made of something else.
    fn nobodys(&mut self) -> Signature {
        let mut bytes = [0; 65];
        bytes[..32].copy_from_slice(&self.dice.word());
        bytes[0] = 0;
        bytes[63] = 1;
        bytes[64] = 27;
        Signature::from_bytes(&bytes).unwrap()
    }

    /// One of the open agreements of which something is true, if there is any.
    fn id_where(&mut self, is: impl Fn(&Market, AgreementId, &Agreement) -> bool) -> AgreementId {
        let model = &self.pair.model;
        let such: Vec<AgreementId> = model
            .agreements()
            .filter(|(id, agreement)| is(model, *id, agreement))
            .map(|(id, _)| id)
            .collect();
        if such.is_empty() || self.dice.percent(10) { self.some_id() } else { *self.dice.one(&such) }
    }

    fn some_id(&mut self) -> AgreementId {
        let open: Vec<AgreementId> = self.pair.model.agreements().map(|(id, _)| id).collect();
        if open.is_empty() || self.dice.percent(5) {
            let all = u64::from(self.pair.opened()) + 2;
            return AgreementId(self.dice.below(all).try_into().unwrap());
        }
        *self.dice.one(&open)
    }

    fn revision(&mut self) -> Option<SignedRevision> {
        if self.dice.percent(6) && !self.revisions.is_empty() {
            return Some(self.dice.one(&self.revisions).clone());
        }
        let id = self.some_id();
        let agreement = self.pair.model.agreement(id)?.clone();
        let set = self.set();
        let now = self.pair.now().0;
        let before = agreement.next.or(agreement.current)?;
        let rate =
            if self.dice.percent(40) { before.rate_per_epoch.units() } else { self.dice.below(200).into() };
        let size = match self.dice.below(30) {
            0 => 0,
            1 => u64::MAX,
            _ => set.total(),
        };
        let keeps = self.dice.percent(70);
        let longest = *self.dice.one(&[3, 8, 25]);
        let epochs = u32::try_from(self.dice.below(longest)).unwrap();
        let revision = Revision {
            agreement: id,
            sequence: if self.dice.percent(5) { agreement.sequence } else { agreement.sequence + 1 },
            set_root: set.root(),
            size,
            rate_per_epoch: Rate::new(if size == 0 && self.dice.percent(50) { 0 } else { rate }).unwrap(),
            from_epoch: Epoch(self.slip(now + 1)),
            end_epoch: Epoch(self.slip(now + 2 + epochs)),
            retained_bytes: if keeps { agreement.retained_bytes } else { size / 3 },
            retained_until: if keeps { agreement.retained_until } else { Epoch(now + 3) },
        };
        let digest = revision.digest(&Deployment::domain(self.pair.deployment.market));
        let key = |keys: &[WalletKey], address: Address| {
            keys.iter().find(|key| key.address() == address).unwrap().clone()
        };
        let of_client = match self.dice.below(20) {
            0 => self.stranger.clone(),
            1..=3 => self.hot.clone(),
            _ => key(&self.clients, agreement.client),
        };
        let of_provider = match self.dice.below(20) {
            0 => self.stranger.clone(),
            1..=5 => self.operator.clone(),
            _ => key(&self.providers, agreement.provider),
        };
        let mut signed = SignedRevision {
            revision,
            of_client: of_client.sign(&digest),
            of_provider: of_provider.sign(&digest),
        };
        if self.dice.percent(2) {
            signed.of_client = self.nobodys();
        }
        self.revisions.push(signed.clone());
        Some(signed)
    }

    /// What shows byte `offset` of an agreement's set, as far as anything can.
    fn show(&self, id: AgreementId, offset: u64) -> Option<Proof> {
        let terms = self.pair.model.agreement(id)?.current?;
        let set = self.sets.get(&terms.set_root)?;
        Some(self.store.show(set, if offset < set.total() { offset } else { 0 }))
    }

    /// Now and then something is wrong with a proof.
    fn spoil(&mut self, proofs: &mut Vec<Proof>) {
        if !self.dice.percent(25) || proofs.is_empty() {
            return;
        }
        let at = usize::try_from(self.dice.below(proofs.len() as u64)).unwrap();
        let proof = &mut proofs[at];
        match self.dice.below(11) {
            0 => drop(proofs.pop()),
            1 => proof.chunk.chunk[0] ^= 1,
            2 => drop(proof.chunk.chunk.pop()),
            3 => proof.chunk.siblings.push([7; 32]),
            4 => proof.fragment.fragment.length += 1,
            5 => proof.fragment.turns |= 1 << 50,
            6 => proof.fragment.fragment.retain_until = Epoch(9),
            7 => proof.fragment.sums.iter_mut().for_each(|sum| *sum = u64::MAX),
            8 => proof.fragment.fragment.id.0[3] ^= 4,
            9 => proof.chunk.siblings.iter_mut().for_each(|sibling| sibling[0] ^= 1),
            _ => proofs.swap(0, at),
        }
    }

    fn seal(&mut self) -> [u8; 32] {
        let stranger = self.stranger.address();
        self.act(stranger, &Step::Seal);
        let call = Call { sender: stranger, block: self.pair.deployment.evm.block() };
        self.pair.model.seal(&call).unwrap()
    }

    fn prove(&mut self, provider: Address) {
        let seed = self.seal();
        let asked = self.pair.model.challenges(provider, self.pair.now(), &seed).unwrap_or_default();
        let mut proofs: Vec<Proof> =
            asked.iter().filter_map(|(id, offset)| self.show(*id, *offset)).collect();
        self.spoil(&mut proofs);
        let sender = if self.dice.percent(20) { self.stranger.address() } else { provider };
        self.act(sender, &Step::Prove { provider, proofs });
    }

    fn answer(&mut self, id: AgreementId) {
        let seed = self.seal();
        let offsets = self.pair.model.question_offsets(id, self.pair.now(), &seed).unwrap_or_default();
        let mut proofs: Vec<Proof> = offsets.iter().filter_map(|offset| self.show(id, *offset)).collect();
        self.spoil(&mut proofs);
        self.act(self.stranger.address(), &Step::Answer { id, proofs });
    }

    /// What a good provider does first thing in an epoch.
    fn keep(&mut self) {
        for provider in self.providers.clone() {
            let provider = provider.address();
            if self.dice.percent(15) {
                continue;
            }
            for _ in 0..4 {
                let Some((set, _)) = self.pair.model.set(&provider) else { break };
                if set.epoch == self.pair.now() && set.due == 0 || set.dead_at.is_some() {
                    break;
                }
                let mut ids: Vec<AgreementId> = self.of_provider(provider);
                if self.dice.percent(10) {
                    ids.pop();
                }
                self.act(provider, &Step::MoveOn(ids));
                let max = if self.dice.percent(20) { 1 } else { u32::MAX };
                self.act(self.stranger.address(), &Step::Advance { provider, max });
            }
            self.prove(provider);
            for id in self.of_provider(provider) {
                let asked =
                    self.pair.model.question(id).is_some_and(|question| question.epoch == self.pair.now());
                if asked && self.dice.percent(60) {
                    self.answer(id);
                }
            }
        }
    }

    fn of_provider(&self, provider: Address) -> Vec<AgreementId> {
        let all = self.pair.model.agreements();
        all.filter(|(_, agreement)| agreement.provider == provider).map(|(id, _)| id).collect()
    }

    /// Time passes.
    fn wait(&mut self) {
        let clock = u64::from(EPOCH_SECONDS);
        let now = self.pair.deployment.evm.time.0;
        let next = GENESIS.0 + ((now - GENESIS.0) / clock + 1) * clock;
        let time = match self.dice.below(100) {
            0..60 => now + self.dice.below(20),
            60..95 => next + self.dice.below(50),
            95..99 => next + self.dice.below(5) * clock,
            _ => next + self.dice.below(300) * clock,
        };
        self.pair.deployment.evm.time = Timestamp(time);
        // Other transactions.
        self.pair.deployment.evm.number += self.dice.below(3);
    }

    fn anyone(&mut self) -> Address {
        let keys = [&self.clients[..], &self.providers[..], &[self.stranger.clone(), self.operator.clone()]]
            .concat();
        self.dice.one(&keys).address()
    }

    fn client_of(&mut self, id: AgreementId) -> Address {
        let client = self.pair.model.agreement(id).map(|agreement| agreement.client);
        let anyone = self.anyone();
        client.filter(|_| !self.dice.percent(8)).unwrap_or(anyone)
    }

    fn step(&mut self) {
        self.wait();
        let id = self.some_id();
        let client = self.client_of(id);
        let anyone = self.anyone();
        let amount = Amount(u128::from(self.dice.below(1_500)));
        let provider = self.dice.one(&self.providers).address();
        match self.dice.below(100) {
            0..30 => self.keep(),
            30..34 => self.act(anyone, &Step::Deposit { to: client, amount }),
            34..38 => self.act(anyone, &Step::Withdraw { amount, to: self.stranger.address() }),
            38..40 => {
                let until = self.pair.deployment.evm.time.plus_seconds(self.dice.below(6_000));
                let signer = self.hot.address();
                self.act(self.clients[0].address(), &Step::Authorize { signer, cap: amount, until });
            }
            40 => self.act(anyone, &Step::AddStake { provider, amount }),
            41..45 => {
                // Often all that may leave, so that the next miss is one too many for what stays.
                let block = self.pair.deployment.evm.block();
                let needed = self.pair.model.stake_needed(&provider, &block).unwrap();
                let stake = self.pair.model.provider(&provider).map(|entry| entry.stake);
                let spare = stake.zip(needed).and_then(|(stake, needed)| stake.checked_sub(needed));
                let amount = spare.filter(|_| self.dice.percent(70)).unwrap_or(Amount(amount.0 * 10));
                let sender = if self.dice.percent(80) { provider } else { anyone };
                self.act(sender, &Step::WithdrawStake { amount, to: provider });
            }
            45 => self.act(provider, &Step::Leave),
            46..49 => self.act(provider, &Step::Register),
            49..60 => {
                let count = 1 + self.dice.below(3);
                let empty = self.providers.iter().position(|one| self.of_provider(one.address()).is_empty());
                let at = empty.unwrap_or(usize::from(self.dice.percent(50)));
                let proposals = (0..count)
                    .map(|_| {
                        let client = usize::try_from(self.dice.below(3)).unwrap();
                        self.proposal(client, at)
                    })
                    .collect();
                let sender = match self.dice.below(20) {
                    0 => anyone,
                    1..=5 => self.operator.address(),
                    _ => self.providers[at].address(),
                };
                self.act(sender, &Step::Activate(proposals));
            }
            60..74 => {
                let count = 1 + self.dice.below(3);
                let revisions = (0..count).filter_map(|_| self.revision()).collect();
                self.act(anyone, &Step::Revise(revisions));
            }
            74..76 => {
                let other = self.some_id();
                self.act(anyone, &Step::MoveOn(vec![id, other]));
            }
            76..79 => self.act(client, &Step::Reserve { id, amount }),
            79..82 => {
                self.announced.push((id, self.pair.now()));
                self.act(client, &Step::AnnounceRelease { id, amount });
            }
            82..86 => {
                let now = self.pair.now();
                let mut ripe =
                    self.announced.iter().filter(|(_, epoch)| now.0 - epoch.0 >= 2 && now.0 - epoch.0 < 4);
                let id = ripe.next_back().map_or(id, |(id, _)| *id);
                let client = self.client_of(id);
                self.act(client, &Step::Release(id));
            }
            86..89 => {
                let sender = if self.dice.percent(50) { client } else { provider };
                self.act(sender, &Step::Terminate(id));
            }
            89..92 => self.act(client, &Step::Ask(id)),
            92..94 => self.answer(id),
            94..96 => {
                let now = self.pair.now();
                let late = move |model: &Market, id, _: &Agreement| {
                    model.question(id).is_some_and(|one| one.epoch < now)
                };
                let id = self.id_where(late);
                self.act(anyone, &Step::Fail(id));
            }
            96..98 => {
                let dead = |model: &Market, _, agreement: &Agreement| {
                    model.set(&agreement.provider).is_some_and(|(set, _)| set.dead_at.is_some())
                };
                let id = self.id_where(dead);
                self.act(anyone, &Step::CloseDead(id));
            }
            _ => {
                let max = self.dice.below(4).try_into().unwrap();
                self.act(anyone, &Step::Advance { provider, max });
            }
        }
    }
}

fn run(seeds: std::ops::Range<u64>, steps: u32) -> BTreeMap<String, u64> {
    let deployment = Deployment::new(&PARAMETERS);
    let mut seen = BTreeMap::new();
    for seed in seeds {
        let mut world = World::new(&deployment, seed);
        let ran = catch_unwind(AssertUnwindSafe(|| {
            world.begin();
            (0..steps).for_each(|_| world.step());
        }));
        if let Err(panic) = ran {
            eprintln!("the history of seed {seed} differs");
            resume_unwind(panic);
        }
        for (what, often) in world.pair.seen {
            *seen.entry(what).or_insert(0) += often;
        }
    }
    seen
}

/// What must have happened somewhere, or the histories say nothing about it.
const MUST_HAPPEN: [&str; 27] = [
    "Answer is done",
    "AlreadyProven is refused",
    "Behind is refused",
    "Behind is skipped",
    "ChunkPath is refused",
    "CloseDead is done",
    "Compensated",
    "Died",
    "Escrow is skipped",
    "Fail is done",
    "LeftEarly",
    "Missed",
    "NotYours is refused",
    "ProofCount is refused",
    "Proven",
    "QuestionTime is refused",
    "QuestionVoid",
    "Release is done",
    "Retention is skipped",
    "SetPath is refused",
    "Stake is skipped",
    "StakeNeeded is refused",
    "Stale is skipped",
    "TermsDue is refused",
    "Unanswered",
    "VoidEpoch",
    "WrongChunk is refused",
];

#[test]
fn random_histories_end_with_the_same_money_everywhere() {
    let seen = run(0..200, 40);
    for (what, often) in &seen {
        println!("{often:7} {what}");
    }
    for what in MUST_HAPPEN {
        assert!(seen.contains_key(what), "{what} never happened");
    }
}

#[test]
#[ignore = "minutes: more histories than a change waits for"]
fn many_longer_random_histories_end_with_the_same_money_everywhere() {
    for (what, often) in run(1_000..3_000, 120) {
        println!("{often:7} {what}");
    }
}
