//! Chains that deny what is there, books that forgot, and disks that take nothing more: none of it costs a set or an epoch.

use crate::world::{World, accepted, run, set, stored, until};
use seedbank_protocol::routes::Access;
use seedbank_provider::Fate;
use seedbank_testkit::chain::{Act, Node, Proxy};

#[test]
fn agreement_that_the_only_endpoint_denies_for_a_while_is_kept_and_proven_again() {
    run(async {
        let node = Node::embedded().await;
        let only = Proxy::of(&node).await;
        let world = World::on(node, &[only.url()], "").await;
        let provider = world.start().await;
        world.agree(&provider.client(), &stored(1..3)).await;
        // It is past the epoch in which a reorganisation may take it back.
        for _ in 0..2 {
            world.proven_epoch().await;
        }
        // Of an agreement that is not shown it is asked whether its client has another one.
        let looks = || world.asked_about(&only, world.wallet.address());
        let before = looks();
        world.deny_market(&only);
        until("more than one look is over", || async { looks() > before + 2 }).await;
        assert_eq!(world.report().agreements[0].closed, None);
        only.does(|_, _| Act::Forward);
        world.proven_epoch().await;
        assert_eq!(world.report().agreements[0].closed, None);
    });
}

#[test]
fn agreement_that_the_books_closed_by_mistake_or_do_not_know_keeps_no_set_from_going_on() {
    run(async {
        let world = World::new("").await;
        let provider = world.start().await;
        let client = provider.client();
        let (id, before) = world.agree(&client, &stored(1..3)).await;
        let epoch = world.proven_epoch().await;
        let three = stored(1..4);
        client.put(&three[2], Access::Owner).await.unwrap();
        let request = world.revision(id, 0, (&before, &set(&three))).await;
        accepted(client.client.revise(&client.peer, &request).await.unwrap());
        let market = world.wallet.chain().market();
        world.posted(id, 1).await;
        provider.stop().await;
        world.books().execute("UPDATE agreements SET closed = ?1", [epoch.0]).unwrap();
        let provider = world.start().await;
        world.proven_epoch().await;
        until("it runs in the books", || async { world.report().agreements[0].closed.is_none() }).await;

        // A copy of the books from before the agreement: its data can't be proven, but it ends in order.
        provider.stop().await;
        let forget = "DELETE FROM agreements; DELETE FROM terms; DELETE FROM leaves;";
        world.books().execute_batch(forget).unwrap();
        let provider = world.start().await;
        world.wallet.market().terminate(id).await.unwrap();
        for _ in 0..6 {
            world.next_epoch().await;
            if market.get_agreement(id).await.unwrap().is_none() {
                break;
            }
            until("the set goes on", || async {
                let set = market.get_set(world.payee).await.unwrap();
                match set {
                    Some(set) => set.epoch == world.epoch().await && set.due == 0,
                    None => true,
                }
            })
            .await;
        }
        until("it has ended", || async { market.get_agreement(id).await.unwrap().is_none() }).await;
        provider.stop().await;
    });
}

#[test]
fn epoch_is_proven_although_nothing_can_be_written_and_the_books_catch_up() {
    run(async {
        let world = World::new("").await;
        let (_provider, _, first) = world.earning().await;
        until("the books have it", || async {
            world.report().epochs.iter().any(|row| row.epoch == first && row.fate == Some(Fate::Earned))
        })
        .await;
        let tables = ["costs", "epochs", "ledger", "meta", "accounts", "agreements", "terms"];
        let each = |make: &dyn Fn(&str, &str) -> String| -> String {
            let both = |table| [make(table, "INSERT"), make(table, "UPDATE")];
            tables.iter().flat_map(|table| both(table)).collect()
        };
        let full = each(&|table, what| {
            format!(
                "CREATE TRIGGER {table}_{what} BEFORE {what} ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END;"
            )
        });
        world.books().execute_batch(&full).unwrap();
        for _ in 0..2 {
            world.proven_epoch().await;
        }
        let again = each(&|table, what| format!("DROP TRIGGER {table}_{what};"));
        world.books().execute_batch(&again).unwrap();
        world.earned_epochs(3).await;
    });
}
