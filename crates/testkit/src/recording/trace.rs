//! Reading what `strace` wrote.

use super::{At, Call};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// Everything that can change a file or a folder, or where the next such call goes.
pub(super) const CALLS: &str = "trace=open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,read,readv,lseek,write,writev,\
    pwrite64,pwritev,pwritev2,fsync,fdatasync,sync,syncfs,sync_file_range,ftruncate,truncate,fallocate,rename,renameat,\
    renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,mmap,copy_file_range,sendfile,splice";

/// An open file or folder.
#[derive(Clone)]
struct Opened {
    path: PathBuf,
    /// Set for files inside the watched folder.
    handle: Option<usize>,
    offset: u64,
    appends: bool,
}

/// What is known while the log is read.
pub(super) struct Trace<'a> {
    root: &'a Path,
    marks: &'a Path,
    opened: HashMap<i64, Opened>,
    /// Halves of calls that another thread interrupted in the log.
    unfinished: HashMap<String, String>,
    handles: usize,
    calls: Vec<Call>,
}

impl<'a> Trace<'a> {
    pub(super) fn new(root: &'a Path, marks: &'a Path) -> Trace<'a> {
        let (opened, unfinished) = (HashMap::new(), HashMap::new());
        Trace { root, marks, opened, unfinished, handles: 0, calls: Vec::new() }
    }

    pub(super) fn read(mut self, log: &str) -> Vec<Call> {
        for line in log.lines() {
            let (pid, text) = line.split_once(' ').unwrap_or_else(|| panic!("not a line of strace: {line}"));
            let text = text.trim_start();
            if text.starts_with("+++") || text.starts_with("---") {
                continue;
            }
            if let Some(begin) = text.strip_suffix(" <unfinished ...>") {
                self.unfinished.insert(pid.to_owned(), begin.to_owned());
                continue;
            }
            let whole = match text.strip_prefix("<... ") {
                Some(rest) => {
                    let (_, rest) = rest.split_once(" resumed>").expect("strace resumes a call by name");
                    self.unfinished.remove(pid).expect("a resumed call was begun") + rest
                }
                None => text.to_owned(),
            };
            self.call(&whole);
        }
        self.calls
    }

    fn call(&mut self, text: &str) {
        let understood = || {
            let (name, rest) = text.split_once('(')?;
            let (arguments, result) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(") "))?;
            let result = result.trim_start_matches([' ', '=']).split(' ').next()?;
            let result = match result.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16).ok()?,
                None => result.parse::<i64>().ok()?,
            };
            let arguments = arguments.trim_end_matches(')').split(", ").map(str::to_owned);
            let arguments = arguments.collect::<Vec<_>>();
            Some((name.to_owned(), arguments, result))
        };
        let shown = &text[..text.len().min(300)];
        // A process that ended in a call shows no result.
        let Some((name, arguments, result)) = understood() else {
            assert!(text.contains("= ?"), "not understood: {shown}");
            return;
        };
        if result >= 0 && self.effect(&name, &arguments, result).is_none() {
            panic!("not understood: {shown}");
        }
    }

    /// `None` when the call can't be repeated.
    fn effect(&mut self, name: &str, arguments: &[String], result: i64) -> Option<()> {
        let number = |at: usize| arguments.get(at)?.parse::<i64>().ok();
        let text = |at: usize| arguments.get(at).map(String::as_str);
        match name {
            "open" => self.open(self.path(None, text(0)?)?, text(1)?, result),
            "creat" => self.open(self.path(None, text(0)?)?, "O_WRONLY|O_CREAT|O_TRUNC", result),
            "openat" => self.open(self.path(Some(text(0)?), text(1)?)?, text(2)?, result),
            "close" => drop(self.opened.remove(&number(0)?)),
            "dup" | "dup2" | "dup3" => self.duplicate(number(0)?, result),
            "fcntl" if text(1)?.starts_with("F_DUPFD") => self.duplicate(number(0)?, result),
            "fcntl" => {}
            "read" | "readv" => self.advance(number(0)?, result),
            "lseek" => {
                if let Some(file) = self.opened.get_mut(&number(0)?) {
                    file.offset = u64::try_from(result).ok()?;
                }
            }
            "write" => self.write(number(0)?, None, text(1)?, result)?,
            "pwrite64" => self.write(number(0)?, Some(u64::try_from(number(3)?).ok()?), text(1)?, result)?,
            "ftruncate" => {
                if let Some(handle) = self.handle(number(0)?) {
                    self.calls.push(Call::Truncate { handle, length: u64::try_from(number(1)?).ok()? });
                }
            }
            "fsync" | "fdatasync" => self.sync(number(0)?),
            "rename" => self.rename(self.path(None, text(0)?)?, self.path(None, text(1)?)?)?,
            "renameat" | "renameat2" => {
                let (from, to) = (self.path(text(0), text(1)?)?, self.path(text(2), text(3)?)?);
                self.rename(from, to)?;
            }
            "unlink" => self.remove(&self.path(None, text(0)?)?),
            "unlinkat" if text(2)? == "0" => self.remove(&self.path(text(0), text(1)?)?),
            "mkdir" => self.make_folder(&self.path(None, text(0)?)?),
            "mkdirat" => self.make_folder(&self.path(text(0), text(1)?)?),
            "mmap" => {
                let shared = text(3)?.contains("MAP_SHARED") && text(2)?.contains("PROT_WRITE");
                if shared && number(4).is_some_and(|fd| self.handle(fd).is_some()) {
                    return None;
                }
            }
            // Anything else is only a concern inside the watched folder.
            _ => return self.is_outside(arguments).then_some(()),
        }
        Some(())
    }

    /// Whether no argument names something that is watched.
    fn is_outside(&self, arguments: &[String]) -> bool {
        arguments.iter().all(|argument| match argument.parse::<i64>() {
            Ok(fd) => self.handle(fd).is_none(),
            Err(_) => self.path(None, argument).is_none_or(|path| self.inside(&path).is_none()),
        })
    }

    fn open(&mut self, path: PathBuf, flags: &str, fd: i64) {
        let mut opened = Opened { path, handle: None, offset: 0, appends: flags.contains("O_APPEND") };
        if let Some(inner) = self.inside(&opened.path)
            && !flags.contains("O_DIRECTORY")
            && (flags.contains("O_WRONLY") || flags.contains("O_RDWR"))
        {
            opened.handle = Some(self.handles);
            let truncate = flags.contains("O_TRUNC");
            self.calls.push(Call::Open { handle: self.handles, path: inner, truncate });
            self.handles += 1;
        }
        self.opened.insert(fd, opened);
    }

    fn duplicate(&mut self, from: i64, to: i64) {
        if let Some(file) = self.opened.get(&from).cloned() {
            self.opened.insert(to, file);
        }
    }

    fn advance(&mut self, fd: i64, by: i64) {
        if let Some(file) = self.opened.get_mut(&fd) {
            file.offset += u64::try_from(by).unwrap_or(0);
        }
    }

    fn write(&mut self, fd: i64, at: Option<u64>, text: &str, written: i64) -> Option<()> {
        let Some(file) = self.opened.get(&fd).cloned() else { return Some(()) };
        let is_mark = file.path == self.marks;
        if file.handle.is_none() && !is_mark {
            return Some(());
        }
        let mut bytes = bytes(text)?;
        bytes.truncate(usize::try_from(written).ok()?);
        if is_mark {
            let said = String::from_utf8(bytes).ok()?;
            self.calls.extend(said.lines().map(|line| Call::Mark(line.to_owned())));
            return Some(());
        }
        let at_end = if file.appends { At::End } else { At::Offset(file.offset) };
        self.calls.push(Call::Write { handle: file.handle?, at: at.map_or(at_end, At::Offset), bytes });
        if at.is_none() {
            self.advance(fd, written);
        }
        Some(())
    }

    fn sync(&mut self, fd: i64) {
        let Some(file) = self.opened.get(&fd) else { return };
        if let Some(handle) = file.handle {
            self.calls.push(Call::Sync { handle });
        } else if let Some(path) = self.inside(&file.path) {
            // A file that was opened for reading only, or a folder: the disk knows which.
            let call = match file.path.is_dir() {
                true => Call::SyncFolder { path },
                false => {
                    let handle = self.handles;
                    self.handles += 1;
                    self.calls.push(Call::Open { handle, path, truncate: false });
                    Call::Sync { handle }
                }
            };
            self.calls.push(call);
        }
    }

    fn rename(&mut self, from: PathBuf, to: PathBuf) -> Option<()> {
        match (self.inside(&from), self.inside(&to)) {
            (None, None) => {}
            (Some(from), Some(to)) => self.calls.push(Call::Rename { from, to }),
            // In or out of what is watched.
            _ => return None,
        }
        Some(())
    }

    fn remove(&mut self, path: &Path) {
        if let Some(path) = self.inside(path) {
            self.calls.push(Call::Remove { path });
        }
    }

    fn make_folder(&mut self, path: &Path) {
        if let Some(path) = self.inside(path) {
            self.calls.push(Call::MakeFolder { path });
        }
    }

    fn handle(&self, fd: i64) -> Option<usize> {
        self.opened.get(&fd).and_then(|file| file.handle)
    }

    /// The whole path that a call names.
    fn path(&self, folder: Option<&str>, name: &str) -> Option<PathBuf> {
        let name = PathBuf::from(String::from_utf8(bytes(name)?).ok()?);
        if name.is_absolute() {
            return Some(name);
        }
        let folder = match folder.unwrap_or("AT_FDCWD") {
            // Recorded programs name what is watched by whole paths, or go there first.
            "AT_FDCWD" => self.root.to_owned(),
            fd => self.opened.get(&fd.parse().ok()?)?.path.clone(),
        };
        Some(folder.join(name))
    }

    /// The path inside the watched folder; `None` outside, and for what is left out.
    fn inside(&self, path: &Path) -> Option<String> {
        let inner = path.strip_prefix(self.root).ok()?;
        let parts = inner.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_str().expect("names in tests are text")),
            _ => None,
        });
        let inner = parts.collect::<Vec<_>>().join("/");
        (!inner.ends_with("-shm")).then_some(inner)
    }
}

/// The bytes of a string as `strace -xx` shows it.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let hex = text.strip_prefix('"')?.strip_suffix('"')?;
    hex.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Trace, bytes};
    use crate::recording::{At, Call};
    use std::path::Path;

    fn hex(text: &str) -> String {
        let hex = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        format!("\"{hex}\"")
    }

    fn read(log: &str) -> Vec<Call> {
        Trace::new(Path::new("/watched"), Path::new("/marks")).read(log)
    }

    #[test]
    fn calls_of_two_threads_are_put_together() {
        let log = format!(
            "1 openat(AT_FDCWD, {}, O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5\n\
             1 write(5, {}, 2 <unfinished ...>\n2 write(9, {}, 1) = 1\n1 <... write resumed>) = 2\n\
             1 write(5, {}, 1)           = 1\n1 fsync(5) = 0\n1 +++ exited with 0 +++\n",
            hex("/watched/a"),
            hex("ab"),
            hex("x"),
            hex("c"),
        );
        let expected = [
            Call::Open { handle: 0, path: "a".into(), truncate: false },
            Call::Write { handle: 0, at: At::Offset(0), bytes: b"ab".to_vec() },
            Call::Write { handle: 0, at: At::Offset(2), bytes: b"c".to_vec() },
            Call::Sync { handle: 0 },
        ];
        assert_eq!(read(&log), expected);
    }

    #[test]
    fn failed_calls_and_other_folders_are_left_out() {
        let log = format!(
            "1 unlink({}) = -1 ENOENT (No such file or directory)\n1 unlink({}) = 0\n1 rename({}, {}) = 0\n",
            hex("/watched/a"),
            hex("/else/a"),
            hex("/watched/a"),
            hex("/watched/b"),
        );
        assert_eq!(read(&log), [Call::Rename { from: "a".into(), to: "b".into() }]);
    }

    #[test]
    #[should_panic(expected = "not understood")]
    fn changes_that_are_not_known_are_never_left_out() {
        read(&format!("1 link({}, {}) = 0\n", hex("/watched/a"), hex("/watched/b")));
    }

    #[test]
    fn strings_that_strace_cut_are_refused() {
        assert_eq!(bytes("\"\\x61\\x62\""), Some(b"ab".to_vec()));
        assert_eq!(bytes("\"\\x61\"..."), None);
    }
}
