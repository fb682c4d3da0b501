//! Log lines on standard error, as text or JSON. Standard output is for data.

use crate::args::LogFormat;
use std::io::{self, IsTerminal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

/// The text is not a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a log level; use off, error, warn, info, debug or trace")]
pub(crate) struct UnknownLevel(String);

/// The level that was asked for, or the command's own default: daemons tell what they do, commands only what goes wrong.
///
/// # Errors
/// [`UnknownLevel`].
pub(crate) fn level(asked: Option<&str>, default: LevelFilter) -> Result<LevelFilter, UnknownLevel> {
    let Some(text) = asked.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(default) };
    // By name only: the library would also take numbers, which read as their own opposites.
    let named = ["off", "error", "warn", "info", "debug", "trace"]
        .into_iter()
        .find(|name| text.eq_ignore_ascii_case(name))
        .and_then(|name| name.parse().ok());
    named.ok_or_else(|| UnknownLevel(text.to_owned()))
}

/// Starts logging for the whole process. Called once; a second call changes nothing.
pub(crate) fn start(level: LevelFilter, format: LogFormat) {
    let lines = fmt().with_max_level(level).with_writer(io::stderr).with_target(true);
    let started = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // Tests share one process: whoever came first has set it up.
    let _already_started = started.err();
}

#[cfg(test)]
mod tests {
    use super::{UnknownLevel, level};
    use tracing::level_filters::LevelFilter;

    #[test]
    fn level_is_the_asked_one_or_the_default() {
        assert_eq!(level(Some("Debug"), LevelFilter::WARN), Ok(LevelFilter::DEBUG));
        assert_eq!(level(Some("off"), LevelFilter::WARN), Ok(LevelFilter::OFF));
        assert_eq!(level(Some(""), LevelFilter::WARN), Ok(LevelFilter::WARN));
        assert_eq!(level(None, LevelFilter::INFO), Ok(LevelFilter::INFO));
        assert_eq!(level(Some("loud"), LevelFilter::INFO), Err(UnknownLevel("loud".to_owned())));
        assert_eq!(level(Some("1"), LevelFilter::INFO), Err(UnknownLevel("1".to_owned())));
    }
}
