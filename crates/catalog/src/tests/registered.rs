//! Providers that the registry lists: how they come in beside those that a person added, and stay out.

use super::{Desk, profile, provider};
use crate::operations::Books;
use crate::records::{Contact, Outcome, Provider, ProviderProfile, ProviderSource, RegisteredProvider};
use seedbank_agreement::Address;

fn entry(number: u8, address: &str) -> RegisteredProvider {
    RegisteredProvider {
        key: provider(number),
        wallet: Address([number; 20]),
        address: address.to_owned(),
        leaving: false,
        greeted: None,
    }
}

fn greeted(number: u8, address: &str) -> RegisteredProvider {
    let said = ProviderProfile { address: address.to_owned(), ..profile(number) };
    RegisteredProvider { greeted: Some(said), ..entry(number, address) }
}

impl Desk {
    fn known(&self, number: u8) -> Option<Provider> {
        self.providers().unwrap().into_iter().find(|known| known.profile.key == provider(number))
    }
}

#[test]
fn a_provider_comes_in_when_it_was_greeted_and_not_before() {
    let desk = Desk::empty();
    assert_eq!(desk.merge_registered(vec![entry(1, "a:1")]).unwrap(), 0);
    assert_eq!(desk.known(1), None);
    assert_eq!(desk.merge_registered(vec![greeted(1, "a:1"), greeted(2, "b:1")]).unwrap(), 2);
    let known = desk.known(1).unwrap();
    assert_eq!((known.source, known.wallet), (ProviderSource::Registry, Some(Address([1; 20]))));
    assert_eq!((known.profile.address.as_str(), known.profile.accepting), ("a:1", true));
    assert_eq!(desk.merge_registered(vec![greeted(1, "a:1")]).unwrap(), 0, "once is enough");
}

#[test]
fn an_address_in_the_registry_is_followed_and_one_by_hand_only_when_nobody_answers_there() {
    let desk = Desk::empty();
    desk.put_provider(ProviderProfile { address: "by-hand:1".into(), ..profile(1) }).unwrap();
    desk.merge_registered(vec![greeted(2, "before:1")]).unwrap();
    let move_both = || desk.merge_registered(vec![entry(1, "moved:1"), entry(2, "moved:2")]).unwrap();
    move_both();
    let address = |number| desk.known(number).unwrap().profile.address;
    assert_eq!((address(1).as_str(), address(2).as_str()), ("by-hand:1", "moved:2"));
    assert_eq!(desk.known(1).unwrap().source, ProviderSource::Hand);
    assert_eq!(desk.known(1).unwrap().wallet, Some(Address([1; 20])));
    let failed = Contact { provider: provider(1), outcome: Outcome::Failed };
    desk.record_contacts(vec![failed; 3]).unwrap();
    move_both();
    assert_eq!(address(1), "moved:1");
    // What it says of itself later does not undo that.
    desk.hear_provider(ProviderProfile { address: "by-hand:1".into(), free_bytes: 7, ..profile(1) }).unwrap();
    assert_eq!((address(1).as_str(), desk.known(1).unwrap().profile.free_bytes), ("moved:1", 7));
}

#[test]
fn whoever_leaves_takes_nothing_new_until_it_comes_back() {
    let desk = Desk::empty();
    desk.put_provider(profile(1)).unwrap();
    desk.merge_registered(vec![RegisteredProvider { leaving: true, ..entry(1, "a:1") }]).unwrap();
    let known = desk.known(1).unwrap();
    assert!(known.leaving && !known.profile.accepting);
    desk.hear_provider(profile(1)).unwrap();
    assert!(!desk.known(1).unwrap().profile.accepting, "whatever it says itself");
    desk.merge_registered(vec![entry(1, "a:1")]).unwrap();
    assert!(desk.known(1).unwrap().profile.accepting);
}

#[test]
fn what_the_owner_removed_comes_back_by_hand_alone() {
    let desk = Desk::empty();
    desk.merge_registered(vec![greeted(1, "a:1")]).unwrap();
    desk.remove_provider(provider(1)).unwrap();
    assert_eq!(desk.removed_providers().unwrap(), [provider(1)]);
    assert_eq!(desk.merge_registered(vec![greeted(1, "a:1")]).unwrap(), 0);
    desk.hear_provider(profile(1)).unwrap();
    assert_eq!(desk.known(1), None);
    desk.put_provider(profile(1)).unwrap();
    assert_eq!(desk.removed_providers().unwrap(), []);
    assert_eq!(desk.known(1).unwrap().source, ProviderSource::Hand);
}

#[test]
fn a_key_that_its_wallet_no_longer_names_takes_nothing_new() {
    let desk = Desk::empty();
    desk.put_provider(profile(3)).unwrap();
    desk.merge_registered(vec![
        greeted(1, "a:1"),
        RegisteredProvider { wallet: Address([3; 20]), ..entry(3, "c:1") },
    ])
    .unwrap();
    let renamed =
        |number, wallet| RegisteredProvider { wallet: Address([wallet; 20]), ..greeted(number, "a:2") };
    desk.merge_registered(vec![renamed(5, 1), renamed(6, 3)]).unwrap();
    let (before, by_hand) = (desk.known(1).unwrap(), desk.known(3).unwrap());
    assert_eq!((before.wallet, before.leaving), (None, true));
    assert_eq!((by_hand.wallet, by_hand.leaving), (None, false), "a person decides about this one");
    assert_eq!(desk.known(5).unwrap().wallet, Some(Address([1; 20])));
}
