//! The command line of Seedbank.

fn main() {}
