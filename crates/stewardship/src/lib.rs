//! Decides placement: which providers get a segment's fragments, and into how many it is coded.
//!
//! Everything here is a pure function of its arguments: no clock, no network, no randomness but a seed that is passed
//! in. What the owner wishes is signed elsewhere; the rules here are that wish with every number filled in. A wish
//! that can't be met is an error that says which rule and how many providers satisfy it, never a silent compromise.

pub mod placement;
pub mod scheme;
