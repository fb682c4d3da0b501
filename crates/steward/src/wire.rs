//! What crosses the steward's socket: one request a line, and one reply a line in the same order.
//!
//! The requests are the catalog's own, so nothing is said here about what they mean.

use seedbank_catalog::{CatalogError, Request, Response};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest request. The largest that are made are collections: 64 MiB tell of a million segments.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The longest reply. Lists that have no limit of their own have a row per dataset, provider or job, or per segment of a page.
pub(crate) const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A request that has begun must be whole after this time, and a reply that has begun must be taken.
pub(crate) const LINE_PATIENCE: Duration = Duration::from_secs(30);

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It was done, and is on disk.
    Ok(Response),
    /// Nothing of it was done.
    Error(CatalogError),
}

impl From<Result<Response, CatalogError>> for Reply {
    fn from(result: Result<Response, CatalogError>) -> Reply {
        result.map_or_else(Reply::Error, Reply::Ok)
    }
}

impl From<Reply> for Result<Response, CatalogError> {
    fn from(reply: Reply) -> Result<Response, CatalogError> {
        match reply {
            Reply::Ok(response) => Ok(response),
            Reply::Error(error) => Err(error),
        }
    }
}

/// A message as its line.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages have string keys and no failing parts");
    line.push(b'\n');
    line
}

/// Whether doing a request twice leaves the books, and the caller, as doing it once would. Such a request is sent again
/// when the connection ended before its reply.
pub(crate) fn repeatable(request: &Request) -> bool {
    match request {
        Request::PutSetting { .. }
        | Request::Setting { .. }
        | Request::PutProvider { .. }
        | Request::Providers { .. }
        | Request::Dataset { .. }
        | Request::Datasets { .. }
        | Request::SetPolicy { .. }
        | Request::SetEpoch { .. }
        | Request::Usage { .. }
        // Begun or set aside twice: a lease that runs out, and numbers that nobody uses.
        | Request::BeginPush { .. }
        | Request::AllocateSegments { .. }
        | Request::RenewLease { .. }
        | Request::RecordSegment { .. }
        | Request::UseSegments { .. }
        | Request::CommitBase { .. }
        | Request::Commit { .. }
        | Request::EndPush { .. }
        | Request::Leases { .. }
        | Request::SegmentsIn { .. }
        | Request::Placements { .. }
        | Request::Pages { .. }
        | Request::PagesIn { .. }
        | Request::Changes { .. }
        | Request::MissingFragments { .. }
        | Request::DueClaims { .. }
        | Request::Unheld { .. }
        | Request::RenewClaims { .. }
        | Request::Versions { .. }
        | Request::Resolve { .. }
        | Request::Refs { .. }
        | Request::Head { .. }
        | Request::PendingHeads { .. }
        | Request::MarkPublished { .. }
        | Request::StaleHeads { .. }
        | Request::LoseFragments { .. }
        | Request::LeaseSegments { .. }
        | Request::Agreements { .. }
        | Request::Unagreed { .. }
        | Request::DraftSet { .. }
        | Request::BeginRevision { .. }
        | Request::EndRevision { .. }
        // Begun twice: what was taken in first is dropped.
        | Request::BeginAdoption { .. }
        | Request::Adopt { .. }
        | Request::EndAdoption { .. }
        | Request::DropAdoption { .. }
        | Request::SetAgreementState { .. }
        | Request::HearProvider { .. }
        | Request::MergeRegistered { .. }
        | Request::RemovedProviders { .. }
        | Request::DropAgreement { .. }
        | Request::AddJob { .. }
        | Request::FinishJob { .. }
        | Request::Jobs { .. }
        | Request::CollectBegin { .. }
        | Request::Restore { .. } => true,
        // The second time they would fail, count twice or answer otherwise.
        Request::RecordContacts { .. }
        | Request::ForgetHoldings { .. }
        | Request::RemoveProvider { .. }
        | Request::CreateDataset { .. }
        | Request::RenameDataset { .. }
        | Request::RemoveDataset { .. }
        | Request::SetHolder { .. }
        | Request::RemoveVersion { .. }
        | Request::CreateRef { .. }
        | Request::MoveRef { .. }
        | Request::DeleteRef { .. }
        | Request::TakeJobs { .. }
        | Request::FailJob { .. }
        | Request::CollectFinish { .. } => false,
    }
}
