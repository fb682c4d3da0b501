//! The routes about money. Without `[chain]` there are none.

use super::{Admitted, Answer, Service, body_problem};
use crate::bounds::BLOCK_BYTES;
use crate::money::Money;
use seedbank_formats::FragmentId;
use seedbank_protocol::messages::{MessageError, Problem, ProblemCode};
use seedbank_protocol::payment::{ProposalRequest, RevisionRequest, VoucherRequest};
use seedbank_protocol::routes::{RouteName, SET_CHANGE_BYTES_MAX, VOUCHER_BYTES_MAX};
use std::sync::Arc;

/// A change of a set is in memory as bytes, as a request and as a set.
const CHANGE_MEMORY: usize = 6 * BLOCK_BYTES;

impl Service {
    fn paid(&self) -> Result<&Arc<Money>, Problem> {
        self.money.as_ref().ok_or_else(|| Problem::new(ProblemCode::NotFound, "this provider is not paid"))
    }

    pub(super) async fn get_quote(&self) -> Answer {
        let quote = self.paid()?.quote().await?;
        Ok(self.json(RouteName::GetQuote, quote.encode()))
    }

    pub(super) async fn post_proposal(&self, mut admitted: Admitted) -> Answer {
        let money = self.paid()?;
        self.gate.pass(&self.store)?;
        let memory = self.buffers.take(&admitted.slot, CHANGE_MEMORY).await?;
        let body = read(&mut admitted, SET_CHANGE_BYTES_MAX).await?;
        self.metrics.received(RouteName::PostProposal, body.len());
        let request = ProposalRequest::decode(&body).map_err(|error| message_problem(&error))?;
        drop(body);
        let answer = money.propose(admitted.peer, request).await?;
        drop(memory);
        Ok(self.json(RouteName::PostProposal, answer.encode()))
    }

    pub(super) async fn post_revision(&self, mut admitted: Admitted) -> Answer {
        let money = self.paid()?;
        self.gate.pass(&self.store)?;
        let memory = self.buffers.take(&admitted.slot, CHANGE_MEMORY).await?;
        let body = read(&mut admitted, SET_CHANGE_BYTES_MAX).await?;
        self.metrics.received(RouteName::PostRevision, body.len());
        let request = RevisionRequest::decode(&body).map_err(|error| message_problem(&error))?;
        drop(body);
        let answer = money.revise(admitted.peer, request).await?;
        drop(memory);
        Ok(self.json(RouteName::PostRevision, answer.encode()))
    }

    pub(super) async fn list_set(
        &self,
        after: Option<FragmentId>,
        limit: usize,
        admitted: Admitted,
    ) -> Answer {
        let money = self.paid()?;
        let memory = self.buffers.take(&admitted.slot, 2 * BLOCK_BYTES).await?;
        let page = money.list_set(admitted.peer, after, limit).await?;
        let json = page.encode();
        drop(memory);
        Ok(self.json(RouteName::ListSet, json))
    }

    pub(super) async fn post_voucher(&self, mut admitted: Admitted) -> Answer {
        let money = self.paid()?;
        let body = read(&mut admitted, VOUCHER_BYTES_MAX).await?;
        self.metrics.received(RouteName::PostVoucher, body.len());
        let request = VoucherRequest::decode(&body).map_err(|error| message_problem(&error))?;
        let answer = money.take_voucher(admitted.peer, admitted.remote, request).await?;
        Ok(self.json(RouteName::PostVoucher, answer.encode()))
    }
}

async fn read(admitted: &mut Admitted, bytes_max: usize) -> Result<bytes::Bytes, Problem> {
    admitted.body.read_all(bytes_max).await.map_err(|error| body_problem(&error))
}

fn message_problem(error: &MessageError) -> Problem {
    let code = match error {
        MessageError::OverLimit { .. } => ProblemCode::TooLarge,
        MessageError::Shape { .. } | MessageError::Invalid { .. } => ProblemCode::BadRequest,
    };
    Problem::new(code, error.to_string())
}
