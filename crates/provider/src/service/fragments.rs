//! Storing, reading and proving fragments.
//!
//! What a byte goes through, on its way in: the socket's copy into the record buffer, decrypted there; one copy to HTTP's
//! buffer; one into a pooled block of 1 MiB, which is hashed and written at once on a disk thread; the kernel's copy
//! into the page cache. On its way out: one read into a pooled block, whose parts go to TLS as they are; encrypted from
//! there into the record buffer; the kernel's copy into the socket.

use super::{Admitted, Answer, Service, body_problem, failed, header, now};
use crate::authority::{self, Standing, TokenFault};
use crate::bounds::{BLOCK_BYTES, Block, RequestSlot, busy, counted};
use crate::gate::read_only;
use crate::money::Charged;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use seedbank_formats::receipt::{Answer as Word, Statement};
use seedbank_formats::{Asked, FragmentId, PublicKey};
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::routes::{
    Access, HEADER_ACCESS, HEADER_UNTIL, RouteName, format_content_range, parse_authorization, parse_range,
    parse_until,
};
use seedbank_store::{NewClaim, Put, PutError, PutStart, ReadError, SliceAnswer, Stored};
use seedbank_transport::{Body, BodySender, FRAME_BYTES, Incoming, answer_bytes};
use std::io;
use std::net::IpAddr;
use std::ops::Range;

/// What the store takes of memory for a fragment on its way in, beside our block: up to three times the length of one
/// that is packed, and of a longer one only its hashes.
fn memory_in_store(length: u64) -> usize {
    let bytes = if length < block_len() { length.saturating_mul(3) } else { length / 64 };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A proof takes its range three times: data, slice, and the check of the slice; and its outboard.
const PROOF_MEMORY_FACTOR: usize = 3;

/// Whether a caller may read.
enum Readable {
    Yes,
    Absent,
}

impl Service {
    pub(super) async fn put_fragment(&self, id: FragmentId, admitted: Admitted) -> Answer {
        let Admitted { peer, headers, mut body, slot, .. } = admitted;
        let now = now();
        let until = header(&headers, HEADER_UNTIL)?.ok_or_else(|| missing(HEADER_UNTIL))?;
        let until = parse_until(until)?;
        authority::check_pending(until, now)?;
        let access: Access =
            header(&headers, HEADER_ACCESS)?.ok_or_else(|| missing(HEADER_ACCESS))?.parse()?;
        self.gate.pass(&self.store)?;

        let length = body.length().unwrap_or(0);
        let block_bytes = usize::try_from(length).unwrap_or(usize::MAX).clamp(1, BLOCK_BYTES);
        let block = self.buffers.block(&slot, block_bytes, memory_in_store(length)).await?;
        let asked = super::asked(&headers)?.unwrap_or(Asked(0));
        let claim = NewClaim { client: peer, until, access: store_access(access), asked };
        let store = self.store.clone();
        let begun = self.disk.run(move || store.begin_put(id, length, claim, now)).await?;
        let stored = match begun.map_err(|error| self.put_problem(error))? {
            PutStart::Held(stored) => stored,
            PutStart::Receive(put) => self.receive(put, &mut body, block).await?,
        };
        drop(slot);
        let receipt = self.receipt(peer, stored.id, stored.length, stored.until);
        self.metrics.sent(RouteName::PutFragment, receipt.len());
        Ok(answer_bytes(StatusCode::CREATED, receipt))
    }

    /// Carries a body into the store block by block, in one buffer that goes back and forth.
    async fn receive(&self, mut put: Put, body: &mut Incoming, mut block: Block) -> Result<Stored, Problem> {
        let block_bytes = block.len();
        block.clear();
        loop {
            let piece = body.next().await.transpose().map_err(|error| body_problem(&error))?;
            let ended = piece.is_none();
            let mut piece = piece.unwrap_or_default();
            self.metrics.received(RouteName::PutFragment, piece.len());
            while !piece.is_empty() || (ended && !block.is_empty()) {
                let room = block_bytes - block.len();
                block.extend_from_slice(&piece.split_to(piece.len().min(room)));
                if block.len() == block_bytes || ended {
                    (put, block) = self.write_block(put, block).await?;
                }
            }
            if ended {
                let finished = self.disk.run(move || put.finish(now())).await?;
                return finished.map_err(|error| self.put_problem(error));
            }
        }
    }

    async fn write_block(&self, mut put: Put, mut block: Block) -> Result<(Put, Block), Problem> {
        let written = self.disk.run(move || {
            put.write(&block)?;
            block.clear();
            Ok((put, block))
        });
        written.await?.map_err(|error| self.put_problem(error))
    }

    pub(super) async fn get_fragment(&self, id: FragmentId, admitted: Admitted) -> Answer {
        let Admitted { peer, remote, headers, slot, .. } = admitted;
        if let Readable::Absent = self.readable(&peer, &id, &headers)? {
            return Err(absent());
        }
        let length = self.store.fragment(&id).ok_or_else(absent)?.length;
        let asked = header(&headers, RANGE.as_str())?.map(parse_range).transpose()?;
        let range = asked.clone().unwrap_or(0..length);
        if range.end > length {
            return Err(range_outside(length));
        }
        let charged = self.charge(peer, remote, range.end - range.start).await?;
        let first_range = range.start..range.end.min(range.start + block_len());
        let first = self.read_block(&slot, id, first_range.clone()).await;
        let first = first.inspect_err(|_| give_back(charged.as_ref(), 0))?;
        let body = if first_range == range {
            self.metrics.sent(RouteName::GetFragment, first.len());
            Body::from(counted(first, slot))
        } else {
            self.feed(id, first, first_range.end..range.end, slot, charged)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if asked.is_some() {
            let named = HeaderValue::from_str(&format_content_range(&range, length));
            headers.insert(CONTENT_RANGE, named.expect("digits and a few signs are a header value"));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(response)
    }

    /// A body that is read as the client takes it. Its first block is there already, so that what can be said with a
    /// status was said.
    fn feed(
        &self,
        id: FragmentId,
        first: Block,
        rest: Range<u64>,
        slot: RequestSlot,
        charged: Option<Charged>,
    ) -> Body {
        let first_len = u64::try_from(first.len()).expect("a block is countable");
        let (sender, body) = Body::produced(first_len + (rest.end - rest.start));
        let (service, feeding) = (self.clone(), self.feeding.clone());
        tokio::spawn(async move {
            // When it fails, the sender goes and the body breaks off: nobody takes a part for the whole.
            let mut sent = 0;
            if let Err(problem) = service.feed_blocks(&sender, &slot, id, first, rest, &mut sent).await {
                tracing::warn!(fragment = %id, %problem, "answer broken off");
            }
            give_back(charged.as_ref(), sent);
            drop((slot, feeding));
        });
        body
    }

    async fn feed_blocks(
        &self,
        sender: &BodySender,
        slot: &RequestSlot,
        id: FragmentId,
        first: Block,
        mut rest: Range<u64>,
        sent: &mut u64,
    ) -> Result<(), Problem> {
        let mut next = first;
        loop {
            let mut bytes: Bytes = counted(next, ());
            while !bytes.is_empty() {
                let frame = bytes.split_to(bytes.len().min(FRAME_BYTES));
                let frame_len = frame.len();
                if sender.send(frame).await.is_err() {
                    return Ok(()); // The client went away.
                }
                self.metrics.sent(RouteName::GetFragment, frame_len);
                *sent += u64::try_from(frame_len).expect("a frame is countable");
            }
            if rest.is_empty() {
                return Ok(());
            }
            let end = rest.end.min(rest.start + block_len());
            next = self.read_block(slot, id, rest.start..end).await?;
            rest.start = end;
        }
    }

    /// A stretch of a fragment, at most a block long.
    async fn read_block(
        &self,
        slot: &RequestSlot,
        id: FragmentId,
        range: Range<u64>,
    ) -> Result<Block, Problem> {
        let bytes = usize::try_from(range.end - range.start).expect("a block fits into memory");
        let mut block = self.buffers.block(slot, bytes, 0).await?;
        let store = self.store.clone();
        let read = self.disk.run(move || store.read_into(&id, range.start, &mut block).map(|()| block));
        read.await?.map_err(|error| read_problem(&error))
    }

    pub(super) async fn get_proof(&self, id: FragmentId, range: Range<u64>, admitted: Admitted) -> Answer {
        let Admitted { peer, remote, headers, slot, .. } = admitted;
        let answer = match self.readable(&peer, &id, &headers)? {
            Readable::Absent => None,
            Readable::Yes => {
                let range_len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let bytes = range_len.saturating_mul(PROOF_MEMORY_FACTOR) + BLOCK_BYTES;
                let charged = self.charge(peer, remote, range.end - range.start).await?;
                let answer = async {
                    let memory = self.buffers.take(&slot, bytes).await?;
                    let (store, asked) = (self.store.clone(), range.clone());
                    match self.disk.run(move || store.slice(&id, asked)).await? {
                        Ok(answer) => Ok(Some((answer, memory))),
                        Err(ReadError::Absent(_)) => Ok(None),
                        Err(error) => Err(read_problem(&error)),
                    }
                };
                let answer = answer.await;
                // Only what is proven is paid for.
                if !matches!(answer, Ok(Some((SliceAnswer::Proven(_), _)))) {
                    give_back(charged.as_ref(), 0);
                }
                answer?
            }
        };
        let (word, slice, memory) = match answer {
            None => (Word::Absent, Vec::new(), None),
            Some((SliceAnswer::Rotten, memory)) => (Word::Rotten, Vec::new(), Some(memory)),
            Some((SliceAnswer::Proven(slice), memory)) => {
                (Word::Slice(FragmentId::of(&slice).0), slice, Some(memory))
            }
        };
        let statement = Statement {
            provider: self.key.public(),
            fragment: id,
            start: range.start,
            end: range.end,
            answer: word,
            time: now(),
        };
        let mut bytes = statement.sign(&self.key);
        bytes.extend_from_slice(&slice);
        drop(slice);
        self.metrics.sent(RouteName::GetProof, bytes.len());
        Ok(answer_bytes(StatusCode::OK, counted(Box::new(bytes), (memory, slot))))
    }

    /// Counts a read for the key that asks, or says what must be paid first.
    async fn charge(&self, peer: PublicKey, remote: IpAddr, bytes: u64) -> Result<Option<Charged>, Problem> {
        match &self.money {
            Some(money) => money.charge(peer, remote, bytes).await,
            None => Ok(None),
        }
    }

    /// Whether the caller may read the fragment, by its claims and by the token that it shows.
    fn readable(&self, peer: &PublicKey, id: &FragmentId, headers: &HeaderMap) -> Result<Readable, Problem> {
        let now = now();
        let grants = self.store.access(id, now).unwrap_or_default();
        match authority::standing(peer, &grants) {
            Standing::Absent => return Ok(Readable::Absent),
            Standing::Allowed => return Ok(Readable::Yes),
            Standing::NeedsToken => {}
        }
        let shown = header(headers, AUTHORIZATION.as_str())?.ok_or(TokenFault::Missing)?;
        let token = self.tokens.check(&parse_authorization(shown)?).map_err(|_| TokenFault::Forged)?;
        authority::check_token(peer, &grants, &token, now)?;
        Ok(Readable::Yes)
    }

    fn put_problem(&self, error: PutError) -> Problem {
        match error {
            PutError::Length(_) | PutError::WrongLength { .. } => {
                Problem::new(ProblemCode::BadRequest, error.to_string())
            }
            PutError::OverQuota { .. } => Problem::new(ProblemCode::OverQuota, error.to_string()),
            PutError::Full => self.full(),
            PutError::ReadOnly { reason } => read_only(&reason),
            PutError::WrongHash { .. } => Problem::new(ProblemCode::HashMismatch, error.to_string()),
        }
    }
}

fn give_back(charged: Option<&Charged>, sent: u64) {
    if let Some(charged) = charged {
        charged.sent_only(sent);
    }
}

fn block_len() -> u64 {
    u64::try_from(BLOCK_BYTES).expect("a block is countable")
}

fn store_access(access: Access) -> seedbank_store::Access {
    match access {
        Access::Owner => seedbank_store::Access::Owner,
        Access::Public => seedbank_store::Access::Public,
        Access::Reader(key) => seedbank_store::Access::Reader(key),
    }
}

fn missing(name: &str) -> Problem {
    Problem::new(ProblemCode::BadRequest, format!("header {name} is missing"))
}

fn absent() -> Problem {
    Problem::new(ProblemCode::NotFound, "this provider does not hold the fragment")
}

fn range_outside(length: u64) -> Problem {
    Problem::new(ProblemCode::RangeOutside, format!("the fragment has {length} bytes"))
}

/// Somebody else took the process's file descriptors: that passes.
fn is_out_of_handles(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn read_problem(error: &ReadError) -> Problem {
    match error {
        ReadError::Absent(_) => absent(),
        ReadError::Rotten(_) => Problem::new(ProblemCode::Rotten, "the fragment rotted here"),
        ReadError::OutOfRange { length } => range_outside(*length),
        ReadError::Disk(error) if is_out_of_handles(error) => busy("too many open files"),
        ReadError::Disk(_) => failed("read a fragment", error),
    }
}
