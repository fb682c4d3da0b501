//! What makes no sense is refused: with the right exit code, in words that help, and without changing anything.

use crate::files::{write, write_specimen};
use crate::network::Network;
use crate::program::list_of;
use crate::sandbox::Sandbox;
use seedbank_testkit::assert_same_folder;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// Nothing was done.
const FAILED: i32 = 1;
/// The command makes no sense as typed.
const USAGE: i32 = 2;

#[test]
fn wrong_commands_are_refused_in_words_that_help() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 80);
    network.push("field/notes", &tree);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (tree_text, dest, missing) =
        (text(&tree), text(&network.path("dest")), text(&network.path("missing")));
    let not_a_key = text(&tree.join("run.sh"));
    let nobody = format!("{}@127.0.0.1:1", "a".repeat(64));
    let tree = tree_text.as_str();

    let table: &[(i32, &str, &[&str])] = &[
        // Not a command.
        (USAGE, "requires a subcommand", &[]),
        (USAGE, "unrecognized subcommand", &["nonsense"]),
        (USAGE, "unrecognized subcommand", &["dataset", "pusch", "a", tree]),
        (USAGE, "unexpected argument", &["status", "--everything"]),
        (USAGE, "required arguments were not provided", &["dataset", "push", "a"]),
        (USAGE, "not a log level", &["status", "--log", "loud"]),
        (USAGE, "invalid value 'xml'", &["status", "--log-format", "xml"]),
        (USAGE, "invalid value 'tcsh'", &["completions", "tcsh"]),
        (USAGE, "0 is not in 1..=64", &["up", "--providers", "0"]),
        (USAGE, "65 is not in 1..=64", &["up", "--providers", "65"]),
        // Names of datasets.
        (USAGE, "names no dataset", &["dataset", "push", "", tree]),
        (USAGE, "names no dataset", &["dataset", "pull", "@main", &dest]),
        (USAGE, "names a path", &["dataset", "push", "field/notes:x", tree]),
        (USAGE, "write NAME without the @", &["dataset", "push", "field/notes@v1", tree]),
        (FAILED, "only letters, digits", &["dataset", "push", "a b", tree]),
        (FAILED, "a part of it may not be . or ..", &["dataset", "push", "../x", tree]),
        (FAILED, "may not start with - or /", &["dataset", "push", "/x", tree]),
        (FAILED, "more than 255 bytes", &["dataset", "push", &"x".repeat(256), tree]),
        (USAGE, "is the list of datasets", &["dataset", "push", ".home", tree]),
        (USAGE, "is the list of datasets", &["dataset", "rm", ".home", "--yes"]),
        (FAILED, "can't be a name", &["dataset", "push", "field/notes", tree, "--branch", ""]),
        (FAILED, "without spaces", &["dataset", "push", "field/notes", tree, "--branch", "x y"]),
        // What does not exist suggests what does.
        (FAILED, "did you mean field/notes?", &["dataset", "pull", "feild/notes", &dest]),
        (FAILED, "did you mean field/notes?", &["dataset", "log", "Field/Notes"]),
        (FAILED, "did you mean field/notes?", &["dataset", "rm", "field/note", "--yes"]),
        (FAILED, "no dataset is called \"zebra\"", &["dataset", "verify", "zebra"]),
        (FAILED, "did you mean main?", &["dataset", "pull", "field/notes@mian", &dest]),
        (FAILED, "no version or ref is called", &["dataset", "pull", "field/notes@deadbeefdeadbeef", &dest]),
        (USAGE, "names no version", &["dataset", "pull", "field/notes@", &dest]),
        (FAILED, "no such file or folder", &["dataset", "push", "field/notes", &missing]),
        (FAILED, "no dataset is called", &["dataset", "key", "export", "zebra", &missing]),
        (FAILED, "missing", &["dataset", "key", "import", &missing]),
        (FAILED, "not a dataset key", &["dataset", "key", "import", &not_a_key]),
        // Paths in a dataset.
        (USAGE, "names no file", &["dataset", "cat", "field/notes"]),
        (USAGE, "names no file", &["dataset", "cat", "field/notes:"]),
        (FAILED, "no such path in this version", &["dataset", "cat", "field/notes:nope"]),
        (USAGE, "names another folder", &["dataset", "cat", "field/notes:../tree/run.sh"]),
        (USAGE, "names another folder", &["dataset", "cat", "field/notes:a/../run.sh"]),
        (USAGE, "the path is absolute", &["dataset", "cat", "field/notes:/etc/passwd"]),
        (USAGE, "an empty component", &["dataset", "cat", "field/notes:a//below"]),
        (FAILED, "is not a file", &["dataset", "cat", "field/notes:link"]),
        (FAILED, "is not a file but a folder", &["dataset", "cat", "field/notes:empty/within"]),
        (FAILED, "pull it with the pattern", &["dataset", "cat", "field/notes:a"]),
        (FAILED, "no such path in this version", &["dataset", "ls", "field/notes:nope"]),
        (USAGE, "names another folder", &["dataset", "ls", "field/notes:../.."]),
        // Ranges, schemes, patterns, levels.
        (USAGE, "is no range", &["dataset", "cat", "field/notes:run.sh", "--range", "5"]),
        (USAGE, "is no range", &["dataset", "cat", "field/notes:run.sh", "--range", "9-5"]),
        (USAGE, "is no range", &["dataset", "cat", "field/notes:run.sh", "--range", "a-b"]),
        (USAGE, "is no range", &["dataset", "cat", "field/notes:run.sh", "--range", "18446744073709551616-"]),
        (USAGE, "is no range", &["dataset", "cat", "field/notes:run.sh", "--range", "1-2-3"]),
        (USAGE, "is no scheme", &["dataset", "push", "x", tree, "--scheme", "4"]),
        (USAGE, "is no scheme", &["dataset", "push", "x", tree, "--scheme", "8/4"]),
        (USAGE, "is no scheme", &["dataset", "push", "x", tree, "--scheme", "0/3"]),
        (USAGE, "is no scheme", &["dataset", "push", "x", tree, "--scheme", "4/256"]),
        (FAILED, "need 9 distinct providers: have 8", &["dataset", "push", "x", tree, "--scheme", "4/9"]),
        (
            FAILED,
            "need 9 distinct providers: have 8",
            &["dataset", "push", "field/notes", tree, "--scheme", "4/9"],
        ),
        (USAGE, "99 is not in 1..=19", &["dataset", "push", "x", tree, "--zstd", "99"]),
        (USAGE, "without its `]`", &["dataset", "push", "x", tree, "--exclude", "[a"]),
        (USAGE, "the pattern is empty", &["dataset", "push", "x", tree, "--exclude", ""]),
        (USAGE, "starts with `!`", &["dataset", "pull", "field/notes", &dest, "--include", "!x"]),
        (USAGE, "an empty component", &["dataset", "pull", "field/notes", &dest, "--exclude", "a//b"]),
        (FAILED, "is private", &["dataset", "push", "field/notes", tree, "--public"]),
        // Providers.
        (USAGE, "KEY@HOST:PORT", &["provider", "add", "nonsense"]),
        (USAGE, "KEY@HOST:PORT", &["provider", "add", "1234@127.0.0.1:1"]),
        (USAGE, "KEY@HOST:PORT", &["provider", "add", &format!("{}@127.0.0.1:99999", "a".repeat(64))]),
        (FAILED, "can't be reached at 127.0.0.1:1", &["provider", "add", &nobody]),
        (FAILED, "no provider's key begins with", &["provider", "rm", "zebra"]),
        (FAILED, "give more digits", &["provider", "rm", ""]),
        (FAILED, "is not a provider's folder", &["provider", "status", &missing]),
        (FAILED, "can't read", &["provider", "run", &missing]),
        (FAILED, "is not empty", &["provider", "init", tree]),
        (USAGE, "not a number of bytes", &["provider", "init", &missing, "--capacity", "5x"]),
        (USAGE, "is no address", &["provider", "init", &missing, "--listen", "here"]),
        (USAGE, "KEY@HOST:PORT", &["key", "recover", "--provider", "nonsense"]),
        (FAILED, "exists; choose another home", &["key", "init", "--insecure-no-passphrase"]),
    ];
    let mut wrong = Vec::new();
    for (code, fragment, arguments) in table {
        let command =
            arguments.iter().fold(network.home.seedbank(""), |command, argument| command.arg(argument));
        let outcome = command.run();
        let clean = outcome.stdout.is_empty() && !outcome.stderr.contains("panicked");
        if outcome.code != Some(*code) || !outcome.stderr.contains(fragment) || !clean {
            wrong.push(format!("expected {code} and {fragment:?}:\n{outcome}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n\n"));

    // Nothing was made or changed by any of them.
    assert!(!Path::new(&dest).exists() && !Path::new(&missing).exists());
    let datasets = network.home.seedbank("dataset ls").json();
    assert_eq!(list_of(&datasets).len(), 1, "{datasets}");
    let log = network.home.seedbank("dataset log field/notes").json();
    assert_eq!(list_of(&log).len(), 1, "{log}");
    write(Path::new(tree), "one-byte", b"?");
    let pushed = network.push("field/notes", Path::new(tree));
    assert_eq!(pushed["scheme"], serde_json::json!([4, 8]), "{pushed}");
}

#[test]
fn what_a_dataset_cannot_hold_is_named_and_not_stored() {
    let network = Network::up(8);
    let refused = |name: &str, fragments: &[&str], prepare: &dyn Fn(&Path)| {
        let folder = network.path(name);
        fs::create_dir(&folder).expect("made");
        write(&folder, "fine", b"fine");
        prepare(&folder);
        let outcome = network.home.seedbank("dataset push odd").arg(&folder).fails(FAILED, fragments[0]);
        assert!(
            fragments.iter().all(|fragment| outcome.stderr.contains(fragment)),
            "{fragments:?}\n{outcome}"
        );
    };
    refused("socket", &["a socket can't be stored", "socket/here"], &|folder| {
        drop(UnixListener::bind(folder.join("here")).expect("bound"));
    });
    refused("pipe", &["a named pipe can't be stored", "pipe/here"], &|folder| {
        assert!(Command::new("mkfifo").arg(folder.join("here")).status().expect("mkfifo runs").success());
    });
    refused("absolute", &["can't be stored", "the symlink's target is absolute"], &|folder| {
        symlink("/etc/passwd", folder.join("link")).expect("made");
    });
    refused("outside", &["can't be stored", "lies outside the tree"], &|folder| {
        fs::create_dir(folder.join("sub")).expect("made");
        symlink("../../fine", folder.join("sub/link")).expect("made");
    });
    refused("case", &["differ only in case", "Readme", "README"], &|folder| {
        write(folder, "Readme", b"1");
        write(folder, "README", b"2");
    });
    refused("folder-case", &["differ only in case"], &|folder| {
        fs::create_dir(folder.join("Ärger")).expect("made");
        fs::create_dir(folder.join("ärger")).expect("made");
        write(folder, "Ärger/a", b"1");
        write(folder, "ärger/b", b"2");
    });
    refused("not-utf8", &["the name is not UTF-8"], &|folder| {
        use std::os::unix::ffi::OsStrExt;
        fs::write(folder.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), b"").expect("written");
    });
    refused("backslash", &["can't be a path in a dataset", "backslash"], &|folder| {
        write(folder, "a\\b", b"")
    });
    refused("unfinished", &["an unfinished file of an interrupted pull"], &|folder| {
        write(folder, ".fine.seedbank-part", b"");
    });
    // Devices need a right that not everyone has.
    let node = network.path("node");
    if Command::new("mknod").arg(&node).args(["c", "1", "3"]).output().is_ok_and(|made| made.status.success())
    {
        refused("device", &["a device can't be stored", "device/null"], &|folder| {
            fs::rename(&node, folder.join("null")).expect("moved");
        });
    }
    let datasets = network.home.seedbank("dataset ls").json();
    assert_eq!(list_of(&datasets).len(), 0, "a push that never was leaves no dataset: {datasets}");
    // What is excluded may be anything.
    let tree = network.path("socket");
    network.home.seedbank("dataset push odd --exclude here").arg(&tree).succeeds();
    network.pull("odd", &network.path("back"));
    assert_eq!(fs::read(network.path("back/fine")).expect("it came back"), b"fine");
}

#[test]
fn a_file_that_changes_while_it_is_pushed_is_noticed_or_stored_as_it_was() {
    let network = Network::up(8);
    let tree = network.path("tree");
    fs::create_dir(&tree).expect("made");
    let file = tree.join("busy.log");
    fs::write(&file, vec![0; 8_000_000]).expect("written");
    let mut push = network.home.seedbank("dataset push notes --json").arg(&tree).start();
    let mut count: u64 = 0;
    while push.is_running() {
        // Appends and overwrites, as a careless writer would.
        count += 1;
        use std::os::unix::fs::FileExt;
        let writer = fs::File::options().write(true).open(&file).expect("opened");
        writer.write_all_at(&count.to_le_bytes(), count * 4096 % 8_000_000).expect("written");
    }
    let outcome = push.wait();
    if outcome.code == Some(0) {
        // It was quick enough between two writes, or came after them: what it stored is one state of the file.
        let back = network.path("back");
        network.pull("notes", &back);
        network.home.seedbank("dataset verify notes").succeeds();
        assert_eq!(fs::metadata(back.join("busy.log")).expect("it is there").len(), 8_000_000);
    } else {
        outcome.failed(FAILED, "changed while it was read");
    }
    // Left alone it is stored as it is.
    network.push("notes", &tree);
    let back = network.path("quiet");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
}

#[test]
fn a_home_without_keys_or_providers_says_what_to_do() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let tree = sandbox.path("tree");
    write_specimen(&tree, 81);
    home.seedbank("dataset push notes").arg(&tree).fails(FAILED, "seedbank key init");
    home.seedbank("down").fails(FAILED, "no network was started");
    home.make_keys(&sandbox.path("phrase"));
    home.seedbank("dataset push notes").arg(&tree).fails(FAILED, "seedbank provider add KEY@HOST:PORT");
    let datasets = home.seedbank("dataset ls").json();
    assert_eq!(list_of(&datasets).len(), 0, "{datasets}");
    let long = sandbox.home(&"x".repeat(120));
    long.seedbank("status").fails(FAILED, "too long for a socket");
}

#[test]
fn damaged_files_of_a_home_are_named_and_never_panic() {
    let network = Network::up(3);
    let tree = network.path("tree");
    write_specimen(&tree, 82);
    network.push("notes", &tree);
    network.home.seedbank("down").succeeds();
    let root = network.home.root();
    let damage = |name: &str, bytes: &[u8], words: &str, fragment: &str| {
        let path = root.join(name);
        let original = fs::read(&path).expect("it is there");
        fs::write(&path, bytes).expect("written");
        network.home.seedbank(words).fails(FAILED, fragment);
        fs::write(&path, original).expect("written");
    };
    damage("catalog/catalog.sqlite", &[7; 9000], "dataset ls", "catalog");
    damage("keys.sealed", b"", "key show", "does not open");
    damage("keys.sealed", b"-----BEGIN OPENSSH PRIVATE KEY-----", "key show", "does not open");
    fs::write(root.join("network/network.json"), b"{\"processes\": [").expect("written");
    network.home.seedbank("status").fails(FAILED, "is damaged");
    network.home.seedbank("down").fails(FAILED, "is damaged");
    fs::remove_file(root.join("network/network.json")).expect("removed");
    let toml = root.join("network/provider-1/provider.toml");
    fs::write(&toml, "listen = 5\n").expect("written");
    network.home.seedbank("provider run").arg(root.join("network/provider-1")).fails(FAILED, "provider.toml");
}
