//! The deployment's token: any ERC-20.

use crate::abi::token::Token;
use crate::chain::{Chain, ReadError};
use crate::convert::{amount, to_abi, units};
use crate::wallet::{Mined, SendError, Wallet};
use seedbank_agreement::{Address, Amount};

/// Questions to the token. See [`Chain::token`].
#[derive(Clone, Copy)]
pub struct TokenReads<'a>(&'a Chain);

/// Calls of the token. See [`Wallet::token`].
#[derive(Clone, Copy)]
pub struct TokenCalls<'a>(&'a Wallet);

impl Chain {
    /// Questions to the deployment's token.
    #[must_use]
    pub fn token(&self) -> TokenReads<'_> {
        TokenReads(self)
    }
}

impl Wallet {
    /// Calls of the deployment's token.
    #[must_use]
    pub fn token(&self) -> TokenCalls<'_> {
        TokenCalls(self)
    }
}

impl TokenReads<'_> {
    /// What an account has.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn balance_of(self, account: Address) -> Result<Amount, ReadError> {
        let call = Token::balanceOfCall { account: to_abi(account) };
        self.0.read(self.0.deployment().token, call).await.map(amount)
    }

    /// All units that there are.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn total_supply(self) -> Result<Amount, ReadError> {
        self.0.read(self.0.deployment().token, Token::totalSupplyCall {}).await.map(amount)
    }

    /// What `spender` may take of an account's.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn allowance(self, owner: Address, spender: Address) -> Result<Amount, ReadError> {
        let call = Token::allowanceCall { owner: to_abi(owner), spender: to_abi(spender) };
        self.0.read(self.0.deployment().token, call).await.map(amount)
    }
}

impl TokenCalls<'_> {
    /// Sends tokens.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn transfer(self, to: Address, sum: Amount) -> Result<Mined, SendError> {
        let call = Token::transferCall { to: to_abi(to), amount: units(sum) };
        self.0.send_once(self.token(), call).await
    }

    /// Lets `spender` take so much in all.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn approve(self, spender: Address, sum: Amount) -> Result<Mined, SendError> {
        let call = Token::approveCall { spender: to_abi(spender), amount: units(sum) };
        self.0.send(self.token(), call).await
    }

    /// Sees to it that `spender` may take so much, with a transaction only if it may not yet.
    ///
    /// # Errors
    /// [`SendError`]; an answer that can't be read counts as none.
    pub async fn allow(self, spender: Address, sum: Amount) -> Result<(), SendError> {
        let allowed = match self.0.chain().token().allowance(self.0.address(), spender).await {
            Ok(allowed) => allowed,
            Err(ReadError::Unanswered(unanswered)) => return Err(SendError::Unanswered(unanswered)),
            Err(ReadError::Refused(_) | ReadError::Unreadable { .. }) => Amount::ZERO,
        };
        if allowed < sum {
            self.approve(spender, sum).await?;
        }
        Ok(())
    }

    /// Makes tokens out of nothing. Only the test token of a local network does.
    ///
    /// # Errors
    /// [`SendError::Refused`] by any other token.
    pub async fn mint(self, to: Address, sum: Amount) -> Result<Mined, SendError> {
        let call = Token::mintCall { to: to_abi(to), amount: units(sum) };
        self.0.send(self.token(), call).await
    }

    fn token(self) -> Address {
        self.0.chain().deployment().token
    }
}
