//! What an error means for whoever started the program.

use crate::keystore::ParseProviderAddressError;
use crate::logging::UnknownLevel;
use crate::output::{Exit, ParseBytesError};
use crate::target::TargetError;
use seedbank_client::RangeError;
use seedbank_client::glob::ParsePatternError;
use seedbank_client::pull::{CatError, PullError, VerifyError, WrongSha256};
use seedbank_client::reader::ReadError;
use seedbank_client::snapshot::SnapshotError;
use seedbank_formats::path::PathError;
use std::io::{self, Write};
use std::net::AddrParseError;

/// The exit code of an error: 3 when data or proof did not match, 2 when the command makes no sense, else 1.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    // Of a path that was typed it is the whole error; of one on a disk it is the reason.
    if error.is::<PathError>() {
        return Exit::Usage;
    }
    let mut exit = Exit::Failed;
    for cause in error.chain() {
        if is_usage(cause) {
            return Exit::Usage;
        }
        if is_unverified(cause) {
            exit = Exit::Unverified;
        }
    }
    exit
}

/// Whether something that was typed can't be read: no network and no file was asked.
fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<TargetError>()
        || cause.is::<ParsePatternError>()
        || cause.is::<ParseProviderAddressError>()
        || cause.is::<ParseBytesError>()
        || cause.is::<UnknownLevel>()
        || cause.is::<AddrParseError>()
}

fn is_unverified(cause: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<PullError>() {
        return matches!(error, PullError::Read(error) if read_is_unverified(error));
    }
    if let Some(error) = cause.downcast_ref::<VerifyError>() {
        return match error {
            VerifyError::Read(error) => read_is_unverified(error),
            VerifyError::Sha256(_) => true,
        };
    }
    if let Some(error) = cause.downcast_ref::<CatError>() {
        return matches!(error, CatError::Read(error) if read_is_unverified(error));
    }
    if let Some(error) = cause.downcast_ref::<SnapshotError>() {
        return match error {
            SnapshotError::Read(error) => read_is_unverified(error),
            SnapshotError::Signature { .. }
            | SnapshotError::WrongId { .. }
            | SnapshotError::WrongAuthor { .. } => true,
        };
    }
    if let Some(error) = cause.downcast_ref::<ReadError>() {
        return read_is_unverified(error);
    }
    cause.is::<WrongSha256>()
}

fn read_is_unverified(error: &ReadError) -> bool {
    match error {
        ReadError::Range(RangeError::WriterFault { .. })
        | ReadError::Broken(_)
        | ReadError::WrongPlace { .. }
        | ReadError::WrongLength { .. }
        | ReadError::WrongItem(_) => true,
        ReadError::Range(RangeError::Unavailable { .. } | RangeError::BrokenPlacement { .. })
        | ReadError::Placement(_)
        | ReadError::NoKey(_)
        | ReadError::NoSuchPath(_)
        | ReadError::NotAFile(_)
        | ReadError::Stopped => false,
    }
}

/// Tells the error with its causes, each once.
pub(crate) fn complain(error: &anyhow::Error) -> io::Result<()> {
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent errors and those that quote their source would say it twice.
        if !last.contains(&cause) {
            text.push_str(&format!("\n  because {cause}"));
        }
        last = cause;
    }
    writeln!(io::stderr().lock(), "{text}")
}
