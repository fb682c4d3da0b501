//! What is due for one agreement: whether to post, renew, ask, stop or let go. Decisions alone; `maintain::pay` does them.

use super::budget::first_escrow;
use super::chain::{ChannelState, OnChain, Proving};
use seedbank_agreement::{Amount, Epoch};

/// So many epochs missed in a row and it is paid no longer, and gets nothing new. One can happen to anybody.
pub const MISSES_MAX: u32 = 2;

/// The contract lets announced escrow go in the third and fourth epoch, its own included.
pub const RELEASE_AFTER: u32 = 2;
const RELEASE_BEFORE: u32 = 4;

/// Money in a channel with a provider that holds nothing of ours comes back when nobody has read there for so long.
pub const IDLE_SECONDS: u64 = 7 * 86_400;

/// How far an epoch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The epoch.
    pub epoch: Epoch,
    /// Seconds since it began.
    pub elapsed: u64,
    /// Its length in seconds.
    pub length: u64,
}

impl Moment {
    /// Whether three quarters are over: what is not posted by now, the steward posts.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.elapsed.saturating_mul(4) >= self.length.saturating_mul(3)
    }
}

/// What the books know of an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// The last revision that both signed.
    pub sequence: u32,
    /// From when it holds, if it is a revision that can be posted.
    pub from: Option<Epoch>,
    /// Whether the provider was given up.
    pub is_stopped: bool,
    /// Whether something it did, or did not show, wants an answer on the chain.
    pub is_doubted: bool,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Its set lags behind the clock and nobody closed its epochs: what was missed is recorded by that.
    Advance,
    /// Terms begin or end.
    MoveOn,
    /// Its set is dead: what it held is lost, and what is locked comes back.
    Bury,
    /// Pay it no longer: it stopped proving, or was given up.
    Stop,
    /// Its question was not answered.
    Fail,
    /// Ask it.
    Ask,
    /// Post what both signed.
    Post,
    /// Sign anew: the terms end soon, or what was signed was not posted in time.
    Renew,
    /// Announce that escrow which nothing needs any more is taken back.
    AnnounceRelease(Amount),
    /// Take it back.
    Release,
}

/// What is due for an open agreement, in the order in which it is to be done.
#[must_use]
pub fn due(
    moment: &Moment,
    signed: &Signed,
    state: &OnChain,
    proving: &Proving,
    term_epochs: u32,
) -> Vec<Due> {
    let mut due = Vec::new();
    let now = moment.epoch;
    if proving.dead_at.is_some() {
        return vec![Due::Bury];
    }
    if proving.due > 0 && proving.epoch <= now {
        due.push(Due::MoveOn);
    }
    // Its provider does it when it proves, early in the epoch.
    if proving.epoch < now && moment.elapsed.saturating_mul(2) >= moment.length {
        due.push(Due::Advance);
    }
    let next = Epoch(now.0.saturating_add(1));
    match state.question {
        Some(asked) if asked < now => due.push(Due::Fail),
        None if signed.is_doubted && !signed.is_stopped && state.end > next => {
            due.push(Due::Ask);
        }
        Some(_) | None => {}
    }
    if signed.is_stopped {
        // Whoever noted that did not live to give notice, or the chain did not take it.
        if !state.ending && state.end > next {
            due.push(Due::Stop);
        }
        return due;
    }
    if state.ending || proving.misses >= MISSES_MAX {
        due.push(Due::Stop);
        return due;
    }
    let is_posted = state.sequence >= signed.sequence;
    match signed.from {
        Some(from) if !is_posted && from == next => {
            if moment.is_late() {
                due.push(Due::Post);
            }
        }
        // It can't be posted any more.
        Some(from) if !is_posted && from <= now => due.push(Due::Renew),
        // Whatever was signed is not here to be posted.
        None if !is_posted => due.push(Due::Renew),
        Some(_) | None if is_posted && state.end.0.saturating_sub(now.0) <= term_epochs / 2 => {
            due.push(Due::Renew);
        }
        Some(_) | None => {}
    }
    let spare = spare_escrow(state, term_epochs);
    let waited = state.release.map(|announced| now.0.saturating_sub(announced.0));
    match waited {
        Some(waited) if waited < RELEASE_AFTER => {}
        // The contract keeps back what terms need that were made since.
        Some(waited) if waited < RELEASE_BEFORE => {
            if proving.epoch >= now {
                due.push(Due::Release);
            }
        }
        Some(_) | None => {
            if spare > Amount::ZERO {
                due.push(Due::AnnounceRelease(spare));
            }
        }
    }
    due
}

/// Escrow that nothing needs: what is left beside two terms and the current epoch, once it is a term's rent. Less goes back
/// and forth with every change of the set.
fn spare_escrow(state: &OnChain, term_epochs: u32) -> Amount {
    let rate = state.rate.max(state.next_rate);
    let kept = first_escrow(rate, term_epochs).saturating_add(rate.over(1));
    let spare = state.locked.saturating_sub(kept);
    if spare >= rate.over(term_epochs) { spare } else { Amount::ZERO }
}

/// What becomes of a channel's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelDue {
    /// It stays, or nothing can be done yet.
    Nothing,
    /// Announce that so much leaves.
    Announce(Amount),
    /// The time is over: take it.
    Take,
}

/// Decides about a channel that nobody needs any more. `covered` is what this home's known lanes may still promise there:
/// what lanes promise of which it knows nothing stays.
#[must_use]
pub fn leave(now: u64, state: &ChannelState, covered: Amount) -> ChannelDue {
    match state.exit_at {
        Some(at) if at <= now => ChannelDue::Take,
        Some(_) => ChannelDue::Nothing,
        None => match state.deposit.saturating_sub(state.promised.saturating_sub(covered)) {
            Amount::ZERO => ChannelDue::Nothing,
            spare => ChannelDue::Announce(spare),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{ChannelDue, Due, Moment, Signed, due, leave};
    use crate::pay::chain::{ChannelState, OnChain, Proving};
    use seedbank_agreement::{Address, Amount, Epoch, Rate, SetRoot};

    fn moment(epoch: u32, elapsed: u64) -> Moment {
        Moment { epoch: Epoch(epoch), elapsed, length: 100 }
    }

    fn signed(sequence: u32, from: u32) -> Signed {
        Signed { sequence, from: Some(Epoch(from)), is_stopped: false, is_doubted: false }
    }

    fn state(sequence: u32, end: u32) -> OnChain {
        let rate = Rate::new(10).unwrap();
        OnChain {
            provider: Address::ZERO,
            sequence,
            locked: Amount(700),
            earned: Amount(0),
            rate,
            size: 1,
            next_rate: rate,
            last_root: SetRoot([4; 32]),
            last_size: 1,
            end: Epoch(end),
            ending: false,
            question: None,
            release: None,
        }
    }

    fn proving(epoch: u32) -> Proving {
        Proving { epoch: Epoch(epoch), due: 0, misses: 0, dead_at: None }
    }

    #[test]
    fn what_is_signed_and_not_posted_is_posted_late_in_the_epoch() {
        let (new, old) = (signed(4, 11), state(3, 40));
        assert!(due(&moment(10, 74), &new, &old, &proving(10), 30).is_empty(), "it is the provider's pay");
        assert_eq!(due(&moment(10, 75), &new, &old, &proving(10), 30), [Due::Post]);
        assert!(due(&moment(10, 75), &new, &state(4, 40), &proving(10), 30).is_empty());
    }

    #[test]
    fn what_was_not_posted_in_time_is_signed_anew() {
        assert_eq!(due(&moment(11, 0), &signed(4, 11), &state(3, 40), &proving(11), 30), [Due::Renew]);
    }

    #[test]
    fn what_was_signed_without_a_signature_here_is_signed_anew() {
        let lost = Signed { from: None, ..signed(4, 11) };
        assert_eq!(due(&moment(10, 0), &lost, &state(3, 40), &proving(10), 30), [Due::Renew]);
        assert!(due(&moment(10, 0), &lost, &state(4, 40), &proving(10), 30).is_empty(), "it is posted");
    }

    #[test]
    fn terms_are_renewed_when_half_of_them_is_over() {
        let posted = signed(4, 11);
        assert!(due(&moment(20, 0), &posted, &state(4, 36), &proving(20), 30).is_empty());
        assert_eq!(due(&moment(20, 0), &posted, &state(4, 35), &proving(20), 30), [Due::Renew]);
        let opened = Signed { from: None, sequence: 0, ..posted };
        assert_eq!(due(&moment(20, 0), &opened, &state(0, 35), &proving(20), 30), [Due::Renew]);
    }

    #[test]
    fn whoever_stops_proving_is_stopped_once_and_never_renewed() {
        let missing = Proving { misses: 2, ..proving(20) };
        let posted = signed(4, 11);
        assert!(
            due(&moment(20, 0), &posted, &state(4, 40), &Proving { misses: 1, ..missing }, 30).is_empty()
        );
        assert_eq!(due(&moment(20, 0), &posted, &state(4, 22), &missing, 30), [Due::Stop]);
        let ended = OnChain { ending: true, ..state(4, 22) };
        assert_eq!(due(&moment(20, 0), &posted, &ended, &proving(20), 30), [Due::Stop], "by the provider");
        let stopped = Signed { is_stopped: true, ..posted };
        assert!(due(&moment(20, 99), &stopped, &ended, &missing, 30).is_empty());
        let dead = Proving { dead_at: Some(Epoch(19)), ..missing };
        assert_eq!(due(&moment(20, 0), &stopped, &state(3, 22), &dead, 30), [Due::Bury]);
    }

    #[test]
    fn whoever_was_given_up_is_given_notice_until_the_chain_has_it() {
        let given_up = Signed { is_stopped: true, ..signed(4, 11) };
        let look = |state: &OnChain| due(&moment(20, 0), &given_up, state, &proving(20), 30);
        assert_eq!(look(&state(4, 50)), [Due::Stop], "and is not renewed");
        assert_eq!(look(&state(4, 22)), [Due::Stop], "though it ends soon");
        assert!(look(&state(4, 21)).is_empty(), "no notice ends it sooner");
        assert!(look(&OnChain { ending: true, ..state(4, 50) }).is_empty());
    }

    #[test]
    fn epochs_that_nobody_closed_are_closed_in_the_second_half() {
        assert!(due(&moment(20, 49), &signed(4, 11), &state(4, 40), &proving(19), 30).is_empty());
        assert_eq!(due(&moment(20, 50), &signed(4, 11), &state(4, 40), &proving(19), 30), [Due::Advance]);
        let waiting = Proving { due: 1, ..proving(19) };
        let order = due(&moment(20, 50), &signed(4, 11), &state(4, 40), &waiting, 30);
        assert_eq!(order, [Due::MoveOn, Due::Advance]);
    }

    #[test]
    fn escrow_that_nothing_needs_is_announced_and_taken_back_two_epochs_later() {
        let look = |now, state: OnChain| due(&moment(now, 0), &signed(4, 11), &state, &proving(now), 30);
        let kept = OnChain { locked: Amount(909), ..state(4, 45) };
        assert!(look(20, kept).is_empty(), "less than a term more than two terms and an epoch");
        let spare = OnChain { locked: Amount(910), ..kept };
        assert_eq!(look(20, spare), [Due::AnnounceRelease(Amount(300))]);
        let announced = OnChain { release: Some(Epoch(20)), ..spare };
        assert!(look(21, announced).is_empty());
        assert_eq!(look(22, announced), [Due::Release]);
        let behind = due(&moment(22, 0), &signed(4, 11), &announced, &proving(21), 30);
        assert!(behind.is_empty(), "the set's epochs are to be closed first");
        assert_eq!(look(24, announced), [Due::AnnounceRelease(Amount(300))], "that one has passed");
        let empty = OnChain { rate: Rate::ZERO, next_rate: Rate::ZERO, ..spare };
        assert_eq!(look(20, empty), [Due::AnnounceRelease(Amount(910))], "it holds nothing");
        let dearer = OnChain { next_rate: Rate::new(20).unwrap(), ..spare };
        assert!(look(20, dearer).is_empty(), "the next terms need it");
    }

    #[test]
    fn a_channel_is_left_with_all_that_its_known_lanes_don_t_hold_back() {
        let channel = ChannelState { deposit: Amount(100), promised: Amount(80), ..ChannelState::default() };
        assert_eq!(leave(7, &channel, Amount(80)), ChannelDue::Announce(Amount(100)));
        assert_eq!(leave(7, &channel, Amount(50)), ChannelDue::Announce(Amount(70)), "30 are another lane's");
        assert_eq!(leave(7, &ChannelState::default(), Amount::ZERO), ChannelDue::Nothing);
        let leaving = ChannelState { exit_at: Some(9), leaving: Amount(100), ..channel };
        assert_eq!(leave(8, &leaving, Amount(80)), ChannelDue::Nothing);
        assert_eq!(leave(9, &leaving, Amount(80)), ChannelDue::Take);
    }

    #[test]
    fn doubts_are_asked_about_once_and_answers_awaited() {
        let doubted = Signed { is_doubted: true, ..signed(4, 11) };
        let asked = |question| OnChain { question, ..state(4, 40) };
        assert_eq!(due(&moment(20, 0), &doubted, &asked(None), &proving(20), 30), [Due::Ask]);
        assert!(due(&moment(20, 0), &doubted, &asked(Some(Epoch(21))), &proving(20), 30).is_empty());
        assert!(due(&moment(21, 0), &doubted, &asked(Some(Epoch(21))), &proving(21), 30).is_empty());
        assert_eq!(due(&moment(22, 0), &doubted, &asked(Some(Epoch(21))), &proving(22), 30), [Due::Fail]);
        let ending = OnChain { end: Epoch(21), ..asked(None) };
        let is_asked = due(&moment(20, 0), &doubted, &ending, &proving(20), 30).contains(&Due::Ask);
        assert!(!is_asked, "there is no epoch left to answer in");
    }
}
