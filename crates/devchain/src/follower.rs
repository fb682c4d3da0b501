//! A second pair of eyes: takes another node's blocks, runs every transaction again, and compares.
//!
//! A follower signs nothing and forwards nothing. It accepts a block only if the sequencer signed it, it continues the
//! chain that is here, and replaying its transaction at its time gives exactly its header. Otherwise it stops for good
//! and leaves evidence: what the sequencer signed, which nobody else can have made.

use crate::block::Block;
use crate::execution::{Draft, ExecutionError};
use crate::genesis::Genesis;
use crate::header::{HeaderError, SignedHeader, unsigned};
use crate::leader::{AskLeaderError, Leader, RawBlock};
use crate::shared::Shared;
use crate::store::{StoreError, Writer};
use crate::transaction::Transaction;
use alloy_consensus::proofs::ordered_trie_root_with_encoder;
use alloy_primitives::{B256, Bytes};
use alloy_rlp::Encodable;
use serde_json::json;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// A reader of a follower waits no longer for what its leader has.
const POLL: Duration = Duration::from_millis(500);

/// Blocks that are asked for, and committed, at once.
pub(crate) const BLOCKS_AT_ONCE: u64 = 256;

/// What the sequencer signed can't be so. The evidence is in the chain's folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// It signed two blocks of one number: whoever saw one of them was deceived.
    #[error("the sequencer signed two blocks {number}: {ours} and {theirs}")]
    Equivocation {
        /// Their number.
        number: u64,
        /// The one that is here.
        ours: B256,
        /// The other.
        theirs: B256,
    },
    /// The block does not follow from the one before it.
    #[error("the sequencer signed block {number} as {theirs}, which does not follow from block {}: {why}", number - 1)]
    Invalid {
        /// Its number.
        number: u64,
        /// Its hash.
        theirs: B256,
        /// In what it is wrong.
        why: String,
    },
    /// The other node serves what the sequencer did not sign. It convicts nobody: follow another node.
    #[error("the node that is followed serves what the sequencer did not sign: {0}")]
    Unsigned(String),
}

/// Why a follower stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error(transparent)]
    Diverged(#[from] Divergence),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the EVM failed: {0}")]
    Evm(String),
}

/// The chain's end as this follower has it.
pub(crate) struct Follower {
    shared: Arc<Shared>,
    leader: Leader,
    head: SignedHeader,
    dir: PathBuf,
}

/// Both headers and all that it takes to judge them.
struct Evidence {
    divergence: Divergence,
    before: SignedHeader,
    signed: SignedHeader,
    transaction: Option<Bytes>,
    replayed: Option<Vec<u8>>,
}

/// What checking a batch of blocks came to.
enum Checked {
    /// All are here now.
    Kept,
    /// Signed, but not what was asked for.
    Strange(String),
    /// Those before this one are.
    Refused(Box<Evidence>),
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, leader: Leader, head: SignedHeader, dir: &Path) -> Follower {
        Follower { shared, leader, head, dir: dir.to_owned() }
    }

    /// Follows until it is told to stop.
    ///
    /// # Errors
    /// [`FollowError`]: it must not go on by itself.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), FollowError> {
        let mut failing = false;
        loop {
            let asked = tokio::select! {
                _ = &mut stop => return Ok(()),
                asked = self.ask() => asked,
            };
            let before = self.head.hash();
            let failed = match asked {
                Ok(blocks) => self.take(blocks)?,
                Err(error) => Some(error.to_string()),
            };
            if let (Some(why), false) = (&failed, failing) {
                tracing::warn!(%why, "can't follow for now");
            }
            failing = failed.is_some();
            if self.head.hash() != before {
                continue;
            }
            tokio::select! {
                _ = &mut stop => return Ok(()),
                () = sleep(POLL) => {}
            }
        }
    }

    /// The block that is the last one here, as the leader has it, and those after it.
    async fn ask(&self) -> Result<Vec<RawBlock>, AskLeaderError> {
        self.leader.ask("seedbank_blocks", json!([self.head.header().number, BLOCKS_AT_ONCE])).await
    }

    /// Checks and keeps blocks; says if they were not what was asked for.
    fn take(&mut self, blocks: Vec<RawBlock>) -> Result<Option<String>, FollowError> {
        if blocks.is_empty() {
            return Ok(Some(format!("it is behind: it has no block {} yet", self.head.header().number)));
        }
        let shared = Arc::clone(&self.shared);
        let transaction = shared.store.begin()?;
        let before = self.head.hash();
        let mut undos = Vec::new();
        let checked = {
            let mut writer = Writer::open(&transaction)?;
            self.check_all(&mut writer, blocks, &mut undos)?
        };
        if self.head.hash() == before {
            transaction.abort().map_err(StoreError::from)?;
        } else {
            shared.remember(undos);
            transaction.commit().map_err(StoreError::from)?;
        }
        match checked {
            Checked::Kept => Ok(None),
            Checked::Strange(why) => Ok(Some(why)),
            Checked::Refused(evidence) => {
                if let Err(error) = self.keep(&evidence) {
                    tracing::error!(%error, "evidence could not be written");
                }
                Err(evidence.divergence.into())
            }
        }
    }

    fn check_all(
        &mut self,
        writer: &mut Writer<'_>,
        blocks: Vec<RawBlock>,
        undos: &mut Vec<(u64, crate::recent::Undo)>,
    ) -> Result<Checked, FollowError> {
        let genesis = &self.shared.genesis;
        for (index, block) in blocks.into_iter().enumerate() {
            let header = SignedHeader::check(&block.header, genesis.chain_id, genesis.sequencer)
                .map_err(|error| Divergence::Unsigned(error.to_string()))?;
            let refused = |divergence, replayed| {
                Checked::Refused(Box::new(Evidence {
                    divergence,
                    before: self.head.clone(),
                    signed: header.clone(),
                    transaction: block.transaction.clone(),
                    replayed,
                }))
            };
            let (number, theirs) = (header.header().number, header.hash());
            let invalid = |why: String| Divergence::Invalid { number, theirs, why };
            if number == self.head.header().number {
                if theirs == self.head.hash() {
                    continue;
                }
                let ours = self.head.hash();
                return Ok(refused(Divergence::Equivocation { number, ours, theirs }, None));
            }
            if index == 0 || number != self.head.header().number + 1 {
                let next = self.head.header().number + u64::from(index > 0);
                return Ok(Checked::Strange(format!("it gave block {number} for block {next}")));
            }
            if transaction_root(block.transaction.as_ref()) != header.header().transactions_root {
                let wrong = format!("block {number} has another transaction");
                return Err(Divergence::Unsigned(wrong).into());
            }
            match self.replay(writer, &header, block.transaction.as_ref())? {
                Replayed::Same(draft, hash) => {
                    let kept = Block { header: header.clone(), transaction: block.transaction };
                    let receipt = hash.zip(draft.receipt.as_ref());
                    undos.push((number, writer.append(&kept, receipt, &draft.changes)?));
                    self.head = header;
                }
                Replayed::Differs(why, replayed) => return Ok(refused(invalid(why), replayed)),
            }
        }
        Ok(Checked::Kept)
    }

    /// Runs a block again.
    fn replay(
        &self,
        writer: &Writer<'_>,
        signed: &SignedHeader,
        raw: Option<&Bytes>,
    ) -> Result<Replayed, FollowError> {
        let (genesis, claimed) = (&self.shared.genesis, signed.header());
        if claimed.parent_hash != self.head.hash() {
            return Ok(Replayed::Differs(format!("its parent is {}", claimed.parent_hash), None));
        }
        if claimed.timestamp < self.head.header().timestamp {
            return Ok(Replayed::Differs("its time is before its parent's".to_owned(), None));
        }
        let transaction = match raw.map(|raw| Transaction::check(raw, genesis)).transpose() {
            Ok(transaction) => transaction,
            Err(error) => return Ok(Replayed::Differs(error.to_string(), None)),
        };
        let draft = Draft::next(genesis, writer, &self.head, claimed.timestamp, transaction.as_ref());
        let draft = match draft {
            Ok(draft) => draft,
            Err(ExecutionError::Refused(why)) => return Ok(Replayed::Differs(why.to_string(), None)),
            Err(ExecutionError::Store(error)) => return Err(error.into()),
            Err(ExecutionError::Evm(why)) => return Err(FollowError::Evm(why)),
        };
        if draft.header != unsigned(claimed) {
            let mut replayed = Vec::new();
            draft.header.encode(&mut replayed);
            let why = difference(&draft.header, claimed).to_owned();
            return Ok(Replayed::Differs(why, Some(replayed)));
        }
        Ok(Replayed::Same(Box::new(draft), transaction.map(|transaction| transaction.hash())))
    }

    /// Writes what was signed where the operator finds it.
    fn keep(&self, evidence: &Evidence) -> io::Result<()> {
        let number = evidence.signed.header().number;
        let path = self.dir.join(format!("evidence-{number}.json"));
        let text = json!({
            "what": evidence.divergence.to_string(),
            "chain_id": self.shared.genesis.chain_id,
            "sequencer": self.shared.genesis.sequencer,
            "signed": [Bytes::from(evidence.before.encoded()), Bytes::from(evidence.signed.encoded())],
            "transaction": evidence.transaction,
            "replayed": evidence.replayed.clone().map(Bytes::from),
        });
        let mut file = std::fs::File::create(&path)?;
        writeln!(file, "{text:#}")?;
        file.sync_all()?;
        tracing::error!(path = %path.display(), "evidence against the sequencer written");
        Ok(())
    }
}

/// The root that a header has for this transaction, or for none.
fn transaction_root(raw: Option<&Bytes>) -> B256 {
    let transactions: Vec<&Bytes> = raw.into_iter().collect();
    ordered_trie_root_with_encoder(&transactions, |raw, out| out.extend_from_slice(raw))
}

enum Replayed {
    /// The block is right; the hash is its transaction's.
    Same(Box<Draft>, Option<B256>),
    /// It is wrong in this; if the replay came to an end, this is the header that it gave.
    Differs(String, Option<Vec<u8>>),
}

/// The first field that differs, in words.
fn difference(replayed: &alloy_consensus::Header, claimed: &alloy_consensus::Header) -> &'static str {
    if replayed.gas_used != claimed.gas_used {
        "its gas differs from the replay's"
    } else if replayed.receipts_root != claimed.receipts_root || replayed.logs_bloom != claimed.logs_bloom {
        "its receipt differs from the replay's"
    } else if replayed.state_root != claimed.state_root {
        "its state differs from the replay's"
    } else {
        "its header differs from the replay's"
    }
}

/// The beginning of the chain at a URL.
pub(crate) async fn genesis_of(leader: &Leader) -> Result<(Genesis, SignedHeader), BeginError> {
    let genesis: Genesis = leader.ask("seedbank_genesis", json!([])).await?;
    let blocks: Vec<RawBlock> = leader.ask("seedbank_blocks", json!([0, 1])).await?;
    let [block] = blocks.as_slice() else { return Err(BeginError::Wrong) };
    let header = SignedHeader::check(&block.header, genesis.chain_id, genesis.sequencer)?;
    if block.transaction.is_some() || unsigned(header.header()) != Draft::genesis(&genesis).header {
        return Err(BeginError::Wrong);
    }
    Ok((genesis, header))
}

/// Why a chain can't be followed from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// Try again, or follow another node.
    #[error(transparent)]
    Ask(#[from] AskLeaderError),
    /// Follow another node.
    #[error("block 0 is not signed by the sequencer")]
    Header(#[from] HeaderError),
    /// Follow another node.
    #[error("block 0 does not follow from the genesis that the node tells")]
    Wrong,
}
