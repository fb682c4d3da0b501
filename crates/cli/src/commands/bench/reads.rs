//! Random ranged reads of one file of one version, each compared with the file that was pushed.

use super::data::Noise;
use super::meter::{CpuSeconds, Meter, float};
use super::timing::Spread;
use crate::source::Opened;
use anyhow::{Context, bail};
use seedbank_client::pull;
use seedbank_formats::path::TreePath;
use seedbank_transport::bench::RawTls;
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
    /// Beside a bare transport; only where one ran at a time.
    pub(crate) beside_raw: Option<BesideRaw>,
}

/// Reads in turn with the same bytes over one bare TLS connection: one round of each, and again.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct BesideRaw {
    pub(crate) rounds: usize,
    pub(crate) raw_p50_ms: Spread,
    pub(crate) raw_p99_ms: Spread,
    /// Of each round, ours over the raw one.
    pub(crate) ratio_p50: Spread,
    pub(crate) ratio_p99: Spread,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct PerRead {
    pub(crate) requests: MeanAndTail,
    pub(crate) bytes: MeanAndTail,
    pub(crate) providers: MeanAndTail,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct MeanAndTail {
    pub(crate) mean: f64,
    pub(crate) p99: u64,
}

/// How much to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadPlan {
    /// Reads in each round.
    pub(crate) reads: u32,
    /// Rounds one at a time, each followed by one over a bare transport.
    pub(crate) rounds: u32,
    /// Reads at once in the last round.
    pub(crate) at_once: u32,
}

/// One cold read, then rounds of single ones beside a bare transport, then one round of many at once.
pub(crate) async fn measure(
    subject: Subject,
    version: u32,
    plan: ReadPlan,
    meter: &Meter,
) -> anyhow::Result<VersionReads> {
    let subject = Arc::new(subject);
    let mut noise = Noise::new(u64::from(version));
    let cold = one(&subject, &mut noise).await?;
    let mut raw = RawTls::connect().await.context("a local connection failed")?;
    let mut single = Batch::default();
    let mut pairs = Vec::new();
    for _ in 0..plan.rounds.max(1) {
        let ours = batch(&subject, &mut noise, plan.reads, 1, meter).await?;
        let raw = raw_times(&mut raw, plan.reads, READ_BYTES.min(subject.size)).await?;
        pairs.push((ours.percentiles(), percentiles(raw)));
        single.add(ours);
    }
    let spread = |of: fn(&(Percentiles, Percentiles)) -> f64| Spread::of(pairs.iter().map(of));
    let beside_raw = BesideRaw {
        rounds: pairs.len(),
        raw_p50_ms: spread(|(_, raw)| raw.p50),
        raw_p99_ms: spread(|(_, raw)| raw.p99),
        ratio_p50: spread(|(ours, raw)| ours.p50 / raw.p50),
        ratio_p99: spread(|(ours, raw)| ours.p99 / raw.p99),
    };
    let many = batch(&subject, &mut noise, plan.reads, plan.at_once, meter).await?;
    let runs = vec![single.run(1, Some(beside_raw)), many.run(plan.at_once, None)];
    Ok(VersionReads { version, cold, runs })
}

/// Reads of a network that is not of this machine: nothing bare stands beside them.
pub(crate) async fn measure_alone(
    subject: Subject,
    reads: u32,
    at_once: u32,
    meter: &Meter,
) -> anyhow::Result<VersionReads> {
    let subject = Arc::new(subject);
    let mut noise = Noise::new(1);
    let cold = one(&subject, &mut noise).await?;
    let single = batch(&subject, &mut noise, reads, 1, meter).await?;
    let many = batch(&subject, &mut noise, reads, at_once, meter).await?;
    Ok(VersionReads { version: 1, cold, runs: vec![single.run(1, None), many.run(at_once, None)] })
}

/// Milliseconds of so many requests over a bare connection.
async fn raw_times(raw: &mut RawTls, requests: u32, bytes: u64) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..requests.max(1) {
        let begun = Instant::now();
        raw.fetch(bytes).await.context("a local connection failed")?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// What some reads were.
#[derive(Default)]
struct Batch {
    done: Vec<One>,
    seconds: f64,
    bytes: u64,
    cpu_seconds: CpuSeconds,
    total: Moved,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) fn percentiles(mut times: Vec<f64>) -> Percentiles {
    times.sort_unstable_by(f64::total_cmp);
    let at = |percent| percentile(&times, percent).unwrap_or(0.0);
    Percentiles { p50: at(50), p99: at(99) }
}

impl Batch {
    fn percentiles(&self) -> Percentiles {
        percentiles(self.done.iter().map(|one| one.milliseconds).collect())
    }

    fn add(&mut self, mut more: Batch) {
        self.done.append(&mut more.done);
        self.seconds += more.seconds;
        self.bytes += more.bytes;
        self.cpu_seconds = self.cpu_seconds.and(more.cpu_seconds);
        self.total = self.total.and(more.total);
    }

    fn run(self, concurrency: u32, beside_raw: Option<BesideRaw>) -> Run {
        let Percentiles { p50, p99 } = self.percentiles();
        let of = |of: fn(&Moved) -> u64| mean_and_tail(self.done.iter().map(|one| of(&one.moved)).collect());
        Run {
            concurrency,
            reads: self.done.len() as u64,
            reads_per_second: float(self.done.len() as u64) / self.seconds.max(1e-9),
            bytes_per_second: float(self.bytes) / self.seconds.max(1e-9),
            p50_ms: p50,
            p99_ms: p99,
            cpu_seconds: self.cpu_seconds,
            total: self.total,
            per_read: (concurrency == 1).then(|| PerRead {
                requests: of(|moved| moved.requests),
                bytes: of(|moved| moved.bytes),
                providers: of(|moved| moved.providers),
            }),
            beside_raw,
        }
    }
}

async fn batch(
    subject: &Arc<Subject>,
    noise: &mut Noise,
    reads: u32,
    concurrency: u32,
    meter: &Meter,
) -> anyhow::Result<Batch> {
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
    let bytes = done.len() as u64 * READ_BYTES.min(subject.size);
    let cost = meter.end(begun, bytes)?;
    let total = moved(&subject.opened).since(&before);
    Ok(Batch { done, seconds: cost.seconds, bytes, cpu_seconds: cost.cpu_seconds, total })
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

impl Moved {
    fn and(self, more: Moved) -> Moved {
        Moved {
            requests: self.requests + more.requests,
            bytes: self.bytes + more.bytes,
            providers: self.providers.max(more.providers),
            proofs: self.proofs + more.proofs,
            decodes: self.decodes + more.decodes,
        }
    }
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

fn mean_and_tail(mut values: Vec<u64>) -> MeanAndTail {
    values.sort_unstable();
    let count = float(values.len().max(1) as u64);
    MeanAndTail { mean: float(values.iter().sum()) / count, p99: percentile(&values, 99).unwrap_or(0) }
}

/// The smallest value that so many percent of the sorted values do not exceed.
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::{MeanAndTail, mean_and_tail, percentile};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(
            [50, 99, 100].map(|percent| percentile(&hundred, percent)),
            [Some(50), Some(99), Some(100)]
        );
        assert_eq!(percentile(&[7], 99), Some(7));
        assert_eq!(percentile::<u64>(&[], 50), None);
        assert_eq!(mean_and_tail(vec![3, 1, 2]), MeanAndTail { mean: 2.0, p99: 3 });
    }
}
