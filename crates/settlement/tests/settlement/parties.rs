//! A client and a provider with data, money and keys.

use crate::nodes::{EPOCH, Node, deployed, key, policy};
use seedbank_agreement::chunk_path::{chunk_path, reads};
use seedbank_agreement::fragment_set::{Fragment, FragmentSet};
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Nonce, Proposal, Rate, Revision, Signature, Signed, Typed, WalletKey,
};
use seedbank_formats::FragmentId;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::slice::FragmentHasher;
use seedbank_settlement::{Chain, Deployment, Proof, Wallet};
use std::collections::BTreeMap;

/// Fragments as a provider has them.
#[derive(Default)]
pub(crate) struct Disk {
    fragments: BTreeMap<FragmentId, (Vec<u8>, Vec<u8>)>,
}

impl Disk {
    /// Fragments of these lengths, no two alike.
    pub(crate) fn of(lengths: &[usize]) -> Self {
        let mut disk = Self::default();
        for (number, length) in lengths.iter().enumerate() {
            let mut bytes = vec![0; *length];
            let salt = u64::try_from(number).unwrap() + 1;
            for (at, byte) in (0u64..).zip(&mut bytes) {
                *byte = (at.wrapping_mul(salt.wrapping_mul(0x9e37_79b9)) >> 13).to_le_bytes()[0];
            }
            let mut hasher = FragmentHasher::default();
            hasher.update(&bytes);
            let (id, outboard) = hasher.finish();
            disk.fragments.insert(id, (bytes, outboard));
        }
        disk
    }

    pub(crate) fn set(&self) -> FragmentSet {
        let fragment = |(id, (bytes, _)): (&FragmentId, &(Vec<u8>, Vec<u8>))| Fragment {
            id: *id,
            length: u64::try_from(bytes.len()).unwrap(),
            retain_until: Epoch(0),
        };
        FragmentSet::new(self.fragments.iter().map(fragment)).unwrap()
    }

    /// Shows the byte at an offset of the set.
    pub(crate) fn proof(&self, offset: u64) -> Proof {
        let set = self.set();
        let path = set.path(offset).unwrap();
        let inside = path.locate(&set.root(), set.total(), offset).unwrap();
        let (bytes, outboard) = &self.fragments[&path.fragment.id];
        let wanted = reads(path.fragment.length, inside).unwrap();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let group = &bytes[at(wanted.group.start)..at(wanted.group.end)];
        let nodes: Vec<[u8; 64]> =
            wanted.nodes.iter().map(|node| outboard[at(*node)..at(*node) + 64].try_into().unwrap()).collect();
        let chunk = chunk_path(path.fragment.length, inside, group, &nodes).unwrap();
        Proof { fragment: path, chunk }
    }
}

/// A deployment on a node with a client and a provider, both with money.
pub(crate) struct Stage<'a> {
    pub(crate) node: &'a Node,
    pub(crate) deployment: Deployment,
    /// Deploys, and afterwards is anybody.
    pub(crate) anyone: Wallet,
    pub(crate) client: Wallet,
    pub(crate) client_key: WalletKey,
    pub(crate) provider: Wallet,
    pub(crate) provider_key: WalletKey,
    pub(crate) identity: SigningKey,
}

/// What each party begins with.
pub(crate) const PURSE: Amount = Amount(1_000_000);
pub(crate) const STAKE: Amount = Amount(200_000);

impl<'a> Stage<'a> {
    /// Provider registered and staked, client funded.
    pub(crate) async fn set(node: &'a Node) -> Self {
        let (deployment, anyone) = deployed(node).await;
        let chain = anyone.chain().clone();
        let (client_key, provider_key) = (node.funded(2).await, node.funded(3).await);
        let client = Wallet::start(chain.clone(), client_key.clone(), policy());
        let provider = Wallet::start(chain.clone(), provider_key.clone(), policy());
        for wallet in [&client, &provider] {
            anyone.token().mint(wallet.address(), PURSE).await.unwrap();
            wallet.token().allow(deployment.market, PURSE).await.unwrap();
        }
        client.market().deposit(client.address(), Amount(500_000)).await.unwrap();
        provider.market().deposit(provider.address(), STAKE).await.unwrap();
        let identity = SigningKey::from_seed([7; 32]);
        let word = chain.binding(provider.address()).sign(&identity);
        provider.registry().register(identity.public(), &word, "{}").await.unwrap();
        provider.registry().add_stake(provider.address(), STAKE).await.unwrap();
        Self { node, deployment, anyone, client, client_key, provider, provider_key, identity }
    }

    pub(crate) fn chain(&self) -> &Chain {
        self.anyone.chain()
    }

    pub(crate) async fn epoch(&self) -> Epoch {
        self.chain().head().await.unwrap().epoch.unwrap()
    }

    /// Goes to the beginning of the next epoch.
    pub(crate) async fn next_epoch(&self) -> Epoch {
        let next = self.epoch().await.next().unwrap();
        let begin = self.deployment.clock().begin(next).0;
        self.node.pass(begin - self.node.now().await).await;
        let now = self.epoch().await;
        assert!(now >= next && u64::from(now.0 - next.0) * u64::from(EPOCH) < 2);
        now
    }

    pub(crate) fn proposal(&self, set: &FragmentSet, rate: u128, now: Epoch) -> Signed<Proposal> {
        let proposal = Proposal {
            client: self.client.address(),
            provider: self.provider.address(),
            set_root: set.root(),
            size: set.total(),
            rate_per_epoch: Rate::new(rate).unwrap(),
            end_epoch: Epoch(now.0 + 31),
            escrow: Amount(rate * 60),
            retained_bytes: 0,
            retained_until: Epoch(0),
            accept_by: now,
            nonce: Nonce([5; 32]),
        };
        proposal.sign(&self.deployment.market_domain(), &self.client_key)
    }

    /// An open agreement about what the disk holds, whose first epoch begins.
    pub(crate) async fn agreed(&self, disk: &Disk, rate: u128) -> AgreementId {
        let now = self.epoch().await;
        let proposal = self.proposal(&disk.set(), rate, now);
        let activation = self.provider.market().activate(&[proposal]).await.unwrap();
        let id = activation.agreements[0].unwrap();
        self.next_epoch().await;
        self.move_on(id).await;
        id
    }

    /// Lets an agreement's terms begin or end that are due.
    pub(crate) async fn move_on(&self, id: AgreementId) {
        self.anyone.market().advance(self.provider.address(), 100).await.unwrap();
        self.anyone.market().move_on(&[id]).await.unwrap();
    }

    pub(crate) fn revision(
        &self,
        agreement: AgreementId,
        sequence: u32,
        set: &FragmentSet,
        rate: u128,
        now: Epoch,
    ) -> (Signed<Revision>, Signature) {
        let revision = Revision {
            agreement,
            sequence,
            set_root: set.root(),
            size: set.total(),
            rate_per_epoch: Rate::new(rate).unwrap(),
            from_epoch: now.next().unwrap(),
            end_epoch: Epoch(now.0 + 20),
            retained_bytes: 0,
            retained_until: Epoch(0),
        };
        let domain = self.deployment.market_domain();
        let provider = revision.clone().sign(&domain, &self.provider_key).signature;
        (revision.sign(&domain, &self.client_key), provider)
    }

    /// The proofs that this epoch asks for, after its seed is sealed.
    pub(crate) async fn proofs(&self, disk: &Disk) -> Vec<Proof> {
        self.anyone.randomness().seal().await.unwrap();
        let challenges = self.chain().market().challenges_of(self.provider.address()).await.unwrap();
        challenges.iter().map(|challenge| disk.proof(challenge.offset)).collect()
    }

    pub(crate) async fn free(&self, account: Address) -> Amount {
        self.chain().market().free(account).await.unwrap()
    }

    /// No transaction of this stage is left, and its tasks ended.
    pub(crate) async fn strike(self) {
        for wallet in [&self.anyone, &self.client, &self.provider] {
            wallet.stop().await;
        }
    }
}

/// A stranger's key, without coin.
pub(crate) fn stranger() -> WalletKey {
    key(99)
}
