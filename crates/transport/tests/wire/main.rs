//! Client and server over real sockets, honest and hostile. Every server takes whatever port is free, and nothing waits
//! but for an event or a deadline under test.

// Helpers outside test functions are tests as well.
#![allow(clippy::unwrap_used)]

mod answers;
mod hostile;
mod hostile_provider;
mod identity;
mod payments;
mod pool;
mod provider;
mod support;
