//! The contracts' calls as bytes: `abi.encode` with dynamic types, and answers of static ones.

use seedbank_agreement::keccak::keccak256;
use seedbank_agreement::{Address, Amount};
use serde_json::Value;
use std::collections::BTreeMap;

/// A value of any type that the contracts take.
#[derive(Debug, Clone)]
pub(crate) enum Abi {
    Word([u8; 32]),
    Bytes(Vec<u8>),
    Array(Vec<Abi>),
    Tuple(Vec<Abi>),
}

impl Abi {
    pub(crate) fn uint(value: impl Into<u128>) -> Abi {
        Abi::Word(word(value))
    }

    pub(crate) fn address(address: Address) -> Abi {
        let mut word = [0; 32];
        word[12..].copy_from_slice(&address.0);
        Abi::Word(word)
    }

    fn is_dynamic(&self) -> bool {
        match self {
            Abi::Word(_) => false,
            Abi::Bytes(_) | Abi::Array(_) => true,
            Abi::Tuple(parts) => parts.iter().any(Abi::is_dynamic),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Abi::Word(word) => out.extend_from_slice(word),
            Abi::Bytes(bytes) => {
                out.extend_from_slice(&word(bytes.len() as u64));
                out.extend_from_slice(bytes);
                out.resize(out.len().next_multiple_of(32), 0);
            }
            Abi::Array(parts) => {
                out.extend_from_slice(&word(parts.len() as u64));
                sequence(parts, out);
            }
            Abi::Tuple(parts) => sequence(parts, out),
        }
    }
}

/// Heads, then the tails that they point to.
fn sequence(parts: &[Abi], out: &mut Vec<u8>) {
    let mut static_part = Vec::new();
    let mut tails: Vec<Vec<u8>> = Vec::new();
    for part in parts {
        let mut encoded = Vec::new();
        part.encode(&mut encoded);
        static_part.push(if part.is_dynamic() { 32 } else { encoded.len() });
        tails.push(encoded);
    }
    let mut at: usize = static_part.iter().sum();
    for (part, tail) in parts.iter().zip(&tails) {
        if part.is_dynamic() {
            out.extend_from_slice(&word(at as u64));
            at += tail.len();
        } else {
            out.extend_from_slice(tail);
        }
    }
    parts
        .iter()
        .zip(&tails)
        .filter(|(part, _)| part.is_dynamic())
        .for_each(|(_, tail)| out.extend_from_slice(tail));
}

pub(crate) fn encode(parts: &[Abi]) -> Vec<u8> {
    let mut out = Vec::new();
    sequence(parts, &mut out);
    out
}

pub(crate) fn word(value: impl Into<u128>) -> [u8; 32] {
    let mut word = [0; 32];
    word[16..].copy_from_slice(&value.into().to_be_bytes());
    word
}

pub(crate) fn selector(signature: &str) -> [u8; 4] {
    keccak256(signature.as_bytes())[..4].try_into().unwrap()
}

/// One of the committed artifacts.
pub(crate) struct Artifact {
    pub(crate) creation: String,
    /// Placeholder in the bytecode -> name of the library that belongs there.
    pub(crate) links: BTreeMap<String, String>,
    functions: BTreeMap<String, [u8; 4]>,
    events: BTreeMap<String, [u8; 32]>,
    /// For messages of failing tests.
    errors: BTreeMap<[u8; 4], String>,
}

impl Artifact {
    pub(crate) fn parse(json: &str) -> Artifact {
        let json: Value = serde_json::from_str(json).unwrap();
        let mut artifact = Artifact {
            creation: json["bytecode"].as_str().unwrap().trim_start_matches("0x").to_owned(),
            links: BTreeMap::new(),
            functions: BTreeMap::new(),
            events: BTreeMap::new(),
            errors: BTreeMap::new(),
        };
        for (placeholder, library) in json["links"].as_object().into_iter().flatten() {
            artifact.links.insert(placeholder.clone(), library.as_str().unwrap().to_owned());
        }
        for item in json["abi"].as_array().unwrap() {
            let Some(name) = item["name"].as_str() else { continue };
            let signature = format!("{name}{}", types(&item["inputs"]));
            match item["type"].as_str().unwrap() {
                "function" => drop(artifact.functions.insert(name.to_owned(), selector(&signature))),
                "event" => drop(artifact.events.insert(name.to_owned(), keccak256(signature.as_bytes()))),
                "error" => drop(artifact.errors.insert(selector(&signature), signature)),
                other => panic!("{other} has a name"),
            }
        }
        artifact
    }

    pub(crate) fn call(&self, function: &str, arguments: &[Abi]) -> Vec<u8> {
        let selector = self.functions.get(function).unwrap_or_else(|| panic!("no function {function}"));
        [&selector[..], &encode(arguments)].concat()
    }

    pub(crate) fn topic(&self, event: &str) -> [u8; 32] {
        *self.events.get(event).unwrap_or_else(|| panic!("no event {event}"))
    }

    pub(crate) fn name_of(&self, revert: &[u8]) -> String {
        let selector = revert.get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let name = selector.and_then(|selector| self.errors.get(&selector)).cloned();
        let words: Vec<u128> = revert.get(4..).unwrap_or(&[]).chunks_exact(32).map(low).collect();
        format!("{} {words:?}", name.unwrap_or_else(|| "unknown".to_owned()))
    }
}

/// The types of some parameters, as signatures write them.
fn types(parameters: &Value) -> String {
    let one = |parameter: &Value| {
        let name = parameter["type"].as_str().unwrap();
        match name.strip_prefix("tuple") {
            Some(array) => format!("{}{array}", types(&parameter["components"])),
            None => name.to_owned(),
        }
    };
    let all: Vec<String> = parameters.as_array().unwrap().iter().map(one).collect();
    format!("({})", all.join(","))
}

fn low(word: &[u8]) -> u128 {
    u128::from_be_bytes(word[16..32].try_into().unwrap())
}

/// The words of an answer of static types, one after the other.
pub(crate) struct Words<'a>(std::slice::ChunksExact<'a, u8>);

impl<'a> Words<'a> {
    pub(crate) fn of(answer: &'a [u8]) -> Words<'a> {
        Words(answer.chunks_exact(32))
    }

    pub(crate) fn word(&mut self) -> [u8; 32] {
        self.0.next().expect("another word").try_into().unwrap()
    }

    pub(crate) fn u128(&mut self) -> u128 {
        let word = self.word();
        assert_eq!(word[..16], [0; 16], "a number of more than 128 bits");
        low(&word)
    }

    pub(crate) fn amount(&mut self) -> Amount {
        Amount(self.u128())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::try_from(self.u128()).unwrap()
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::try_from(self.u128()).unwrap()
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u128() == 1
    }

    pub(crate) fn address(&mut self) -> Address {
        Address(self.word()[12..].try_into().unwrap())
    }
}
