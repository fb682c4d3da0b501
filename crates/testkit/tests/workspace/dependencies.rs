//! Every dependency has a licence that `deny.toml` allows, none is one that it bans, and all come from the registry.
//!
//! `cargo deny` checks the same and more; this works where that tool is not installed. `cargo tree` is asked, because
//! unlike `cargo metadata` it lists only what is compiled.

use crate::{cargo, read, root};
use std::collections::BTreeSet;

struct Package {
    name: String,
    licence: String,
}

fn packages() -> Vec<Package> {
    let listed = cargo(&[
        "tree",
        "--offline",
        "--locked",
        "--workspace",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ]);
    listed
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (package, licence) = line.split_once('|').expect("the format has a bar");
            let name = package.split(' ').next().expect("a split has a first part").to_owned();
            Package { name, licence: licence.trim_end_matches(" (*)").to_owned() }
        })
        .collect()
}

fn rules() -> toml::Table {
    read(&root().join("deny.toml")).parse().expect("deny.toml is TOML")
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let allowed: BTreeSet<&str> = rules["licenses"]["allow"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|licence| licence.as_str().expect("a licence is text"))
        .collect();
    let packages = packages();
    assert!(packages.len() > 50, "cargo tree lists the dependencies");
    let refused: BTreeSet<String> = packages
        .iter()
        .filter(|package| !satisfied(&package.licence, &allowed))
        .map(|package| format!("{}: {:?}", package.name, package.licence))
        .collect();
    assert_eq!(refused, BTreeSet::new());
}

#[test]
fn no_banned_crate_is_compiled() {
    let rules = rules();
    let banned: BTreeSet<&str> = rules["bans"]["deny"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|ban| ban["crate"].as_str().expect("a crate is text"))
        .collect();
    let found: Vec<String> =
        packages().into_iter().map(|package| package.name).filter(|name| banned.contains(&**name)).collect();
    assert!(banned.len() >= 3 && found.is_empty(), "banned: {found:?}");
}

#[test]
fn every_dependency_comes_from_the_registry() {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().expect("Cargo.lock is TOML");
    for package in lock["package"].as_array().expect("a list") {
        // Our own crates have no source.
        let source = package.get("source").map_or("registry+", |source| source.as_str().expect("text"));
        assert!(source.starts_with("registry+"), "{} comes from {source}", package["name"]);
    }
}

/// Whether an SPDX expression can be met with these licences: any side of an OR, every side of an AND, which binds
/// tighter. Old manifests write `/` for OR.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any_of(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut met = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let met = any_of(words, allowed);
        return words.next_if_eq(&")").is_some() && met;
    }
    let Some(licence) = words.next() else { return false };
    if words.next_if_eq(&"WITH").is_some() {
        let Some(exception) = words.next() else { return false };
        return allowed.contains(&*format!("{licence} WITH {exception}"));
    }
    allowed.contains(licence)
}

#[test]
fn licence_expressions_are_read_as_spdx_says() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    let met = |expression| satisfied(expression, &allowed);
    assert!(met("MIT") && met("GPL-3.0/MIT") && met("GPL-3.0 OR MIT AND ISC"));
    assert!(met("(GPL-3.0 OR MIT) AND ISC") && met("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
    assert!(!met("GPL-3.0") && !met("MIT AND GPL-3.0") && !met("(MIT OR ISC) AND GPL-3.0"));
    assert!(!met("Apache-2.0") && !met("") && !met("MIT AND") && !met("(MIT") && !met("MIT ISC"));
}
