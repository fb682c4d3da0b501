//! Made-up data that does not compress, the same for the same seed, written piece by piece.
//!
//! Writing gives way between pieces, so that Ctrl-C is heard, and never holds more than one piece in memory.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tokio::task::{block_in_place, yield_now};

const PIECE_BYTES: usize = 4 << 20;

/// Small files go into folders of so many.
const FILES_PER_FOLDER: u32 = 100;

/// After so many files, writing gives way.
const FILES_AT_ONCE: u32 = 100;

/// Numbers that look random (Steele, Lea and Flood, "SplitMix", 2014). No source of secrets.
#[derive(Debug, Clone)]
pub(crate) struct Noise {
    state: u64,
}

impl Noise {
    pub(crate) const fn new(seed: u64) -> Noise {
        Noise { state: seed }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0 when there is none. That low numbers come a little more often does not matter here.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for word in out.chunks_mut(8) {
            word.copy_from_slice(&self.number().to_le_bytes()[..word.len()]);
        }
    }
}

/// Writes a file of `bytes` bytes.
pub(crate) async fn write_file(path: &Path, bytes: u64, noise: &mut Noise) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        block_in_place(|| {
            noise.fill(&mut piece[..now]);
            file.write_all(&piece[..now])
        })?;
        left -= now as u64;
        yield_now().await;
    }
    Ok(())
}

/// Writes `count` files of `bytes` bytes each into folders below `folder`.
pub(crate) async fn write_small_files(
    folder: &Path,
    count: u32,
    bytes: usize,
    noise: &mut Noise,
) -> io::Result<()> {
    write_files(folder, count, FILES_PER_FOLDER, bytes, noise).await
}

/// Writes `count` files of `bytes` bytes each below `folder`, `per_folder` in each folder there.
pub(crate) async fn write_files(
    folder: &Path,
    count: u32,
    per_folder: u32,
    bytes: usize,
    noise: &mut Noise,
) -> io::Result<()> {
    let mut content = vec![0; bytes];
    std::fs::create_dir_all(folder)?;
    for start in (0..count).step_by(usize::try_from(FILES_AT_ONCE).expect("a small number")) {
        block_in_place(|| {
            for number in start..count.min(start + FILES_AT_ONCE) {
                let below = folder.join(format!("part-{:04}", number / per_folder));
                if number % per_folder == 0 {
                    std::fs::create_dir_all(&below)?;
                }
                noise.fill(&mut content);
                std::fs::write(below.join(format!("{number:06}.bin")), &content)?;
            }
            io::Result::Ok(())
        })?;
        yield_now().await;
    }
    Ok(())
}

/// Overwrites `len` bytes at each of `places` random places of a file.
pub(crate) fn edit(path: &Path, places: u32, len: usize, noise: &mut Noise) -> io::Result<()> {
    block_in_place(|| {
        let file = File::options().write(true).open(path)?;
        let last = file.metadata()?.len().saturating_sub(len as u64);
        let mut content = vec![0; len];
        for _ in 0..places {
            noise.fill(&mut content);
            file.write_all_at(&content, noise.below(last + 1))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::{Noise, edit, write_file, write_small_files};

    /// The first numbers of the generator's published reference for seed 1234567.
    #[test]
    fn numbers_are_those_of_splitmix() {
        let mut noise = Noise::new(1_234_567);
        assert_eq!([noise.number(), noise.number()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert_eq!(noise.below(0), 0);
        assert!((0..100).all(|_| noise.below(7) < 7));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_have_the_asked_length_and_an_edit_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let mut noise = Noise::new(1);
        write_file(&path, (4 << 20) + 5, &mut noise).await.unwrap();
        let before = std::fs::read(&path).unwrap();
        edit(&path, 3, 100, &mut noise).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!((before.len(), after.len()), ((4 << 20) + 5, (4 << 20) + 5));
        assert!(before != after);

        let small = folder.path().join("small");
        write_small_files(&small, 101, 10, &mut noise).await.unwrap();
        assert_eq!(std::fs::read_dir(&small).unwrap().count(), 2);
        assert_eq!(std::fs::read(small.join("part-0001/000100.bin")).unwrap().len(), 10);
    }
}
