//! A result of many rows, printed as they come: lines of text, or one JSON array.

use super::DataFormat;
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;

/// Rows on their way out.
pub(crate) struct Rows<W: Write> {
    out: BufWriter<W>,
    format: DataFormat,
    count: u64,
}

impl<W: Write> Rows<W> {
    pub(super) fn new(out: W, format: DataFormat) -> Rows<W> {
        Rows { out: BufWriter::with_capacity(1 << 16, out), format, count: 0 }
    }

    /// Whether there was no row so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Prints a row. Break: whoever reads has seen enough.
    ///
    /// # Errors
    /// The output failed.
    pub(crate) fn push<T: Serialize>(
        &mut self,
        row: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<ControlFlow<()>> {
        let written = match self.format {
            DataFormat::Text => writeln!(self.out, "{}", text(row)),
            DataFormat::Json => {
                let before = if self.is_empty() { b"[" } else { b"," };
                self.out.write_all(before).and_then(|()| Ok(serde_json::to_writer(&mut self.out, row)?))
            }
        };
        self.count += 1;
        go_on(written)
    }

    /// Ends the result.
    ///
    /// # Errors
    /// The output failed.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let end = match (self.format, self.is_empty()) {
            (DataFormat::Text, _) => "",
            (DataFormat::Json, false) => "]\n",
            (DataFormat::Json, true) => "[]\n",
        };
        go_on(self.out.write_all(end.as_bytes()).and_then(|()| self.out.flush())).map(drop)
    }
}

/// A closed pipe ends the rows and is no failure.
fn go_on(written: io::Result<()>) -> io::Result<ControlFlow<()>> {
    match written {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{DataFormat, Rows};
    use std::io::{self, Write};

    fn printed(format: DataFormat, rows: &[&str]) -> String {
        let mut out = Vec::new();
        let mut printed = Rows::new(&mut out, format);
        for row in rows {
            assert!(printed.push(row, |row| format!("<{row}>")).unwrap().is_continue());
        }
        printed.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_lines_or_one_array() {
        assert_eq!(printed(DataFormat::Text, &["a", "b"]), "<a>\n<b>\n");
        assert_eq!(printed(DataFormat::Text, &[]), "");
        assert_eq!(printed(DataFormat::Json, &["a", "b"]), "[\"a\",\"b\"]\n");
        assert_eq!(printed(DataFormat::Json, &[]), "[]\n");
    }

    /// Takes so many bytes, then fails.
    struct Ends(usize, io::ErrorKind);

    impl Write for Ends {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.checked_sub(bytes.len()) {
                Some(left) => self.0 = left,
                None => return Err(self.1.into()),
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn rows_leave_as_they_come_and_stop_when_nobody_reads() {
        let row = "r".repeat(1000);
        let push = |kind| {
            let mut rows = Rows::new(Ends(200_000, kind), DataFormat::Text);
            let pushed = (0..1000)
                .map(|_| rows.push(&row, String::clone))
                .find(|pushed| !matches!(pushed, Ok(flow) if flow.is_continue()));
            assert!(rows.count < 400, "they are not kept until the end");
            pushed.unwrap()
        };
        assert!(push(io::ErrorKind::BrokenPipe).unwrap().is_break());
        assert_eq!(push(io::ErrorKind::StorageFull).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
