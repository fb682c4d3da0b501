//! Keys and phrases: who may read them, and where they must never appear.

use crate::files::write_specimen;
use crate::network::{Network, files_below};
use crate::program::{Outcome, Surroundings, list_of, text_of};
use crate::sandbox::{Home, Sandbox};
use seedbank_formats::DatasetId;
use seedbank_formats::keys::{SigningKey, dataset_id};
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

/// What must appear nowhere: a phrase and its bits, a passphrase, and what is derived from them, in every spelling that
/// a careless line would give it.
#[derive(Default)]
struct Secrets {
    texts: Vec<String>,
}

/// One character a byte, so that the standard library's search for text, which is quick, finds any bytes.
fn as_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole = bytes.chunks_exact(3).map(|three| [0, three[0], three[1], three[2]]).map(u32::from_be_bytes);
    let digits = whole.flat_map(|bits| [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize]));
    digits.map(char::from).collect()
}

impl Secrets {
    fn add(&mut self, secret: &[u8]) {
        assert!(secret.len() >= 16, "shorter ones are found by accident");
        let half = &secret[..secret.len().min(32)];
        self.texts.extend([as_text(half), hex(half), hex(half).to_uppercase()]);
        // As `{:?}` and JSON show bytes; and base64, which begins anew every three bytes.
        let decimal: Vec<String> = half[..8].iter().map(u8::to_string).collect();
        self.texts.extend([decimal.join(", "), decimal.join(",")]);
        self.texts.extend((0..3).map(|start| base64(&half[start..])));
    }

    /// Everything of the owner with this phrase; of its datasets the one that lists the others, and `datasets`.
    fn of_owner(phrase: &Path, passphrase: &str, datasets: &[[u8; 32]]) -> Secrets {
        let words = fs::read_to_string(phrase).expect("the phrase was written");
        let words: Vec<&str> = words.split_whitespace().collect();
        let mnemonic = bip39::Mnemonic::parse_normalized(&words.join(" ")).expect("a phrase");
        let seed = mnemonic.to_seed_normalized("");
        let mut secrets = Secrets::default();
        // Four words in a row are the phrase, however it is cut.
        secrets.texts.extend(words.windows(4).map(|four| four.join(" ")));
        secrets.texts.extend(words.windows(4).map(|four| four.join("\", \"")));
        secrets.texts.push(passphrase.to_owned());
        secrets.texts.push(hex(passphrase.as_bytes()));
        secrets.add(&mnemonic.to_entropy());
        secrets.add(&seed);
        let identity = blake3::derive_key("seedbank v1 identity key", &seed);
        secrets.add(&identity);
        let root = blake3::derive_key("seedbank v1 data root key", &seed);
        secrets.add(&root);
        let owner = SigningKey::from_seed(identity).public();
        let home = *dataset_id(&owner, &[0; 32]).as_bytes();
        for dataset in datasets.iter().chain([&home]) {
            let mut hasher = blake3::Hasher::new_derive_key("seedbank v1 dataset secret");
            hasher.update(&root).update(dataset).update(&0u32.to_le_bytes());
            let secret = *hasher.finalize().as_bytes();
            secrets.add(&secret);
            secrets.add(&blake3::derive_key("seedbank v1 reader signing key", &secret));
            let material = [&secret[..], dataset, &0u32.to_le_bytes()].concat();
            for context in ["seedbank v1 chunk key", "seedbank v1 nonce key", "seedbank v1 part key"] {
                secrets.add(&blake3::derive_key(context, &material));
            }
        }
        secrets
    }

    fn assert_absent(&self, bytes: &[u8], place: &str) {
        let all = as_text(bytes);
        for text in &self.texts {
            assert!(!all.contains(text.as_str()), "a secret is in {place}");
        }
    }

    /// Looks through what a command said and printed.
    fn assert_untold(&self, outcome: &Outcome) {
        self.assert_absent(outcome.stderr.as_bytes(), &format!("the log of {outcome}"));
        self.assert_absent(&outcome.stdout, &format!("the output of {outcome}"));
    }

    fn assert_absent_below(&self, folder: &Path) {
        for file in files_below(folder) {
            self.assert_absent(&fs::read(&file).expect("it can be read"), &file.display().to_string());
        }
    }
}

/// The seeds of a network's providers, which each keeps in clear in a file of its own.
fn provider_seeds(home: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files_below(home).into_iter().filter(|path| path.ends_with("identity.key"));
    let seed = |text: String| {
        let pairs = text.trim().as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("hex"), 16).expect("hex")).collect()
    };
    files.map(|path| (path.clone(), seed(fs::read_to_string(path).expect("it can be read")))).collect()
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
    let (home, reader, recovered) = (sandbox.home("home"), sandbox.home("reader"), sandbox.home("recovered"));
    let with_file = |home: &Home, words: &str| {
        home.seedbank(words).arg("--log").arg("trace").arg("--passphrase-file").arg(&passphrase_file)
    };
    let mut told = vec![with_file(&home, "key init").arg("--phrase-out").arg(&phrase).succeeds()];
    assert_eq!(mode(&phrase), 0o600);
    let up = with_file(&home, "up --detach --providers 4").arg("--json").succeeds();
    let provider = Network::processes_of(&up.json()).0[0].key_and_address();
    told.push(up);
    let tree = sandbox.path("tree");
    write_specimen(&tree, 71);
    let key = sandbox.path("notes.key");
    let commands = [
        with_file(&home, "dataset push notes").arg(&tree),
        with_file(&home, "dataset pull notes").arg(sandbox.path("back")),
        with_file(&home, "dataset verify notes --log-format json"),
        with_file(&home, "dataset log notes"),
        with_file(&home, "dataset key export notes").arg(&key),
        with_file(&home, "key show"),
        with_file(&reader, "key init").arg("--phrase-out").arg(sandbox.path("reader-phrase")),
        with_file(&reader, "dataset key import").arg(&key),
        with_file(&recovered, "key recover")
            .arg("--provider")
            .arg(&provider)
            .arg("--phrase-file")
            .arg(&phrase),
        with_file(&home, "key init").arg("--phrase-out").arg(sandbox.path("never")),
    ];
    told.extend(commands.map(|command| command.run()));
    let ends: Vec<Option<i32>> = told.iter().map(|outcome| outcome.code).collect();
    // The last would overwrite keys that are there.
    assert_eq!(ends, [vec![Some(0); 11], vec![Some(1)]].concat());

    let listed = with_file(&home, "dataset ls").json();
    let notes = list_of(&listed).iter().find(|dataset| dataset["name"] == "notes").expect("it was pushed");
    let dataset: DatasetId = text_of(&notes["id"]).parse().expect("an id");
    let mut secrets = Secrets::of_owner(&phrase, passphrase, &[dataset.0]);
    let exported = fs::read_to_string(&key).expect("it was exported");
    let spelt = secrets.texts.iter().filter(|text| exported.contains(text.as_str())).count();
    assert!(spelt > 0, "secrets are known as they are spelt");
    let seeds = provider_seeds(home.root());
    assert_eq!(seeds.len(), 4);
    for home in [&home, &reader, &recovered] {
        secrets.assert_absent_below(home.root());
    }
    for (_, seed) in &seeds {
        secrets.add(seed);
    }
    for outcome in &told {
        secrets.assert_untold(outcome);
    }
    let logs = files_below(&home.root().join("network"));
    let logs: Vec<_> = logs.iter().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    assert_eq!(logs.len(), 6, "each process has a log");
    for log in logs {
        secrets.assert_absent(&fs::read(log).expect("it can be read"), &log.display().to_string());
    }
    let processes = sandbox.processes();
    assert!(processes.len() >= 5, "providers and the steward run");
    for pid in processes {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        secrets.assert_absent(&line, "a command line");
    }
}

#[test]
fn providers_know_no_passphrase_and_no_process_leaves_a_core_file() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let passphrase = "correct horse battery staple 4711";
    let with_variable = |words: &str| home.seedbank(words).env("SEEDBANK_PASSPHRASE", passphrase);
    with_variable("key init --quiet --phrase-out").arg(sandbox.path("phrase")).succeeds();
    let up = with_variable("up --no-chain --detach --quiet --providers 2").json();
    let (providers, _) = Network::processes_of(&up);
    assert_eq!(providers.len(), 2);
    for provider in providers {
        let environment = fs::read(format!("/proc/{}/environ", provider.pid)).expect("it runs");
        assert!(!as_text(&environment).contains(passphrase));
    }
    for pid in sandbox.processes() {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        let words: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
    }
}

#[test]
fn files_are_for_their_owner_alone_whatever_the_umask() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let careless = Surroundings::through(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""]);
    let open = |words: &str| home.seedbank(words).within(&careless);
    open("key init --insecure-no-passphrase --quiet --phrase-out").arg(sandbox.path("phrase")).succeeds();
    open("up --no-chain --detach --quiet --providers 2").succeeds();
    let tree = sandbox.path("tree");
    write_specimen(&tree, 72);
    open("dataset push notes").arg(&tree).succeeds();
    let (key, other) = (sandbox.path("notes.key"), sandbox.home("other"));
    open("dataset key export notes").arg(&key).succeeds();
    // The key store is written anew with what is imported.
    let elsewhere = |words: &str| other.seedbank(words).within(&careless);
    elsewhere("key init --insecure-no-passphrase --quiet --phrase-out")
        .arg(sandbox.path("other-phrase"))
        .succeeds();
    elsewhere("dataset key import").arg(&key).succeeds();
    let mut looked = everything_below(home.root());
    looked.extend(everything_below(other.root()));
    looked.extend([key, sandbox.path("phrase"), sandbox.path("other-phrase")]);
    assert!(looked.len() > 20, "homes have files");
    let too_open: Vec<String> = looked
        .iter()
        .filter(|path| mode(path) & 0o077 != 0)
        .map(|path| format!("{:o} {}", mode(path), path.display()))
        .collect();
    assert_eq!(too_open, Vec::<String>::new());
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
