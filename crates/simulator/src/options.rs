//! What a seed stands for: how many nodes, which code, which faults and how often.
//!
//! Faults are switched on one by one ("swizzled"), so that most seeds have some of them and few have all: a fault that
//! is always there hides what happens without it.

use crate::random::Random;
use std::time::Duration;

/// How a provider lies. It does in most of its answers, and is honest in the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Plain answers are wrong; proofs are right.
    WrongBytes,
    /// Signed for bytes that are not the fragment's.
    WrongProof,
    /// A statement about something else, or signed by another key.
    WrongStatement,
    /// Signed admission of rot that there is not.
    SignedRot,
    /// Signed denial of what it acknowledged.
    Denial,
    /// Receipts for what it threw away.
    UndurableReceipt,
    /// Receipts for another fragment.
    ReceiptForOther,
    /// Receipts for another length.
    ReceiptLength,
    /// Receipts that ended long ago.
    ReceiptTime,
    /// Receipts and statements signed by another key.
    ForgedSignature,
    /// What it answered the question before.
    OtherQuestion,
    /// Wrong lengths and garbage.
    Garbage,
    /// It takes questions and never answers.
    Silent,
}

const LIES: [Lie; 13] = [
    Lie::WrongBytes,
    Lie::WrongProof,
    Lie::WrongStatement,
    Lie::SignedRot,
    Lie::Denial,
    Lie::UndurableReceipt,
    Lie::ReceiptForOther,
    Lie::ReceiptLength,
    Lie::ReceiptTime,
    Lie::ForgedSignature,
    Lie::OtherQuestion,
    Lie::Garbage,
    Lie::Silent,
];

/// Something that strikes a node or a link now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A link passes nothing for a while, in both directions or one.
    Partition,
    /// A provider loses power and comes back.
    ProviderCrash,
    /// A client ends and starts again with what it had recorded.
    ClientCrash,
    /// A provider is slow for a while.
    Slow,
    /// A provider's disk is full for a while.
    FullDisk,
    /// A provider's disk fails a sync.
    FailedSync,
    /// A bit flips in a provider's volumes.
    BitRot,
    /// A node's wall clock jumps.
    ClockJump,
}

const FAULTS: [Fault; 8] = [
    Fault::Partition,
    Fault::ProviderCrash,
    Fault::ClientCrash,
    Fault::Slow,
    Fault::FullDisk,
    Fault::FailedSync,
    Fault::BitRot,
    Fault::ClockJump,
];

/// A bug planted into the simulation's own shells, to show that the checks find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The client takes any answer to a PUT for a receipt.
    ReceiptNotVerified,
    /// The client takes a slice without checking its proof.
    ProofNotChecked,
    /// The client takes plain bytes although their seal did not open.
    SealNotChecked,
    /// The provider signs receipts when the last byte has come, and stores after.
    AcknowledgedBeforeSync,
    /// A second attempt sends the fragment of another index.
    HedgeLosesIndex,
    /// The first receipt's claim is released with the others.
    WinnerReleased,
    /// A client that starts again takes what it had begun for done.
    ResumeSkips,
    /// The client forgets to give back what it does not want, and renews it.
    LoserRenewed,
    /// A release says when it was sent, and not when it was decided.
    ReleaseDatedLate,
}

/// All of them.
pub const BUGS: [Bug; 9] = [
    Bug::ReceiptNotVerified,
    Bug::ProofNotChecked,
    Bug::SealNotChecked,
    Bug::AcknowledgedBeforeSync,
    Bug::HedgeLosesIndex,
    Bug::WinnerReleased,
    Bug::ResumeSkips,
    Bug::LoserRenewed,
    Bug::ReleaseDatedLate,
];

/// How a run goes, expanded from its seed.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Clients, each with a dataset of its own.
    pub clients: usize,
    /// Providers, liars included.
    pub providers: usize,
    /// `k`.
    pub data: usize,
    /// `n`.
    pub total: usize,
    /// The fewest receipts.
    pub minimum: usize,
    /// Segments that each client pushes.
    pub segments: usize,
    /// The longest chunk, in bytes.
    pub chunk_bytes_max: u64,
    /// How long faults strike.
    pub chaos: Duration,
    /// The longest usual time of one way between two nodes, in milliseconds.
    pub latency_ms_max: u64,
    /// Calls of a thousand whose connection is cut.
    pub cuts: u64,
    /// Requests of a thousand that arrive twice.
    pub duplicates: u64,
    /// Requests and answers of a thousand that are held up for seconds.
    pub stalls: u64,
    /// Calls of a thousand during which the provider loses power.
    pub crashes_in_calls: u64,
    /// The mean time between faults, in milliseconds.
    pub fault_every_ms: u64,
    /// What may strike.
    pub faults: Vec<Fault>,
    /// The lies of the first providers; the others are honest.
    pub liars: Vec<Lie>,
    /// Items of a thousand that their writer damages.
    pub writer_damage: u64,
    /// The bug to plant, if any.
    pub bug: Option<Bug>,
}

impl Options {
    /// Expands a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Options {
        let mut random = Random::new(seed, 1);
        let schemes = [(1, 2), (1, 3), (2, 4), (2, 5), (3, 6), (4, 8), (2, 3), (5, 7)];
        let (data, total) = *random.pick(&schemes);
        let minimum = random.between(data as u64, total as u64);
        let liars = match random.below(4) {
            0 => 0,
            1 => 1,
            _ => random.index(total - data + 1),
        };
        let liars: Vec<Lie> = (0..liars).map(|_| *random.pick(&LIES)).collect();
        // Mostly enough honest providers for every fragment, sometimes too few.
        let spare = if random.chance(150) { 0 } else { liars.len() + random.index(4) };
        let rate = |random: &mut Random, most: u64| {
            if random.chance(500) { random.between(1, most) } else { 0 }
        };
        Options {
            seed,
            clients: 1 + random.index(3),
            providers: total + spare,
            data,
            total,
            minimum: usize::try_from(minimum).expect("at most 255"),
            segments: 1 + random.index(3),
            chunk_bytes_max: if random.chance(100) { 40_000 } else { 1500 },
            chaos: random.millis(10_000, 90_000),
            latency_ms_max: random.between(2, 200),
            cuts: rate(&mut random, 150),
            duplicates: rate(&mut random, 150),
            stalls: rate(&mut random, 100),
            crashes_in_calls: rate(&mut random, 40),
            fault_every_ms: random.between(500, 10_000),
            faults: FAULTS.into_iter().filter(|_| random.chance(400)).collect(),
            liars,
            writer_damage: if random.chance(150) { 200 } else { 0 },
            bug: None,
        }
    }

    /// Providers that never lie.
    #[must_use]
    pub fn honest(&self) -> usize {
        self.providers - self.liars.len()
    }
}
