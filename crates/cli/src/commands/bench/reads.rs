//! Random ranged reads of one file of one version, each compared with the file that was pushed.

use super::data::Noise;
use super::meter::{CpuSeconds, Meter, float};
use crate::source::Opened;
use anyhow::{Context, bail};
use seedbank_client::pull;
use seedbank_formats::path::TreePath;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::task::{JoinSet, block_in_place};

/// Bytes of one read.
pub(crate) const READ_BYTES: u64 = 256 * 1024;

/// What is read, and what it must give.
pub(crate) struct Subject {
    pub(crate) opened: Opened,
    pub(crate) path: TreePath,
    /// The same file as it was pushed.
    pub(crate) local: File,
    pub(crate) size: u64,
}

/// Reads of one version.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct VersionReads {
    /// Counted from 1.
    pub(crate) version: u32,
    /// The first read of a process: nothing is cached and no connection is open.
    pub(crate) cold: One,
    /// The reads after it, by how many ran at once.
    pub(crate) runs: Vec<Run>,
}

/// One read.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct One {
    pub(crate) milliseconds: f64,
    #[serde(flatten)]
    pub(crate) moved: Moved,
}

/// What moved over the network.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Moved {
    /// Requests that were answered or failed.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    /// Providers that were asked.
    pub(crate) providers: u64,
    /// Requests that asked for proof: of metadata, and of chunks because somebody was slow or wrong.
    pub(crate) proofs: u64,
    /// Ranges that were decoded from other fragments.
    pub(crate) decodes: u64,
}

/// Many reads at one concurrency.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) concurrency: u32,
    pub(crate) reads: u64,
    pub(crate) reads_per_second: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_seconds: CpuSeconds,
    /// All reads together.
    pub(crate) total: Moved,
    /// Each read apart; only where one ran at a time, since otherwise nobody can tell whose a request is.
    pub(crate) per_read: Option<PerRead>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct PerRead {
    pub(crate) requests: Spread,
    pub(crate) bytes: Spread,
    pub(crate) providers: Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) p99: u64,
}

/// One cold read, then `reads` reads at each concurrency.
pub(crate) async fn measure(
    subject: Subject,
    version: u32,
    reads: u32,
    concurrencies: &[u32],
    meter: &Meter,
) -> anyhow::Result<VersionReads> {
    let subject = Arc::new(subject);
    let mut noise = Noise::new(u64::from(version));
    let cold = one(&subject, &mut noise).await?;
    let mut runs = Vec::new();
    for &concurrency in concurrencies {
        runs.push(run(&subject, &mut noise, reads, concurrency, meter).await?);
    }
    Ok(VersionReads { version, cold, runs })
}

async fn run(
    subject: &Arc<Subject>,
    noise: &mut Noise,
    reads: u32,
    concurrency: u32,
    meter: &Meter,
) -> anyhow::Result<Run> {
    let before = moved(&subject.opened);
    let begun = meter.begin()?;
    let mut workers: JoinSet<anyhow::Result<Vec<One>>> = JoinSet::new();
    for worker in 0..concurrency {
        let (subject, mut noise) = (Arc::clone(subject), Noise::new(noise.number()));
        let share = reads / concurrency + u32::from(worker < reads % concurrency);
        workers.spawn(async move {
            let mut done = Vec::new();
            for _ in 0..share {
                done.push(one(&subject, &mut noise).await?);
            }
            Ok(done)
        });
    }
    let mut done: Vec<One> = Vec::new();
    while let Some(worker) = workers.join_next().await {
        done.extend(worker.context("a reading task broke off")??);
    }
    let count = done.len() as u64;
    let cost = meter.end(&begun, count * READ_BYTES.min(subject.size))?;
    let mut times: Vec<f64> = done.iter().map(|one| one.milliseconds).collect();
    times.sort_unstable_by(f64::total_cmp);
    let spread = |of: fn(&Moved) -> u64| spread(done.iter().map(|one| of(&one.moved)).collect());
    Ok(Run {
        concurrency,
        reads: count,
        reads_per_second: float(count) / cost.seconds.max(1e-9),
        bytes_per_second: cost.bytes_per_second,
        p50_ms: percentile(&times, 50).unwrap_or(0.0),
        p99_ms: percentile(&times, 99).unwrap_or(0.0),
        cpu_seconds: cost.cpu_seconds,
        total: moved(&subject.opened).since(&before),
        per_read: (concurrency == 1).then(|| PerRead {
            requests: spread(|moved| moved.requests),
            bytes: spread(|moved| moved.bytes),
            providers: spread(|moved| moved.providers),
        }),
    })
}

/// Reads one range. What it moved is right only while nothing else reads.
async fn one(subject: &Subject, noise: &mut Noise) -> anyhow::Result<One> {
    let len = READ_BYTES.min(subject.size);
    let start = noise.below(subject.size - len + 1);
    let before = moved(&subject.opened);
    let read = Collected::default();
    let begun = Instant::now();
    let Opened { reader, snapshot } = &subject.opened;
    pull::cat(reader, snapshot, &subject.path, start..start + len, read.clone()).await?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    let moved = moved(&subject.opened).since(&before);
    let read = read.take();
    let mut expected = vec![0; usize::try_from(len).expect("256 KiB at most")];
    block_in_place(|| subject.local.read_exact_at(&mut expected, start))
        .context("reading what was pushed, to compare")?;
    if read != expected {
        bail!("bytes {start}-{} were read back wrong", start + len);
    }
    Ok(One { milliseconds, moved })
}

/// Keeps what is written, for the one who holds the other copy.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The counters so far, with the requests of every provider for [`Counters::since`].
struct Counters {
    moved: Moved,
    asked: std::collections::BTreeMap<seedbank_formats::PublicKey, u64>,
}

fn moved(opened: &Opened) -> Counters {
    let traffic = &opened.reader.network().traffic;
    Counters {
        moved: Moved {
            requests: traffic.range_requests.load(Ordering::Relaxed),
            bytes: traffic.range_bytes.load(Ordering::Relaxed),
            providers: 0,
            proofs: traffic.proofs.load(Ordering::Relaxed),
            decodes: traffic.decodes.load(Ordering::Relaxed),
        },
        asked: traffic.asked(),
    }
}

impl Counters {
    fn since(&self, before: &Counters) -> Moved {
        let asked = self.asked.iter().filter(|(provider, count)| before.asked.get(provider) != Some(count));
        Moved {
            requests: self.moved.requests - before.moved.requests,
            bytes: self.moved.bytes - before.moved.bytes,
            providers: asked.count() as u64,
            proofs: self.moved.proofs - before.moved.proofs,
            decodes: self.moved.decodes - before.moved.decodes,
        }
    }
}

fn spread(mut values: Vec<u64>) -> Spread {
    values.sort_unstable();
    let count = float(values.len().max(1) as u64);
    Spread { mean: float(values.iter().sum()) / count, p99: percentile(&values, 99).unwrap_or(0) }
}

/// The smallest value that so many percent of the sorted values do not exceed.
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::{Spread, percentile, spread};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(
            [50, 99, 100].map(|percent| percentile(&hundred, percent)),
            [Some(50), Some(99), Some(100)]
        );
        assert_eq!(percentile(&[7], 99), Some(7));
        assert_eq!(percentile::<u64>(&[], 50), None);
        assert_eq!(spread(vec![3, 1, 2]), Spread { mean: 2.0, p99: 3 });
    }
}
