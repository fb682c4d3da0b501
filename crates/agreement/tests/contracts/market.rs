//! The market in the EVM and the market of this crate, side by side: each step is done to both, and then they must be the same.

use crate::abi::{Abi, Words, selector, word};
use crate::digests;
use crate::evm::{BEACON, BLOCKS_MIN, Deployment, EPOCH_SECONDS, GENESIS, Log, MARKET, REGISTRY, TOKEN};
use crate::possession;
use seedbank_agreement::fragment_set::SetPathError;
use seedbank_agreement::market::{
    Agreement, Call, EmbeddedBeacon, Parameters, Proof, ProofSet, Question, Refusal, SignedRevision, Skip,
    Terms,
};
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, EpochClock, Market, Proposal, Rate, SetRoot, Signed,
};
use seedbank_formats::Timestamp;
use std::collections::BTreeMap;

/// Small numbers, so that everything that can happen does.
pub(crate) const PARAMETERS: Parameters = Parameters {
    challenges: 2,
    slash_epochs: 2,
    stake_epochs: 6,
    misses_max: 3,
    notice_epochs: 3,
    bounty_basis_points: 1_000,
    question_bond: Amount(50),
};

/// What somebody does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Deposit { to: Address, amount: Amount },
    Withdraw { amount: Amount, to: Address },
    Authorize { signer: Address, cap: Amount, until: Timestamp },
    Register,
    SetOperator { operator: Address },
    AddStake { provider: Address, amount: Amount },
    WithdrawStake { amount: Amount, to: Address },
    Leave,
    Activate(Vec<Signed<Proposal>>),
    Revise(Vec<SignedRevision>),
    MoveOn(Vec<AgreementId>),
    Reserve { id: AgreementId, amount: Amount },
    AnnounceRelease { id: AgreementId, amount: Amount },
    Release(AgreementId),
    Terminate(AgreementId),
    Prove { provider: Address, proofs: Vec<Proof> },
    Advance { provider: Address, max: u32 },
    CloseDead(AgreementId),
    Ask(AgreementId),
    Answer { id: AgreementId, proofs: Vec<Proof> },
    Fail(AgreementId),
    Seal,
}

/// Items of a batch that were passed over.
type Skipped = Vec<(usize, Skip)>;

/// Both markets.
pub(crate) struct Pair {
    pub(crate) deployment: Deployment,
    pub(crate) model: Market,
    accounts: Vec<Address>,
    providers: Vec<Address>,
    opened: u32,
    /// How often what came out.
    pub(crate) seen: BTreeMap<String, u64>,
}

impl Pair {
    /// Markets without agreements, and accounts with tokens.
    pub(crate) fn new(
        deployment: &Deployment,
        parameters: Parameters,
        accounts: &[Address],
        providers: &[Address],
    ) -> Pair {
        let mut deployment = deployment.clone();
        for account in accounts {
            let mint = [Abi::address(*account), Abi::uint(1u128 << 60)];
            let approve = [Abi::address(deployment.market), Abi::uint(u128::MAX)];
            let token = deployment.token;
            assert!(deployment.send(*account, &TOKEN, token, "mint", &mint).is_ok());
            assert!(deployment.send(*account, &TOKEN, token, "approve", &approve).is_ok());
        }
        let clock = EpochClock { genesis: GENESIS, epoch_seconds: EPOCH_SECONDS };
        let beacon = EmbeddedBeacon::new(clock, Deployment::domain(deployment.beacon), BLOCKS_MIN);
        let model = Market::new(parameters, Deployment::domain(deployment.market), beacon);
        Pair {
            deployment,
            model,
            accounts: accounts.to_vec(),
            providers: providers.to_vec(),
            opened: 0,
            seen: BTreeMap::new(),
        }
    }

    pub(crate) fn now(&self) -> Epoch {
        let clock = EpochClock { genesis: GENESIS, epoch_seconds: EPOCH_SECONDS };
        clock.at(self.deployment.evm.time).unwrap()
    }

    pub(crate) fn opened(&self) -> u32 {
        self.opened
    }

    /// Does a step to both in a new block, and compares what came out and what is. Gives the model's answer.
    pub(crate) fn act(&mut self, sender: Address, step: &Step) -> Result<(), Refusal> {
        self.deployment.evm.number += 1;
        let call = Call { sender, block: self.deployment.evm.block() };
        let expected = self.in_model(&call, step);
        let told = self.in_evm(sender, step);
        match (&told, &expected) {
            (Ok(logs), Ok(skipped)) => {
                assert_eq!(skips(logs), *skipped);
                skipped.iter().for_each(|(_, skip)| self.count(&format!("{skip:?} is skipped")));
            }
            (Err(revert), Err(refusal)) => {
                assert_eq!(*revert, as_revert(refusal), "{} is not {refusal:?}", MARKET.name_of(revert));
                let name = format!("{refusal:?}");
                self.count(&format!("{} is refused", name.split([' ', '(']).next().unwrap()));
            }
            (Err(revert), Ok(_)) => panic!("the contract refuses: {}", MARKET.name_of(revert)),
            (Ok(_), Err(refusal)) => panic!("only the model refuses: {refusal:?}"),
        }
        for log in told.iter().flatten() {
            for name in [
                "Proven",
                "Missed",
                "VoidEpoch",
                "Died",
                "Unanswered",
                "QuestionVoid",
                "LeftEarly",
                "Compensated",
            ] {
                if log.topic == MARKET.topic(name) {
                    self.count(name);
                }
            }
        }
        let done = format!("{step:?}");
        if expected.is_ok() {
            self.count(&format!("{} is done", done.split([' ', '(']).next().unwrap()));
        }
        self.compare();
        expected.map(|_| ())
    }

    fn count(&mut self, what: &str) {
        *self.seen.entry(what.to_owned()).or_default() += 1;
    }

    fn in_model(&mut self, call: &Call, step: &Step) -> Result<Skipped, Refusal> {
        let skipped = |results: Vec<Option<Skip>>| {
            results.into_iter().enumerate().filter_map(|(at, skip)| Some((at, skip?))).collect()
        };
        let model = &mut self.model;
        let done = match step {
            Step::Deposit { to, amount } => model.deposit(*to, *amount),
            Step::Withdraw { amount, .. } => model.withdraw(call, *amount),
            Step::Authorize { signer, cap, until } => {
                model.authorize(call, *signer, *cap, *until);
                Ok(())
            }
            Step::Register => {
                model.register(call);
                Ok(())
            }
            Step::SetOperator { operator } => model.set_operator(call, *operator),
            Step::AddStake { provider, amount } => model.add_stake(call, *provider, *amount),
            Step::WithdrawStake { amount, to } => model.withdraw_stake(call, *amount, *to),
            Step::Leave => model.leave(call),
            Step::Activate(proposals) => {
                let results = model.activate(call, proposals)?;
                self.opened += u32::try_from(results.iter().flatten().count()).unwrap();
                return Ok(skipped(results.into_iter().map(Result::err).collect()));
            }
            Step::Revise(revisions) => {
                let results = model.revise(call, revisions)?;
                return Ok(skipped(results.into_iter().map(Result::err).collect()));
            }
            Step::MoveOn(ids) => model.move_on(call, ids),
            Step::Reserve { id, amount } => model.reserve(call, *id, *amount),
            Step::AnnounceRelease { id, amount } => model.announce_release(call, *id, *amount),
            Step::Release(id) => model.release(call, *id),
            Step::Terminate(id) => model.terminate(call, *id),
            Step::Prove { provider, proofs } => model.prove(call, *provider, proofs),
            Step::Advance { provider, max } => model.advance(call, *provider, *max),
            Step::CloseDead(id) => model.close_dead(call, *id),
            Step::Ask(id) => model.ask(call, *id),
            Step::Answer { id, proofs } => model.answer(call, *id, proofs),
            Step::Fail(id) => model.fail(call, *id),
            Step::Seal => model.seal(call).map(|_| ()),
        };
        done.map(|()| Vec::new())
    }

    fn in_evm(&mut self, sender: Address, step: &Step) -> Result<Vec<Log>, Vec<u8>> {
        let id = |id: &AgreementId| Abi::uint(id.0);
        let amount = |amount: &Amount| Abi::uint(amount.0);
        let all = |proofs: &[Proof]| Abi::Array(proofs.iter().map(proof).collect());
        let (mut artifact, mut to) = (&MARKET, self.deployment.market);
        if matches!(
            step,
            Step::Register
                | Step::SetOperator { .. }
                | Step::AddStake { .. }
                | Step::WithdrawStake { .. }
                | Step::Leave
        ) {
            (artifact, to) = (&REGISTRY, self.deployment.registry);
        }
        let (function, arguments) = match step {
            Step::Deposit { to, amount: of } => ("deposit", vec![Abi::address(*to), amount(of)]),
            Step::Withdraw { amount: of, to } => ("withdraw", vec![amount(of), Abi::address(*to)]),
            Step::Authorize { signer, cap, until } => {
                ("authorize", vec![Abi::address(*signer), amount(cap), Abi::uint(until.0)])
            }
            Step::Register => {
                ("register", vec![Abi::Word([1; 32]), Abi::Bytes(vec![2; 64]), Abi::Bytes(b"{}".to_vec())])
            }
            Step::SetOperator { operator } => ("setOperator", vec![Abi::address(*operator)]),
            Step::AddStake { provider, amount: of } => {
                ("addStake", vec![Abi::address(*provider), amount(of)])
            }
            Step::WithdrawStake { amount: of, to } => ("withdrawStake", vec![amount(of), Abi::address(*to)]),
            Step::Leave => ("leave", vec![]),
            Step::Activate(proposals) => {
                let messages = proposals.iter().map(|one| digests::proposal(&one.message)).collect();
                let signatures =
                    proposals.iter().map(|one| Abi::Bytes(one.signature.as_bytes().to_vec())).collect();
                ("activate", vec![Abi::Array(messages), Abi::Array(signatures)])
            }
            Step::Revise(revisions) => {
                let messages = revisions.iter().map(|one| digests::revision(&one.revision)).collect();
                let of = |signature: fn(&SignedRevision) -> &[u8; 65]| {
                    Abi::Array(revisions.iter().map(|one| Abi::Bytes(signature(one).to_vec())).collect())
                };
                let (client, provider) =
                    (of(|one| one.of_client.as_bytes()), of(|one| one.of_provider.as_bytes()));
                ("revise", vec![Abi::Array(messages), client, provider])
            }
            Step::MoveOn(ids) => ("moveOn", vec![Abi::Array(ids.iter().map(id).collect())]),
            Step::Reserve { id: of, amount: more } => ("reserve", vec![id(of), amount(more)]),
            Step::AnnounceRelease { id: of, amount: less } => ("announceRelease", vec![id(of), amount(less)]),
            Step::Release(of) => ("release", vec![id(of)]),
            Step::Terminate(of) => ("terminate", vec![id(of)]),
            Step::Prove { provider, proofs } => ("prove", vec![Abi::address(*provider), all(proofs)]),
            Step::Advance { provider, max } => ("advance", vec![Abi::address(*provider), Abi::uint(*max)]),
            Step::CloseDead(of) => ("closeDead", vec![id(of)]),
            Step::Ask(of) => ("ask", vec![id(of)]),
            Step::Answer { id: of, proofs } => ("answer", vec![id(of), all(proofs)]),
            Step::Fail(of) => ("fail", vec![id(of)]),
            Step::Seal => {
                (artifact, to) = (&BEACON, self.deployment.beacon);
                ("seal", vec![])
            }
        };
        self.deployment.send(sender, artifact, to, function, &arguments).map(|(_, logs)| logs)
    }

    fn market(&self, function: &str, arguments: &[Abi]) -> Vec<u8> {
        self.deployment.ask(&MARKET, self.deployment.market, function, arguments)
    }

    /// Every value that the contracts show is the model's, and the money is all there.
    fn compare(&self) {
        let (deployment, model) = (&self.deployment, &self.model);
        let now = self.now();
        for account in &self.accounts {
            let free = Words::of(&self.market("free", &[Abi::address(*account)])).amount();
            assert_eq!(free, model.free(account), "free balance of {account}");
        }
        let told = self.market("totals", &[]);
        let mut totals = Words::of(&told);
        let expected = model.totals();
        for (name, amount) in [
            ("free", expected.free),
            ("locked", expected.locked),
            ("bonded", expected.bonded),
            ("compensation", expected.compensation),
        ] {
            assert_eq!(totals.amount(), amount, "total {name}");
        }
        let held = deployment.ask(&TOKEN, deployment.token, "balanceOf", &[Abi::address(deployment.market)]);
        assert_eq!(Words::of(&held).amount(), model.owed(), "the market holds what it owes");

        let mut unproven = Amount::ZERO;
        for id in (1..=self.opened).map(AgreementId) {
            let agreement = agreement(&self.market("getAgreement", &[Abi::uint(id.0)]));
            assert_eq!(agreement.as_ref(), model.agreement(id), "{id:?}");
            let question = self.market("getQuestion", &[Abi::uint(id.0)]);
            let mut words = Words::of(&question);
            let question = Question { epoch: Epoch(words.u32()), bond: words.amount() };
            let none = Question { epoch: Epoch(0), bond: Amount::ZERO };
            assert_eq!(question, *model.question(id).unwrap_or(&none), "the question about {id:?}");
            let Some(agreement) = agreement else { continue };
            let standing = self.market("standing", &[Abi::uint(id.0)]);
            let mut words = Words::of(&standing);
            let standing = (words.amount(), words.amount());
            assert_eq!(Some(standing), model.standing(id), "the standing of {id:?}");
            unproven = unproven.checked_add(standing.1).unwrap();
            let pair = [Abi::address(agreement.client), Abi::address(agreement.provider)];
            assert_eq!(Words::of(&self.market("agreementOf", &pair)).u32(), id.0);
        }
        assert_eq!(unproven, model.totals().locked, "locked is the unproven escrow of open agreements");

        for provider in &self.providers {
            let address = [Abi::address(*provider)];
            let set = set(&self.market("getSet", &address));
            let expected = model.set(provider).map(|(set, rate)| (set.clone(), rate));
            assert_eq!(set, expected, "the set of {provider}");
            let stake = deployment.ask(&REGISTRY, deployment.registry, "stakeOf", &address);
            let expected = model.provider(provider).map_or(Amount::ZERO, |entry| entry.stake);
            assert_eq!(Words::of(&stake).amount(), expected, "the stake of {provider}");
            let needed = Words::of(&self.market("stakeNeeded", &address)).word();
            let expected = model.stake_needed(provider, &deployment.evm.block()).unwrap();
            assert_eq!(needed, expected.map_or([0xff; 32], |needed| word(needed.0)), "{provider}");
            for epoch in (now.0.saturating_sub(2)..=now.0 + 2).map(Epoch) {
                let at = [Abi::address(*provider), Abi::uint(epoch.0)];
                let outcome = self.market("outcome", &at);
                let mut words = Words::of(&outcome);
                let outcome = (words.bool(), words.bool());
                assert_eq!(outcome, model.outcome(provider, epoch), "{provider} in {epoch:?}");
                assert!(outcome != (true, true), "proven and missed");
                let changes = Words::of(&self.market("changesIn", &at)).u32();
                assert_eq!(
                    changes,
                    model.changes_in(provider, epoch),
                    "changes of {provider} with {epoch:?}"
                );
            }
        }
    }
}

fn proof(proof: &Proof) -> Abi {
    let path = &proof.fragment;
    let fragment = Abi::Tuple(vec![
        Abi::Word(path.fragment.id.0),
        Abi::uint(path.fragment.length),
        Abi::uint(path.fragment.retain_until.0),
        Abi::uint(path.turns),
        Abi::Array(path.hashes.iter().map(|hash| Abi::Word(*hash)).collect()),
        Abi::Array(path.sums.iter().map(|sum| Abi::uint(*sum)).collect()),
    ]);
    let siblings = proof.chunk.siblings.iter().map(|sibling| Abi::Word(*sibling)).collect();
    Abi::Tuple(vec![fragment, Abi::Bytes(proof.chunk.chunk.clone()), Abi::Array(siblings)])
}

fn terms(words: &mut Words<'_>) -> Option<Terms> {
    let terms = Terms {
        set_root: SetRoot(words.word()),
        size: words.u64(),
        rate_per_epoch: Rate::new(words.u128()).unwrap(),
        from: Epoch(words.u32()),
        end: Epoch(words.u32()),
    };
    (terms.from != Epoch(0)).then_some(terms)
}

fn agreement(told: &[u8]) -> Option<Agreement> {
    let words = &mut Words::of(told);
    let client = words.address();
    let (sequence, position) = (words.u32(), words.u32());
    let agreement = Agreement {
        client,
        sequence,
        position,
        ending: words.bool(),
        provider: words.address(),
        retained_bytes: words.u64(),
        retained_until: Epoch(words.u32()),
        escrow: words.amount(),
        current: terms(words),
        next: terms(words),
    };
    (client != Address::ZERO).then_some(agreement)
}

fn set(told: &[u8]) -> Option<(ProofSet, Amount)> {
    let words = &mut Words::of(told);
    let set = ProofSet {
        epoch: Epoch(words.u32()),
        due: words.u32(),
        agreements: words.u32(),
        misses: words.u32(),
        dead_at: Some(Epoch(words.u32())).filter(|epoch| *epoch != Epoch(0)),
        questions: words.u32(),
        rate_max: words.amount(),
    };
    let rate = words.amount();
    (set.agreements != 0).then_some((set, rate))
}

fn skips(logs: &[Log]) -> Skipped {
    let reason = |log: &Log| {
        let mut words = Words::of(&log.data);
        let index = usize::try_from(words.u64()).unwrap();
        // A revision's event has its sequence in between.
        if log.topic == MARKET.topic("RevisionSkipped") {
            words.u32();
        }
        (index, Skip::of(u8::try_from(words.u32()).unwrap()))
    };
    let skipped = [MARKET.topic("ActivationSkipped"), MARKET.topic("RevisionSkipped")];
    logs.iter().filter(|log| skipped.contains(&log.topic)).map(reason).collect()
}

/// A refusal as the contracts' revert.
fn as_revert(refusal: &Refusal) -> Vec<u8> {
    let address = |address: &Address| {
        let mut word = [0; 32];
        word[12..].copy_from_slice(&address.0);
        word
    };
    let overflow = ("Panic(uint256)", vec![word(0x11u32)]);
    let (signature, words) = match refusal {
        Refusal::Balance { wanted, free } => ("Balance(uint256,uint256)", vec![word(wanted.0), word(free.0)]),
        Refusal::NotYours => ("NotYours()", vec![]),
        Refusal::NotOpen(id) => ("NotOpen(uint32)", vec![word(id.0)]),
        Refusal::Behind { set, current } => ("Behind(uint32,uint32)", vec![word(set.0), word(current.0)]),
        Refusal::TermsDue(count) => ("TermsDue(uint32)", vec![word(*count)]),
        Refusal::AlreadyProven(epoch) => ("AlreadyProven(uint32)", vec![word(epoch.0)]),
        Refusal::NothingToProve => ("NothingToProve()", vec![]),
        Refusal::ProofCount { expected, actual } => {
            ("ProofCount(uint256,uint256)", vec![word(*expected), word(*actual as u64)])
        }
        Refusal::WrongChunk(at) => ("WrongChunk(uint256)", vec![word(*at as u64)]),
        Refusal::SetPath(SetPathError::WrongSetPath) => ("WrongSetPath()", vec![]),
        Refusal::SetPath(SetPathError::WrongFragment) => ("WrongFragment()", vec![]),
        Refusal::SetPath(SetPathError::SetPathLength) => ("SetPathLength()", vec![]),
        Refusal::SetPath(SetPathError::Overflow) | Refusal::Overflow => overflow,
        Refusal::ChunkPath(refusal) => return possession::revert(refusal),
        Refusal::SetDead => ("SetDead()", vec![]),
        Refusal::SetAlive => ("SetAlive()", vec![]),
        Refusal::QuestionOpen => ("QuestionOpen()", vec![]),
        Refusal::NoQuestion => ("NoQuestion()", vec![]),
        Refusal::QuestionTime(epoch) => ("QuestionTime(uint32)", vec![word(epoch.0)]),
        Refusal::ReleaseTime(epoch) => ("ReleaseTime(uint32)", vec![word(epoch.0)]),
        Refusal::NotRegistered(provider) => ("NotRegistered(address)", vec![address(provider)]),
        Refusal::StakeNeeded { needed, stake } => {
            let needed = needed.map_or([0xff; 32], |needed| word(needed.0));
            ("StakeNeeded(uint256,uint256)", vec![needed, word(stake.0)])
        }
        Refusal::BeforeGenesis => ("BeforeGenesis()", vec![]),
    };
    [&selector(signature)[..], &words.concat()].concat()
}
