//! The requests of a [`Network`]: each tells it how the provider did, and those for ranges are paid where reads are.

use super::Network;
use crate::pay::Reads;
use crate::pay::reads::Metered;
use bytes::Bytes;
use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest, ClaimRow, Hello, Problem, ProblemCode};
use seedbank_protocol::payment::{
    ProposalAnswer, ProposalRequest, QuoteAnswer, RevisionAnswer, RevisionRequest, SetPage,
};
use seedbank_protocol::routes::Access;
use seedbank_transport::{CallError, ClaimOutcome, HeadPut, PeerAddress, Proof};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Demands for payment that one read answers: others of the same key may use up what was paid.
const DEMANDS_MAX: u32 = 8;

impl Network {
    /// Notes that a provider is asked for a range, and that it was given up when the future is dropped.
    fn question<'n>(&'n self, provider: &'n PublicKey) -> Question<'n> {
        self.traffic.ask(provider);
        self.hedging().asked(*provider, self.now());
        Question { network: self, provider, is_answered: false }
    }

    pub(crate) async fn put_fragment(
        &self,
        provider: &PublicKey,
        id: FragmentId,
        bytes: Bytes,
        until: Timestamp,
        access: Access,
    ) -> Result<(), CallError> {
        let (began, len) = (Instant::now(), bytes.len() as u64);
        let result = self.client.put_fragment(&self.peer(provider), id, bytes, until, access).await;
        let ms = began.elapsed().as_millis();
        tracing::debug!(%provider, fragment = %id, ms, ok = result.is_ok(), "fragment sent");
        match result {
            Ok(_receipt) => {
                self.heard(provider);
                self.traffic.fragments_sent.fetch_add(1, Ordering::Relaxed);
                self.traffic.bytes_sent.fetch_add(len, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.failed(provider, &error);
                if let CallError::Refused { problem, .. } = &error {
                    self.refused(provider, problem.message.clone());
                }
                Err(error)
            }
        }
    }

    pub(crate) async fn get_range(
        &self,
        provider: &PublicKey,
        id: &FragmentId,
        range: Range<u64>,
        token: Option<&[u8]>,
    ) -> Result<Bytes, CallError> {
        let len = range.end - range.start;
        let (meter, peer) = (self.meter(provider, len).await?, self.peer(provider));
        self.read(&peer, len, meter, || self.client.get_range(&peer, *id, range.clone(), token)).await
    }

    pub(crate) async fn get_proof(
        &self,
        provider: &PublicKey,
        id: &FragmentId,
        range: Range<u64>,
        token: Option<&[u8]>,
    ) -> Result<Proof, CallError> {
        let len = range.end - range.start;
        let (meter, peer) = (self.meter(provider, len).await?, self.peer(provider));
        self.traffic.proofs.fetch_add(1, Ordering::Relaxed);
        self.read(&peer, len, meter, || self.client.get_proof(&peer, *id, range.clone(), token)).await
    }

    /// Asks for `len` bytes, again each time that they were paid for first, and notes how the provider did.
    async fn read<T, F>(
        &self,
        peer: &PeerAddress,
        len: u64,
        mut meter: Option<Meter<'_>>,
        ask: impl Fn() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let question = self.question(&peer.key);
        let began = Instant::now();
        let result = loop {
            let result = ask().await;
            if !self.pays(&mut meter, peer, &result).await? {
                break result;
            }
        };
        question.answered(&result);
        self.traffic.range_bytes.fetch_add(if result.is_ok() { len } else { 0 }, Ordering::Relaxed);
        self.note(&peer.key, began, len, &result);
        result
    }

    /// Counts a read that begins, where reads are paid. Fails before anything is sent when it is too dear.
    async fn meter(&self, provider: &PublicKey, bytes: u64) -> Result<Option<Meter<'_>>, CallError> {
        let Some(reads) = &self.reads else { return Ok(None) };
        let metered = reads.begin(self, provider, bytes).await?;
        Ok(metered.map(|metered| Meter { reads, metered, demands_left: DEMANDS_MAX }))
    }

    /// Pays for an answer, or for getting one: then it says that the read is to be tried again.
    async fn pays<T>(
        &self,
        meter: &mut Option<Meter<'_>>,
        peer: &PeerAddress,
        result: &Result<T, CallError>,
    ) -> Result<bool, CallError> {
        let Some(meter) = meter else { return Ok(false) };
        match result {
            Ok(_) => {
                meter.reads.got(&meter.metered, &self.client, peer);
                Ok(false)
            }
            Err(CallError::Refused { problem: Problem { payment: Some(due), .. }, .. })
                if meter.demands_left > 0 =>
            {
                meter.demands_left -= 1;
                meter.reads.answer(&mut meter.metered, &self.client, peer, due).await?;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    /// What a provider asks for, as it signed it; nothing is checked here.
    ///
    /// # Errors
    /// [`CallError`]; one that takes no money refuses.
    pub(crate) async fn quote(&self, provider: &PublicKey) -> Result<QuoteAnswer, CallError> {
        self.noted(provider, self.client.quote(&self.peer(provider)).await)
    }

    pub(crate) async fn propose(
        &self,
        provider: &PublicKey,
        request: &ProposalRequest,
    ) -> Result<ProposalAnswer, CallError> {
        self.noted(provider, self.client.propose(&self.peer(provider), request).await)
    }

    pub(crate) async fn revise(
        &self,
        provider: &PublicKey,
        request: &RevisionRequest,
    ) -> Result<RevisionAnswer, CallError> {
        self.noted(provider, self.client.revise(&self.peer(provider), request).await)
    }

    pub(crate) async fn list_set(
        &self,
        provider: &PublicKey,
        after: Option<FragmentId>,
        limit: usize,
    ) -> Result<SetPage, CallError> {
        self.noted(provider, self.client.list_set(&self.peer(provider), after, limit).await)
    }

    /// Remembers a failure, and hands the result on.
    fn noted<T>(&self, provider: &PublicKey, result: Result<T, CallError>) -> Result<T, CallError> {
        if let Err(error) = &result {
            self.failed(provider, error);
        }
        result
    }

    /// Asks a provider who it is. Works with an address alone when the key is known too.
    ///
    /// # Errors
    /// [`CallError`] when it can't be reached, is somebody else or answers nonsense.
    pub async fn hello(&self, provider: &PublicKey) -> Result<Hello, CallError> {
        self.noted(provider, self.client.hello(&self.peer(provider)).await)
    }

    /// Renews or releases this process's claims on one provider, in batches.
    ///
    /// # Errors
    /// [`CallError`] of the first batch that failed; earlier ones stand, and all of it may be repeated.
    pub async fn claims(
        &self,
        provider: &PublicKey,
        requests: &[ClaimRequest],
    ) -> Result<Vec<ClaimOutcome>, CallError> {
        self.noted(provider, self.client.claims(&self.peer(provider), requests).await)
    }

    /// A page of this process's claims on one provider, in rising order of fragments, after `after`. An empty one is the end.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn list_claims(
        &self,
        provider: &PublicKey,
        after: Option<FragmentId>,
        limit: usize,
    ) -> Result<Vec<ClaimRow>, CallError> {
        self.noted(provider, self.client.list_claims(&self.peer(provider), after, limit).await)
    }

    /// Releases this process's claims on fragments, as was decided at `asked`. Claims that do not exist are fine, and so are
    /// those that were asked for again since: they stay.
    ///
    /// # Errors
    /// As [`Network::claims`].
    pub async fn release(
        &self,
        provider: &PublicKey,
        fragments: &[FragmentId],
        asked: Asked,
    ) -> Result<(), CallError> {
        let request =
            |fragment: &FragmentId| ClaimRequest { fragment: *fragment, action: ClaimAction::Release };
        let requests: Vec<ClaimRequest> = fragments.iter().map(request).collect();
        let result = self.client.claims_as_of(&self.peer(provider), &requests, asked).await;
        self.noted(provider, result).map(|_answers| ())
    }

    /// Gives a provider a head to keep. What it holds already may be newer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put_head(
        &self,
        provider: &PublicKey,
        dataset: DatasetId,
        head: Bytes,
    ) -> Result<HeadPut, CallError> {
        self.noted(provider, self.client.put_head(&self.peer(provider), dataset, head).await)
    }

    /// A dataset's head as a provider keeps it, unchecked; `None` when it keeps none.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn get_head(
        &self,
        provider: &PublicKey,
        dataset: DatasetId,
    ) -> Result<Option<Bytes>, CallError> {
        match self.client.get_head(&self.peer(provider), dataset).await {
            Ok(head) => Ok(Some(head)),
            Err(CallError::Refused { problem, .. }) if problem.code == ProblemCode::NotFound => Ok(None),
            Err(error) => self.noted(provider, Err(error)),
        }
    }
}

/// A read that is paid for.
struct Meter<'n> {
    reads: &'n Arc<Reads>,
    metered: Metered,
    demands_left: u32,
}

/// A question on its way to a provider.
struct Question<'n> {
    network: &'n Network,
    provider: &'n PublicKey,
    is_answered: bool,
}

impl Question<'_> {
    /// There is an answer or a failure. A deadline that passed is neither.
    fn answered<T>(mut self, result: &Result<T, CallError>) {
        self.is_answered = match result {
            Err(CallError::Slow { .. }) => false,
            Err(CallError::Unreachable { source, .. }) => source.kind() != io::ErrorKind::TimedOut,
            Ok(_) | Err(_) => true,
        };
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let (mut hedging, now) = (self.network.hedging(), self.network.now());
        if self.is_answered {
            hedging.heard(self.provider, now);
        } else {
            hedging.taken_back(self.provider, now);
        }
    }
}
