//! What a stretch of work costs: time, processor time and peak memory of this process and of the network's.
//!
//! Everything comes from Linux's `/proc`. Processor time counts in hundredths of a second, threads that ended included.

use crate::local::Network;
use anyhow::Context;
use serde::Serialize;
use std::time::Instant;

/// What `/proc/PID/stat` counts in (`USER_HZ`, the same on all of Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// What some work cost.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// User bytes that it was about.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) cpu_seconds: CpuSeconds,
    pub(crate) peak_bytes: PeakBytes,
}

impl Cost {
    /// Rate in 10^9 user bytes per second.
    pub(crate) fn gigabytes_per_second(&self) -> f64 {
        self.bytes_per_second / 1e9
    }

    /// Processor time of all processes in nanoseconds for each user byte.
    pub(crate) fn cpu_nanoseconds_per_byte(&self) -> f64 {
        let CpuSeconds { client, providers, steward } = self.cpu_seconds;
        (client + providers + steward) * 1e9 / float(self.bytes.max(1))
    }
}

/// Processor time by who used it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CpuSeconds {
    /// This process, which pushes and pulls.
    pub(crate) client: f64,
    /// All providers together.
    pub(crate) providers: f64,
    pub(crate) steward: f64,
}

/// Most memory in use at once since the work began, by who used it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PeakBytes {
    pub(crate) client: u64,
    /// Of the provider that used most.
    pub(crate) provider: u64,
    pub(crate) steward: u64,
}

/// Reads the counters of this process and of a network's.
pub(crate) struct Meter {
    providers: Vec<String>,
    steward: Vec<String>,
}

/// Counters when the work began.
pub(crate) struct Begun {
    at: Instant,
    cpu: CpuSeconds,
}

impl Meter {
    /// A meter for the processes of this network.
    pub(crate) fn of(network: &Network) -> Meter {
        let (providers, steward) = network.processes.iter().partition(|process| process.name != "steward");
        let folders = |processes: Vec<&crate::local::Process>| {
            processes.iter().map(|process| format!("/proc/{}", process.pid)).collect()
        };
        Meter { providers: folders(providers), steward: folders(steward) }
    }

    /// Begins to measure: peaks count from here.
    pub(crate) fn begin(&self) -> anyhow::Result<Begun> {
        for folder in self.folders() {
            // Forgets the peak so far (proc_pid_clear_refs). Where that is not allowed a peak counts from the
            // process's start, which is never too low.
            let _counts_from_the_start = std::fs::write(format!("{folder}/clear_refs"), "5");
        }
        Ok(Begun { cpu: self.cpu()?, at: Instant::now() })
    }

    /// What was used since `begun` for work on so many user bytes.
    pub(crate) fn end(&self, begun: &Begun, bytes: u64) -> anyhow::Result<Cost> {
        let seconds = begun.at.elapsed().as_secs_f64();
        let now = self.cpu()?;
        let peak = |folders: &[String]| {
            let peaks =
                folders.iter().map(|folder| peak_bytes(folder)).collect::<anyhow::Result<Vec<u64>>>()?;
            anyhow::Ok(peaks.into_iter().max().unwrap_or(0))
        };
        Ok(Cost {
            bytes,
            seconds,
            bytes_per_second: float(bytes) / seconds.max(1e-9),
            cpu_seconds: CpuSeconds {
                client: now.client - begun.cpu.client,
                providers: now.providers - begun.cpu.providers,
                steward: now.steward - begun.cpu.steward,
            },
            peak_bytes: PeakBytes {
                client: peak_bytes(SELF)?,
                provider: peak(&self.providers)?,
                steward: peak(&self.steward)?,
            },
        })
    }

    fn folders(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().chain(&self.steward).map(String::as_str).chain([SELF])
    }

    fn cpu(&self) -> anyhow::Result<CpuSeconds> {
        let sum = |folders: &[String]| folders.iter().map(|folder| cpu_seconds(folder)).sum();
        let (providers, steward): (anyhow::Result<f64>, anyhow::Result<f64>) =
            (sum(&self.providers), sum(&self.steward));
        Ok(CpuSeconds { client: cpu_seconds(SELF)?, providers: providers?, steward: steward? })
    }
}

const SELF: &str = "/proc/self";

fn cpu_seconds(folder: &str) -> anyhow::Result<f64> {
    let path = format!("{folder}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} is not as proc_pid_stat describes it"))?;
    Ok(float(ticks) / TICKS_PER_SECOND)
}

fn peak_bytes(folder: &str) -> anyhow::Result<u64> {
    let path = format!("{folder}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    peak_kib(&status).map(|kib| kib * 1024).with_context(|| format!("{path} does not tell VmHWM"))
}

/// User and system time, fields 14 and 15. The name in field 2 may hold anything, but ends with the last parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// A count as a number to divide; above 2^53 its last digits go, which no ratio shows.
#[allow(clippy::cast_precision_loss, reason = "only ratios and rates come of it")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, cpu_ticks, peak_bytes, peak_kib};

    #[test]
    fn times_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 5 0 0 0 230 41 9 9 20 0 1 0 8 1 2";
        assert_eq!(cpu_ticks(stat), Some(271));
        assert_eq!(cpu_ticks("77 (cut off) S 1"), None);
    }

    #[test]
    fn peak_is_read_from_its_own_line() {
        assert_eq!(peak_kib("VmPeak:\t  99 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 7 kB\n"), Some(1234));
        assert_eq!(peak_kib("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_both() {
        assert!(cpu_seconds("/proc/self").is_ok());
        assert!(peak_bytes("/proc/self").unwrap() > 0);
    }
}
