//! A chain with contracts, a client with money, and a provider that is paid.

use crate::support::{Caller, Provider, client_key, fragment, options, start_in};
use bytes::Bytes;
use rusqlite::Connection;
use seedbank_agreement::price::rate_per_epoch;
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Fragment, FragmentSet, Nonce, Proposal, Rate, Revision, Typed,
    Voucher, WalletKey,
};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{FragmentId, from_hex};
use seedbank_protocol::messages::{Prices, TokenUnits};
use seedbank_protocol::payment::{
    ProposalAnswer, ProposalRequest, RevisionAnswer, RevisionRequest, SetLeaf, VoucherRequest,
};
use seedbank_protocol::routes::Access;
use seedbank_provider::{
    CONFIG_FILE, Fate, InitChain, InitOptions, InitWallet, MoneyReport, WALLET_FILE, init, report,
};
use seedbank_settlement::{Deployment, EndpointUrl, Outcome, Settings, Wallet};
use seedbank_testkit::chain::{Act, Node, Proxy, key};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Long enough for what a test does in one, and short enough for the provider to look often.
pub(crate) const EPOCH: u32 = 150;
/// Units for a GiB and month: an epoch of a 300 KB fragment costs thousands of units.
pub(crate) const RENT: u128 = 1_000_000_000_000;
/// A unit for each KiB.
pub(crate) const EGRESS: u128 = 1 << 20;
pub(crate) const STAKE: Amount = Amount(100_000_000_000);
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that a test of money needs. The chain ends with the test's runtime.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) deployment: Deployment,
    /// The client's money.
    pub(crate) wallet: Wallet,
    pub(crate) wallet_key: WalletKey,
    _provider_dir: tempfile::TempDir,
    pub(crate) dir: PathBuf,
    pub(crate) payee: Address,
}

/// Runs a test.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
    runtime.shutdown_background();
}

/// Waits until something holds; says what it waited for if it does not come.
pub(crate) async fn until<F>(what: &str, mut holds: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain until {what}");
}

/// Waits until a provider has nothing to say to its operator.
pub(crate) async fn all_is_well(provider: &Provider) {
    until("all is well", || async { provider.page("/healthz").await == (200, "ok\n".to_owned()) }).await;
}

impl World {
    /// On the embedded chain, with more lines in the section `[chain]`.
    pub(crate) async fn new(chain_lines: &str) -> World {
        let node = Node::embedded().await;
        let url = node.url();
        World::on(node, &[url], chain_lines).await
    }

    /// On a node, which the provider reaches through these endpoints.
    pub(crate) async fn on(node: Node, endpoints: &[EndpointUrl], chain_lines: &str) -> World {
        World::with(node, endpoints, InitWallet::Here, chain_lines).await
    }

    /// The same with the wallet's key here or elsewhere.
    pub(crate) async fn with(
        node: Node,
        endpoints: &[EndpointUrl],
        wallet_of_provider: InitWallet,
        chain_lines: &str,
    ) -> World {
        let (deployment, wallet) = node
            .deployed_with(|mut settings| {
                (settings.market.challenges, settings.market.notice_epochs) = (5, 2);
                settings.market.question_bond = Amount(500);
                Settings { epoch_seconds: EPOCH, ..settings }
            })
            .await;
        let (own, all) = (wallet.address(), Amount(1_000_000_000_000));
        wallet.token().mint(own, all).await.unwrap();
        wallet.token().allow(deployment.market, all).await.unwrap();
        wallet.market().deposit(own, Amount(all.0 / 2)).await.unwrap();
        wallet.token().allow(deployment.channels, all).await.unwrap();

        let provider_dir = tempfile::tempdir().unwrap();
        let dir = provider_dir.path().join("provider");
        let chain = InitChain {
            rpc: endpoints.iter().map(|url| url.to_string()).collect(),
            directory: deployment.directory,
            stake: STAKE,
            faucet: true,
            wallet: wallet_of_provider,
        };
        let prices =
            Prices { storage_per_gib_month: TokenUnits(RENT), retrieval_per_gib: TokenUnits(EGRESS) };
        let prepared = init(&dir, &InitOptions { prices, chain: Some(chain), ..options() }).unwrap();
        let path = dir.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}epochs_min = 3\n{chain_lines}\n")).unwrap();
        World {
            node,
            deployment,
            wallet,
            wallet_key: key(1),
            _provider_dir: provider_dir,
            dir,
            payee: prepared.wallet.unwrap(),
        }
    }

    /// Has the provider store for whoever comes, from its next start on.
    pub(crate) fn serve_anybody(&self) {
        let path = self.dir.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("open = false", "open = true")).unwrap();
    }

    /// A client beside the first one, with money for an offer: its wallet, and the key that it speaks with.
    pub(crate) async fn other_client(&self, number: u64, purse: Amount) -> (WalletKey, SigningKey) {
        let mut secret = [9; 32];
        secret[..8].copy_from_slice(&number.to_be_bytes());
        let wallet = WalletKey::from_secret(&secret).unwrap();
        self.wallet.market().deposit(wallet.address(), purse).await.unwrap();
        (wallet, SigningKey::from_seed(secret))
    }

    /// The key in the provider's folder, as another process would use it.
    pub(crate) fn provider_key(&self) -> WalletKey {
        self.key_in(WALLET_FILE)
    }

    pub(crate) fn key_in(&self, file: &str) -> WalletKey {
        let digits = std::fs::read_to_string(self.dir.join(file)).unwrap();
        WalletKey::from_secret(&from_hex(digits.trim_end()).unwrap()).unwrap()
    }

    /// The provider's books, as they lie there.
    pub(crate) fn books(&self) -> Connection {
        let books = Connection::open(self.dir.join("money.db")).unwrap();
        books.busy_timeout(Duration::from_secs(10)).unwrap();
        books
    }

    /// What the books say.
    pub(crate) fn report(&self) -> MoneyReport {
        report(&self.dir).unwrap().unwrap()
    }

    /// Starts the provider, and waits until it has its place on the chain.
    pub(crate) async fn start(&self) -> Provider {
        let provider = start_in(&self.dir).await.unwrap();
        let chain = self.wallet.chain();
        until("the provider is registered", || async {
            chain.registry().get(self.payee).await.unwrap().is_some_and(|entry| {
                entry.identity(chain) == Some(provider.serving.key) && entry.stake == STAKE
            })
        })
        .await;
        let client = provider.client();
        until("the provider gives quotes", || async { client.client.quote(&client.peer).await.is_ok() })
            .await;
        provider
    }

    pub(crate) async fn epoch(&self) -> Epoch {
        self.wallet.chain().head().await.unwrap().epoch.unwrap()
    }

    /// Lets the next epoch begin.
    pub(crate) async fn next_epoch(&self) -> Epoch {
        let now = self.node.now().await;
        let next = Epoch(self.epoch().await.0 + 1);
        let begin = self.deployment.clock().begin(next).0;
        self.node.pass(begin + 1 - now).await;
        next
    }

    /// Lets the next epoch begin, and waits until it is proven.
    pub(crate) async fn proven_epoch(&self) -> Epoch {
        let epoch = self.next_epoch().await;
        self.proven(epoch).await;
        epoch
    }

    /// A provider with an agreement whose first epoch is proven.
    pub(crate) async fn earning(&self) -> (Provider, AgreementId, Epoch) {
        let provider = self.start().await;
        let (id, _) = self.agree(&provider.client(), &stored(1..3)).await;
        (provider, id, self.proven_epoch().await)
    }

    pub(crate) async fn proven(&self, epoch: Epoch) {
        until(&format!("epoch {epoch} is proven"), || async {
            self.wallet.chain().market().outcome(self.payee, epoch).await.unwrap() == Outcome::Proven
        })
        .await;
    }

    /// Waits until the books say that so many epochs are earned.
    pub(crate) async fn earned_epochs(&self, count: usize) {
        until(&format!("the books have {count} earned epochs"), || async {
            self.report().epochs.iter().filter(|row| row.fate == Some(Fate::Earned)).count() == count
        })
        .await;
    }

    /// Waits until the provider has noted how things stand in an epoch that is proven.
    pub(crate) async fn stands(&self, epoch: Epoch) {
        until(&format!("the standing is of epoch {epoch}"), || async {
            self.report().standing.is_some_and(|standing| standing.epoch == epoch && standing.proven)
        })
        .await;
    }

    /// Waits until the chain has an agreement's revision.
    pub(crate) async fn posted(&self, id: AgreementId, sequence: u32) {
        let market = self.wallet.chain().market();
        until(&format!("revision {sequence} of agreement {id} is posted"), || async {
            market.get_agreement(id).await.unwrap().unwrap().sequence == sequence
        })
        .await;
    }

    /// From now on an endpoint lets nothing through that would change the chain.
    pub(crate) fn mute(&self, endpoint: &Proxy) {
        endpoint.does(|method, _| match method {
            "eth_sendRawTransaction" => Act::Refuse(-32_000, "not now"),
            _ => Act::Forward,
        });
    }

    /// How often an endpoint was asked about somebody.
    pub(crate) fn asked_about(&self, endpoint: &Proxy, whom: Address) -> usize {
        let whom = whom.to_string().to_lowercase();
        let names = |params: &&Value| params.to_string().to_lowercase().contains(&whom[2..]);
        endpoint.asked("eth_call").iter().filter(names).count()
    }

    /// From now on an endpoint shows right blocks, and a market that is empty.
    pub(crate) fn deny_market(&self, endpoint: &Proxy) {
        let market = self.deployment.market.to_string().to_lowercase();
        // More words than any answer has.
        let nothing = json!(format!("0x{}", "0".repeat(64 * 32)));
        endpoint.does(move |method, params| {
            let to = params[0]["to"].as_str().unwrap_or_default().to_lowercase();
            if method == "eth_call" && to == market { Act::Answer(nothing.clone()) } else { Act::Forward }
        });
    }

    pub(crate) fn rate(&self, bytes: u64) -> Rate {
        rate_per_epoch(bytes, Amount(RENT), EPOCH).unwrap()
    }

    /// The client's first offer, for a set.
    pub(crate) async fn offer(&self, set: &FragmentSet, end: Epoch) -> ProposalRequest {
        self.offer_of(&self.wallet_key, &client_key(), set, end).await
    }

    /// Another client's.
    pub(crate) async fn offer_of(
        &self,
        wallet: &WalletKey,
        identity: &SigningKey,
        set: &FragmentSet,
        end: Epoch,
    ) -> ProposalRequest {
        let rate = self.rate(set.total());
        let now = self.epoch().await;
        let proposal = Proposal {
            client: wallet.address(),
            provider: self.payee,
            set_root: set.root(),
            size: set.total(),
            rate_per_epoch: rate,
            end_epoch: end,
            // Enough for ten times as much.
            escrow: Amount(rate.over(end.0 - now.0).0 * 10),
            retained_bytes: 0,
            retained_until: Epoch(0),
            accept_by: Epoch(now.0 + 1),
            nonce: Nonce([9; 32]),
        };
        ProposalRequest {
            proposal: proposal.sign(&self.deployment.market_domain(), wallet),
            binding: self.wallet.chain().binding(wallet.address()).sign(identity),
            added: leaves(set),
        }
    }

    /// Makes an agreement about fragments that are stored first.
    pub(crate) async fn agree(
        &self,
        client: &Caller,
        stored: &[(FragmentId, Bytes)],
    ) -> (AgreementId, FragmentSet) {
        let (id, _) = self.agree_of((&self.wallet_key, &client_key()), client, stored).await;
        (id, set(stored))
    }

    /// Another client's; gives what it had offered.
    pub(crate) async fn agree_of(
        &self,
        (wallet, identity): (&WalletKey, &SigningKey),
        client: &Caller,
        stored: &[(FragmentId, Bytes)],
    ) -> (AgreementId, ProposalRequest) {
        for fragment in stored {
            client.put(fragment, Access::Owner).await.unwrap();
        }
        let end = Epoch(self.epoch().await.0 + 30);
        let offer = self.offer_of(wallet, identity, &set(stored), end).await;
        let propose = || async { client.client.propose(&client.peer, &offer).await.unwrap() };
        until("the offer is decided", || async {
            !matches!(propose().await, ProposalAnswer::Pending { .. })
        })
        .await;
        let answer = propose().await;
        let ProposalAnswer::Accepted { agreement, .. } = answer else { panic!("{answer:?}") };
        (agreement, offer)
    }

    /// Offers that are on their way to the chain.
    pub(crate) fn offers_under_way(&self) -> u32 {
        let sql = "SELECT count(*) FROM proposals WHERE outcome IS NULL";
        self.books().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Makes an offer that can't be sent to the chain now, and leaves it under way.
    pub(crate) async fn offer_that_waits(&self, client: &Caller, offer: &ProposalRequest) {
        tokio::select! {
            answer = client.client.propose(&client.peer, offer) => panic!("{answer:?}"),
            () = until("the offer is under way", || async { self.offers_under_way() == 1 }) => {}
        }
    }

    /// New terms for a set, as the client would send them.
    pub(crate) async fn revision(
        &self,
        id: AgreementId,
        base: u32,
        sets: (&FragmentSet, &FragmentSet),
    ) -> RevisionRequest {
        self.revision_of(&self.wallet_key, id, base, sets).await
    }

    /// Another client's.
    pub(crate) async fn revision_of(
        &self,
        wallet: &WalletKey,
        id: AgreementId,
        base: u32,
        (before, after): (&FragmentSet, &FragmentSet),
    ) -> RevisionRequest {
        let on_chain = self.wallet.chain().market().get_agreement(id).await.unwrap().unwrap();
        let revision = Revision {
            agreement: id,
            sequence: base + 1,
            set_root: after.root(),
            size: after.total(),
            rate_per_epoch: self.rate(after.total()),
            from_epoch: Epoch(self.epoch().await.0 + 1),
            end_epoch: on_chain.latest().unwrap().end,
            retained_bytes: 0,
            retained_until: Epoch(0),
        };
        RevisionRequest {
            base_sequence: base,
            added: leaves(after)
                .into_iter()
                .filter(|leaf| {
                    before.get(&leaf.fragment).is_none_or(|old| old.retain_until != leaf.retain_until)
                })
                .collect(),
            removed: before
                .fragments()
                .iter()
                .map(|leaf| leaf.id)
                .filter(|id| after.get(id).is_none())
                .collect(),
            revision: revision.sign(&self.deployment.market_domain(), wallet),
        }
    }

    /// A voucher of the client's own lane.
    pub(crate) fn voucher(&self, cumulative: u128) -> VoucherRequest {
        let own = self.wallet.address();
        let voucher = Voucher { payer: own, payee: self.payee, signer: own, cumulative: Amount(cumulative) };
        VoucherRequest { voucher: voucher.sign(&self.deployment.channels_domain(), &self.wallet_key) }
    }

    /// The channel's deposit, and the lane's cap.
    pub(crate) async fn open_channel(&self, deposit: u128, cap: u128) {
        let own = self.wallet.address();
        self.wallet.channels().deposit(own, self.payee, Amount(deposit)).await.unwrap();
        self.wallet.channels().set_lane(self.payee, own, Amount(cap)).await.unwrap();
    }
}

pub(crate) fn stored(seeds: std::ops::Range<u64>) -> Vec<(FragmentId, Bytes)> {
    seeds.map(|seed| fragment(seed, 300_000)).collect()
}

pub(crate) fn set(stored: &[(FragmentId, Bytes)]) -> FragmentSet {
    retained(stored, Epoch(0))
}

/// A set whose fragments are promised to be kept.
pub(crate) fn retained(stored: &[(FragmentId, Bytes)], until: Epoch) -> FragmentSet {
    let fragments = stored.iter().map(|(id, bytes)| Fragment {
        id: *id,
        length: u64::try_from(bytes.len()).unwrap(),
        retain_until: until,
    });
    FragmentSet::new(fragments).unwrap()
}

fn leaves(set: &FragmentSet) -> Vec<SetLeaf> {
    let leaf =
        |leaf: &Fragment| SetLeaf { fragment: leaf.id, length: leaf.length, retain_until: leaf.retain_until };
    set.fragments().iter().map(leaf).collect()
}

pub(crate) fn accepted(answer: RevisionAnswer) -> seedbank_agreement::Signature {
    match answer {
        RevisionAnswer::Accepted { signature } => signature,
        RevisionAnswer::Refused(refusal) => panic!("{refusal:?}"),
    }
}
