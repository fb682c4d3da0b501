//! The client against providers in this process, over real sockets. Every port is whatever is free, and nothing waits
//! but for an event.

// Helpers outside test functions are tests as well.
#![allow(clippy::unwrap_used)]

#[path = "network/read/main.rs"]
mod read;
