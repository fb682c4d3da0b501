//! The processor limit: what every stage of a push or pull costs when the machine's best code does it once, and so the
//! rate that the machine's cores could reach if they did nothing else.
//!
//! Which stages count, and as what, stands in `bench/limit.toml` and nowhere else. Client and providers share this
//! machine, so both ends of every connection count. Pure arithmetic on what [`super::references`] measured.

use super::meter::{Cost, float};
use super::references::{Reference, References};
use anyhow::{Context, bail};
use seedbank_erasure::Scheme;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const FILE: &str = include_str!("../../../../../bench/limit.toml");

pub(crate) const GIB: f64 = 1_073_741_824.0;

/// `bench/limit.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Formulas {
    pub(crate) reference: Vec<ReferenceLine>,
    push: Vec<TermLine>,
    pull: Vec<TermLine>,
}

/// What one reference is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReferenceLine {
    pub(crate) name: Reference,
    pub(crate) measures: String,
    pub(crate) code: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TermLine {
    stage: String,
    reference: Reference,
    times: Times,
}

/// How many bytes a stage handles for each user byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Times {
    #[serde(rename = "1")]
    Once,
    #[serde(rename = "n/k")]
    Expansion,
}

impl Times {
    pub(crate) fn of(self, scheme: Scheme) -> f64 {
        match self {
            Times::Once => 1.0,
            Times::Expansion => number(scheme.total()) / number(scheme.data()),
        }
    }
}

/// Which formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Push,
    Pull,
}

/// One stage's share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Term {
    pub(crate) stage: String,
    pub(crate) reference: Reference,
    pub(crate) times: Times,
    /// Nanoseconds of one core for each user byte.
    pub(crate) nanoseconds_per_byte: f64,
    pub(crate) cpu_seconds_per_gib: f64,
    /// Of the processor time that was really used.
    pub(crate) share: f64,
}

/// What a byte costs at least, what it cost, and what follows from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Limit {
    pub(crate) terms: Vec<Term>,
    pub(crate) nanoseconds_per_byte: f64,
    pub(crate) cpu_seconds_per_gib: f64,
    pub(crate) cores: usize,
    /// 10^9 user bytes per second when all cores are busy with nothing else.
    pub(crate) limit_gigabytes_per_second: f64,
    /// What was measured, in the same unit.
    pub(crate) measured_gigabytes_per_second: f64,
    /// Measured rate over limit.
    pub(crate) achieved: f64,
    pub(crate) used: Used,
    /// Used and in no term.
    pub(crate) overhead_cpu_seconds_per_gib: f64,
    pub(crate) overhead_share: f64,
    /// How long the cores were busy, of all the time that they had.
    pub(crate) cores_busy: f64,
}

/// Processor seconds for each GiB of user bytes, by who used them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Used {
    pub(crate) client: f64,
    pub(crate) providers: f64,
    pub(crate) steward: f64,
    pub(crate) total: f64,
}

impl Used {
    pub(crate) fn by(cost: &Cost) -> Used {
        let gib = float(cost.bytes.max(1)) / GIB;
        let cpu = cost.cpu_seconds;
        Used {
            client: cpu.client / gib,
            providers: cpu.providers / gib,
            steward: cpu.steward / gib,
            total: cpu.total() / gib,
        }
    }
}

impl Formulas {
    /// Reads what this program carries.
    pub(crate) fn load() -> anyhow::Result<Formulas> {
        Formulas::parse(FILE)
    }

    fn parse(text: &str) -> anyhow::Result<Formulas> {
        let formulas: Formulas = toml::from_str(text).context("bench/limit.toml")?;
        let described: BTreeSet<Reference> = formulas.reference.iter().map(|line| line.name).collect();
        if described.len() != formulas.reference.len() {
            bail!("bench/limit.toml describes a reference twice");
        }
        if let Some(missing) = Reference::ALL.iter().find(|name| !described.contains(name)) {
            bail!("bench/limit.toml does not say what {} is", missing.name());
        }
        Ok(formulas)
    }

    /// The limit of one push or pull, beside what it cost.
    pub(crate) fn limit(
        &self,
        path: Path,
        references: &References,
        scheme: Scheme,
        cores: usize,
        cost: &Cost,
    ) -> Limit {
        let lines = match path {
            Path::Push => &self.push,
            Path::Pull => &self.pull,
        };
        let used = Used::by(cost);
        let terms: Vec<Term> = lines
            .iter()
            .map(|line| {
                let nanoseconds_per_byte = line.times.of(scheme) * references.nanoseconds(line.reference);
                let cpu_seconds_per_gib = nanoseconds_per_byte * GIB / 1e9;
                let share = cpu_seconds_per_gib / used.total;
                let (stage, reference, times) = (line.stage.clone(), line.reference, line.times);
                Term { stage, reference, times, nanoseconds_per_byte, cpu_seconds_per_gib, share }
            })
            .collect();
        let nanoseconds_per_byte: f64 = terms.iter().map(|term| term.nanoseconds_per_byte).sum();
        let cpu_seconds_per_gib = nanoseconds_per_byte * GIB / 1e9;
        let limit_gigabytes_per_second = number(cores) / nanoseconds_per_byte;
        let measured_gigabytes_per_second = cost.bytes_per_second / 1e9;
        let overhead_cpu_seconds_per_gib = used.total - cpu_seconds_per_gib;
        Limit {
            terms,
            nanoseconds_per_byte,
            cpu_seconds_per_gib,
            cores,
            limit_gigabytes_per_second,
            measured_gigabytes_per_second,
            achieved: measured_gigabytes_per_second / limit_gigabytes_per_second,
            used,
            overhead_cpu_seconds_per_gib,
            overhead_share: overhead_cpu_seconds_per_gib / used.total,
            cores_busy: cost.cpu_seconds.total() / (cost.seconds * number(cores)).max(1e-9),
        }
    }
}

pub(crate) fn number(small: usize) -> f64 {
    f64::from(u32::try_from(small).expect("cores and fragments are counted in hundreds at most"))
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::{FILE, Formulas, Path};
    use crate::commands::bench::meter::{Bytes, Cost, CpuSeconds};
    use crate::commands::bench::references::{Reference, References};
    use seedbank_erasure::Scheme;
    use std::collections::BTreeSet;

    fn cost(bytes: u64, seconds: f64, cpu: f64) -> Cost {
        Cost {
            bytes,
            seconds,
            bytes_per_second: 1e9 / seconds,
            cpu_seconds: CpuSeconds { client: cpu / 2.0, providers: cpu / 2.0, steward: 0.0 },
            resident_peak_bytes: Bytes::default(),
            high_water_bytes: Bytes::default(),
            written_bytes: Bytes::default(),
        }
    }

    #[test]
    fn limit_is_what_all_cores_do_in_the_sum_of_the_stages() {
        let references = References::all_at(0.25);
        let formulas = Formulas::load().unwrap();
        let scheme = Scheme::new(4, 8).unwrap();
        let limit = formulas.limit(Path::Push, &references, scheme, 2, &cost(1_000_000_000, 4.0, 6.0));
        // 8 stages of the bytes, and 5 of twice as many.
        assert!((limit.nanoseconds_per_byte - 0.25 * 18.0).abs() < 1e-9);
        assert!((limit.limit_gigabytes_per_second - 2.0 / 4.5).abs() < 1e-9);
        assert!((limit.achieved - 0.25 * 4.5 / 2.0).abs() < 1e-9);
        assert!((limit.overhead_share - 1.5 / 6.0).abs() < 1e-9);
        assert!((limit.terms.iter().map(|term| term.share).sum::<f64>() - 0.75).abs() < 1e-9);
        let limit = formulas.limit(Path::Pull, &references, scheme, 2, &cost(1_000_000_000, 1.0, 2.0));
        assert!((limit.nanoseconds_per_byte - 1.5).abs() < 1e-9);
    }

    #[test]
    fn unknown_missing_and_doubled_references_are_refused() {
        let unknown = FILE.replacen("reference = \"memcpy\"", "reference = \"magic\"", 1);
        assert!(Formulas::parse(&unknown).is_err());
        let missing = FILE.replacen("name = \"tls_send\"", "name = \"tls_receive\"", 1);
        assert!(Formulas::parse(&missing).is_err());
        let unknown_key = FILE.replacen("times = \"1\"", "times = \"1\"\nfudge = 2", 1);
        assert!(Formulas::parse(&unknown_key).is_err());
        let times = FILE.replacen("times = \"1\"", "times = \"3\"", 1);
        assert!(Formulas::parse(&times).is_err());
    }

    /// The newest decision note that lists references lists those of the file: a change of one needs a change of mind.
    #[test]
    fn references_are_those_of_the_newest_note_about_them() {
        let notes = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/decisions");
        let mut notes: Vec<_> = std::fs::read_dir(notes).unwrap().map(|note| note.unwrap().path()).collect();
        notes.sort();
        let note = notes
            .iter()
            .rev()
            .map(|note| std::fs::read_to_string(note).unwrap())
            .find(|text| text.contains("The references:\n"))
            .expect("0005 lists them");
        let list = note.split_once("The references:\n\n").unwrap().1;
        let list = list.split("\n\n").next().unwrap();
        let lines = list.lines().filter_map(|line| line.strip_prefix("- "));
        let named: BTreeSet<&str> =
            lines.flat_map(|line| line.split(':').next().unwrap().split('`').skip(1).step_by(2)).collect();
        let known: BTreeSet<&str> = Reference::ALL.iter().map(|reference| reference.name()).collect();
        assert_eq!(named, known);
        let formulas = Formulas::load().unwrap();
        let described: BTreeSet<&str> = formulas.reference.iter().map(|line| line.name.name()).collect();
        assert_eq!(described, known);
    }
}
