//! The clock of a node in another process, for programs that let weeks pass in seconds.

use crate::leader::{AskLeaderError, Leader};
use serde_json::{Value, json};

/// The clock of a node that was started with [`crate::ClockControl::Test`], moved over its JSON-RPC.
#[derive(Debug, Clone)]
pub struct RemoteClock(Leader);

impl RemoteClock {
    /// Of the node at `http://HOST:PORT`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`AskLeaderError::Url`]
    pub fn new(url: &str) -> Result<RemoteClock, AskLeaderError> {
        Leader::new(url).map(RemoteClock)
    }

    /// Goes on by so many seconds, and makes an empty block of that time.
    ///
    /// # Errors
    /// [`AskLeaderError`]; of the kind `Answer` by a node whose clock nobody may move.
    pub async fn forward(&self, seconds: u64) -> Result<(), AskLeaderError> {
        self.0.ask::<Value>("evm_increaseTime", json!([seconds])).await?;
        self.mine().await
    }

    /// Makes an empty block.
    ///
    /// # Errors
    /// As [`RemoteClock::forward`].
    pub async fn mine(&self) -> Result<(), AskLeaderError> {
        self.0.ask::<Value>("evm_mine", json!([])).await.map(|_| ())
    }
}
