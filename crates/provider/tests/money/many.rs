//! Many clients at one provider: what an epoch costs must not grow with them.

use crate::crash::Daemon;
use crate::support::{caller, fragment};
use crate::world::{World, accepted, run, set, until};
use bytes::Bytes;
use seedbank_agreement::{AgreementId, Amount, FragmentSet, WalletKey};
use seedbank_formats::FragmentId;
use seedbank_formats::keys::SigningKey;
use seedbank_protocol::routes::Access;
use seedbank_provider::MoneyReport;
use seedbank_testkit::chain::{Node, Proxy};
use seedbank_transport::PeerAddress;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Clients that ask at once: fewer than a provider takes from one address.
const AT_ONCE: usize = 48;
const LENGTH: usize = 20_000;

/// A client's wallet, and the key that it speaks with.
type Keys = (WalletKey, SigningKey);

struct Client {
    wallet: WalletKey,
    identity: SigningKey,
    agreement: AgreementId,
    set: FragmentSet,
}

fn fragment_of(client: u64, number: u64) -> (FragmentId, Bytes) {
    fragment(client * 10 + number, LENGTH)
}

/// Stores a fragment and makes an agreement about it.
async fn join(world: &World, peer: PeerAddress, (wallet, identity): Keys, number: u64) -> Client {
    // A connection lasts as long as this: a provider takes so many from one address.
    let caller = caller(&identity, peer);
    let stored = [fragment_of(number, 0)];
    let (agreement, _) = world.agree_of((&wallet, &identity), &caller, &stored).await;
    Client { wallet, identity, agreement, set: set(&stored) }
}

/// Has a second fragment kept from the next epoch on.
async fn revise(world: &World, peer: PeerAddress, client: &mut Client, number: u64) {
    let stored = [fragment_of(number, 0), fragment_of(number, 1)];
    let caller = caller(&client.identity, peer);
    caller.put(&stored[1], Access::Owner).await.unwrap();
    let after = set(&stored);
    let request = world.revision_of(&client.wallet, client.agreement, 0, (&client.set, &after)).await;
    let answer = caller.client.revise(&caller.peer, &request).await.unwrap();
    accepted(answer);
    client.set = after;
}

/// What the provider did between two looks.
#[derive(Clone, Copy)]
struct Used {
    cpu_s: f64,
    wall_s: f64,
    gas: u64,
    transactions: u64,
    calls: usize,
}

impl fmt::Display for Used {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Used { cpu_s, wall_s, gas, transactions, calls } = self;
        write!(
            out,
            "{cpu_s:.2} CPU s, {wall_s:.2} s, {gas} gas in {transactions} transactions, {calls} calls"
        )
    }
}

struct Meter<'a> {
    world: &'a World,
    daemon: &'a Daemon,
    proxy: &'a Proxy,
    began: Instant,
    before: (f64, u64, u64, usize),
}

impl<'a> Meter<'a> {
    fn start(world: &'a World, daemon: &'a Daemon, proxy: &'a Proxy) -> Meter<'a> {
        let mut meter = Meter { world, daemon, proxy, began: Instant::now(), before: (0.0, 0, 0, 0) };
        meter.before = meter.now();
        meter
    }

    fn now(&self) -> (f64, u64, u64, usize) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.daemon.process.pid())).unwrap();
        // After the name, which is in parentheses: user and system time are the 14th and 15th field, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        let MoneyReport { costs, .. } = self.world.report();
        let gas = costs.iter().map(|row| row.gas).sum();
        let transactions = costs.iter().map(|row| row.transactions).sum();
        (ticks / 100.0, gas, transactions, self.proxy.asked("eth_call").len())
    }

    fn read(&self) -> Used {
        let (now, before) = (self.now(), self.before);
        Used {
            cpu_s: now.0 - before.0,
            wall_s: self.began.elapsed().as_secs_f64(),
            gas: now.1 - before.1,
            transactions: now.2 - before.2,
            calls: now.3 - before.3,
        }
    }
}

/// One epoch, until the books say that it is proven.
async fn epoch(world: &World, daemon: &Daemon, proxy: &Proxy) -> Used {
    let meter = Meter::start(world, daemon, proxy);
    let epoch = world.proven_epoch().await;
    world.stands(epoch).await;
    meter.read()
}

/// A life of so many agreements. Gives what opening, the first epoch, a steady epoch, posting and the epoch of new terms took.
async fn life(count: u64) -> [Used; 5] {
    let node = Node::embedded().await;
    let proxy = Proxy::of(&node).await;
    let world = World::on(node, &[proxy.url()], "").await;
    world.serve_anybody();
    let daemon = Daemon::start(&world).await;
    let purse = Amount(world.rate(2 * 20_000).units() * 400);
    let mut all = Vec::new();
    for number in 0..count {
        all.push((number, world.other_client(number, purse).await));
    }
    let world = Arc::new(world);
    let meter = Meter::start(&world, &daemon, &proxy);
    let mut clients = Vec::new();
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        let mut joining = JoinSet::new();
        for (number, keys) in all.by_ref().take(AT_ONCE) {
            let (world, peer) = (Arc::clone(&world), daemon.client.peer.clone());
            joining.spawn(async move { (number, join(&world, peer, keys, number).await) });
        }
        clients.extend(joining.join_all().await);
    }
    let opened = meter.read();
    let begun = epoch(&world, &daemon, &proxy).await;
    let steady = epoch(&world, &daemon, &proxy).await;

    let meter = Meter::start(&world, &daemon, &proxy);
    for (number, client) in &mut clients {
        revise(&world, daemon.client.peer.clone(), client, *number).await;
    }
    let market = world.wallet.chain().market();
    for (_, client) in &clients {
        world.posted(client.agreement, 1).await;
    }
    let posted = meter.read();
    let changed = epoch(&world, &daemon, &proxy).await;
    let each = Amount(2 * world.rate(20_000).units() + world.rate(40_000).units());
    until("the books have all of it", || async {
        let agreements = world.report().agreements;
        agreements.iter().all(|row| row.earned == each)
    })
    .await;
    assert_eq!(world.report().agreements.len(), clients.len());
    assert_eq!(market.free(world.payee).await.unwrap(), Amount(each.0 * u128::from(count)));
    [opened, begun, steady, posted, changed]
}

#[test]
fn fifty_agreements_are_opened_proven_and_revised_in_batches() {
    run(async {
        let [opened, begun, steady, posted, changed] = life(50).await;
        eprintln!("{opened}\n{begun}\n{steady}\n{posted}\n{changed}");
        assert!(opened.transactions < 25, "offers that wait share a transaction: {opened}");
        // Close the last epoch and move on, seal, prove; and the same without anything to move on.
        assert!(begun.transactions <= 5, "{begun}");
        assert!(steady.transactions <= 3, "{steady}");
        assert!(steady.calls <= 3 * 50, "each agreement is looked at once: {steady}");
        assert!(changed.transactions <= 5, "{changed}");
    });
}

#[test]
#[ignore = "minutes; prints what a thousand agreements take"]
fn a_thousand_agreements_are_proven_each_epoch() {
    run(async {
        for count in [10, 100, 1_000] {
            let [opened, begun, steady, posted, changed] = life(count).await;
            for (what, used) in [
                ("opened", opened),
                ("first epoch", begun),
                ("steady epoch", steady),
                ("revised and posted", posted),
                ("epoch of new terms", changed),
            ] {
                println!("{count} agreements, {what}: {used}");
            }
        }
    });
}
