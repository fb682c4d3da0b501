//! The daemon in this process, asked by the real client over real sockets. Every port is whatever is free, and nothing
//! waits but for an event.

// Helpers outside test functions are tests as well.
#![allow(clippy::unwrap_used)]

mod access;
mod child;
mod claims;
mod descriptors;
mod disk;
mod fragments;
mod heads;
mod hostile;
mod life;
mod support;
