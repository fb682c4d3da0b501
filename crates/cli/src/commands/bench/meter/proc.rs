//! Linux's `/proc`, as far as it says what a process used.

use anyhow::Context;

/// What `/proc/PID/stat` counts in (`USER_HZ`, the same on all of Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time so far, of threads that ended too.
pub(super) fn cpu_seconds(folder: &str) -> anyhow::Result<f64> {
    ticks_in(folder, Of::Itself)
}

/// The same of the children that it has waited for.
pub(super) fn children_cpu_seconds(folder: &str) -> anyhow::Result<f64> {
    ticks_in(folder, Of::Children)
}

/// Whose time: fields 14 and 15 of `/proc/PID/stat`, or the two after them.
#[derive(Debug, Clone, Copy)]
enum Of {
    Itself,
    Children,
}

fn ticks_in(folder: &str, of: Of) -> anyhow::Result<f64> {
    let path = format!("{folder}/stat");
    let stat = read(&path)?;
    let ticks =
        cpu_ticks(&stat, of).with_context(|| format!("{path} is not as proc_pid_stat describes it"))?;
    Ok(super::float(ticks) / TICKS_PER_SECOND)
}

/// Most memory at once, mapped files included.
pub(super) fn high_water_bytes(folder: &str) -> anyhow::Result<u64> {
    let path = format!("{folder}/status");
    let status = read(&path)?;
    kib(&status, "VmHWM:").map(|kib| kib * 1024).with_context(|| format!("{path} does not tell VmHWM"))
}

/// Memory of its own now: pages that are no part of a file.
pub(super) fn resident_bytes(folder: &str) -> anyhow::Result<u64> {
    let path = format!("{folder}/status");
    let status = read(&path)?;
    let own = kib(&status, "RssAnon:").zip(kib(&status, "RssShmem:"));
    own.map(|(anon, shared)| (anon + shared) * 1024).with_context(|| format!("{path} does not tell RssAnon"))
}

/// Bytes given to disks so far.
pub(super) fn written_bytes(folder: &str) -> anyhow::Result<u64> {
    let path = format!("{folder}/io");
    let line = read(&path)?;
    let written = line
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"))
        .and_then(|count| count.trim().parse().ok());
    written.with_context(|| format!("{path} does not tell write_bytes"))
}

fn read(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

/// User and system time. The name in field 2 may hold anything, but ends with the last parenthesis.
fn cpu_ticks(stat: &str, of: Of) -> Option<u64> {
    let before = match of {
        Of::Itself => 11,
        Of::Children => 13,
    };
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(before);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Of, cpu_ticks, kib, resident_bytes, written_bytes};

    #[test]
    fn times_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 5 0 0 0 230 41 9 9 20 0 1 0 8 1 2";
        assert_eq!(cpu_ticks(stat, Of::Itself), Some(271));
        assert_eq!(cpu_ticks(stat, Of::Children), Some(18));
        assert_eq!(cpu_ticks("77 (cut off) S 1", Of::Itself), None);
    }

    #[test]
    fn sizes_are_read_from_their_own_lines() {
        let status = "VmPeak:\t  99 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(kib(status, "VmHWM:"), Some(1234));
        assert_eq!(kib("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn this_process_tells_what_it_holds_and_wrote() {
        assert!(resident_bytes("/proc/self").unwrap() > 0);
        assert!(written_bytes("/proc/self").is_ok());
    }
}
