//! What a machine must have for a fault to be injected: programs, and the right to use them.
//!
//! On a machine without them a test is skipped and says so. Where every change is checked (`CI` is set and the tests
//! run as root) it fails instead: a fault that nobody injects any more would look like one that is withstood.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A program by its name, also where only root's path leads.
#[must_use]
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether a fault can be injected here: `found` is what was looked for, or what is missing.
///
/// # Panics
/// When it is missing where it must not be.
pub fn or_skip<T>(fault: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(missing) => {
            let is_checked = env::var_os("CI").is_some_and(|ci| !ci.is_empty());
            assert!(!(is_checked && is_root()), "{fault} can't be injected: {missing}");
            eprintln!("SKIPPED: {fault} can't be injected here: {missing}");
            None
        }
    }
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|process| process.uid() == 0)
}

/// Runs a tool with these words.
///
/// # Errors
/// What it said, when it is not there or did not succeed.
pub fn run(words: &[&str]) -> Result<String, String> {
    let (name, arguments) = words.split_first().expect("a command has a name");
    let tool = find_tool(name).ok_or_else(|| format!("there is no {name}"))?;
    let told = || words.join(" ");
    let output =
        Command::new(tool).args(arguments).output().map_err(|error| format!("{}: {error}", told()))?;
    let Output { status, stdout, stderr } = output;
    if !status.success() {
        return Err(format!("{}: {}", told(), String::from_utf8_lossy(&stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{find_tool, run};

    #[test]
    fn tools_are_found_and_say_why_they_failed() {
        assert!(find_tool("sh").is_some() && find_tool("no-such-tool-at-all").is_none());
        assert_eq!(run(&["sh", "-c", "echo yes"]), Ok("yes\n".to_owned()));
        assert_eq!(
            run(&["sh", "-c", "echo no >&2; exit 3"]),
            Err("sh -c echo no >&2; exit 3: no".to_owned())
        );
        assert_eq!(run(&["no-such-tool-at-all"]), Err("there is no no-such-tool-at-all".to_owned()));
    }
}
