//! `AuditAnchor`: heads of append-only logs.

use crate::abi::anchor::AuditAnchor as Abi;
use crate::chain::{Chain, ReadError};
use crate::convert::{to_abi, word};
use crate::wallet::{Mined, SendError, Wallet};
use seedbank_agreement::Address;
use seedbank_formats::Timestamp;

/// The newest head of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchoredHead {
    /// Its entries.
    pub size: u64,
    /// When it was anchored.
    pub time: Timestamp,
    /// What commits to them.
    pub root: [u8; 32],
}

impl Chain {
    /// The newest head of a writer's log; None if none was anchored.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn anchored(&self, writer: Address, log: [u8; 32]) -> Result<Option<AnchoredHead>, ReadError> {
        let call = Abi::headsCall { writer: to_abi(writer), log: word(log) };
        let found = self.read(self.deployment().anchor, call).await?;
        let head = AnchoredHead { size: found.size, time: Timestamp(found.time), root: found.root.0 };
        Ok((head.size != 0).then_some(head))
    }
}

impl Wallet {
    /// Records that the wallet's log has so many entries and this root.
    ///
    /// # Errors
    /// [`SendError::Refused`] with [`crate::Refusal::NotLonger`] if it had as many before.
    pub async fn anchor(&self, log: [u8; 32], size: u64, root: [u8; 32]) -> Result<Mined, SendError> {
        self.send(
            self.chain().deployment().anchor,
            Abi::anchorCall { log: word(log), size, root: word(root) },
        )
        .await
    }
}
