//! Client and server over real sockets, honest and hostile. Every server takes whatever port is free, and nothing waits
//! but for an event or a deadline under test.

mod answers;
mod hostile;
mod identity;
mod pool;
mod provider;
mod support;
