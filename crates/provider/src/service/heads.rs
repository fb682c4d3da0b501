//! Keeping and giving the newest head of each dataset.

use super::{Admitted, Answer, Service, body_problem, failed};
use crate::bounds::counted;
use crate::gate::read_only;
use http::StatusCode;
use seedbank_formats::DatasetId;
use seedbank_formats::head::Head;
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::routes::{HEAD_BYTES_MAX, RouteName};
use seedbank_store::{HeadError, PutHeadError};
use seedbank_transport::{Body, answer_bytes};

impl Service {
    pub(super) async fn put_head(&self, dataset: DatasetId, mut admitted: Admitted) -> Answer {
        self.gate.pass(&self.store)?;
        let memory = self.buffers.take(&admitted.slot, 2 * HEAD_BYTES_MAX).await?;
        let bytes = admitted.body.read_all(HEAD_BYTES_MAX).await.map_err(|error| body_problem(&error))?;
        self.metrics.received(RouteName::PutHead, bytes.len());
        let sequence = check_head(&dataset, &bytes)?;
        let new_bytes = if self.store.has_head(&dataset) { 0 } else { bytes.len() };
        self.heads.take(admitted.peer, new_bytes)?;
        let store = self.store.clone();
        let stored = self.disk.run(move || store.put_head(&dataset, sequence, &bytes)).await?;
        if stored.is_err() {
            self.heads.give_back(admitted.peer, new_bytes);
        }
        drop(memory);
        match stored {
            Ok(()) => {
                let mut response = http::Response::new(Body::empty());
                *response.status_mut() = StatusCode::CREATED;
                Ok(response)
            }
            Err(PutHeadError::Stale { newest }) if newest.bytes.is_empty() => {
                let message = format!("a head of sequence {} was here, and rotted", newest.sequence);
                Err(Problem::new(ProblemCode::StaleHead, message))
            }
            Err(PutHeadError::Stale { newest }) => {
                tracing::debug!(%dataset, sequence, newest = newest.sequence, "stale head refused");
                self.metrics.sent(RouteName::PutHead, newest.bytes.len());
                Ok(answer_bytes(StatusCode::CONFLICT, newest.bytes))
            }
            Err(PutHeadError::Full) => Err(self.full()),
            Err(PutHeadError::ReadOnly { reason }) => Err(read_only(&reason)),
            Err(error @ PutHeadError::Length(_)) => {
                Err(Problem::new(ProblemCode::BadRequest, error.to_string()))
            }
        }
    }

    pub(super) async fn get_head(&self, dataset: DatasetId, admitted: Admitted) -> Answer {
        let memory = self.buffers.take(&admitted.slot, HEAD_BYTES_MAX).await?;
        let store = self.store.clone();
        match self.disk.run(move || store.head(&dataset)).await? {
            Ok(Some(head)) => {
                self.metrics.sent(RouteName::GetHead, head.bytes.len());
                Ok(answer_bytes(StatusCode::OK, counted(Box::new(head.bytes), (memory, admitted.slot))))
            }
            Ok(None) => Err(Problem::new(ProblemCode::NotFound, "this provider has no head of that dataset")),
            Err(error @ HeadError::Rotten { .. }) => {
                Err(Problem::new(ProblemCode::Rotten, error.to_string()))
            }
            Err(error @ HeadError::Disk(_)) => Err(failed("read a head", &error)),
        }
    }
}

/// The sequence of a head that its dataset's owner signed. What stands in it beyond that is sealed.
fn check_head(dataset: &DatasetId, bytes: &[u8]) -> Result<u64, Problem> {
    let refused = |message: String| Problem::new(ProblemCode::BadRequest, message);
    let head = Head::check(bytes).map_err(|error| refused(format!("not a signed head: {error}")))?;
    if head.dataset() != *dataset {
        return Err(refused(format!("this is the head of dataset {}", head.dataset())));
    }
    Ok(head.sequence())
}
