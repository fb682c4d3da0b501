//! How much a payee serves before it is paid: bounded for each key, for each network, and in all.
//!
//! A key costs nothing, and an address little, so neither bound alone would hold. Whoever makes ten thousand keys gets no more than the
//! total, and whoever has one network no more than that network's part. What is never paid is written off after a while: until
//! then it takes up its part of the bounds, so the total bounds the loss in that time, and nobody can shut out others for good.

use crate::amount::Amount;
use seedbank_formats::{PublicKey, Timestamp};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The part of the address space that one reader easily has for itself: an IPv4 /24 or an IPv6 /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The first three bytes.
    V4([u8; 3]),
    /// The first six bytes.
    V6([u8; 6]),
}

impl Network {
    /// The network of an address. An IPv4 address in IPv6's clothes is an IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Network::V4([a, b, c])
            }
            IpAddr::V6(address) => Network::V6(address.octets()[..6].try_into().expect("6 of 16 bytes")),
        }
    }
}

/// Who may owe how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditLimits {
    /// One key.
    pub per_key: Amount,
    /// All keys of one network.
    pub per_network: Amount,
    /// All keys together.
    pub total: Amount,
    /// Keys that are remembered at a time. Each takes some memory even if it owes one unit.
    pub keys_max: usize,
}

/// Why nothing more is served before a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{owed} are owed and {left} of credit are left: pay {pay} first")]
pub struct PaymentRequired {
    /// What the key owes.
    pub owed: Amount,
    /// What it may still owe.
    pub left: Amount,
    /// The payment that would do.
    pub pay: Amount,
}

/// What a key owes, or has paid ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Where its debt is counted.
    pub network: Network,
    /// What it owes.
    pub owed: Amount,
    /// What it paid ahead.
    pub ahead: Amount,
    /// When it last paid or began to owe.
    pub since: Timestamp,
}

impl Account {
    /// Owes nothing and has paid nothing ahead.
    #[must_use]
    pub fn even(network: Network, since: Timestamp) -> Account {
        Account { network, owed: Amount::ZERO, ahead: Amount::ZERO, since }
    }

    /// Takes a payment: first for what is owed, the rest ahead. How much of it was owed.
    pub fn pay(&mut self, payment: Amount, now: Timestamp) -> Amount {
        let settled = payment.min(self.owed);
        self.owed = self.owed.saturating_sub(settled);
        self.ahead = self.ahead.checked_add(payment.saturating_sub(settled)).unwrap_or(Amount::MAX);
        self.since = now;
        settled
    }
}

/// All debts of readers to one payee.
#[derive(Debug, Clone)]
pub struct Credit {
    limits: CreditLimits,
    accounts: BTreeMap<PublicKey, Account>,
    networks: BTreeMap<Network, Amount>,
    total: Amount,
}

impl Credit {
    /// Nobody owes anything.
    #[must_use]
    pub fn new(limits: CreditLimits) -> Credit {
        Credit { limits, accounts: BTreeMap::new(), networks: BTreeMap::new(), total: Amount::ZERO }
    }

    /// Takes up accounts that were kept, whatever the limits are now.
    #[must_use]
    pub fn with_accounts(mut self, accounts: impl IntoIterator<Item = (PublicKey, Account)>) -> Credit {
        for (key, account) in accounts {
            // Twice the same key, or sums beyond numbers, are no accounts of ours.
            let of_network = self.networks.get(&account.network).copied().unwrap_or_default();
            let sums = of_network.checked_add(account.owed).zip(self.total.checked_add(account.owed));
            let Some((of_network, total)) = sums.filter(|_| !self.accounts.contains_key(&key)) else {
                continue;
            };
            self.accounts.insert(key, account);
            self.networks.insert(account.network, of_network);
            self.total = total;
            self.forget(key, account.network);
        }
        self
    }

    /// A key's account, to be kept; `None` for one that is even.
    #[must_use]
    pub fn account(&self, key: &PublicKey) -> Option<&Account> {
        self.accounts.get(key)
    }

    /// All accounts that are not even.
    pub fn accounts(&self) -> impl Iterator<Item = (&PublicKey, &Account)> {
        self.accounts.iter()
    }

    /// All that is owed, for `status`.
    #[must_use]
    pub fn total(&self) -> Amount {
        self.total
    }

    /// What a key owes.
    #[must_use]
    pub fn owed(&self, key: &PublicKey) -> Amount {
        self.accounts.get(key).map_or(Amount::ZERO, |account| account.owed)
    }

    /// What a key can have before it has to pay.
    #[must_use]
    pub fn left(&self, key: &PublicKey, network: Network) -> Amount {
        let account = self.accounts.get(key);
        let ahead = account.map_or(Amount::ZERO, |account| account.ahead);
        self.credit_left(account, network).checked_add(ahead).unwrap_or(Amount::MAX)
    }

    fn credit_left(&self, account: Option<&Account>, network: Network) -> Amount {
        if account.is_none() && self.accounts.len() >= self.limits.keys_max {
            return Amount::ZERO;
        }
        // A key's debt stands in the network that it came from first: moving makes no room.
        let network = account.map_or(network, |account| account.network);
        let of_network = self.networks.get(&network).copied().unwrap_or_default();
        let owed = account.map_or(Amount::ZERO, |account| account.owed);
        (self.limits.per_key.saturating_sub(owed))
            .min(self.limits.per_network.saturating_sub(of_network))
            .min(self.limits.total.saturating_sub(self.total))
    }

    /// Puts what is about to be served on a key's account.
    ///
    /// # Errors
    /// [`PaymentRequired`] if a bound would be passed; then nothing was put there.
    pub fn charge(
        &mut self,
        key: PublicKey,
        network: Network,
        price: Amount,
        now: Timestamp,
    ) -> Result<(), PaymentRequired> {
        let account = self.accounts.get(&key);
        let ahead = account.map_or(Amount::ZERO, |account| account.ahead);
        let from_ahead = price.min(ahead);
        let debt = price.saturating_sub(from_ahead);
        let left = self.credit_left(account, network);
        if debt > left {
            let owed = self.owed(&key);
            return Err(PaymentRequired { owed, left, pay: debt.saturating_sub(left) });
        }
        if price == Amount::ZERO {
            return Ok(());
        }
        let account = self.accounts.entry(key).or_insert(Account::even(network, now));
        if account.owed == Amount::ZERO {
            account.since = now;
        }
        account.ahead = account.ahead.saturating_sub(from_ahead);
        account.owed = sum(account.owed, debt);
        let network = account.network;
        let of_network = self.networks.entry(network).or_default();
        *of_network = sum(*of_network, debt);
        self.total = sum(self.total, debt);
        self.forget(key, network);
        Ok(())
    }

    /// Takes a key's payment. Also what was charged and then not served is given back so.
    pub fn pay(&mut self, key: PublicKey, network: Network, payment: Amount, now: Timestamp) {
        let account = self.accounts.entry(key).or_insert(Account::even(network, now));
        let settled = account.pay(payment, now);
        let network = account.network;
        self.settle(network, settled);
        self.forget(key, network);
    }

    /// Forgets debts of keys that have not paid since `before`, and says how much that was.
    pub fn write_off(&mut self, before: Timestamp) -> Amount {
        let late: Vec<PublicKey> = self
            .accounts
            .iter()
            .filter(|(_, account)| account.owed > Amount::ZERO && account.since < before)
            .map(|(key, _)| *key)
            .collect();
        let mut lost = Amount::ZERO;
        for key in late {
            if let Some(account) = self.accounts.remove(&key) {
                self.settle(account.network, account.owed);
                lost = sum(lost, account.owed);
            }
        }
        lost
    }

    fn settle(&mut self, network: Network, settled: Amount) {
        self.total = self.total.checked_sub(settled).expect("the total holds every debt");
        if let Some(of_network) = self.networks.get_mut(&network) {
            *of_network = of_network.checked_sub(settled).expect("a network holds its keys' debts");
        }
    }

    /// Keeps no record of what is even.
    fn forget(&mut self, key: PublicKey, network: Network) {
        let even = |account: &Account| account.owed == Amount::ZERO && account.ahead == Amount::ZERO;
        if self.accounts.get(&key).is_some_and(even) {
            self.accounts.remove(&key);
        }
        if self.networks.get(&network) == Some(&Amount::ZERO) {
            self.networks.remove(&network);
        }
    }
}

fn sum(a: Amount, b: Amount) -> Amount {
    a.checked_add(b).expect("the limits, which are amounts, bound every sum of debts")
}

#[cfg(test)]
mod tests {
    use super::{Credit, CreditLimits, Network, PaymentRequired};
    use crate::amount::Amount;
    use proptest::prelude::{prop, proptest};
    use seedbank_formats::{PublicKey, Timestamp};

    const LIMITS: CreditLimits = CreditLimits {
        per_key: Amount(100),
        per_network: Amount(250),
        total: Amount(1_000),
        keys_max: 10_000,
    };

    fn key(number: u64) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PublicKey(bytes)
    }

    fn network(number: u64) -> Network {
        let [a, b, c, ..] = number.to_le_bytes();
        Network::V4([a, b, c])
    }

    #[test]
    fn ten_thousand_fresh_keys_get_no_more_than_the_total() {
        let mut credit = Credit::new(LIMITS);
        let mut served = 0;
        for number in 0..10_000 {
            // Each from a network of its own, and each as often as it is let.
            while credit.charge(key(number), network(number), Amount(7), Timestamp(0)).is_ok() {
                served += 7;
            }
        }
        assert!(served <= 1_000 && served > 900, "{served}");
        assert_eq!(credit.total(), Amount(served));
    }

    #[test]
    fn keys_of_one_network_share_its_part() {
        let mut credit = Credit::new(LIMITS);
        let charge =
            |credit: &mut Credit, number| credit.charge(key(number), network(1), Amount(100), Timestamp(0));
        assert_eq!(charge(&mut credit, 1), Ok(()));
        assert_eq!(charge(&mut credit, 2), Ok(()));
        let refused = PaymentRequired { owed: Amount(0), left: Amount(50), pay: Amount(50) };
        assert_eq!(charge(&mut credit, 3), Err(refused));
        assert_eq!(credit.charge(key(3), network(2), Amount(100), Timestamp(0)), Ok(()));
    }

    #[test]
    fn who_pays_reads_on_and_who_pays_ahead_needs_no_credit() {
        let mut credit = Credit::new(CreditLimits { total: Amount(100), ..LIMITS });
        credit.charge(key(1), network(1), Amount(100), Timestamp(0)).unwrap();
        let refused = PaymentRequired { owed: Amount(100), left: Amount(0), pay: Amount(30) };
        assert_eq!(credit.charge(key(1), network(1), Amount(30), Timestamp(1)), Err(refused));
        // The total is used up: others pay first.
        assert!(credit.charge(key(2), network(2), Amount(1), Timestamp(1)).is_err());
        credit.pay(key(2), network(2), Amount(20), Timestamp(1));
        assert_eq!(credit.left(&key(2), network(2)), Amount(20));
        assert_eq!(credit.charge(key(2), network(2), Amount(20), Timestamp(1)), Ok(()));
        credit.pay(key(1), network(1), Amount(60), Timestamp(2));
        assert_eq!(credit.owed(&key(1)), Amount(40));
        assert_eq!(credit.charge(key(1), network(1), Amount(60), Timestamp(2)), Ok(()));
    }

    #[test]
    fn what_is_never_paid_is_written_off_and_frees_its_part() {
        let mut credit = Credit::new(CreditLimits { total: Amount(100), ..LIMITS });
        credit.charge(key(1), network(1), Amount(100), Timestamp(10)).unwrap();
        assert_eq!(credit.write_off(Timestamp(10)), Amount(0));
        assert_eq!(credit.write_off(Timestamp(11)), Amount(100));
        assert_eq!(credit.total(), Amount(0));
        assert_eq!(credit.charge(key(2), network(2), Amount(100), Timestamp(12)), Ok(()));
    }

    #[test]
    fn keys_that_are_remembered_are_bounded() {
        let mut credit = Credit::new(CreditLimits { keys_max: 2, ..LIMITS });
        for number in 0..2 {
            credit.charge(key(number), network(number), Amount(1), Timestamp(0)).unwrap();
        }
        assert!(credit.charge(key(2), network(2), Amount(1), Timestamp(0)).is_err());
        assert_eq!(credit.charge(key(1), network(1), Amount(1), Timestamp(0)), Ok(()));
    }

    #[test]
    fn accounts_that_were_kept_count_as_before() {
        let mut credit = Credit::new(LIMITS);
        credit.charge(key(1), network(1), Amount(100), Timestamp(5)).unwrap();
        credit.charge(key(2), network(1), Amount(100), Timestamp(6)).unwrap();
        credit.pay(key(3), network(2), Amount(40), Timestamp(7));
        let kept: Vec<_> = credit.accounts().map(|(key, account)| (*key, *account)).collect();
        let mut again = Credit::new(LIMITS).with_accounts(kept.clone()).with_accounts(kept);
        assert_eq!((again.total(), again.owed(&key(2))), (Amount(200), Amount(100)));
        assert_eq!(again.account(&key(3)).unwrap().ahead, Amount(40));
        let refused = PaymentRequired { owed: Amount(0), left: Amount(50), pay: Amount(50) };
        assert_eq!(again.charge(key(4), network(1), Amount(100), Timestamp(8)), Err(refused));
        assert_eq!(again.write_off(Timestamp(6)), Amount(100));
    }

    #[test]
    fn networks_are_24_and_48_bits_wide() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.7"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff::2"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }

    proptest! {
        #[test]
        fn no_history_passes_a_bound(
            steps in prop::collection::vec((0..20u64, 0..5u64, 0..150u128, 0..3u8), 0..300)
        ) {
            let mut credit = Credit::new(LIMITS);
            for (now, (number, from, amount, what)) in steps.into_iter().enumerate() {
                let now = Timestamp(now as u64);
                match what {
                    0 => credit.pay(key(number), network(from), Amount(amount), now),
                    1 if amount == 0 => { credit.write_off(Timestamp(now.0.saturating_sub(20))); }
                    _ => { let _ = credit.charge(key(number), network(from), Amount(amount), now); }
                }
                let owed: Amount = credit.accounts.values().map(|account| account.owed).sum();
                assert_eq!(credit.total(), owed);
                assert!(owed <= LIMITS.total);
                assert!(credit.accounts.values().all(|account| account.owed <= LIMITS.per_key));
                for (network, of_network) in &credit.networks {
                    let accounts = credit.accounts.values().filter(|account| account.network == *network);
                    assert_eq!(accounts.map(|account| account.owed).sum::<Amount>(), *of_network);
                    assert!(*of_network <= LIMITS.per_network);
                }
            }
        }
    }
}
