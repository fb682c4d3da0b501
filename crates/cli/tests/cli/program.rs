//! One run of the program: how it is started, how it ended, what it said.

use crate::sandbox::{Patience, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use seedbank_testkit::tools::find_tool;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// No command of these tests takes nearly as long, even on a busy machine; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a process runs, other than plainly on this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// A command that the program's own is given to.
    pub(crate) through: Vec<String>,
    /// Variables of its environment.
    pub(crate) variables: Vec<(String, OsString)>,
}

impl Surroundings {
    /// Through a command like `ip netns exec NAME`.
    pub(crate) fn through(words: &[impl ToString]) -> Surroundings {
        let through = words.iter().map(ToString::to_string).collect();
        Surroundings { through, variables: Vec::new() }
    }

    /// With these variables.
    pub(crate) fn with<V: Into<OsString>>(
        variables: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Surroundings {
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Surroundings { through: Vec::new(), variables }
    }
}

/// A command that is being put together.
#[derive(Debug)]
pub(crate) struct Invocation {
    command: Command,
    told: String,
    patience: Duration,
}

impl Invocation {
    /// `seedbank WORDS` for this home; the words are separated by spaces.
    pub(crate) fn new(home: &Path, words: &str) -> Invocation {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seedbank"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What the person who runs the tests has set for an own home is none of the tests' business.
        for variable in ["SEEDBANK_HOME", "SEEDBANK_LOG", "SEEDBANK_PASSPHRASE"] {
            command.env_remove(variable);
        }
        // On the command line, so that every process of a sandbox can be found by its path.
        command.arg("--home").arg(home).args(words.split_whitespace());
        Invocation { command, told: format!("seedbank {words}"), patience: PATIENCE }
    }

    /// One more argument, as it is.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Invocation {
        self.told.push_str(&format!(" {:?}", argument.as_ref()));
        self.command.arg(argument);
        self
    }

    /// More arguments, as they are.
    pub(crate) fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Invocation {
        arguments.into_iter().fold(self, Invocation::arg)
    }

    /// A variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Invocation {
        self.command.env(name, value);
        self
    }

    /// What its standard input reads.
    pub(crate) fn input(mut self, file: &Path) -> Invocation {
        self.command.stdin(std::fs::File::open(file).expect("the test made it"));
        self
    }

    /// Runs it in these surroundings. They come before its input.
    pub(crate) fn within(mut self, surroundings: &Surroundings) -> Invocation {
        self.command.envs(surroundings.variables.iter().map(|(name, value)| (name, value)));
        if let Some((program, arguments)) = surroundings.through.split_first() {
            let mut outer = Command::new(find_tool(program).expect("it was looked for before"));
            outer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            outer.args(arguments).arg(self.command.get_program()).args(self.command.get_args());
            for (name, value) in self.command.get_envs() {
                match value {
                    Some(value) => outer.env(name, value),
                    None => outer.env_remove(name),
                };
            }
            self.command = outer;
        }
        self
    }

    /// How long it may take.
    pub(crate) fn patience(mut self, patience: Duration) -> Invocation {
        self.patience = patience;
        self
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> Started {
        let mut child = self.command.spawn().expect("the program was built with the tests");
        let stdout = child.stdout.take().expect("it is a pipe");
        let mut stderr = child.stderr.take().expect("it is a pipe");
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = Arc::clone(&said);
        let errors = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A pipe that breaks ends what there is to know.
            while let Ok(length @ 1..) = stderr.read(&mut piece) {
                saying.lock().expect("nobody panics with it").extend_from_slice(&piece[..length]);
            }
            String::from_utf8_lossy(&saying.lock().expect("nobody panics with it")).into_owned()
        });
        let output = Reading::Nobody(BufReader::new(stdout));
        Started { child, output, said, errors: Some(errors), told: self.told, patience: self.patience }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Runs it to its end, which must be a good one.
    pub(crate) fn succeeds(self) -> Outcome {
        self.run().succeeded()
    }

    /// Runs it with `--json` to its good end, and gives what it printed.
    pub(crate) fn json(self) -> Value {
        self.arg("--json").succeeds().json()
    }

    /// Runs it, and expects that exit code and that piece of what it says on standard error.
    pub(crate) fn fails(self, code: i32, fragment: &str) -> Outcome {
        self.run().failed(code, fragment)
    }
}

/// Who reads the standard output.
#[derive(Debug)]
enum Reading {
    Nobody(BufReader<ChildStdout>),
    Collector(JoinHandle<Vec<u8>>),
    Taken,
}

/// A command that runs. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Started {
    child: Child,
    output: Reading,
    /// Its talk so far.
    said: Arc<Mutex<Vec<u8>>>,
    errors: Option<JoinHandle<String>>,
    told: String,
    patience: Duration,
}

impl Started {
    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids fit 31 bits")
    }

    /// Waits for the first line of its standard output, which is JSON. A daemon says with it that it serves.
    ///
    /// The rest of its output is not looked at.
    pub(crate) fn first_line(&mut self) -> Value {
        let Reading::Nobody(mut reader) = std::mem::replace(&mut self.output, Reading::Taken) else {
            panic!("the output of {} is read by somebody else", self.told)
        };
        let mut line = String::new();
        reader.read_line(&mut line).expect("the pipe can be read");
        self.output = Reading::Collector(collect(reader));
        serde_json::from_str(&line).unwrap_or_else(|error| {
            let outcome = self.end();
            panic!("{line:?} is no JSON: {error}\n{outcome}")
        })
    }

    /// Its standard output, for whoever wants to see it come.
    pub(crate) fn output(&mut self) -> BufReader<ChildStdout> {
        match std::mem::replace(&mut self.output, Reading::Taken) {
            Reading::Nobody(reader) => reader,
            _ => panic!("the output of {} is read by somebody else", self.told),
        }
    }

    /// How often it has said this on standard error so far.
    pub(crate) fn has_said(&self, fragment: &str) -> usize {
        let said = self.said.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&said).matches(fragment).count()
    }

    /// Whether it goes on.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            signal_process(self.pid(), signal);
        }
    }

    /// Ends it as a crash would, and gives what it had said.
    pub(crate) fn kill(mut self) -> Outcome {
        self.child.kill().expect("a child can be killed");
        self.end()
    }

    /// Waits for its end.
    pub(crate) fn wait(self) -> Outcome {
        self.wait_and_look(|_pid| {})
    }

    /// Waits for its end and looks at the process again and again until then.
    pub(crate) fn wait_and_look(mut self, mut look: impl FnMut(i32)) -> Outcome {
        if let Reading::Nobody(reader) = std::mem::replace(&mut self.output, Reading::Taken) {
            self.output = Reading::Collector(collect(reader));
        }
        let patience = Patience::new(self.patience);
        let pid = self.pid();
        while self.is_running() {
            look(pid);
            if patience.is_over() {
                self.child.kill().expect("a child can be killed");
                let outcome = self.end();
                panic!("it did not end in time\n{outcome}");
            }
            patience.pause();
        }
        self.end()
    }

    fn end(&mut self) -> Outcome {
        let status = self.child.wait().expect("a child can be waited for");
        let stdout = match std::mem::replace(&mut self.output, Reading::Taken) {
            Reading::Nobody(reader) => collect(reader),
            Reading::Collector(collector) => collector,
            Reading::Taken => std::thread::spawn(Vec::new),
        };
        Outcome {
            told: self.told.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: stdout.join().expect("the collector does not panic"),
            stderr: self
                .errors
                .take()
                .map(|errors| errors.join().expect("it does not panic"))
                .unwrap_or_default(),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn collect(mut reader: BufReader<ChildStdout>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends what there is to know.
        let _broken = reader.read_to_end(&mut bytes);
        bytes
    })
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    told: String,
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Its data.
    pub(crate) stdout: Vec<u8>,
    /// Its talk.
    pub(crate) stderr: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// Enough of a file that was printed.
        const SHOWN_BYTES_MAX: usize = 2000;
        let stdout =
            String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(SHOWN_BYTES_MAX)]).into_owned();
        write!(
            out,
            "$ {}\nexit code {:?}, signal {:?}\nstdout: {stdout}\nstderr: {}",
            self.told, self.code, self.signal, self.stderr
        )
    }
}

impl Outcome {
    /// Fails the test unless the exit code is 0.
    pub(crate) fn succeeded(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Fails the test unless it ended with this code and said this, and nothing that looks like a panic.
    pub(crate) fn failed(self, code: i32, fragment: &str) -> Outcome {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(self.stderr.contains(fragment), "{fragment:?} is not said\n{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// The JSON that it printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// What it printed, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }
}

/// Sends a signal to a process; that it has gone is no failure.
pub(crate) fn signal_process(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process id is above zero");
    let _gone = kill_process(pid, signal);
}

/// Whether a process exists and is more than a zombie. One that is ending is alive until its last thread has let go of
/// its files.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it, in brackets, may hold anything.
    match stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()) {
        None => false,
        Some('Z' | 'X') => {
            std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
        }
        Some(_) => true,
    }
}

/// Waits until a process is gone.
pub(crate) fn wait_for_end(pid: i32) {
    wait_until("the process to end", Duration::from_secs(20), || !is_alive(pid));
}

/// The most memory that a process has had, in bytes. Zero when it is gone.
pub(crate) fn peak_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Text of a JSON value.
pub(crate) fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Number of a JSON value.
pub(crate) fn number_of(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Elements of a JSON list.
pub(crate) fn list_of(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}
