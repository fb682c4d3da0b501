//! How many file descriptors this process may have, and who gets them.
//!
//! A store that can't open its files for want of descriptors would have to refuse what it holds. So connections get only
//! what the store and the rest of the daemon leave, and whoever comes beyond that is refused at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The store's cached files, one more for each thread at the disk, the monitoring pages, and a few of the process's own.
const OTHERS: u64 = 128 + 32 + 16 + 32;
/// With fewer connections nobody would be served.
const CONNECTIONS_MIN: u64 = 8;

/// The system allows too few descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFew {
    pub(crate) allowed: u64,
    pub(crate) needed: u64,
}

/// Raises what the process may have as far as it goes, and says how many connections there can be: at most `wanted`.
pub(crate) fn connections(wanted: usize) -> Result<usize, TooFew> {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    share(allowed, wanted)
}

/// What `allowed` descriptors leave for connections; `None` is no limit.
fn share(allowed: Option<u64>, wanted: usize) -> Result<usize, TooFew> {
    let Some(allowed) = allowed else {
        return Ok(wanted);
    };
    let left = allowed.saturating_sub(OTHERS);
    if left < CONNECTIONS_MIN {
        return Err(TooFew { allowed, needed: OTHERS + CONNECTIONS_MIN });
    }
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    if left < wanted {
        tracing::warn!(
            wanted,
            left,
            "fewer connections than configured: the system allows too few descriptors"
        );
    }
    Ok(left.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::{OTHERS, TooFew, share};

    #[test]
    fn connections_get_what_the_rest_leaves() {
        assert_eq!(share(None, 256), Ok(256));
        assert_eq!(share(Some(1024), 256), Ok(256));
        assert_eq!(share(Some(OTHERS + 48), 256), Ok(48));
        assert_eq!(share(Some(100), 256), Err(TooFew { allowed: 100, needed: OTHERS + 8 }));
    }
}
