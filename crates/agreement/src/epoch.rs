//! The numbering of time and of agreements, as the contracts number them.

use seedbank_formats::Timestamp;
use std::fmt;

/// A number of an epoch, from 0 at a deployment's genesis.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The next one. There is none after the last of 2^32.
    #[must_use]
    pub fn next(self) -> Option<Epoch> {
        self.0.checked_add(1).map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// An agreement's number in its market, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct AgreementId(pub u32);

impl fmt::Display for AgreementId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// When a deployment's epochs begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EpochClock {
    /// When epoch 0 begins.
    pub genesis: Timestamp,
    /// Length of an epoch in seconds, not 0.
    pub epoch_seconds: u32,
}

impl EpochClock {
    /// The epoch that a time lies in. `None` before genesis, and for a clock without length.
    #[must_use]
    pub fn at(&self, time: Timestamp) -> Option<Epoch> {
        let since = time.0.checked_sub(self.genesis.0)?;
        // As the contract: what is beyond 2^32 epochs is not reached by any clock.
        u32::try_from(since.checked_div(u64::from(self.epoch_seconds))?).ok().map(Epoch)
    }

    /// When an epoch begins.
    #[must_use]
    pub fn begin(&self, epoch: Epoch) -> Timestamp {
        self.genesis.plus_seconds(u64::from(epoch.0) * u64::from(self.epoch_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::{Epoch, EpochClock};
    use seedbank_formats::Timestamp;

    #[test]
    fn an_epoch_holds_its_first_second_and_not_the_next_ones() {
        let clock = EpochClock { genesis: Timestamp(1_000), epoch_seconds: 60 };
        assert_eq!(clock.at(Timestamp(999)), None);
        assert_eq!(clock.at(Timestamp(1_000)), Some(Epoch(0)));
        assert_eq!(clock.at(Timestamp(1_059)), Some(Epoch(0)));
        assert_eq!(clock.at(Timestamp(1_060)), Some(Epoch(1)));
        assert_eq!(clock.begin(Epoch(1)), Timestamp(1_060));
        assert_eq!(EpochClock { epoch_seconds: 0, ..clock }.at(Timestamp(1_000)), None);
    }
}
