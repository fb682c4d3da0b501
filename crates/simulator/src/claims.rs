//! What a simulated client does about its claims: it makes them last, gives back what it does not want, and compares them
//! with its books.

use crate::calls::Purpose;
use crate::client::Holding;
use crate::options::Bug;
use crate::provider::{Request, Response, Word};
use crate::world::{World, note};
use seedbank_formats::{Asked, FragmentId, PublicKey, SegmentNumber};
use seedbank_protocol::answers::{ReceiptQuestion, check_receipt};
use seedbank_protocol::messages::{
    ClaimAction, ClaimRequest, ClaimResult, decode_claim_answers, encode_claim_requests,
};
use std::time::Duration;

/// Seconds for which confirmed claims last: longer than clocks jump and runs take.
const CONFIRMED_S: u64 = 200 * 86_400;

/// Tries after which an unreachable or babbling holder is given up.
const STRIKES_MAX: u8 = 5;

impl World {
    pub(crate) fn confirm_claims(&mut self, client: usize) {
        let until = self.client_wall(client).plus_seconds(CONFIRMED_S);
        let asked = self.ask_now(client);
        let one = &self.clients[client];
        let mut due = Vec::new();
        for (number, record) in &one.books.records {
            for (index, holding) in record.holdings.iter().enumerate() {
                let Some(holder) = holding.holder.filter(|_| !holding.is_confirmed) else { continue };
                let fragment = record.segment.fragments[index].0;
                if !one.asking.contains_key(&(holder, fragment)) {
                    due.push((*number, index, holder, fragment));
                }
            }
        }
        for (segment, index, holder, fragment) in due {
            let requests =
                encode_claim_requests(&[ClaimRequest { fragment, action: ClaimAction::Renew(until) }]);
            let purpose = Purpose::Confirm { segment, index };
            let call = self.call(client, self.by_key[&holder], purpose, Request::Claims { requests, asked });
            self.clients[client].asking.insert((holder, fragment), call);
        }
    }

    pub(crate) fn release_claims(&mut self, client: usize) {
        let due = self.clients[client].books.releases.clone();
        for ((holder, fragment), asked) in due {
            let one = &mut self.clients[client];
            // Equal fragments share a claim, and this one is wanted again.
            if one.books.holdings(&holder).contains(&fragment) {
                one.books.releases.remove(&(holder, fragment));
                continue;
            }
            if one.asking.contains_key(&(holder, fragment)) {
                continue;
            }
            let action = if self.has(Bug::LoserRenewed) {
                ClaimAction::Renew(self.client_wall(client).plus_seconds(CONFIRMED_S))
            } else {
                ClaimAction::Release
            };
            let requests = encode_claim_requests(&[ClaimRequest { fragment, action }]);
            let dated = if self.has(Bug::ReleaseDatedLate) { self.ask_now(client) } else { asked };
            let request = Request::Claims { requests, asked: dated };
            let provider = self.by_key[&holder];
            let call = self.call(client, provider, Purpose::Release { fragment, asked }, request);
            self.clients[client].asking.insert((holder, fragment), call);
        }
    }

    /// A question about a claim has ended, one way or another.
    pub(crate) fn asked(&mut self, client: usize, provider: PublicKey, fragment: FragmentId) {
        self.clients[client].asking.remove(&(provider, fragment));
    }

    /// A holder did not answer as it should: after a few times it is none any more.
    pub(crate) fn strike_out(&mut self, client: usize, number: SegmentNumber, index: usize) {
        let Some(record) = self.clients[client].books.records.get_mut(&number) else { return };
        record.holdings[index].strikes += 1;
        if record.holdings[index].strikes >= STRIKES_MAX {
            self.lose_holder(client, number, index);
        }
    }

    /// A holder has lost its fragment, or can't be relied on: another one is to be found, and its claim given back.
    pub(crate) fn lose_holder(&mut self, client: usize, number: SegmentNumber, index: usize) {
        let until = self.now + Duration::from_secs(60);
        let asked = self.ask_now(client);
        let one = &mut self.clients[client];
        let Some(record) = one.books.records.get_mut(&number) else { return };
        let Some(holder) = record.holdings[index].holder else { return };
        record.holdings[index] = Holding::default();
        let fragment = record.segment.fragments[index].0;
        one.books.release_later(holder, fragment, asked);
        one.avoided.insert(holder, until);
        note!(
            self,
            format_args!("c{client}"),
            "gives p{} up as holder of s{number}#{index}",
            self.by_key[&holder]
        );
    }

    /// A claim lasts: perhaps the segment is safe now.
    pub(crate) fn confirmed(
        &mut self,
        client: usize,
        number: SegmentNumber,
        index: usize,
        holder: PublicKey,
    ) {
        let minimum = self.clients[client].minimum;
        let Some(record) = self.clients[client].books.records.get_mut(&number) else { return };
        let holding = &mut record.holdings[index];
        if holding.holder != Some(holder) {
            return;
        }
        (holding.is_confirmed, holding.strikes) = (true, 0);
        if record.is_safe(minimum) {
            self.acknowledge(client, number);
        }
    }

    /// Compares claims and books: what the books do not know is given back. Late PUTs and renewals leave such claims, and
    /// nothing else finds them.
    pub(crate) fn reconcile(&mut self, client: usize) {
        let asked = self.ask_now(client);
        let one = &mut self.clients[client];
        let has_questions = !one.asking.is_empty();
        if has_questions || self.providers.iter().any(|provider| !provider.is_up()) {
            return;
        }
        one.is_reconciled = true;
        for provider in &self.providers {
            let Some(store) = &provider.store else { continue };
            let known = one.books.holdings(&provider.public);
            let claims = store.claims(&one.key.public(), None, usize::MAX).claims;
            let unknown = claims.iter().map(|claim| claim.fragment).filter(|id| !known.contains(id));
            unknown.for_each(|fragment| one.books.release_later(provider.public, fragment, asked));
        }
    }

    /// When a client asks for something about claims: later than all that it asked before, whatever its clock says.
    pub(crate) fn ask_now(&mut self, client: usize) -> Asked {
        let now = self.client_wall(client).0 * 1000 + u64::from(self.now.subsec_millis());
        let asked = &mut self.clients[client].books.asked;
        *asked = Asked(now.max(asked.0 + 1));
        *asked
    }

    /// No release takes a claim that its client's books rely on, however late it comes.
    pub(crate) fn check_releases(&mut self, client: usize, provider: usize, words: &[Word]) {
        if self.providers[provider].lie.is_some() {
            return;
        }
        let holdings = self.clients[client].books.holdings(&self.providers[provider].public);
        let taken = words.iter().any(|word| match word {
            Word::Released { fragment } => holdings.contains(fragment),
            Word::Stored { .. }
            | Word::Renewed { .. }
            | Word::Kept
            | Word::Denied { .. }
            | Word::Rotten { .. } => false,
        });
        if taken {
            self.truth
                .violated(format!("a late release takes a claim that c{client} relies on from p{provider}"));
        }
    }

    /// An answer about a claim.
    pub(crate) fn claim_answered(
        &mut self,
        client: usize,
        purpose: Purpose,
        provider: usize,
        response: &Response,
    ) {
        let holder = self.providers[provider].public;
        let answers = match response {
            Response::Claims(bytes) => decode_claim_answers(bytes).unwrap_or_default(),
            Response::Receipt(_) | Response::Bytes(_) | Response::Proof(_) | Response::Problem(_) => {
                Vec::new()
            }
        };
        let answer = answers.first();
        match purpose {
            Purpose::Release { fragment, asked } => {
                self.asked(client, holder, fragment);
                let is_done = answer.is_some_and(|answer| {
                    answer.fragment == fragment
                        && (matches!(answer.result, ClaimResult::Released | ClaimResult::Kept)
                            || self.options.bug == Some(Bug::LoserRenewed))
                });
                // A liar says anything; its disk is its own affair.
                if is_done || self.providers[provider].lie.is_some() {
                    self.clients[client].books.released(holder, fragment, asked);
                    self.truth.counts.released += 1;
                }
            }
            Purpose::Confirm { segment: number, index } => {
                let Some(record) = self.clients[client].books.records.get(&number) else {
                    return self.forget_question(client, holder, number, index);
                };
                let (fragment, length) = (record.segment.fragments[index].0, record.segment.length);
                let is_holder = record.holdings[index].holder == Some(holder);
                self.asked(client, holder, fragment);
                if !is_holder {
                    return;
                }
                let asked = ReceiptQuestion {
                    provider: holder,
                    client: self.clients[client].key.public(),
                    fragment,
                    length: Some(length),
                };
                match answer.map(|answer| &answer.result) {
                    Some(ClaimResult::Receipt(signed)) if check_receipt(&signed.0, &asked).is_ok() => {
                        self.confirmed(client, number, index, holder);
                    }
                    Some(ClaimResult::Absent | ClaimResult::Rotten) => {
                        self.lose_holder(client, number, index)
                    }
                    Some(ClaimResult::Receipt(_) | ClaimResult::Released | ClaimResult::Kept) | None => {
                        self.strike_out(client, number, index);
                    }
                }
            }
            Purpose::Store { .. } | Purpose::Read { .. } => {}
        }
    }

    pub(crate) fn claim_unanswered(&mut self, client: usize, purpose: Purpose, provider: usize) {
        let holder = self.providers[provider].public;
        match purpose {
            Purpose::Release { fragment, asked } => {
                self.asked(client, holder, fragment);
                if self.providers[provider].lie.is_some() {
                    self.clients[client].books.released(holder, fragment, asked);
                }
            }
            Purpose::Confirm { segment: number, index } => {
                self.forget_question(client, holder, number, index);
                let records = &self.clients[client].books.records;
                if records.get(&number).is_some_and(|record| record.holdings[index].holder == Some(holder)) {
                    self.strike_out(client, number, index);
                }
            }
            Purpose::Store { .. } | Purpose::Read { .. } => {}
        }
    }

    fn forget_question(&mut self, client: usize, holder: PublicKey, number: SegmentNumber, index: usize) {
        let Some(segment) = self.truth.segments.get(&(client, number)) else { return };
        let fragment = segment.fragments[index].0;
        self.asked(client, holder, fragment);
    }
}
