//! Keys and phrases: who may read them, and where they must never appear.

use crate::files::write_specimen;
use crate::network::{Network, files_below};
use crate::sandbox::{Home, Sandbox};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The permission bits of a path.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn everything_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).expect("it can be listed") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(everything_below(&path)),
            false => found.push(path),
        }
    }
    found
}

/// What must appear nowhere: the phrase, its bits as hex digits, the passphrase.
struct Secrets {
    texts: Vec<String>,
}

/// One character a byte, so that the standard library's search for text, which is quick, finds any bytes.
fn as_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

impl Secrets {
    fn new(phrase: &Path, passphrase: &str) -> Secrets {
        let words = fs::read_to_string(phrase).expect("the phrase was written");
        let words: Vec<&str> = words.split_whitespace().collect();
        let mnemonic = bip39::Mnemonic::parse_normalized(&words.join(" ")).expect("a phrase");
        let entropy: Vec<u8> = mnemonic.to_entropy();
        let seed = mnemonic.to_seed_normalized("");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // Four words in a row are the phrase, however it is cut.
        let mut texts: Vec<String> = words.windows(4).map(|four| four.join(" ")).collect();
        texts.extend([hex(&entropy), as_text(&entropy), passphrase.to_owned()]);
        texts.extend([hex(&seed[..16]), as_text(&seed[..16])]);
        Secrets { texts }
    }

    fn assert_absent(&self, bytes: &[u8], place: &str) {
        let all = as_text(bytes);
        for text in &self.texts {
            assert!(!all.contains(text.as_str()), "a secret is in {place}");
        }
    }
}

#[test]
fn everything_in_a_home_is_for_its_owner_alone() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 70);
    network.push("notes", &tree);
    network.home.seedbank("dataset key export notes").arg(network.home.root().join("notes.key")).succeeds();
    let too_open: Vec<String> = everything_below(network.home.root())
        .iter()
        .filter(|path| mode(path) & 0o077 != 0)
        .map(|path| format!("{:o} {}", mode(path), path.display()))
        .collect();
    assert_eq!(too_open, Vec::<String>::new());
}

#[test]
fn no_secret_is_on_a_command_line_in_a_log_or_in_clear_on_a_disk() {
    let sandbox = Sandbox::new();
    let (phrase, passphrase_file) = (sandbox.path("phrase"), sandbox.path("passphrase"));
    let passphrase = "correct horse battery staple 4711";
    fs::write(&passphrase_file, passphrase).expect("written");
    let home = sandbox.home("home");
    let with_file = |words: &str| home.seedbank(words).arg("--passphrase-file").arg(&passphrase_file);
    let made = with_file("key init").arg("--phrase-out").arg(&phrase).succeeds();
    assert_eq!(mode(&phrase), 0o600);
    let secrets = Secrets::new(&phrase, passphrase);
    secrets.assert_absent(made.stderr.as_bytes(), "what key init says");
    secrets.assert_absent(&made.stdout, "what key init prints");

    with_file("up --detach --providers 4 --log trace").succeeds();
    let tree = sandbox.path("tree");
    write_specimen(&tree, 71);
    let commands = [
        with_file("dataset push notes --log trace").arg(&tree),
        with_file("dataset pull notes --log trace").arg(sandbox.path("back")),
        with_file("dataset verify notes --log trace --log-format json"),
        with_file("key show --log trace"),
    ];
    for command in commands {
        let outcome = command.succeeds();
        secrets.assert_absent(outcome.stderr.as_bytes(), &format!("the log of {outcome}"));
        secrets.assert_absent(&outcome.stdout, &format!("the output of {outcome}"));
    }
    let processes = sandbox.processes();
    assert!(processes.len() >= 4, "providers run");
    for pid in processes {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        secrets.assert_absent(&line, "a command line");
    }
    for file in files_below(home.root()) {
        secrets.assert_absent(&fs::read(&file).expect("it can be read"), &file.display().to_string());
    }
}

#[test]
fn the_passphrase_comes_from_a_file_or_the_environment_and_must_be_right() {
    let sandbox = Sandbox::new();
    let file = |name: &str, text: &str| {
        fs::write(sandbox.path(name), text).expect("written");
        sandbox.path(name)
    };
    let (right, wrong, empty) = (file("right", "horse\n"), file("wrong", "house\n"), file("empty", "\n"));
    let home = sandbox.home("home");
    let init = |home: &Home| home.seedbank("key init --phrase-out").arg(sandbox.path("phrase"));
    init(&home).fails(1, "no terminal to ask for the passphrase");
    init(&home).arg("--passphrase-file").arg(&empty).fails(1, "the passphrase is empty");
    init(&home).env("SEEDBANK_PASSPHRASE", "").fails(1, "the passphrase is empty");
    init(&home).arg("--passphrase-file").arg(sandbox.path("missing")).fails(1, "could not be read");
    assert!(!home.root().join("keys.sealed").exists());
    // A try that failed has not used up the phrase's file.
    init(&home).arg("--passphrase-file").arg(&right).succeeds();
    init(&home).arg("--passphrase-file").arg(&right).fails(1, "keys.sealed exists");

    let show = || home.seedbank("key show --json");
    show().fails(1, "no terminal to ask for the passphrase");
    show().arg("--passphrase-file").arg(&wrong).fails(1, "wrong passphrase");
    show().env("SEEDBANK_PASSPHRASE", "Horse").fails(1, "wrong passphrase");
    let shown = show().env("SEEDBANK_PASSPHRASE", "horse").succeeds().json();
    assert_eq!(shown["protection"], "passphrase", "{shown}");
    // The file goes before the environment.
    show().arg("--passphrase-file").arg(&right).env("SEEDBANK_PASSPHRASE", "wrong").succeeds();

    // A damaged store is told apart from a wrong passphrase.
    let store = home.root().join("keys.sealed");
    let mut bytes = fs::read(&store).expect("it is there");
    let last = bytes.len() - 30;
    bytes[last] ^= 1;
    fs::write(&store, bytes).expect("written");
    show().env("SEEDBANK_PASSPHRASE", "horse").fails(1, "does not open");
}

#[test]
fn the_phrase_is_shown_once_and_never_without_being_asked() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let made = home.seedbank("key init --insecure-no-passphrase --json").succeeds();
    let words =
        made.stderr.lines().find(|line| line.split_whitespace().count() == 24).expect("the phrase is shown");
    assert!(!String::from_utf8_lossy(&made.stdout).contains(words.trim()), "it is talk, not data");
    let shown = home.seedbank("key show").succeeds();
    assert!(!shown.stderr.contains(words.trim()) && !shown.text().contains(words.trim()));
    assert_eq!(mode(home.root()), 0o700);
}
