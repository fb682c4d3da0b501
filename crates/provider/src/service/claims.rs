//! Renewing, releasing and listing a client's own claims.

use super::{Admitted, Answer, Service, asked, body_problem, now};
use crate::authority;
use crate::bounds::BLOCK_BYTES;
use crate::gate::read_only;
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::{
    ClaimAction, ClaimAnswer, ClaimRequest, ClaimResult, ClaimRow, ClaimState, MessageError, Problem,
    ProblemCode, SignedBytes, decode_claim_requests, encode_claim_answers, encode_claims_page,
};
use seedbank_protocol::routes::{JSON_BYTES_MAX, PENDING_SECONDS_MAX, RouteName};
use seedbank_store::{ClaimError, ClaimInfo, Health, Release, Renewal};

/// A batch is in memory as bytes, as requests, as answers and as their bytes.
const BATCH_MEMORY: usize = 3 * BLOCK_BYTES;

impl Service {
    pub(super) async fn post_claims(&self, mut admitted: Admitted) -> Answer {
        self.gate.pass(&self.store)?;
        let asked = asked(&admitted.headers)?;
        let memory = self.buffers.take(&admitted.slot, BATCH_MEMORY).await?;
        let body = admitted.body.read_all(JSON_BYTES_MAX).await.map_err(|error| body_problem(&error))?;
        self.metrics.received(RouteName::PostClaims, body.len());
        let requests = decode_claim_requests(&body).map_err(|error| batch_problem(&error))?;
        drop(body);

        let (peer, now) = (admitted.peer, now());
        for request in &requests {
            if let ClaimAction::Renew(until) = request.action {
                // A client that the operator took off the list keeps what it has until it runs out.
                authority::must_be_known(self.config.quota_of(&peer).0)?;
                authority::check_renewal(until, now)?;
            }
        }
        let service = self.clone();
        let answers = self.disk.run(move || service.change_claims(&peer, &requests, asked, now)).await??;
        let json = encode_claim_answers(&answers);
        drop(memory);
        Ok(self.json(RouteName::PostClaims, json))
    }

    /// Renews first, then releases: each is one commit. Who does not say when it asked means all that came before.
    fn change_claims(
        &self,
        client: &PublicKey,
        requests: &[ClaimRequest],
        asked: Option<Asked>,
        now: Timestamp,
    ) -> Result<Vec<ClaimAnswer>, Problem> {
        let (mut renewals, mut releases) = (Vec::new(), Vec::new());
        for request in requests {
            match request.action {
                ClaimAction::Renew(until) => renewals.push((request.fragment, until)),
                ClaimAction::Release => releases.push(request.fragment),
            }
        }
        let renewed = match renewals.is_empty() {
            true => Vec::new(),
            false => self
                .store
                .renew(client, &renewals, asked.unwrap_or(Asked(0)))
                .map_err(|error| self.claim_problem(error))?,
        };
        let released = match releases.is_empty() {
            true => Vec::new(),
            false => self
                .store
                .release(client, &releases, asked.unwrap_or(Asked(u64::MAX)), now)
                .map_err(|error| self.claim_problem(error))?,
        };
        let (mut renewed, mut released) = (renewed.into_iter(), released.into_iter());
        let answers = requests.iter().map(|request| {
            let fragment = request.fragment;
            let result = match request.action {
                ClaimAction::Release => {
                    match released.next().expect("the store answers every release, in order") {
                        // Whether there was a claim makes no difference to whoever wants none.
                        Release::Released | Release::Absent => ClaimResult::Released,
                        Release::Kept => ClaimResult::Kept,
                    }
                }
                ClaimAction::Renew(_) => {
                    match renewed.next().expect("the store answers every renewal, in order") {
                        Renewal::Renewed { length, until } => {
                            let receipt = self.receipt(*client, fragment, length, until);
                            ClaimResult::Receipt(SignedBytes(receipt))
                        }
                        Renewal::Absent => ClaimResult::Absent,
                        Renewal::Rotten => ClaimResult::Rotten,
                    }
                }
            };
            ClaimAnswer { fragment, result }
        });
        Ok(answers.collect())
    }

    pub(super) async fn list_claims(
        &self,
        after: Option<FragmentId>,
        limit: usize,
        admitted: Admitted,
    ) -> Answer {
        let memory = self.buffers.take(&admitted.slot, BLOCK_BYTES).await?;
        let (service, peer) = (self.clone(), admitted.peer);
        let rows = self.disk.run(move || service.claim_rows(&peer, after, limit, now())).await?;
        let json = encode_claims_page(&rows);
        drop(memory);
        Ok(self.json(RouteName::ListClaims, json))
    }

    /// A page with at least one row, unless there is none left: an empty page is the end.
    fn claim_rows(
        &self,
        client: &PublicKey,
        mut after: Option<FragmentId>,
        limit: usize,
        now: Timestamp,
    ) -> Vec<ClaimRow> {
        loop {
            let page = self.store.claims(client, after, limit);
            let live = page.claims.iter().filter(|claim| claim.until >= now);
            let rows: Vec<ClaimRow> = live.map(|claim| row(claim, now)).collect();
            if !rows.is_empty() || page.next.is_none() {
                return rows;
            }
            after = page.next;
        }
    }

    fn claim_problem(&self, error: ClaimError) -> Problem {
        match error {
            ClaimError::TooMany(_) => Problem::new(ProblemCode::TooLarge, error.to_string()),
            ClaimError::Full => self.full(),
            ClaimError::ReadOnly { reason } => read_only(&reason),
        }
    }
}

/// A claim that nobody renewed yet ends within a day, and so does one that nobody renewed in time: both go by
/// themselves soon, which is what a client wants to know.
fn row(claim: &ClaimInfo, now: Timestamp) -> ClaimRow {
    let state = match claim.health {
        Health::Rotten => ClaimState::Rotten,
        Health::Sound if claim.until <= now.plus_seconds(PENDING_SECONDS_MAX) => ClaimState::Pending,
        Health::Sound => ClaimState::Confirmed,
    };
    ClaimRow { fragment: claim.fragment, length: claim.length, until: claim.until, state }
}

fn batch_problem(error: &MessageError) -> Problem {
    let code = match error {
        MessageError::OverLimit { .. } => ProblemCode::TooLarge,
        MessageError::Shape { .. } | MessageError::Invalid { .. } => ProblemCode::BadRequest,
    };
    Problem::new(code, error.to_string())
}
