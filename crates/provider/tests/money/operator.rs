//! A provider whose wallet is kept elsewhere: the daemon has an operator's key, and pay collects where it can't reach it.

use crate::support::start_in;
use crate::world::{STAKE, World, accepted, all_is_well, run, set, stored, until};
use seedbank_agreement::{Amount, Typed, WalletKey};
use seedbank_protocol::payment::VoucherAnswer;
use seedbank_protocol::routes::Access;
use seedbank_provider::{AdminError, InitWallet, OPERATOR_FILE, WALLET_FILE, exit, register, withdraw};
use seedbank_settlement::SendError;
use seedbank_testkit::chain::Node;

#[test]
fn operator_proves_and_signs_and_what_it_earns_is_the_cold_wallets() {
    run(async {
        let cold = WalletKey::from_secret(&[0x55; 32]).unwrap();
        let payee = cold.address();
        let node = Node::embedded().await;
        let url = node.url();
        let lines = "public_address = \"127.0.0.1:7410\"\n[chain.redeem]\nevery_s = 0\n";
        let wallet = InitWallet::Elsewhere { payee, operator: None };
        let world = World::with(node, &[url], wallet, lines).await;
        assert!(world.dir.join(OPERATOR_FILE).exists() && !world.dir.join(WALLET_FILE).exists());

        // Not before the wallet has said so.
        let provider = start_in(&world.dir).await.unwrap();
        until("it says what is missing", || async {
            provider.page("/healthz").await.1.contains("the wallet is in no entry of the registry")
        })
        .await;
        assert!(matches!(register(&world.dir, None).await, Err(AdminError::Cold(needed)) if needed == payee));
        let other = WalletKey::from_secret(&[0x56; 32]).unwrap();
        let refused = register(&world.dir, Some(other)).await;
        assert!(matches!(refused, Err(AdminError::OtherWallet { payee: needed, .. }) if needed == payee));
        let entry = register(&world.dir, Some(cold.clone())).await.unwrap();
        assert_eq!((entry.wallet, entry.stake), (payee, STAKE));
        assert_ne!(entry.operator, payee);
        let chain = world.wallet.chain();
        assert!(chain.registry().acts(entry.operator, payee).await.unwrap());
        all_is_well(&provider).await;

        // Everything that a provider does.
        let client = provider.client();
        let quote = client.client.quote(&client.peer).await.unwrap().quote;
        assert_eq!(quote.message.provider, payee);
        assert_eq!(quote.signer(&world.deployment.market_domain()).unwrap(), entry.operator);
        let two = stored(1..3);
        let (id, before) = world.agree(&client, &two).await;
        world.proven_epoch().await;
        let three = stored(1..4);
        client.put(&three[2], Access::Owner).await.unwrap();
        let request = world.revision(id, 0, (&before, &set(&three))).await;
        let signature = accepted(client.client.revise(&client.peer, &request).await.unwrap());
        let digest = request.revision.message.digest(&world.deployment.market_domain());
        assert_eq!(seedbank_agreement::recover(&digest, &signature), Ok(entry.operator));
        let market = chain.market();
        world.posted(id, 1).await;
        world.proven_epoch().await;
        world.open_channel(5_000, 4_000).await;
        let paid = client.client.pay(&client.peer, &world.voucher(600)).await.unwrap();
        assert!(matches!(paid, VoucherAnswer::Accepted(_)));
        until("the voucher is cashed", || async {
            chain.channels().earned(payee).await.unwrap() == Amount(600)
        })
        .await;

        // All of it is the wallet's, and the operator takes nothing.
        let rent = Amount(world.rate(600_000).units() + world.rate(900_000).units());
        assert_eq!(market.free(payee).await.unwrap(), rent);
        assert_eq!(market.free(entry.operator).await.unwrap(), Amount(0));
        assert!(matches!(withdraw(&world.dir, None, None).await, Err(AdminError::Cold(_))));
        assert!(matches!(exit(&world.dir, None).await, Err(AdminError::Cold(_))));
        let operator = seedbank_settlement::Wallet::start(
            world.node.chain(&world.deployment).await,
            world.key_in(OPERATOR_FILE),
            seedbank_testkit::chain::policy(),
        );
        let taken = operator.registry().withdraw_stake(Amount(1), operator.address()).await;
        assert!(matches!(taken, Err(SendError::Refused(_))), "{taken:?}");
        operator.stop().await;
        let purse = world.wallet.address();
        let before = chain.token().balance_of(purse).await.unwrap();
        let withdrawn = withdraw(&world.dir, Some(purse), Some(cold.clone())).await.unwrap();
        assert_eq!((withdrawn.from_market, withdrawn.from_channels), (rent, Amount(600)));
        let after = chain.token().balance_of(purse).await.unwrap();
        assert_eq!(after, Amount(before.0 + rent.0 + 600));
        let leaving = exit(&world.dir, Some(cold)).await.unwrap();
        assert_eq!(leaving.running.len(), 1);
        provider.stop().await;
    });
}
