//! The hedging of a simulated client, with accounts of its own.

use seedbank_formats::PublicKey;
use seedbank_protocol::hedging::{Hedging, Leave, Wish};
use seedbank_protocol::moment::Moment;

/// Requests of hedges that may be spent before any is earned.
const BURST: u64 = 16;

/// Requests that earn one.
const PER_HEDGE: u64 = 20;

/// The real budget, and what was asked and spent.
#[derive(Debug, Default)]
pub(crate) struct Hedges {
    pub(crate) budget: Hedging,
    asked: u64,
    /// On those that are only slow. Silence needs no leave.
    spent: u64,
}

impl Hedges {
    pub(crate) fn asked(&mut self, provider: PublicKey, now: Moment) {
        self.asked += 1;
        self.budget.asked(provider, now);
    }

    pub(crate) fn leave(&mut self, wish: &Wish, now: Moment) -> Leave {
        let silent = wish.against.is_some_and(|provider| self.budget.is_silent(&provider, now));
        let leave = self.budget.leave(wish, now);
        if leave == Leave::Given && !silent {
            self.spent += u64::from(wish.requests);
        }
        leave
    }

    /// What is wrong with how much was spent.
    pub(crate) fn excess(&self) -> Option<String> {
        let (asked, spent) = (self.asked, self.spent);
        (spent > BURST + asked / PER_HEDGE)
            .then(|| format!("has hedged {spent} requests of reads against slow providers in {asked}"))
    }
}
