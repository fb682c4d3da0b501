//! Reads that are paid for.

use super::till::Manner;
use super::{Paid, limits, noise, prices};
use seedbank_agreement::price::Prices;
use seedbank_agreement::{Amount, Signed};
use seedbank_client::network::Network;
use seedbank_client::pay::Limits;
use seedbank_client::pay::chain::Order;
use seedbank_client::pay::lanes;
use seedbank_formats::VersionId;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const LENGTH: usize = 4_000_000;
/// A reader may owe an eighth of what these tests read.
const CREDIT: u64 = 500_000;

/// A dataset that was pushed, read by nobody yet.
async fn pushed(data: usize, total: usize) -> (Paid, VersionId, Vec<u8>) {
    let paid = Paid::start(data, total, CREDIT).await;
    let bytes = noise(1, LENGTH);
    let source = paid.source(&[("a", &bytes)]);
    let report = paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    (paid, report.version, bytes)
}

async fn read(paid: &Paid, version: VersionId, network: &Arc<Network>) -> Result<Vec<u8>, String> {
    let reading =
        paid.world.try_read(version, Arc::clone(network)).await.map_err(|error| error.to_string())?;
    let bytes = reading.cat("a", 0..LENGTH as u64).await.map_err(|error| error.to_string());
    network.settle(Duration::from_secs(5)).await;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_pays_what_it_got_and_hardly_more() {
    let (paid, version, bytes) = pushed(2, 3).await;
    assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    let (mut promised, mut vouchers) = (0, 0);
    for till in &paid.tills {
        let (all, redeemable) = till.promised();
        assert_eq!(all, redeemable, "what is promised is covered");
        promised += all.0;
        vouchers += till.vouchers();
    }
    // A byte costs a unit; tables and pages come on top, and half a credit ahead for each provider.
    let (least, most) =
        (LENGTH as u128 - 3 * u128::from(CREDIT), LENGTH as u128 * 11 / 10 + 3 * u128::from(CREDIT));
    assert!((least..most).contains(&promised), "{promised} for {LENGTH}");
    assert!(vouchers <= 2 * LENGTH as u64 / CREDIT + 6, "{vouchers} vouchers");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_processes_of_one_team_read_at_once_each_in_a_lane_of_its_own() {
    let (paid, version, bytes) = pushed(2, 3).await;
    let paid = Arc::new(paid);
    // As sixteen processes of one home would: each with a payer, a lane and connections of its own.
    let networks: Vec<_> = (0..16).map(|_| paid.network(limits())).collect();
    let mut readers = JoinSet::new();
    for network in networks {
        let paid = Arc::clone(&paid);
        readers.spawn(async move {
            let got = read(&paid, version, &network).await;
            // The lane is this process's as long as it runs.
            (got, network)
        });
    }
    let mut alive = Vec::new();
    while let Some(ended) = readers.join_next().await {
        let (got, network) = ended.unwrap();
        assert_eq!(got.unwrap(), bytes);
        alive.push(network);
    }
    for till in &paid.tills {
        let (all, redeemable) = till.promised();
        assert_eq!(all, redeemable, "no lane promises what another has taken");
    }
    assert!(paid.tills.iter().any(|till| till.lanes() >= 8), "many lanes at one payee");
    let dir = paid.world.folder.path().join("pay");
    assert_eq!(lanes::promised(&dir).unwrap().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_goes_on_where_the_process_before_stopped() {
    let (paid, version, _) = pushed(2, 3).await;
    for _ in 0..3 {
        read(&paid, version, &paid.network(limits())).await.unwrap();
    }
    assert!(paid.tills.iter().all(|till| till.lanes() <= 1), "one after the other, one lane");
    let promised: u128 = paid.tills.iter().map(|till| till.promised().0.0).sum();
    assert!(promised >= 3 * LENGTH as u128 - 4 * u128::from(CREDIT), "{promised}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_dear_to_read_from_is_not_asked() {
    let (paid, version, _) = pushed(2, 3).await;
    let ceiling = Prices { egress_per_gib: Amount((1 << 30) - 1), ..prices() };
    let error = read(&paid, version, &paid.network(Limits { ceiling, ..limits() })).await.unwrap_err();
    assert!(!error.is_empty());
    assert!(paid.tills.iter().all(|till| till.vouchers() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_than_can_be_owed_gets_a_bounded_sum_and_no_more() {
    let (paid, version, bytes) = pushed(2, 4).await;
    paid.tills[0].set(Manner::AsksTooMuch);
    paid.tills[1].set(Manner::AsksForever);
    // Others have enough: the read goes on without them.
    assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    assert_eq!(paid.tills[0].promised().0, Amount::ZERO);
    let (forever, _) = paid.tills[1].promised();
    let fair = u128::from(CREDIT) + LENGTH as u128;
    assert!(forever.0 <= fair, "{forever} for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_for_reads_is_kept() {
    let (paid, version, _) = pushed(2, 3).await;
    let per_month = Amount(LENGTH as u128 / 4);
    let network = paid.network(Limits { per_month, ..limits() });
    read(&paid, version, &network).await.unwrap_err();
    let promised: u128 = paid.tills.iter().map(|till| till.promised().0.0).sum();
    assert!(promised <= per_month.0, "{promised}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_while_the_chain_is_down_as_far_as_channels_cover_them() {
    let (paid, version, bytes) = pushed(2, 3).await;
    read(&paid, version, &paid.network(limits())).await.unwrap();
    let orders = paid.ledger.state().orders.len();
    paid.ledger.state().is_down = true;
    assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    assert_eq!(paid.ledger.state().orders.len(), orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_for_reads_are_few() {
    let (paid, version, _) = pushed(2, 3).await;
    let before = paid.ledger.state().orders.len();
    for _ in 0..3 {
        read(&paid, version, &paid.network(limits())).await.unwrap();
    }
    let orders: Vec<Order> = paid.ledger.state().orders[before..].to_vec();
    let (funded, raised) = orders.iter().fold((0, 0), |(funded, raised), order| match order {
        Order::Fund(..) => (funded + 1, raised),
        Order::SetLane { .. } => (funded, raised + 1),
        _ => (funded, raised),
    });
    assert_eq!((funded, raised), (2, 2), "one of each for each provider");
}

/// Whatever a signer does, and in whatever order vouchers arrive: what can be redeemed at one payee stays within its deposit.
#[test]
fn a_client_that_promises_too_much_can_not_be_believed() {
    use proptest::prelude::{any, proptest};
    use seedbank_agreement::lane::Lane;
    use seedbank_agreement::{Typed, Voucher, WalletKey};
    proptest!(|(deposit in 0u64..1_000, steps in proptest::collection::vec((0usize..4, 0u64..2_000, any::<bool>()), 1..60))| {
        let ledger = super::ledger::Ledger::default();
        let (payer, payee) = (super::wallet(), WalletKey::from_secret(&[9; 32]).unwrap().address());
        let signers: Vec<WalletKey> = (20..24).map(|seed| WalletKey::from_secret(&[seed; 32]).unwrap()).collect();
        ledger.state().channels.insert(payee, (Amount(u128::from(deposit)), Amount::ZERO));
        let chain = ledger.of(payer.address());
        let domain = super::ledger::place().channels_domain();
        let mut lanes: Vec<Lane> = signers
            .iter()
            .map(|key| Lane::new(payer.address(), payee, key.address(), ledger.cover(payee, key.address())))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (nth, sum, raises) in steps {
            let signer = signers[nth].address();
            if raises {
                // Refused beyond the deposit, and below the old cap.
                let order = Order::SetLane { payee, signer, cap: Amount(u128::from(sum)) };
                let cap = ledger.cover(payee, signer).cap;
                if Amount(u128::from(sum)) >= cap {
                    let _refused = runtime.block_on(seedbank_client::pay::Chain::order(&*chain, order));
                }
            } else {
                let voucher = Voucher { payer: payer.address(), payee, signer, cumulative: Amount(u128::from(sum)) };
                let signed: Signed<Voucher> = voucher.sign(&domain, &signers[nth]);
                lanes[nth].set_cover(ledger.cover(payee, signer));
                let _refused = lanes[nth].accept(signed, &domain);
            }
            let redeemable: Amount = lanes.iter().map(Lane::redeemable).sum();
            assert!(redeemable <= Amount(u128::from(deposit)), "{redeemable} of {deposit}");
        }
    });
}
