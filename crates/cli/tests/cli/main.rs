//! The program as its users meet it: each test starts the real `seedbank` on a home of its own, with real provider and
//! steward processes, and looks at exit codes, output, disks and processes.
//!
//! Nothing here waits by the clock for something to happen: a test waits for a process to say a line or to end, or looks
//! at a condition until it holds, with a deadline that fails the test. Ports are the system's choice. Whatever a test started is
//! ended with its [`sandbox::Sandbox`], also when the test fails.
//!
//! The long ones are marked `#[ignore]`; `docs/testing.md` says how to run them.

mod aftermath;
mod bad_input;
mod bad_network;
mod bench;
mod big;
mod broken_disk;
mod chain;
mod changes;
mod clocks;
mod demo;
mod deployed;
mod faults;
mod files;
mod frozen;
mod full_disk;
mod interrupted;
mod losses;
mod million;
mod network;
mod operator;
mod paid;
mod paying;
mod program;
mod recovery;
mod registries;
mod round_trip;
mod sandbox;
mod scarce;
mod secrets;
mod survivors;
mod together;
