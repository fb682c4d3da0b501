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
use std::collections::BTreeMap;
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
async fn a_home_that_lost_its_counters_goes_on_in_lanes_that_promised_nothing() {
    let (paid, version, bytes) = pushed(2, 3).await;
    // Two lanes, of which nothing is cashed.
    let both = [paid.network(limits()), paid.network(limits())];
    for network in &both {
        assert_eq!(read(&paid, version, network).await.unwrap(), bytes);
    }
    drop(both);
    std::fs::remove_dir_all(paid.world.folder.path().join("pay")).unwrap();
    assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    assert!(paid.tills.iter().any(|till| till.lanes() == 3));
    let before: u64 = paid.tills.iter().map(|till| till.vouchers()).sum();
    assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    let after: u64 = paid.tills.iter().map(|till| till.vouchers()).sum();
    assert!(after > before && paid.tills.iter().all(|till| till.lanes() <= 3), "and stays there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_home_leaves_the_lane_in_which_more_was_promised() {
    let (paid, version, bytes) = pushed(2, 3).await;
    let (dir, copy) = (paid.world.folder.path().join("pay"), paid.world.folder.path().join("copy"));
    assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    }
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&copy, &dir).unwrap();
    for _ in 0..2 {
        let before: u64 = paid.tills.iter().map(|till| till.vouchers()).sum();
        assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
        let after: u64 = paid.tills.iter().map(|till| till.vouchers()).sum();
        assert!(after > before);
    }
    assert!(paid.tills.iter().all(|till| till.lanes() <= 2), "one lane more, and it stays there");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_offers_a_huge_credit_and_sends_nothing_gets_what_waits_and_little_more() {
    let paid = Paid::start(2, 4, 1 << 40).await;
    let bytes = noise(1, LENGTH);
    let source = paid.source(&[("a", &bytes)]);
    let version = paid.world.push_through(&source, paid.network(limits())).await.unwrap().version;
    paid.tills[1].set(Manner::AsksForever);
    assert_eq!(read(&paid, version, &paid.network(limits())).await.unwrap(), bytes);
    let (promised, _) = paid.tills[1].promised();
    assert!(promised.0 <= LENGTH as u128 + 2 * (4 << 20), "{promised} for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_run_at_once_have_one_budget_for_reads() {
    let (paid, version, _) = pushed(2, 3).await;
    let per_month = Amount(LENGTH as u128 * 2);
    let limits = Limits { per_month, ..limits() };
    let both = [paid.network(limits), paid.network(limits)];
    let mut refused = 0;
    for _ in 0..4 {
        for network in &both {
            refused += u32::from(read(&paid, version, network).await.is_err());
        }
    }
    let promised: u128 = paid.tills.iter().map(|till| till.promised().0.0).sum();
    assert!(promised <= per_month.0, "{promised}");
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_pay_ahead_and_end_use_up_what_those_before_paid() {
    let (paid, version, _) = pushed(2, 3).await;
    for _ in 0..8 {
        read(&paid, version, &paid.network(limits())).await.unwrap();
    }
    let promised: u128 = paid.tills.iter().map(|till| till.promised().0.0).sum();
    let most = 8 * LENGTH as u128 * 105 / 100 + 3 * u128::from(CREDIT);
    assert!(promised <= most, "{promised} for eight times {LENGTH}");
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

/// Readers come, go, are killed, and lose answers; providers redeem; a person takes money out of channels. Whatever happens, what
/// providers can redeem is there, counters know of every voucher that left, and no counter falls.
#[tokio::test(flavor = "multi_thread")]
async fn a_home_s_readers_promise_no_more_than_its_channels_hold_in_every_history() {
    for seed in 0..3u64 {
        println!("seed {seed}");
        history(seed).await;
    }
}

async fn history(seed: u64) {
    const BYTES: u64 = 600_000;
    let paid = Paid::start(2, 3, 60_000).await;
    let bytes = noise(1, usize::try_from(BYTES).unwrap());
    let source = paid.source(&[("a", &bytes)]);
    let version = paid.world.push_through(&source, paid.network(limits())).await.unwrap().version;
    let dir = paid.world.folder.path().join("pay");
    let signer = paid.payer(limits());
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |end: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) % end
    };
    let mut alive: Vec<Arc<Network>> = Vec::new();
    let mut counted: BTreeMap<(u32, String), Amount> = BTreeMap::new();
    let (mut read_well, mut exits) = (0, 0);
    for _ in 0..50 {
        if alive.is_empty() || (below(4) == 0 && alive.len() < 4) {
            alive.push(paid.network(limits()));
        }
        let at = usize::try_from(below(alive.len() as u64)).unwrap();
        let start = below(BYTES / 2);
        let end = start + 1 + below(BYTES / 2);
        let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        match below(12) {
            0..6 => {
                let reading = paid.world.try_read(version, Arc::clone(&alive[at])).await.unwrap();
                assert!(reading.cat("a", start..end).await.unwrap() == bytes[range]);
                read_well += 1;
            }
            6 => {
                // Killed in the middle of a read, with vouchers on their way.
                let network = alive.swap_remove(at);
                let reading = paid.world.try_read(version, Arc::clone(&network)).await.unwrap();
                let patience = Duration::from_millis(below(30));
                let _cut = tokio::time::timeout(patience, reading.cat("a", 0..BYTES)).await;
            }
            7 => {
                let network = alive.swap_remove(at);
                network.settle(Duration::from_secs(10)).await;
            }
            8 => {
                // One provider's answers are lost: what it took and what the reader knows differ.
                let till = &paid.tills[usize::try_from(below(3)).unwrap()];
                till.set(Manner::LosesAnswers);
                let reading = paid.world.try_read(version, Arc::clone(&alive[at])).await.unwrap();
                let _others_may_be_lost_too = reading.cat("a", start..end).await;
                alive[at].settle(Duration::from_secs(10)).await;
                till.set(Manner::Fair);
            }
            9..11 => paid.tills[usize::try_from(below(3)).unwrap()].redeem(),
            _ => {
                for network in &alive {
                    network.settle(Duration::from_secs(10)).await;
                }
                // Providers see an exit, and redeem before its time.
                let till = &paid.tills[usize::try_from(below(3)).unwrap()];
                let payee = till.wallet.address();
                let deposit = paid.ledger.cover(payee, payee).deposit;
                let chain = paid.ledger.of(super::wallet().address());
                seedbank_client::pay::Chain::order(&*chain, Order::RequestExit(payee, deposit))
                    .await
                    .unwrap();
                till.redeem();
                paid.ledger.state().elapsed += super::ledger::EXIT_SECONDS;
                let signers = (0..8).map(|number| signer.lane(number).unwrap()).collect();
                let exit = Order::Exit { payee, signers, to: super::wallet().address() };
                seedbank_client::pay::Chain::order(&*chain, exit).await.unwrap();
                exits += 1;
            }
        }
        // Vouchers go on in the background: what providers have is looked at first.
        let held: Vec<_> = paid.tills.iter().map(|till| (till.redeemable(), till.promised_by())).collect();
        let promised = lanes::promised(&dir).unwrap();
        for (till, (redeemable, vouchers)) in paid.tills.iter().zip(held) {
            let payee = till.wallet.address();
            let deposit = paid.ledger.cover(payee, payee).deposit;
            assert!(redeemable <= deposit, "{redeemable} can be redeemed of {deposit}");
            for (by, cumulative) in vouchers {
                let of = |(number, _): &&(u32, lanes::Promises)| signer.lane(*number) == Some(by);
                let (_, payees) = promised.iter().find(of).expect("a lane of this home signed it");
                let counter = payees[&payee.to_string()].cumulative;
                assert!(counter >= cumulative, "{cumulative} was signed, and the counter says {counter}");
            }
        }
        for (number, payees) in promised {
            for (payee, counter) in payees {
                let before = counted.insert((number, payee), counter.cumulative).unwrap_or_default();
                assert!(counter.cumulative >= before, "{} after {before}", counter.cumulative);
            }
        }
    }
    println!("{read_well} reads, {exits} exits, {} counters", counted.len());
    assert!(read_well > 10 && counted.len() > 3, "the history says something");
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
