//! Drives the protocol over real connections: HTTP/1.1 over TLS 1.3, both ends proven by their Ed25519 keys.
//!
//! A peer *is* its key (RFC 7250 raw public keys, no certificates and no names); its address is a hint, and whoever
//! else answers there is a typed error. One request is in flight on a connection and a peer has a bounded pool of
//! them, so one slow answer holds nothing up and flow control is the kernel's. Every wait has a deadline, every buffer
//! a bound.
//!
//! [`Server`] and [`Client`] carry any HTTP request; [`ProviderClient`] knows the provider's routes and checks every
//! answer as far as bytes alone allow. What is decided from the answers (whom to ask, whom to blame) is not here.

mod answer;
mod asked;
pub mod bench;
mod body;
mod buffers;
mod client;
mod dial;
mod error;
mod identity;
mod incoming;
mod pace;
mod pages;
mod provider_client;
mod rate;
mod server;
mod slots;
mod stalling;
pub mod testing;
mod tls;

pub use answer::{answer_bytes, answer_json, answer_problem};
pub use asked::asked_now;
pub use body::{Body, BodyError, BodySender, FRAME_BYTES, ReaderGone};
pub use buffers::{Buffer, Buffers};
pub use client::{AnswerMax, Client, ClientLimits};
pub use dial::{BoxedStream, Dial, DialFuture, PeerAddress, PeerAddressError, Stream, TcpDial};
pub use error::{CallError, MalformedAnswer, Phase};
pub use identity::Identity;
pub use incoming::{Incoming, IncomingError};
pub use pace::Progress;
pub use pages::{Page, Pages, serve_pages};
pub use provider_client::{ClaimOutcome, HeadPut, Proof, ProviderClient, Signed};
pub use rate::Rate;
pub use server::{Call, Handler, Server, ServerLimits};
