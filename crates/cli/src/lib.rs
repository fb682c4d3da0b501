//! The command line of Seedbank.
