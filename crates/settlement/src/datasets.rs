//! `DatasetRegistry`: names under their owner's key, each with its newest head.

use crate::abi::datasets::DatasetRegistry as Abi;
use crate::chain::{Chain, ReadError};
use crate::convert::{somebody, to_abi, word};
use crate::wallet::{Mined, SendError, Wallet};
use alloy_primitives::{Bytes, keccak256};
use alloy_sol_types::SolValue;
use seedbank_agreement::publication::{HeadHash, NameId};
use seedbank_agreement::{Address, Binding, Publication, Signed};
use seedbank_formats::{DatasetId, PublicKey, Signature, Timestamp, VersionId};

/// A dataset's newest state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetEntry {
    /// Whose name it is.
    pub owner: Address,
    /// Who it was offered to.
    pub pending_owner: Option<Address>,
    /// Rises with each head; the least that a reader should accept from a provider. 0 before the first head.
    pub sequence: u64,
    /// No further heads, ever.
    pub frozen: bool,
    /// The dataset's id on the network.
    pub dataset: DatasetId,
    /// The newest version.
    pub version: VersionId,
    /// BLAKE3 of the signed head.
    pub head: HeadHash,
    /// The key that is said to sign heads. Believed only by [`DatasetEntry::owner_key`].
    pub claimed_key: PublicKey,
    /// That key's word for it; None if it has the wrong length.
    pub key_signature: Option<Signature>,
}

impl DatasetEntry {
    /// The key that signs heads, if it gave its word for the owner's wallet. None: somebody squats on the key.
    #[must_use]
    pub fn owner_key(&self, chain: &Chain) -> Option<PublicKey> {
        let signature = self.key_signature.as_ref()?;
        chain.dataset_binding(self.owner).check(&self.claimed_key, signature).ok()?;
        Some(self.claimed_key)
    }
}

/// Questions to the registry of names. See [`Chain::datasets`].
#[derive(Clone, Copy)]
pub struct DatasetReads<'a>(&'a Chain);

/// Calls of the registry of names. See [`Wallet::datasets`].
#[derive(Clone, Copy)]
pub struct DatasetCalls<'a>(&'a Wallet);

impl Chain {
    /// Questions to the registry of names.
    #[must_use]
    pub fn datasets(&self) -> DatasetReads<'_> {
        DatasetReads(self)
    }

    /// What a key that signs heads signs to be an owner's in the registry of names.
    #[must_use]
    pub fn dataset_binding(&self, owner: Address) -> Binding {
        let deployment = self.deployment();
        Binding { chain_id: deployment.chain_id, contract: deployment.datasets, address: owner }
    }
}

impl Wallet {
    /// Calls of the registry of names.
    #[must_use]
    pub fn datasets(&self) -> DatasetCalls<'_> {
        DatasetCalls(self)
    }
}

/// The id of a name under its owner's key, as the contract computes it.
#[must_use]
pub fn name_id(owner: Address, name: &str) -> NameId {
    NameId(keccak256((to_abi(owner), name.to_owned()).abi_encode_params()).0)
}

impl DatasetReads<'_> {
    /// What is registered under an id.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn get(self, id: NameId) -> Result<Option<DatasetEntry>, ReadError> {
        let found = self.read(Abi::getCall { id: word(id.0) }).await?;
        let Some(owner) = somebody(found.owner) else { return Ok(None) };
        Ok(Some(DatasetEntry {
            owner,
            pending_owner: somebody(found.pendingOwner),
            sequence: found.sequence,
            frozen: found.frozen,
            dataset: DatasetId(found.datasetId.0),
            version: VersionId(found.version.0),
            head: HeadHash(found.head.0),
            claimed_key: PublicKey(found.ownerKey.0),
            key_signature: <[u8; 64]>::try_from(found.ownerKeySignature.as_ref()).ok().map(Signature),
        }))
    }

    /// Until when a key may publish for an owner.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn publisher(
        self,
        id: NameId,
        owner: Address,
        publisher: Address,
    ) -> Result<Timestamp, ReadError> {
        let call = Abi::publishersCall { id: word(id.0), owner: to_abi(owner), publisher: to_abi(publisher) };
        self.read(call).await.map(Timestamp)
    }

    async fn read<C: alloy_sol_types::SolCall>(self, call: C) -> Result<C::Return, ReadError> {
        self.0.read(self.0.deployment().datasets, call).await
    }
}

impl DatasetCalls<'_> {
    /// Registers a name of the wallet. `word` is the head-signing key's, for [`Chain::dataset_binding`] of the wallet.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn register(
        self,
        name: &str,
        dataset: DatasetId,
        key: PublicKey,
        key_signature: &Signature,
    ) -> Result<Mined, SendError> {
        self.send(Abi::registerCall {
            name: name.to_owned(),
            datasetId: word(dataset.0),
            ownerKey: word(key.0),
            ownerKeySignature: Bytes::from(key_signature.0.to_vec()),
        })
        .await
    }

    /// Replaces the head that the wallet saw by a newer one.
    ///
    /// # Errors
    /// [`SendError::Refused`] with [`crate::Refusal::Moved`] if somebody published since.
    pub async fn publish(self, publication: &Publication) -> Result<Mined, SendError> {
        self.send(Abi::publishCall { publication: publication_call(publication) }).await
    }

    /// The same, signed by the owner or a publisher of its, and posted by this wallet.
    ///
    /// # Errors
    /// [`SendError::Refused`] with [`crate::Refusal::Moved`] if somebody published since.
    pub async fn publish_signed(self, publication: &Signed<Publication>) -> Result<Mined, SendError> {
        self.send(Abi::publishSignedCall {
            publication: publication_call(&publication.message),
            signature: Bytes::from(publication.signature.as_bytes().to_vec()),
        })
        .await
    }

    /// Lets a key publish until then.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn set_publisher(
        self,
        id: NameId,
        publisher: Address,
        until: Timestamp,
    ) -> Result<Mined, SendError> {
        let call = Abi::setPublisherCall { id: word(id.0), publisher: to_abi(publisher), until: until.0 };
        self.send(call).await
    }

    /// Ends a dataset's history: no further heads, ever.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn freeze(self, id: NameId) -> Result<Mined, SendError> {
        self.send(Abi::freezeCall { id: word(id.0) }).await
    }

    /// Offers a dataset to another account.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn offer(self, id: NameId, to: Address) -> Result<Mined, SendError> {
        self.send(Abi::offerCall { id: word(id.0), to: to_abi(to) }).await
    }

    /// Accepts a dataset that was offered to the wallet, with the key that signs its heads from now on and that key's word for
    /// [`Chain::dataset_binding`] of the wallet.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn accept(
        self,
        id: NameId,
        key: PublicKey,
        key_signature: &Signature,
    ) -> Result<Mined, SendError> {
        self.send(Abi::acceptCall {
            id: word(id.0),
            ownerKey: word(key.0),
            ownerKeySignature: Bytes::from(key_signature.0.to_vec()),
        })
        .await
    }

    async fn send<C: alloy_sol_types::SolCall>(self, call: C) -> Result<Mined, SendError> {
        self.0.send(self.0.chain().deployment().datasets, call).await
    }
}

fn publication_call(publication: &Publication) -> Abi::Publication {
    Abi::Publication {
        id: word(publication.id.0),
        sequence: publication.sequence,
        previousHead: word(publication.previous_head.0),
        version: word(publication.version.0),
        head: word(publication.head.0),
    }
}
