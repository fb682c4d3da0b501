//! A local network whose providers are paid.

use crate::program::{list_of, text_of};
use crate::sandbox::Sandbox;
use serde_json::Value;

fn units(value: &Value) -> u128 {
    text_of(value).parse().expect("an amount")
}

#[test]
fn a_push_opens_an_agreement_with_each_provider_that_holds_something_and_a_second_start_goes_on() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let (tree, back) = (sandbox.path("tree"), sandbox.path("back"));
    crate::files::write_specimen(&tree, 43);
    for round in 0..2 {
        let up = home.seedbank("up --providers 4 --detach --quiet").json();
        assert_eq!(list_of(&up["processes"]).len(), 6, "chain, providers, steward: {up}");
        std::fs::write(tree.join("round"), round.to_string()).expect("written");
        home.seedbank("dataset push notes").arg(&tree).succeeds();
        let agreements = home.seedbank("agreement ls").json();
        let agreements = list_of(&agreements);
        assert_eq!(agreements.len(), 4, "{agreements:?}");
        assert!(agreements.iter().all(|agreement| agreement["state"] == "open"), "{agreements:?}");
        let wallet = home.seedbank("wallet show").json();
        assert!(units(&wallet["locked"]) > 0, "{wallet}");
        home.seedbank("down").succeeds();
    }
    home.seedbank("up --no-chain --providers 4 --detach --quiet").succeeds();
    home.seedbank("dataset pull notes").arg(&back).succeeds();
    seedbank_testkit::assert_same_folder(&tree, &back);
    home.seedbank("down").succeeds();
}
