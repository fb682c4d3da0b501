//! What a stretch of work costs: time, processor time, peak memory and bytes written, of this process and of the
//! network's.
//!
//! Memory, bytes written and other processes' time come from Linux's `/proc`, where processor time counts in hundredths
//! of a second, threads that ended included. This process's own time comes from its clock, so that no work is for free.

mod proc;
mod sampler;

use crate::local::{Network, STEWARD};
use sampler::Sampler;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What some work cost.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// User bytes that it was about.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) cpu_seconds: CpuSeconds,
    /// Most memory of their own at once (`RssAnon` and `RssShmem`), looked at every few hundredths of a second.
    pub(crate) resident_peak_bytes: Bytes,
    /// The same as the kernel remembers it, files mapped by the program included (`VmHWM`).
    pub(crate) high_water_bytes: Bytes,
    /// Bytes that were given to disks (`write_bytes`).
    pub(crate) written_bytes: Bytes,
}

/// Processor time by who used it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct CpuSeconds {
    /// Whoever pushes and pulls.
    pub(crate) client: f64,
    /// All providers together.
    pub(crate) providers: f64,
    pub(crate) steward: f64,
}

impl CpuSeconds {
    pub(crate) fn total(self) -> f64 {
        self.client + self.providers + self.steward
    }

    pub(crate) fn and(self, more: CpuSeconds) -> CpuSeconds {
        CpuSeconds {
            client: self.client + more.client,
            providers: self.providers + more.providers,
            steward: self.steward + more.steward,
        }
    }

    fn since(self, before: CpuSeconds) -> CpuSeconds {
        CpuSeconds {
            client: self.client - before.client,
            providers: self.providers - before.providers,
            steward: self.steward - before.steward,
        }
    }
}

/// Bytes by whose they are: of memory, `providers` is the one that took most; of written ones, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Bytes {
    pub(crate) client: u64,
    pub(crate) providers: u64,
    pub(crate) steward: u64,
}

/// Who pushes and pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// This process.
    This,
    /// A process that this one started and that ends before the measurement does. What it wrote is not known.
    Child(u32),
}

const SELF: &str = "/proc/self";

/// Whoever uses less than a hundredth of a second in so long is at rest.
const REST: Duration = Duration::from_millis(500);
const REST_CPU_SECONDS_MAX: f64 = 0.01;

impl Client {
    fn folder(self) -> String {
        match self {
            Client::This => SELF.to_owned(),
            Client::Child(pid) => format!("/proc/{pid}"),
        }
    }
}

/// Reads the counters of a client and of a network's processes.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    client: Client,
    providers: Vec<String>,
    steward: Vec<String>,
}

/// Counters when the work began.
pub(crate) struct Begun {
    at: Instant,
    cpu: CpuSeconds,
    written: Bytes,
    sampler: Sampler,
}

impl Meter {
    /// A meter for the processes of this network and for this process, which is their client.
    pub(crate) fn of(network: &Network) -> Meter {
        let (steward, providers): (Vec<_>, Vec<_>) =
            network.processes.iter().partition(|process| process.name == STEWARD);
        let folders = |processes: Vec<&crate::local::Process>| {
            processes.iter().map(|process| format!("/proc/{}", process.pid)).collect()
        };
        Meter { client: Client::This, providers: folders(providers), steward: folders(steward) }
    }

    /// A meter for this process alone: whatever network it uses runs elsewhere.
    pub(crate) fn alone() -> Meter {
        Meter { client: Client::This, providers: Vec::new(), steward: Vec::new() }
    }

    /// The same with a process for a client that this one has just started, and waits for before it ends measuring.
    pub(crate) fn of_child(&self, pid: u32) -> Meter {
        Meter { client: Client::Child(pid), ..self.clone() }
    }

    /// Waits until no process does anything, but no longer than `patience`.
    pub(crate) async fn at_rest(&self, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut before = self.cpu()?;
        while began.elapsed() < patience {
            tokio::time::sleep(REST).await;
            let now = self.cpu()?;
            if now.since(before).total() <= REST_CPU_SECONDS_MAX {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Begins to measure: peaks count from here.
    pub(crate) fn begin(&self) -> anyhow::Result<Begun> {
        for folder in self.folders() {
            // Forgets the peak so far (proc_pid_clear_refs). Where that is not allowed a peak counts from the
            // process's start, which is never too low.
            let _counts_from_the_start = std::fs::write(format!("{folder}/clear_refs"), "5");
        }
        let groups = [vec![self.client.folder()], self.providers.clone(), self.steward.clone()];
        let sampler = Sampler::start(groups);
        Ok(Begun { cpu: self.cpu()?, written: self.written()?, sampler, at: Instant::now() })
    }

    /// What was used since `begun` for work on so many user bytes.
    pub(crate) fn end(&self, begun: Begun, bytes: u64) -> anyhow::Result<Cost> {
        let seconds = begun.at.elapsed().as_secs_f64();
        let mut cpu_seconds = self.cpu()?.since(begun.cpu);
        let written = self.written()?;
        let sampled = begun.sampler.stop();
        if self.client == Client::This {
            // Looking is no part of the work.
            cpu_seconds.client = (cpu_seconds.client - sampled.cpu.as_secs_f64()).max(0.0);
        }
        let by_group = |[client, providers, steward]: [u64; 3]| Bytes { client, providers, steward };
        Ok(Cost {
            bytes,
            seconds,
            bytes_per_second: float(bytes) / seconds.max(1e-9),
            cpu_seconds,
            resident_peak_bytes: by_group(sampled.resident),
            high_water_bytes: by_group(sampled.high_water),
            written_bytes: Bytes {
                client: written.client.saturating_sub(begun.written.client),
                providers: written.providers.saturating_sub(begun.written.providers),
                steward: written.steward.saturating_sub(begun.written.steward),
            },
        })
    }

    fn folders(&self) -> impl Iterator<Item = String> {
        self.providers.iter().chain(&self.steward).cloned().chain([self.client.folder()])
    }

    fn cpu(&self) -> anyhow::Result<CpuSeconds> {
        let sum = |folders: &[String]| folders.iter().map(|folder| proc::cpu_seconds(folder)).sum();
        let client = match self.client {
            Client::This => process_cpu().as_secs_f64(),
            Client::Child(_) => proc::children_cpu_seconds(SELF)?,
        };
        let (providers, steward): (anyhow::Result<f64>, anyhow::Result<f64>) =
            (sum(&self.providers), sum(&self.steward));
        Ok(CpuSeconds { client, providers: providers?, steward: steward? })
    }

    fn written(&self) -> anyhow::Result<Bytes> {
        let sum = |folders: &[String]| folders.iter().map(|folder| proc::written_bytes(folder)).sum();
        let (providers, steward): (anyhow::Result<u64>, anyhow::Result<u64>) =
            (sum(&self.providers), sum(&self.steward));
        let client = match self.client {
            Client::This => proc::written_bytes(SELF)?,
            Client::Child(_) => 0,
        };
        Ok(Bytes { client, providers: providers?, steward: steward? })
    }
}

/// Processor time of another process so far, in seconds.
pub(crate) fn cpu_seconds_of(pid: u32) -> anyhow::Result<f64> {
    proc::cpu_seconds(&format!("/proc/{pid}"))
}

/// Processor time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

/// Processor time of all threads of this process.
pub(crate) fn process_cpu() -> Duration {
    clock(rustix::time::ClockId::ProcessCPUTime)
}

fn clock(clock: rustix::time::ClockId) -> Duration {
    let now = rustix::time::clock_gettime(clock);
    Duration::try_from(now).expect("processor time is not negative")
}

/// A count as a number to divide; above 2^53 its last digits go, which no ratio shows.
#[allow(clippy::cast_precision_loss, reason = "only ratios and rates come of it")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// A rate or mean as whole bytes, for showing.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "conversion saturates, and is only shown"
)]
pub(crate) fn whole(bytes: f64) -> u64 {
    bytes.round() as u64
}

#[cfg(test)]
mod tests {
    use super::{Meter, process_cpu, thread_cpu};

    #[test]
    fn work_of_this_process_is_counted_and_what_it_holds_seen() {
        let meter = Meter::alone();
        let begun = meter.begin().unwrap();
        let held = vec![7u8; 64 << 20];
        let cpu = thread_cpu();
        while (thread_cpu() - cpu).as_millis() < 80 {
            std::hint::black_box(&held);
        }
        let cost = meter.end(begun, 100).unwrap();
        assert!(cost.cpu_seconds.client > 0.03, "{cost:?}");
        assert!(cost.resident_peak_bytes.client > 64 << 20, "{cost:?}");
        assert!(cost.high_water_bytes.client >= 64 << 20, "{cost:?}");
        assert_eq!(cost.cpu_seconds.providers.to_bits(), 0f64.to_bits());
        assert!(process_cpu() >= thread_cpu());
    }

    /// Shares of it are told, and nothing can be a share of nothing.
    #[test]
    fn even_a_moment_of_work_costs_something() {
        let meter = Meter::alone();
        let begun = meter.begin().unwrap();
        let cpu = thread_cpu();
        while (thread_cpu() - cpu).as_micros() < 300 {}
        let cost = meter.end(begun, 100).unwrap();
        assert!(cost.cpu_seconds.client > 0.0, "{cost:?}");
    }
}
