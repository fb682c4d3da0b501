//! What happens to disks.

use crate::local::Running;
use anyhow::Context;
use seedbank_formats::PublicKey;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The process that is this provider.
pub(super) fn process_of(running: &Running, provider: &PublicKey) -> anyhow::Result<String> {
    let key = provider.to_string();
    let process = running.network.providers().find(|process| process.serving.key == key);
    Ok(process.with_context(|| format!("provider {key} is not one of this network"))?.name.clone())
}

/// Flips bits all over the fragments that a provider has on disk. Says how many.
pub(super) fn flip_bits(provider: &Path) -> anyhow::Result<u64> {
    let data = provider.join("data");
    let mut flips = 0;
    for folder in ["loose", "volumes"] {
        let folder = data.join(folder);
        if folder.exists() {
            flips += flip_below(&folder)?;
        }
    }
    Ok(flips)
}

fn flip_below(folder: &Path) -> anyhow::Result<u64> {
    let mut flips = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            flips += flip_below(&path)?;
        } else {
            flips += flip_file(&path).with_context(|| format!("damaging {}", path.display()))?;
        }
    }
    Ok(flips)
}

/// One bit in every 16 KiB, past the first block where the record's header lies.
fn flip_file(path: &Path) -> std::io::Result<u64> {
    const EVERY: u64 = 16 * 1024;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut flips = 0;
    for at in (EVERY / 2..len).step_by(usize::try_from(EVERY).unwrap_or(1)) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 0x10;
        file.write_all_at(&byte, at)?;
        flips += 1;
    }
    Ok(flips)
}
