//! Agreements that the chain has and the books do not: of an older copy of the books, or closed there by mistake. The chain's events name them.

use super::{Keeper, RoundError};
use crate::money::connect::ChainError;
use seedbank_agreement::{Address, AgreementId};
use seedbank_settlement::{
    Chain, Cursor, Event, EventItem, EventPolicy, Events, EventsError, MarketEvent, ReadError,
};
use std::collections::BTreeSet;
use tracing::warn;

/// Looks in one round, of some thousand blocks each: a long past takes several rounds, between which the operator is told.
const LOOKS_MAX: u32 = 100;

/// How far the chain's past was read, and whose agreements it told of.
pub(super) struct Search {
    events: Events,
    own: Address,
    found: BTreeSet<AgreementId>,
}

impl Search {
    pub(super) fn new(chain: &Chain, own: Address) -> Search {
        let events = Events::new(chain, Cursor::from_block(0), EventPolicy::default());
        Search { events, own, found: BTreeSet::new() }
    }

    /// Reads on. What a reorganisation took back may stay among the found: whoever asks the chain for it sees that.
    async fn read(&mut self) -> Result<(), EventsError> {
        for _ in 0..LOOKS_MAX {
            let batch = self.events.poll().await?;
            for item in batch.items {
                let EventItem::Happened(happened) = item else { continue };
                match happened.event {
                    Event::Market(MarketEvent::AgreementOpened { agreement, proposal })
                        if proposal.provider == self.own =>
                    {
                        self.found.insert(agreement);
                    }
                    Event::Market(MarketEvent::AgreementClosed { agreement, .. }) => {
                        self.found.remove(&agreement);
                    }
                    _ => {}
                }
            }
            if batch.caught_up {
                break;
            }
        }
        Ok(())
    }
}

impl Keeper {
    /// Own agreements that the chain's events name, as far as they were read.
    pub(super) async fn by_events(&mut self) -> Result<Vec<AgreementId>, RoundError> {
        let (chain, own) = (self.wallet.chain().clone(), self.own());
        let search = self.search.get_or_insert_with(|| Search::new(&chain, own));
        match search.read().await {
            Ok(()) => Ok(search.found.iter().copied().collect()),
            Err(EventsError::Unanswered(error)) => Err(ChainError::Read(ReadError::Unanswered(error)).into()),
            Err(error @ EventsError::TooDeep { .. }) => {
                warn!(%error, "the search for agreements begins anew");
                self.search = None;
                Ok(Vec::new())
            }
        }
    }
}
