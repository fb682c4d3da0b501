//! A test of the running test program in a process of its own, for what ends with a process: to be killed, or to have limits.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Such a process; killed (SIGKILL: nothing is flushed, nobody says goodbye) when this is dropped.
#[derive(Debug)]
pub struct Again {
    child: Child,
}

impl Again {
    /// Starts the ignored test of this name with `variable` set to `folder`, waits until it says `word`, and gives what stands behind that in
    /// its line. The test returns at once where the variable is not set, so that a run of all ignored tests passes it by.
    ///
    /// # Panics
    /// If it can't be started, or ends before.
    #[must_use]
    pub fn start(test: &str, (variable, folder): (&str, &Path), word: &str) -> (Again, String) {
        let program = std::env::current_exe().expect("a test knows its program");
        let mut child = Command::new(program)
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(variable, folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a program that runs can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let said = lines
            .by_ref()
            .find_map(|line| Some(line.expect("lines are text").split_once(word)?.1.to_owned()))
            .unwrap_or_else(|| panic!("{test} ended before it said {word:?}"));
        // It would end when nobody reads what its test runner says.
        std::thread::spawn(move || lines.for_each(drop));
        (Again { child }, said)
    }

    /// The system's number for it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Panics
    /// If the system can't say that it is.
    pub fn kill(&mut self) {
        self.child.kill().expect("it was not waited for before");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
