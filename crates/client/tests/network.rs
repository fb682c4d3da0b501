//! The client against real providers in this process, over real sockets. Every port is whatever is free, and nothing
//! waits but for an event.

// Helpers outside test functions are tests as well.
#![allow(clippy::unwrap_used)]

#[path = "network/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of networks that are paid")]
mod harness;
#[path = "network/old_books.rs"]
mod old_books;
#[path = "network/paid/main.rs"]
mod paid;
#[path = "network/push_commit.rs"]
mod push_commit;
#[path = "network/push_placing.rs"]
mod push_placing;
#[path = "network/push_races.rs"]
mod push_races;
#[path = "network/push_reuse.rs"]
mod push_reuse;
#[path = "network/push_stream.rs"]
mod push_stream;
#[path = "network/read/main.rs"]
mod read;
