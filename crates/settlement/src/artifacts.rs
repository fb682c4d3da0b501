//! The contracts' code as it was built, to deploy it and to recognise it.

use alloy_primitives::{Address, hex};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// One built contract.
pub(crate) struct Artifact {
    pub(crate) name: &'static str,
    /// Hex, with placeholders where addresses of libraries go.
    creation: String,
    deployed: Template,
    /// Placeholder to library.
    links: BTreeMap<String, String>,
}

/// Code with holes: what is only known when it is deployed.
struct Template {
    code: Vec<u8>,
    /// Starts and lengths of the holes.
    holes: Vec<(usize, usize)>,
    /// Where addresses of libraries go, and the placeholder of each.
    links: Vec<(usize, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    bytecode: String,
    deployed_bytecode: String,
    #[serde(default)]
    links: BTreeMap<String, String>,
}

macro_rules! artifact {
    ($constant:ident, $name:literal) => {
        pub(crate) static $constant: LazyLock<Artifact> = LazyLock::new(|| {
            Artifact::parse($name, include_str!(concat!("../../../contracts/abi/", $name, ".json")))
        });
    };
}

artifact!(AGREEMENTS, "Agreements");
artifact!(AUDIT_ANCHOR, "AuditAnchor");
artifact!(BLAKE3_PATHS, "Blake3Paths");
artifact!(BLOCKHASH_BEACON, "BlockhashBeacon");
artifact!(DATASET_REGISTRY, "DatasetRegistry");
artifact!(DIRECTORY, "Directory");
artifact!(EMBEDDED_BEACON, "EmbeddedBeacon");
artifact!(POSSESSION, "Possession");
artifact!(PROVIDER_REGISTRY, "ProviderRegistry");
artifact!(RETRIEVAL_CHANNELS, "RetrievalChannels");
artifact!(STORAGE_MARKET, "StorageMarket");
artifact!(TEST_TOKEN, "TestToken");

const ADDRESS_LENGTH: usize = 20;
const PLACEHOLDER_MARK: &str = "__$";
const PUSH20: u8 = 0x73;
const PUSH32: u8 = 0x7f;

impl Artifact {
    fn parse(name: &'static str, json: &str) -> Self {
        let file: File =
            serde_json::from_str(json).expect("artifacts are checked in as the build writes them");
        Self {
            name,
            creation: file.bytecode,
            deployed: Template::parse(&file.deployed_bytecode),
            links: file.links,
        }
    }

    /// What a transaction carries to make this contract, followed by its encoded constructor arguments.
    ///
    /// # Panics
    /// If a library that it is linked to is not named: that is a mistake in the order of deployment.
    pub(crate) fn creation_code(&self, libraries: &[(&str, Address)], arguments: &[u8]) -> Vec<u8> {
        let mut text = self.creation.clone();
        for (placeholder, library) in &self.links {
            let (_, at) = libraries
                .iter()
                .find(|(name, _)| name == library)
                .unwrap_or_else(|| panic!("{} is linked to {library}: deploy that first", self.name));
            text = text.replace(placeholder, &hex::encode(at));
        }
        let mut code = hex::decode(&text).expect("linked code is hex");
        code.extend_from_slice(arguments);
        code
    }

    /// Whether this is the code that the contract has once it is deployed, whatever its immutables and libraries are.
    pub(crate) fn is(&self, code: &[u8]) -> bool {
        self.deployed.fits(code)
    }

    /// The libraries that deployed code of this contract uses, each with where it is.
    pub(crate) fn libraries(&self, code: &[u8]) -> BTreeSet<(&str, Address)> {
        let library = |(at, placeholder): &(usize, String)| {
            let at = code.get(*at..at + ADDRESS_LENGTH)?;
            Some((self.links.get(placeholder)?.as_str(), Address::from_slice(at)))
        };
        self.deployed.links.iter().filter_map(library).collect()
    }
}

/// Our libraries.
pub(crate) fn library(name: &str) -> Option<&'static Artifact> {
    [&*AGREEMENTS, &*POSSESSION].into_iter().find(|artifact| artifact.name == name)
}

impl Template {
    fn parse(text: &str) -> Self {
        let mut text = text.strip_prefix("0x").unwrap_or(text).to_owned();
        let (mut holes, mut links) = (Vec::new(), Vec::new());
        while let Some(at) = text.find(PLACEHOLDER_MARK) {
            holes.push((at / 2, ADDRESS_LENGTH));
            links.push((at / 2, text[at..at + 2 * ADDRESS_LENGTH].to_owned()));
            text.replace_range(at..at + 2 * ADDRESS_LENGTH, &"00".repeat(ADDRESS_LENGTH));
        }
        let code = hex::decode(&text).expect("artifacts hold hex");
        // A library begins with its own address, against being called directly.
        if code.first() == Some(&PUSH20) && code.get(1..=ADDRESS_LENGTH) == Some(&[0; ADDRESS_LENGTH]) {
            holes.push((1, ADDRESS_LENGTH));
        }
        // The compiler leaves a pushed word of zeros for each use of an immutable; it pushes a zero of its own shorter.
        for at in 0..code.len().saturating_sub(32) {
            if code[at] == PUSH32 && code[at + 1..at + 33] == [0; 32] {
                holes.push((at + 1, 32));
            }
        }
        Self { code, holes, links }
    }

    fn fits(&self, code: &[u8]) -> bool {
        if code.len() != self.code.len() {
            return false;
        }
        let mut filled = code.to_vec();
        for &(at, length) in &self.holes {
            filled[at..at + length].fill(0);
        }
        filled == self.code
    }
}

#[cfg(test)]
mod tests {
    use super::{
        AGREEMENTS, AUDIT_ANCHOR, Artifact, BLAKE3_PATHS, BLOCKHASH_BEACON, DATASET_REGISTRY, DIRECTORY,
        EMBEDDED_BEACON, POSSESSION, PROVIDER_REGISTRY, RETRIEVAL_CHANNELS, STORAGE_MARKET, TEST_TOKEN,
        Template, library,
    };
    use alloy_primitives::Address;

    fn all() -> [&'static Artifact; 12] {
        [
            &AGREEMENTS,
            &AUDIT_ANCHOR,
            &BLAKE3_PATHS,
            &BLOCKHASH_BEACON,
            &DATASET_REGISTRY,
            &DIRECTORY,
            &EMBEDDED_BEACON,
            &POSSESSION,
            &PROVIDER_REGISTRY,
            &RETRIEVAL_CHANNELS,
            &STORAGE_MARKET,
            &TEST_TOKEN,
        ]
    }

    #[test]
    fn every_contract_fits_into_a_block_of_any_chain() {
        for artifact in all() {
            let length = artifact.deployed.code.len();
            assert!(length > 0 && length <= 24_576, "{}: {length} bytes", artifact.name);
        }
    }

    #[test]
    fn all_libraries_can_be_linked() {
        let at = Address::repeat_byte(7);
        for artifact in all() {
            let code = artifact.creation_code(&[("Agreements", at), ("Possession", at)], &[1, 2, 3]);
            assert!(code.ends_with(&[1, 2, 3]), "{}", artifact.name);
        }
    }

    #[test]
    fn code_is_recognised_whatever_fills_its_holes_and_nothing_else_is() {
        for artifact in all() {
            let template = &artifact.deployed;
            let mut code = template.code.clone();
            for &(at, length) in &template.holes {
                code[at..at + length].fill(0xab);
            }
            assert!(artifact.is(&code), "{}", artifact.name);
            let libraries = artifact.libraries(&code);
            assert_eq!(libraries.len(), artifact.links.len(), "{}", artifact.name);
            assert!(
                libraries
                    .iter()
                    .all(|(name, at)| library(name).is_some() && *at == Address::repeat_byte(0xab))
            );
            let in_hole =
                |at: usize| template.holes.iter().any(|&(start, length)| at >= start && at < start + length);
            let changed = (0..code.len()).find(|&at| !in_hole(at)).unwrap();
            code[changed] ^= 1;
            assert!(!artifact.is(&code), "{}: a changed byte", artifact.name);
            code[changed] ^= 1;
            code.push(0);
            assert!(!artifact.is(&code), "{}: a byte more", artifact.name);
        }
    }

    #[test]
    fn holes_are_where_libraries_immutables_and_a_librarys_own_address_are() {
        let immutable = format!("7f{}", "00".repeat(32));
        let linked = format!("73__${}$__", "a".repeat(34));
        let template = Template::parse(&format!("0x6001{linked}{immutable}00"));
        assert_eq!(template.holes, [(3, 20), (24, 32)]);
        let of_its_own = Template::parse(&format!("73{}3014", "00".repeat(20)));
        assert_eq!(of_its_own.holes, [(1, 20)]);
    }
}
