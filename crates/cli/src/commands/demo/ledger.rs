//! Who was paid for what, out of what the contracts told. Pure.

use crate::output::{Align, table};
use seedbank_agreement::{Address, Amount, Epoch};
use seedbank_settlement::{ChannelEvent, Event, MarketEvent};
use serde::Serialize;
use std::collections::BTreeMap;

/// What one provider got and lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Account {
    /// Epochs that it proved.
    pub(super) proven: u32,
    /// Rent for them.
    pub(super) rent: Amount,
    /// Vouchers that it cashed.
    pub(super) vouchers: u32,
    /// What they paid.
    pub(super) reads: Amount,
    /// Epochs that were recorded as missed.
    pub(super) missed: u32,
    /// What they cost it.
    pub(super) slashed: Amount,
}

/// What was told about everybody's money.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// By the provider's wallet.
    pub(super) providers: BTreeMap<Address, Account>,
    /// What slashing brought to clients.
    pub(super) compensated: Amount,
    /// What it brought to whoever recorded the misses.
    pub(super) bounties: Amount,
    /// Escrow that came back.
    pub(super) refunded: Amount,
    /// Vouchers that were refused.
    pub(super) vouchers_refused: u32,
}

impl Told {
    /// Adds up what happened, of proofs those of the epochs up to the last one that is told of.
    pub(super) fn of(events: &[Event], last: Epoch) -> Told {
        let mut told = Told::default();
        for event in events {
            match event {
                Event::Market(MarketEvent::Proven { provider, epoch, paid }) if *epoch <= last => {
                    let account = told.providers.entry(*provider).or_default();
                    account.proven += 1;
                    add(&mut account.rent, *paid);
                }
                Event::Market(MarketEvent::Missed { provider, slashed, bounty, .. }) => {
                    let account = told.providers.entry(*provider).or_default();
                    account.missed += 1;
                    add(&mut account.slashed, *slashed);
                    add(&mut told.bounties, *bounty);
                }
                Event::Market(MarketEvent::Compensated { sum, .. }) => add(&mut told.compensated, *sum),
                Event::Market(MarketEvent::AgreementClosed { refund, .. }) => {
                    add(&mut told.refunded, *refund)
                }
                Event::Channels(ChannelEvent::Redeemed { payee, paid, .. }) => {
                    let account = told.providers.entry(*payee).or_default();
                    account.vouchers += 1;
                    add(&mut account.reads, *paid);
                }
                Event::Channels(ChannelEvent::VoucherSkipped { .. }) => told.vouchers_refused += 1,
                _ => {}
            }
        }
        told
    }
}

/// The token has fewer units than an amount can hold.
fn add(sum: &mut Amount, more: Amount) {
    *sum = sum.saturating_add(more);
}

/// One provider in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// Which process.
    pub(super) name: String,
    /// What the demo did to it.
    pub(super) fate: &'static str,
    #[serde(flatten)]
    pub(super) account: Account,
    /// Its stake at the end.
    pub(super) stake: Amount,
}

/// Something that somebody tried and the contracts refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refused {
    /// Who tried what.
    pub(super) attempt: String,
    /// How often.
    pub(super) times: u32,
    /// What the contract said.
    pub(super) why: String,
}

/// Where all tokens are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Holding {
    /// Who, or which contract.
    pub(super) holder: String,
    /// How much.
    pub(super) units: Amount,
}

/// How the money went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Ledger {
    pub(super) epochs: u32,
    pub(super) token: String,
    pub(super) decimals: u8,
    pub(super) providers: Vec<Line>,
    pub(super) refused: Vec<Refused>,
    pub(super) compensated: Amount,
    pub(super) bounties: Amount,
    pub(super) refunded: Amount,
    pub(super) holdings: Vec<Holding>,
    /// All tokens that were ever made.
    pub(super) made: Amount,
}

impl Ledger {
    /// All tokens that somebody has.
    pub(super) fn held(&self) -> Amount {
        self.holdings.iter().map(|holding| holding.units).sum()
    }

    /// As the demo shows it.
    pub(super) fn text(&self) -> String {
        let amount = |units: Amount| billionths(units, self.decimals);
        let rows: Vec<Vec<String>> = self
            .providers
            .iter()
            .map(|line| {
                vec![
                    line.name.clone(),
                    line.fate.to_owned(),
                    line.account.proven.to_string(),
                    amount(line.account.rent),
                    line.account.vouchers.to_string(),
                    amount(line.account.reads),
                    line.account.missed.to_string(),
                    amount(line.account.slashed),
                    amount(line.stake),
                ]
            })
            .collect();
        let heads = [
            ("provider", Align::Left),
            ("", Align::Left),
            ("proven", Align::Right),
            ("rent", Align::Right),
            ("vouchers", Align::Right),
            ("reads", Align::Right),
            ("missed", Align::Right),
            ("slashed", Align::Right),
            ("stake left", Align::Right),
        ];
        let mut text =
            format!("Who was paid in {} epochs, in {}\n{}", self.epochs, self.token, table(&heads, &rows));
        text.push_str(&format!(
            "\nOf what was slashed, {} went to the client and {} to whoever recorded the misses; {} of escrow came back.\n",
            amount(self.compensated),
            amount(self.bounties),
            amount(self.refunded)
        ));
        let refused: Vec<Vec<String>> = self
            .refused
            .iter()
            .map(|refused| vec![refused.attempt.clone(), refused.times.to_string(), refused.why.clone()])
            .collect();
        let heads =
            [("refused", Align::Left), ("times", Align::Right), ("what the contract said", Align::Left)];
        text.push_str(&format!("\n{}", table(&heads, &refused)));
        let holdings: Vec<Vec<String>> =
            self.holdings.iter().map(|holding| vec![holding.holder.clone(), amount(holding.units)]).collect();
        let heads = [("where all tokens are", Align::Left), ("", Align::Right)];
        text.push_str(&format!("\n{}", table(&heads, &holdings)));
        text.push_str(&format!(
            "\nMade by the faucet {}, found above {}: {}.",
            amount(self.made),
            amount(self.held()),
            if self.made == self.held() { "none appeared, none vanished" } else { "THEY DIFFER" }
        ));
        text
    }
}

/// Tokens with nine digits behind the point, which is as fine as the demo's sums are interesting. Cut off, not rounded.
fn billionths(units: Amount, decimals: u8) -> String {
    let text = units.in_tokens(decimals);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}.{:0<9}", fraction.get(..9).unwrap_or(fraction))
}

#[cfg(test)]
mod tests {
    use super::{Account, Told, billionths};
    use seedbank_agreement::{Address, Amount, Epoch};
    use seedbank_settlement::{ChannelEvent, Event, MarketEvent};

    #[test]
    fn what_was_paid_and_slashed_adds_up_by_provider() {
        let (one, two) = (Address([1; 20]), Address([2; 20]));
        let proven = |provider, epoch, paid| {
            Event::Market(MarketEvent::Proven { provider, epoch: Epoch(epoch), paid: Amount(paid) })
        };
        let missed = Event::Market(MarketEvent::Missed {
            provider: two,
            epoch: Epoch(2),
            slashed: Amount(10),
            bounty: Amount(1),
            recorded_by: one,
        });
        let cashed = Event::Channels(ChannelEvent::Redeemed {
            payer: two,
            payee: one,
            signer: two,
            paid: Amount(7),
            cumulative: Amount(9),
        });
        let events =
            [proven(one, 1, 5), proven(one, 2, 5), proven(two, 1, 3), missed, cashed, proven(one, 3, 5)];
        let told = Told::of(&events, Epoch(2));
        let first =
            Account { proven: 2, rent: Amount(10), vouchers: 1, reads: Amount(7), ..Account::default() };
        let second =
            Account { proven: 1, rent: Amount(3), missed: 1, slashed: Amount(10), ..Account::default() };
        assert_eq!(told.providers.into_iter().collect::<Vec<_>>(), [(one, first), (two, second)]);
        assert_eq!(told.bounties, Amount(1));
    }

    #[test]
    fn tokens_have_nine_digits_behind_the_point() {
        assert_eq!(billionths(Amount(1_500_000_000_123_456_789), 18), "1.500000000");
        assert_eq!(billionths(Amount(12_345_678_901), 18), "0.000000012");
        assert_eq!(billionths(Amount(7), 0), "7.000000000");
    }
}
