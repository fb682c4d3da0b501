//! Writes a generated folder, for measurements: `cargo run --release -p seedbank-testkit --example tree -- FOLDER
//! SMALL_FILES DUPLICATES HUGE_BYTES [SEED]`. Prints what it wrote.

use seedbank_testkit::TreeSpec;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: tree FOLDER SMALL_FILES DUPLICATES HUGE_BYTES [SEED]";

fn main() -> ExitCode {
    let Some((folder, spec)) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match spec.write(&folder) {
        Ok(summary) => {
            println!("{summary:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<(PathBuf, TreeSpec)> {
    let folder = PathBuf::from(arguments.next()?);
    let small_files = arguments.next()?.parse().ok()?;
    let duplicates = arguments.next()?.parse().ok()?;
    let huge_bytes = arguments.next()?.parse().ok()?;
    let seed = arguments.next().map_or(Some(1), |seed| seed.parse().ok())?;
    let spec = TreeSpec {
        seed,
        small_files,
        small_bytes: 100..=60_000,
        files_per_folder: 250,
        duplicates,
        huge_bytes: (huge_bytes > 0).then_some(huge_bytes),
    };
    Some((folder, spec))
}
