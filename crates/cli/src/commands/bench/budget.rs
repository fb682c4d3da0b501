//! The processor limit: the sum of what every stage costs when it is done once, and so the rate that the machine's
//! cores could reach if they did nothing else.
//!
//! Client and providers share this machine, so both ends of every connection count. Pure arithmetic on measured rates.

use super::primitives::Rates;
use seedbank_erasure::Scheme;
use serde::Serialize;

/// One stage's share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Term {
    pub(crate) stage: &'static str,
    /// Nanoseconds of one core for each user byte.
    pub(crate) nanoseconds_per_byte: f64,
}

/// What a byte costs, and what follows from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Limit {
    pub(crate) terms: Vec<Term>,
    pub(crate) nanoseconds_per_byte: f64,
    pub(crate) cores: usize,
    /// 10^9 user bytes per second when all cores are busy.
    pub(crate) limit_gigabytes_per_second: f64,
    /// What was measured, in the same unit.
    pub(crate) measured_gigabytes_per_second: f64,
    /// Measured rate over limit.
    pub(crate) efficiency: f64,
    /// Processor time that was really used by all processes, for each user byte.
    pub(crate) measured_cpu_nanoseconds_per_byte: f64,
}

/// What was measured of a push or a pull.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) gigabytes_per_second: f64,
    pub(crate) cpu_nanoseconds_per_byte: f64,
}

/// The limit of a push. `wire` is what moving one byte costs both ends together, in nanoseconds.
pub(crate) fn write(rates: &Rates, scheme: Scheme, wire: f64, cores: usize, measured: Measured) -> Limit {
    let expansion = number(scheme.total()) / number(scheme.data());
    let terms = vec![
        term("read file", 1.0 / rates.memcpy),
        term("chunk", 1.0 / rates.chunk),
        term("chunk id", 1.0 / rates.chunk_id),
        term("file SHA-256", 1.0 / rates.sha256),
        term("seal", 1.0 / rates.seal),
        term("parity and fragment ids", 1.0 / rates.code),
        term("send and receive", expansion * wire),
        term("providers hash", expansion / rates.fragment_hash),
        term("providers write", expansion / rates.memcpy),
    ];
    limit(terms, cores, measured)
}

/// The limit of a pull with nothing lost. `wire` as for [`write`].
pub(crate) fn read(rates: &Rates, wire: f64, cores: usize, measured: Measured) -> Limit {
    let terms = vec![
        term("providers read", 1.0 / rates.memcpy),
        term("send and receive", wire),
        term("open and check id", 1.0 / rates.open),
        term("write file", 1.0 / rates.memcpy),
    ];
    limit(terms, cores, measured)
}

const fn term(stage: &'static str, nanoseconds_per_byte: f64) -> Term {
    Term { stage, nanoseconds_per_byte }
}

fn limit(terms: Vec<Term>, cores: usize, measured: Measured) -> Limit {
    let nanoseconds_per_byte: f64 = terms.iter().map(|term| term.nanoseconds_per_byte).sum();
    let limit_gigabytes_per_second = number(cores) / nanoseconds_per_byte;
    Limit {
        terms,
        nanoseconds_per_byte,
        cores,
        limit_gigabytes_per_second,
        measured_gigabytes_per_second: measured.gigabytes_per_second,
        efficiency: measured.gigabytes_per_second / limit_gigabytes_per_second,
        measured_cpu_nanoseconds_per_byte: measured.cpu_nanoseconds_per_byte,
    }
}

fn number(small: usize) -> f64 {
    f64::from(u32::try_from(small).expect("cores and fragments are counted in hundreds at most"))
}

#[cfg(test)]
mod tests {
    use super::{Measured, read, write};
    use crate::commands::bench::primitives::Rates;
    use seedbank_erasure::Scheme;

    fn rates() -> Rates {
        Rates {
            kernel: "scalar",
            memcpy: 5.0,
            sha256: 2.0,
            blake3_keyed: 5.0,
            aes_256_gcm_seal: 10.0,
            aes_256_gcm_open: 10.0,
            chunk: 2.5,
            chunk_id: 5.0,
            seal: 4.0,
            open: 4.0,
            encode: 10.0,
            fragment_hash: 4.0,
            code: 2.0,
        }
    }

    #[test]
    fn limit_is_what_all_cores_do_in_the_sum_of_the_stages() {
        let measured = Measured { gigabytes_per_second: 0.2, cpu_nanoseconds_per_byte: 9.0 };
        let limit = write(&rates(), Scheme::new(4, 8).unwrap(), 0.5, 2, measured);
        // 0.2 + 0.4 + 0.2 + 0.5 + 0.25 + 0.5, then twice 0.5 + 0.25 + 0.2.
        assert!((limit.nanoseconds_per_byte - 3.95).abs() < 1e-9);
        assert!((limit.limit_gigabytes_per_second - 2.0 / 3.95).abs() < 1e-9);
        assert!((limit.efficiency - 0.2 * 3.95 / 2.0).abs() < 1e-9);
        let limit = read(&rates(), 0.5, 2, measured);
        assert!((limit.nanoseconds_per_byte - 1.15).abs() < 1e-9);
    }
}
