//! Why a call failed, by what the caller does next.

use seedbank_formats::PublicKey;
use seedbank_formats::receipt::SignedError;
use seedbank_protocol::answers::AnswerError;
use seedbank_protocol::messages::{MessageError, Problem};
use std::io;

/// Why a call gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers, or the connection broke: ask another provider now, this one again later. The address may be
    /// out of date.
    #[error("peer {peer} can't be reached at {address}")]
    Unreachable {
        /// Who was dialled.
        peer: PublicKey,
        /// Where.
        address: String,
        /// What the network said.
        #[source]
        source: io::Error,
    },
    /// Another peer lives at the address: look up the right address. Nothing was sent to it.
    #[error("peer {expected} was dialled at {address}, but {found} answers there")]
    WrongPeer {
        /// Who was dialled.
        expected: PublicKey,
        /// Who answered.
        found: PublicKey,
        /// Where.
        address: String,
    },
    /// The peer speaks no version of the protocol that we know: one of us must be updated.
    #[error("peer {peer} at {address} does not speak {}", seedbank_protocol::routes::ALPN)]
    WrongVersion {
        /// Who was dialled.
        peer: PublicKey,
        /// Where.
        address: String,
    },
    /// The peer understood and refused: its code says what may help.
    #[error("peer {peer} refused: {problem}")]
    Refused {
        /// Who refused.
        peer: PublicKey,
        /// Why.
        problem: Problem,
    },
    /// The answer is not what the protocol says it must be: rank the peer down, ask another.
    #[error("peer {peer} gave a malformed answer")]
    Malformed {
        /// Who answered.
        peer: PublicKey,
        /// What is wrong with it.
        #[source]
        reason: MalformedAnswer,
    },
    /// The peer is there and missed a deadline: ask another, and this one less.
    #[error("peer {peer} is too slow while {phase}")]
    Slow {
        /// Who was asked.
        peer: PublicKey,
        /// What it was slow at.
        phase: Phase,
    },
}

/// What a peer was slow at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Taking the request.
    Sending,
    /// Beginning its answer.
    Answering,
    /// Sending its answer's body.
    Receiving,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Phase::Sending => "taking the request",
            Phase::Answering => "beginning its answer",
            Phase::Receiving => "sending its answer",
        })
    }
}

/// How an answer breaks the protocol.
#[derive(Debug, thiserror::Error)]
pub enum MalformedAnswer {
    /// It is no HTTP.
    #[error("it is no HTTP")]
    NotHttp(#[source] hyper::Error),
    /// Its body is longer than what was asked for.
    #[error("its body is longer than the {limit} bytes asked for")]
    TooLong {
        /// The most that was asked for.
        limit: usize,
    },
    /// Its body has not the length that was asked for.
    #[error("its body has {actual} bytes instead of {expected}")]
    WrongLength {
        /// What was asked for.
        expected: usize,
        /// What came.
        actual: usize,
    },
    /// Its status means nothing on this route.
    #[error("its status {0} has no meaning here")]
    Status(u16),
    /// A message in it does not read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Something signed in it does not read, or the signature does not fit.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It is well-formed and answers another question.
    #[error("its {0} is not what was asked for")]
    Mismatch(&'static str),
}

impl From<AnswerError> for MalformedAnswer {
    fn from(error: AnswerError) -> MalformedAnswer {
        match error {
            AnswerError::Signed(error) => MalformedAnswer::Signed(error),
            AnswerError::Mismatch(what) => MalformedAnswer::Mismatch(what),
        }
    }
}
