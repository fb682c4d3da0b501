//! What people and scripts see: data on standard output (text, or JSON with `--json`), talk on standard error, and four
//! exit codes.

mod rows;
mod table;
mod units;

pub(crate) use rows::Rows;
pub(crate) use table::{Align, table};
pub(crate) use units::{ParseBytesError, bytes, count, duration, parse_bytes, rate, tokens};

use serde::Serialize;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// How the program ended. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done,
    /// Something could not be done.
    Failed,
    /// The command makes no sense as typed.
    Usage,
    /// Data or a proof did not match what was signed.
    Unverified,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unverified => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// What standard output carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataFormat {
    /// For people.
    Text,
    /// One JSON value a line.
    Json,
}

/// Whether the program talks while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    /// It tells what it does.
    Tell,
    /// It tells only what goes wrong.
    Quiet,
}

/// Where a command puts its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: DataFormat,
    talk: Talk,
}

impl Output {
    /// Output in this format.
    pub(crate) const fn new(format: DataFormat, talk: Talk) -> Output {
        Output { format, talk }
    }

    /// The format of the data.
    pub(crate) const fn format(self) -> DataFormat {
        self.format
    }

    /// Whether only failures are told.
    pub(crate) fn is_quiet(self) -> bool {
        self.talk == Talk::Quiet
    }

    /// Prints a command's result: as one line of JSON, or as `text` makes it for people.
    ///
    /// # Errors
    /// Standard output failed. That a reader such as `head` has seen enough is no failure.
    pub(crate) fn data<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let written = match self.format {
            DataFormat::Text => text(value),
            DataFormat::Json => serde_json::to_string(value).map_err(io::Error::other)?,
        };
        let mut out = io::stdout().lock();
        seen_enough(writeln!(out, "{}", written.trim_end_matches('\n')).and_then(|()| out.flush()))
    }

    /// Begins a result of any number of rows, which are printed as they come.
    pub(crate) fn rows(self) -> Rows<io::Stdout> {
        Rows::new(io::stdout(), self.format)
    }

    /// Says something to the person who waits.
    pub(crate) fn say(self, line: fmt::Arguments<'_>) {
        if self.talk == Talk::Tell {
            self.complain(line);
        }
    }

    /// Says something that must not be missed, however quiet.
    pub(crate) fn complain(self, line: fmt::Arguments<'_>) {
        // When nobody listens there is nobody to tell.
        let _unheard = writeln!(io::stderr().lock(), "{line}");
    }
}

/// A closed pipe means that the reader has what it wanted.
pub(crate) fn seen_enough(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{Exit, seen_enough};
    use std::io::{Error, ErrorKind};

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Unverified].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }

    #[test]
    fn reader_that_left_is_no_failure_and_a_full_disk_is() {
        assert!(seen_enough(Err(Error::from(ErrorKind::BrokenPipe))).is_ok());
        assert!(seen_enough(Err(Error::from(ErrorKind::StorageFull))).is_err());
    }
}
