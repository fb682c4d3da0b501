//! Every input that the fuzzer kept runs through its target, as part of the ordinary tests.

use seedbank_fuzzing::{TARGETS, target};
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_kept_input_runs_through_its_target() {
    for target in TARGETS {
        let inputs = inputs(&corpus().join(target.name));
        assert!(inputs.len() >= 2, "{} has a corpus", target.name);
        for path in inputs {
            let bytes = std::fs::read(&path).expect("it can be read");
            if std::panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                panic!("{} fails on {}", target.name, path.display());
            }
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_a_target() {
    for folder in inputs(&corpus()) {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        assert!(target(&name).is_some(), "{name}");
    }
}

/// No input at all, and long runs of one byte, are where counts and lengths go wrong first.
#[test]
fn every_target_takes_nothing_and_monotonous_bytes() {
    for target in TARGETS {
        (target.run)(&[]);
        for selector in 0..10 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                (target.run)(&[&[selector][..], &[byte; 600]].concat());
            }
        }
    }
}
