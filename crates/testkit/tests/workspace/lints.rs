//! The pure crates ban clocks and files by lint, each with the replacement named. Cargo can't share a `clippy.toml`
//! among some crates of a workspace, so each has its own copy and this test keeps the copies equal.

use crate::layers::{Layer, layer};
use crate::{read, root};

/// What no pure crate may call; the copies may ban more.
const BANNED: [&str; 6] = [
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::fs::read",
    "std::fs::write",
    "std::fs::File",
    "std::net::TcpStream",
];

#[test]
fn pure_crates_ban_clocks_and_files() {
    let mut first: Option<String> = None;
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if layer(&format!("seedbank-{name}")) != Some(Layer::Pure) {
            continue;
        }
        let rules = read(&folder.join("clippy.toml"));
        rules.parse::<toml::Table>().unwrap();
        for banned in BANNED {
            assert!(rules.contains(&format!("\"{banned}\"")), "{name}/clippy.toml does not ban {banned}");
        }
        let first = first.get_or_insert_with(|| rules.clone());
        assert_eq!(*first, rules, "{name}/clippy.toml is not like the others");
    }
    assert!(first.is_some(), "there are pure crates");
}
