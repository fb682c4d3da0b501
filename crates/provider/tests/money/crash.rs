//! A provider that is killed the moment it has signed or taken something.

use crate::support::{Caller, caller, client_key, key};
use crate::world::{World, accepted, run, set, stored, until};
use seedbank_agreement::{Amount, Typed};
use seedbank_protocol::payment::{VoucherAnswer, VoucherReason};
use seedbank_protocol::routes::Access;
use seedbank_provider::RunOptions;
use seedbank_testkit::Again;
use std::path::Path;

const FOLDER: &str = "SEEDBANK_TEST_PAID_DAEMON";

/// Not a test: what the others run in another process.
#[test]
#[ignore = "runs only as a process of other tests"]
fn serve() {
    let Some(dir) = std::env::var_os(FOLDER) else {
        return;
    };
    let ready = |serving: seedbank_provider::Serving| println!("serving {}@{}", serving.key, serving.address);
    run(async {
        seedbank_provider::run(Path::new(&dir), RunOptions::default(), ready, std::future::pending())
            .await
            .unwrap();
    });
}

/// A provider in a process of its own.
pub(crate) struct Daemon {
    pub(crate) process: Again,
    pub(crate) client: Caller,
}

impl Daemon {
    pub(crate) async fn start(world: &World) -> Daemon {
        let (process, peer) = Again::start("crash::serve", (FOLDER, &world.dir), "serving ");
        let client = caller(&client_key(), peer.parse().unwrap());
        until("the provider gives quotes", || async { client.client.quote(&client.peer).await.is_ok() })
            .await;
        // It stakes while it serves, and agrees on nothing that its stake doesn't cover.
        until("the provider has its stake", || async {
            world.wallet.chain().registry().stake_of(world.payee).await.unwrap() > Amount::ZERO
        })
        .await;
        Daemon { process, client }
    }
}

#[test]
fn what_was_signed_is_there_after_a_kill_before_the_answer() {
    run(async {
        let world = World::new("").await;
        let mut daemon = Daemon::start(&world).await;
        let (id, before) = world.agree(&daemon.client, &stored(1..3)).await;
        let three = stored(1..4);
        daemon.client.put(&three[2], Access::Owner).await.unwrap();
        let request = world.revision(id, 0, (&before, &set(&three))).await;
        let (client, peer) = (daemon.client.client.clone(), daemon.client.peer.clone());
        let asked = request.clone();
        let asking = tokio::spawn(async move { client.revise(&peer, &asked).await });
        until("the books have it", || async { world.report().agreements[0].sequence == 1 }).await;
        daemon.process.kill();
        let first = asking.await.unwrap();

        let mut daemon = Daemon::start(&world).await;
        let ask = daemon.client.client.revise(&daemon.client.peer, &request);
        let signature = accepted(ask.await.unwrap());
        if let Ok(answer) = first {
            assert_eq!(accepted(answer), signature, "what left before is what is kept");
        }
        let digest = request.revision.message.digest(&world.deployment.market_domain());
        assert_eq!(seedbank_agreement::recover(&digest, &signature), Ok(world.payee));
        let page = daemon.client.client.list_set(&daemon.client.peer, None, 10).await.unwrap();
        assert_eq!((page.set.sequence, page.set.set_root), (1, set(&three).root()));
        world.proven_epoch().await;

        world.open_channel(5_000, 4_000).await;
        let (client, peer) = (daemon.client.client.clone(), daemon.client.peer.clone());
        let voucher = world.voucher(700);
        let paying = tokio::spawn(async move { client.pay(&peer, &voucher).await });
        until("the voucher is kept", || async {
            let report = world.report();
            !report.vouchers.is_empty() || !report.redemptions.is_empty()
        })
        .await;
        daemon.process.kill();
        let _answer = paying.await.unwrap();
        let daemon = Daemon::start(&world).await;
        let again = daemon.client.client.pay(&daemon.client.peer, &world.voucher(700)).await.unwrap();
        let VoucherAnswer::Refused(refusal) = again else { panic!("it was taken before") };
        assert_eq!((refusal.reason, refusal.cumulative), (VoucherReason::Stale, Amount(700)));
        let more = daemon.client.client.pay(&daemon.client.peer, &world.voucher(764)).await.unwrap();
        let VoucherAnswer::Accepted(standing) = more else { panic!("{more:?}") };
        assert_eq!(standing.prepaid, Amount(764), "what was paid counts, answered or not");
    });
}

#[test]
fn reads_on_credit_are_not_forgotten_by_kills() {
    run(async {
        // Ten fragments of 300,000 bytes for a key, and in all.
        let credit = "[chain.credit]\nper_key = 3_000_000\nper_network = 3_000_000\ntotal = 3_000_000\n";
        let world = World::new(credit).await;
        let kept = stored(1..2);
        let mut served = 0;
        for round in 0..8u8 {
            let mut daemon = Daemon::start(&world).await;
            if round == 0 {
                daemon.client.put(&kept[0], Access::Public).await.unwrap();
            }
            for number in 0..3 {
                // Nobody's key is its own.
                let reader = caller(&key(100 + 3 * round + number), daemon.client.peer.clone());
                if reader.get(&kept[0], None).await.is_ok() {
                    served += 1;
                }
            }
            daemon.process.kill();
        }
        assert!((9..=10).contains(&served), "{served} were served on credit for ten");
    });
}
