//! What an error means for whoever started the program.

use crate::keystore::ParseProviderAddressError;
use crate::logging::UnknownLevel;
use crate::output::{Exit, ParseBytesError};
use crate::target::TargetError;
use seedbank_client::RangeError;
use seedbank_client::glob::ParsePatternError;
use seedbank_client::pull::{CatError, PullError, VerifyError, WrongSha256};
use seedbank_client::push::PushError;
use seedbank_client::reader::ReadError;
use seedbank_client::snapshot::SnapshotError;
use seedbank_devchain::Stopped;
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
    if let Some(error) = read_error(cause) {
        return read_is_unverified(error);
    }
    if matches!(cause.downcast_ref(), Some(VerifyError::Sha256(_))) {
        return true;
    }
    let unsigned = |error: &SnapshotError| match error {
        SnapshotError::Signature { .. }
        | SnapshotError::WrongId { .. }
        | SnapshotError::WrongAuthor { .. } => true,
        SnapshotError::Read(_) => false,
    };
    cause.downcast_ref().is_some_and(unsigned)
        || cause.is::<WrongSha256>()
        || matches!(cause.downcast_ref(), Some(Stopped::Diverged(_)))
}

/// The read that a cause is about: errors that only pass it on hide it from the chain.
fn read_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a ReadError> {
    if let Some(PullError::Read(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(VerifyError::Read(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(CatError::Read(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(SnapshotError::Read(error)) = cause.downcast_ref() {
        return Some(error);
    }
    if let Some(PushError::Read(error)) = cause.downcast_ref() {
        return Some(error);
    }
    cause.downcast_ref()
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
        | ReadError::IsAFolder(_)
        | ReadError::IsALink(_)
        | ReadError::Stopped => false,
    }
}

/// What to do about a cause that the network or its disks gave, and that may be over later.
fn advice(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(PushError::NotPlaced { .. } | PushError::Unmet(_)) = cause.downcast_ref::<PushError>() {
        return Some(
            "run the same push again when more providers take fragments: what is stored is kept; \
             `seedbank provider add` makes more known",
        );
    }
    match read_error(cause) {
        Some(ReadError::Range(RangeError::Unavailable { .. })) => Some(
            "try again when more of these providers can be reached: nothing is lost while their disks are whole",
        ),
        _ => None,
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
    if let Some(advice) = error.chain().find_map(advice) {
        text.push_str(&format!("\n  {advice}"));
    }
    writeln!(io::stderr().lock(), "{text}")
}
