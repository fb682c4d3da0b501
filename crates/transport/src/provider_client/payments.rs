//! The calls that are about money. Wallets' signatures in the answers are not checked here: `agreement` knows how.

use super::{Ask, ProviderClient, json_header, json_max};
use crate::dial::PeerAddress;
use crate::error::{CallError, MalformedAnswer};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use seedbank_formats::FragmentId;
use seedbank_protocol::payment::{
    ProposalAnswer, ProposalRequest, QuoteAnswer, RevisionAnswer, RevisionRequest, SetPage, VoucherAnswer,
    VoucherRequest,
};
use seedbank_protocol::routes::Route;

impl ProviderClient {
    /// Asks what a provider wants to be paid.
    ///
    /// # Errors
    /// [`CallError`]; one that is not paid refuses with
    /// [`ProblemCode::NotFound`](seedbank_protocol::messages::ProblemCode::NotFound).
    pub async fn quote(&self, peer: &PeerAddress) -> Result<QuoteAnswer, CallError> {
        let ask = Ask { peer, client: &self.client };
        let body = ask.json(&Route::GetQuote, None).await?;
        QuoteAnswer::decode(&body).map_err(|error| ask.malformed(error))
    }

    /// Offers a first agreement. The same offer may be sent again.
    ///
    /// # Errors
    /// [`CallError`]. That the provider does not agree is no error here: it is the answer.
    pub async fn propose(
        &self,
        peer: &PeerAddress,
        request: &ProposalRequest,
    ) -> Result<ProposalAnswer, CallError> {
        let ask = Ask { peer, client: &self.client };
        let body = ask.json(&Route::PostProposal, Some(request.encode())).await?;
        ProposalAnswer::decode(&body).map_err(|error| ask.malformed(error))
    }

    /// Asks for new terms. The same request may be sent again.
    ///
    /// # Errors
    /// [`CallError`]. That the provider does not agree is no error here: it is the answer.
    pub async fn revise(
        &self,
        peer: &PeerAddress,
        request: &RevisionRequest,
    ) -> Result<RevisionAnswer, CallError> {
        let ask = Ask { peer, client: &self.client };
        let body = ask.json(&Route::PostRevision, Some(request.encode())).await?;
        RevisionAnswer::decode(&body).map_err(|error| ask.malformed(error))
    }

    /// A page of the set that the provider keeps for this client, in rising order, after `after`. An empty page is the end.
    ///
    /// # Errors
    /// [`CallError`]; without an agreement it refuses with
    /// [`ProblemCode::NotFound`](seedbank_protocol::messages::ProblemCode::NotFound).
    pub async fn list_set(
        &self,
        peer: &PeerAddress,
        after: Option<FragmentId>,
        limit: usize,
    ) -> Result<SetPage, CallError> {
        let ask = Ask { peer, client: &self.client };
        let body = ask.json(&Route::ListSet { after, limit }, None).await?;
        let page = SetPage::decode(&body).map_err(|error| ask.malformed(error))?;
        let begins_after =
            page.leaves.first().is_none_or(|leaf| after.is_none_or(|after| leaf.fragment > after));
        if page.leaves.len() > limit || !begins_after {
            return Err(ask.malformed(MalformedAnswer::Mismatch("page of a set")));
        }
        Ok(page)
    }

    /// Pays for what this client read or will read.
    ///
    /// # Errors
    /// [`CallError`]. That the provider does not take the voucher is no error here: it is the answer.
    pub async fn pay(
        &self,
        peer: &PeerAddress,
        voucher: &VoucherRequest,
    ) -> Result<VoucherAnswer, CallError> {
        let ask = Ask { peer, client: &self.client };
        let body = ask.json(&Route::PostVoucher, Some(voucher.encode())).await?;
        VoucherAnswer::decode(&body).map_err(|error| ask.malformed(error))
    }
}

impl Ask<'_> {
    /// Sends a message, or nothing, and gives the body of the answer.
    async fn json(&self, route: &Route, message: Option<Vec<u8>>) -> Result<Bytes, CallError> {
        let headers = if message.is_some() { json_header() } else { HeaderMap::new() };
        let response =
            self.send(route, headers, Bytes::from(message.unwrap_or_default()), json_max()).await?;
        self.expect(response, StatusCode::OK)
    }
}
