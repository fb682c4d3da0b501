//! Commands at the same time, on one home.

use crate::files::write_specimen;
use crate::network::Network;
use crate::program::{list_of, text_of};
use seedbank_testkit::assert_same_folder;
use std::collections::BTreeMap;

#[test]
fn two_pushes_to_one_dataset_both_succeed_and_one_stands_on_the_other() {
    let network = Network::up(8);
    let base = network.path("base");
    write_specimen(&base, 60);
    let first = network.push("notes", &base);
    let trees = [network.path("one"), network.path("two")];
    write_specimen(&trees[0], 61);
    write_specimen(&trees[1], 62);
    let started: Vec<_> = trees
        .iter()
        .map(|tree| network.home.seedbank("dataset push notes --json").arg(tree).start())
        .collect();
    let pushed: Vec<_> = started.into_iter().map(|push| push.wait().succeeded().json()).collect();
    let versions: Vec<String> = pushed.iter().map(|report| text_of(&report["version"]).to_owned()).collect();

    let log = network.home.seedbank("dataset log notes").json();
    assert_eq!(list_of(&log).len(), 3, "{log}");
    let newest = text_of(&log[0]["version"]).to_owned();
    let earlier = text_of(&log[1]["version"]).to_owned();
    assert!(versions.contains(&newest) && versions.contains(&earlier), "{log}");
    let parents = |version: &str| {
        network.home.seedbank("dataset show").arg(format!("notes@{version}")).json()["parents"].clone()
    };
    assert_eq!(parents(&newest), serde_json::json!([earlier]));
    assert_eq!(parents(&earlier), serde_json::json!([first["version"]]));
    for (version, tree) in versions.iter().zip(&trees) {
        let back = network.path(&format!("back-{version}"));
        network.pull(&format!("notes@{version}"), &back);
        assert_same_folder(tree, &back);
    }
}

#[test]
fn pushes_to_many_new_datasets_and_reads_at_the_same_time_all_succeed() {
    let network = Network::up(8);
    let base = network.path("base");
    write_specimen(&base, 63);
    network.push("base", &base);
    let names = ["a", "b/one", "b/two", "c"];
    let trees: BTreeMap<&str, _> = names
        .iter()
        .zip(64..)
        .map(|(name, seed)| {
            let tree = network.path(&format!("tree-{seed}"));
            write_specimen(&tree, seed);
            (*name, tree)
        })
        .collect();
    let back = network.path("back");
    let reading = network.home.seedbank("dataset pull base").arg(&back).start();
    let pushing: Vec<_> = trees
        .iter()
        .map(|(name, tree)| network.home.seedbank("dataset push").arg(name).arg(tree).start())
        .collect();
    for push in pushing {
        push.wait().succeeded();
    }
    reading.wait().succeeded();
    assert_same_folder(&base, &back);
    for (name, tree) in &trees {
        let back = network.path(&format!("back-{}", name.replace('/', "-")));
        network.pull(name, &back);
        assert_same_folder(tree, &back);
    }
}
