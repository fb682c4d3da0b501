//! The best of many short rounds, in processor time.

use super::meter::thread_cpu;
use std::time::{Duration, Instant};
use tokio::task::{block_in_place, yield_now};

/// A chunk of the usual length.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// What files are read and written in.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Each figure is looked for so long.
const PATIENCE: Duration = Duration::from_millis(300);
/// A round of chunks handles about so many bytes: milliseconds, long beside the clock and short beside a time slice.
const ROUND_BYTES: usize = 8 << 20;

/// Nanoseconds a byte of the best round that handles so many bytes, by the clock of the thread that runs it. Gives way
/// between rounds, so that Ctrl-C is heard.
pub(crate) async fn best<T>(bytes: usize, round: impl FnMut() -> T) -> f64 {
    best_by(thread_cpu, bytes, round).await
}

/// The same by another clock. What a round leaves is dropped when its time has been taken.
pub(crate) async fn best_by<T>(clock: fn() -> Duration, bytes: usize, mut round: impl FnMut() -> T) -> f64 {
    let begun = Instant::now();
    let mut shortest = Duration::MAX;
    while shortest == Duration::MAX || begun.elapsed() < PATIENCE {
        let used = block_in_place(|| {
            let at = clock();
            let left = round();
            let used = clock() - at;
            drop(left);
            used
        });
        shortest = shortest.min(used);
        yield_now().await;
    }
    shortest.as_secs_f64() * 1e9 / super::meter::float(bytes as u64)
}

/// Nanoseconds a byte of a round over one chunk.
pub(crate) async fn best_of_chunks(mut round: impl FnMut()) -> f64 {
    best(ROUND_BYTES, || (0..ROUND_BYTES / CHUNK_BYTES).for_each(|_| round())).await
}

/// The middle of what was measured, and how far the rest lies from it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Spread { median, min: values[0], max: values[values.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn median_lies_in_the_middle_of_odd_and_of_even_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }
}
