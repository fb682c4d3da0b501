//! What people type to name data: `NAME`, `NAME@REF`, `NAME@REF:PATH`, `FROM-TO`, `K/N`.

use seedbank_agreement::Address;
use seedbank_agreement::address::ParseAddressError;
use seedbank_client::home_dataset::HOME_DATASET_NAME;
use seedbank_erasure::Scheme;
use std::ops::Range;

/// A dataset, perhaps a version of it, perhaps a path in that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) reference: Option<String>,
    pub(crate) path: Option<String>,
}

/// Why a text names no data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// Nothing before `@` or `:`.
    #[error("{0:?} names no dataset: write NAME, NAME@REF or NAME@REF:PATH")]
    NoName(String),
    /// Nothing after `@`.
    #[error("{0:?} names no version after the @")]
    NoReference(String),
    /// A path where none belongs.
    #[error("{0:?} names a path; only NAME or NAME@REF makes sense here")]
    PathNotWanted(String),
    /// A version where none belongs.
    #[error("{0:?} names a version; a push makes a new one, so write NAME without the @")]
    ReferenceNotWanted(String),
    /// The list of datasets, which the program keeps itself.
    #[error("{HOME_DATASET_NAME} is the list of datasets, which is kept for you; choose another name")]
    Reserved,
    /// Another owner's dataset, where one's own is needed.
    #[error(
        "{0:?} names a dataset as the chain knows it, which can only be read; for one of your own, write its NAME"
    )]
    OnlyRead(String),
    /// A wrong digit, most likely.
    #[error("{text:?} is no OWNER/NAME")]
    Owner {
        /// What was typed.
        text: String,
        /// What is wrong with the owner.
        #[source]
        source: ParseAddressError,
    },
    /// No path where one is needed.
    #[error("{0:?} names no file: write NAME:PATH or NAME@REF:PATH")]
    NoPath(String),
    /// Not a range.
    #[error("{0:?} is no range: write FROM-TO in bytes, for example 0-1024, 4096- or -100 for the first 100")]
    Range(String),
    /// Not a scheme.
    #[error("{0:?} is no scheme: write K/N, for example 4/8, with 1 <= K < N <= 255")]
    Scheme(String),
}

impl Target {
    /// Reads `NAME[@REF][:PATH]`.
    pub(crate) fn parse(text: &str) -> Result<Target, TargetError> {
        let (version, path) = match text.split_once(':') {
            Some((version, path)) => (version, Some(path.to_owned())),
            None => (text, None),
        };
        let (name, reference) = match version.split_once('@') {
            Some((name, reference)) => (name, Some(reference.to_owned())),
            None => (version, None),
        };
        if name.is_empty() {
            return Err(TargetError::NoName(text.to_owned()));
        }
        if reference.as_deref() == Some("") {
            return Err(TargetError::NoReference(text.to_owned()));
        }
        Ok(Target { name: name.to_owned(), reference, path })
    }

    /// Reads `NAME[@REF]`.
    pub(crate) fn version(text: &str) -> Result<Target, TargetError> {
        let target = Target::parse(text)?;
        if target.path.is_some() { Err(TargetError::PathNotWanted(text.to_owned())) } else { Ok(target) }
    }

    /// Reads `NAME`.
    pub(crate) fn dataset(text: &str) -> Result<Target, TargetError> {
        let target = Target::version(text)?;
        if target.reference.is_some() {
            Err(TargetError::ReferenceNotWanted(text.to_owned()))
        } else {
            Ok(target)
        }
    }

    /// Refuses the dataset that the program keeps itself.
    pub(crate) fn of_an_owner(self) -> Result<Target, TargetError> {
        if self.wallet()?.is_some() {
            return Err(TargetError::OnlyRead(self.name));
        }
        if self.name == HOME_DATASET_NAME { Err(TargetError::Reserved) } else { Ok(self) }
    }

    /// The owner's wallet and the name under it, when the dataset is named OWNER/NAME.
    pub(crate) fn wallet(&self) -> Result<Option<(Address, &str)>, TargetError> {
        wallet_and_name(&self.name)
    }

    /// Reads `NAME[@REF]:PATH` and gives the path beside it.
    pub(crate) fn file(text: &str) -> Result<(Target, String), TargetError> {
        let target = Target::parse(text)?;
        match target.path.clone() {
            Some(path) if !path.is_empty() => Ok((target, path)),
            _ => Err(TargetError::NoPath(text.to_owned())),
        }
    }
}

/// Reads `OWNER/NAME`; `None` for a text that begins with no address.
pub(crate) fn wallet_and_name(text: &str) -> Result<Option<(Address, &str)>, TargetError> {
    /// `0x` and 40 digits.
    const ADDRESS_BYTES: usize = 42;
    let Some((owner, name)) = text.split_once('/') else { return Ok(None) };
    if owner.len() != ADDRESS_BYTES || !owner.starts_with("0x") {
        return Ok(None);
    }
    let owner = owner.parse().map_err(|source| TargetError::Owner { text: text.to_owned(), source })?;
    if name.is_empty() { Err(TargetError::NoName(text.to_owned())) } else { Ok(Some((owner, name))) }
}

/// Reads `FROM-TO`; either end may be left out.
pub(crate) fn parse_range(text: &str) -> Result<Range<u64>, TargetError> {
    let wrong = || TargetError::Range(text.to_owned());
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let number = |digits: &str, default: u64| match digits {
        "" => Ok(default),
        digits => digits.parse::<u64>().map_err(|_| wrong()),
    };
    let range = number(from, 0)?..number(to, u64::MAX)?;
    if range.start > range.end || text == "-" { Err(wrong()) } else { Ok(range) }
}

/// Reads `K/N`.
pub(crate) fn parse_scheme(text: &str) -> Result<Scheme, TargetError> {
    let wrong = || TargetError::Scheme(text.to_owned());
    let (data, total) = text.split_once('/').ok_or_else(wrong)?;
    let (data, total) = (data.parse().map_err(|_| wrong())?, total.parse().map_err(|_| wrong())?);
    Scheme::new(data, total).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::{Target, TargetError, parse_range, parse_scheme, wallet_and_name};

    #[test]
    fn names_versions_and_paths_are_told_apart() {
        let target = |name: &str, reference: Option<&str>, path: Option<&str>| Target {
            name: name.to_owned(),
            reference: reference.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        assert_eq!(Target::parse("a"), Ok(target("a", None, None)));
        assert_eq!(Target::parse("a@v1"), Ok(target("a", Some("v1"), None)));
        assert_eq!(Target::parse("a@v1:b/c:d@e"), Ok(target("a", Some("v1"), Some("b/c:d@e"))));
        assert_eq!(Target::parse("a:b@c"), Ok(target("a", None, Some("b@c"))));
        assert!(matches!(Target::parse("@v1"), Err(TargetError::NoName(_))));
        assert!(matches!(Target::parse("a@"), Err(TargetError::NoReference(_))));
        assert!(matches!(Target::version("a:b"), Err(TargetError::PathNotWanted(_))));
        assert!(matches!(Target::file("a@v1"), Err(TargetError::NoPath(_))));
    }

    #[test]
    fn an_owners_address_makes_a_name_the_chains() {
        let address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        let owner = address.parse().unwrap();
        for text in [address, &address.to_lowercase()] {
            let named = format!("{text}/birds/größe@v1");
            let target = Target::version(&named).unwrap();
            assert_eq!(target.wallet(), Ok(Some((owner, "birds/größe"))));
            assert_eq!(target.clone().of_an_owner(), Err(TargetError::OnlyRead(target.name)));
        }
        for local in ["birds", "0x12/birds", "birds/0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", address] {
            assert_eq!(Target::parse(local).unwrap().wallet(), Ok(None), "{local}");
        }
        let wrong = address.replace('5', "6");
        assert!(matches!(wallet_and_name(&format!("{wrong}/a")), Err(TargetError::Owner { .. })));
        let no_hex = format!("0x{}/a", "g".repeat(40));
        assert!(matches!(wallet_and_name(&no_hex), Err(TargetError::Owner { .. })));
        assert!(matches!(wallet_and_name(&format!("{address}/")), Err(TargetError::NoName(_))));
    }

    #[test]
    fn ranges_and_schemes_that_make_no_sense_are_refused() {
        assert_eq!(parse_range("5-10"), Ok(5..10));
        assert_eq!(parse_range("5-"), Ok(5..u64::MAX));
        assert_eq!(parse_range("-10"), Ok(0..10));
        for wrong in ["", "-", "7", "9-3", "a-b", "1-2-3"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
        assert!(parse_scheme("4/8").is_ok());
        for wrong in ["4", "8/4", "0/3", "4/300", "a/b"] {
            assert!(parse_scheme(wrong).is_err(), "{wrong}");
        }
    }
}
