//! What a provider says of itself in the registry: JSON that anybody may have written.

use seedbank_agreement::Amount;
use seedbank_agreement::price::Prices;
use seedbank_protocol::address::is_host_and_port;
use serde::Deserialize;

/// The longest text that the registry takes.
const BYTES_MAX: usize = 4096;

/// Names for people are no longer.
const NAME_BYTES_MAX: usize = 64;

/// Why a profile can't be used. Its provider is passed over.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// More than the contract takes.
    #[error("it has more than {BYTES_MAX} bytes")]
    Length,
    /// Not the JSON that it should be.
    #[error("it can't be read: {0}")]
    Json(#[source] serde_json::Error),
    /// No HOST:PORT.
    #[error("its address is not HOST:PORT")]
    Address,
    /// Nothing, too much, or what no terminal should be sent.
    #[error("its {0} is empty, too long, or no plain text")]
    Text(&'static str),
    /// No number of token units.
    #[error("its {0} is no number of token units")]
    Price(&'static str),
}

/// A provider's profile. Fields that are not known are passed over: a newer provider may say more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Where it is reached, as HOST:PORT.
    pub address: String,
    /// Who runs it.
    pub operator: String,
    /// Where it stands.
    pub region: String,
    /// What it asks, for comparison: a signed quote is what counts.
    pub prices: Prices,
}

#[derive(Deserialize)]
struct Unchecked {
    address: String,
    operator: String,
    region: String,
    rent_per_gib_month: String,
    egress_per_gib: String,
}

impl Profile {
    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn parse(json: &str) -> Result<Profile, ProfileError> {
        if json.len() > BYTES_MAX {
            return Err(ProfileError::Length);
        }
        let found: Unchecked = serde_json::from_str(json).map_err(ProfileError::Json)?;
        Ok(Profile {
            address: address(found.address)?,
            operator: text("operator", found.operator)?,
            region: text("region", found.region)?,
            prices: Prices {
                rent_per_gib_month: price("rent_per_gib_month", &found.rent_per_gib_month)?,
                egress_per_gib: price("egress_per_gib", &found.egress_per_gib)?,
            },
        })
    }
}

fn address(text: String) -> Result<String, ProfileError> {
    if is_host_and_port(&text) { Ok(text) } else { Err(ProfileError::Address) }
}

fn text(field: &'static str, text: String) -> Result<String, ProfileError> {
    let fits = !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.contains(char::is_control);
    if fits { Ok(text) } else { Err(ProfileError::Text(field)) }
}

fn price(field: &'static str, text: &str) -> Result<Amount, ProfileError> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let units = text.parse::<u128>().ok().filter(|_| is_plain);
    units.map(Amount).ok_or(ProfileError::Price(field))
}

#[cfg(test)]
mod tests {
    use super::{Profile, ProfileError};
    use proptest::prelude::proptest;
    use seedbank_agreement::Amount;
    use serde_json::{Value, json};

    fn valid() -> Value {
        json!({
            "address": "storage.example:7410",
            "operator": "Ada",
            "region": "eu-north",
            "rent_per_gib_month": "340282366920938463463374607431768211455",
            "egress_per_gib": "0",
        })
    }

    fn with(field: &str, value: Value) -> Result<Profile, ProfileError> {
        let mut json = valid();
        json[field] = value;
        Profile::parse(&json.to_string())
    }

    #[test]
    fn a_profile_reads_and_a_newer_one_may_say_more() {
        let profile = with("colour", json!(["green"])).unwrap();
        assert_eq!(
            (profile.address.as_str(), profile.operator.as_str(), profile.region.as_str()),
            ("storage.example:7410", "Ada", "eu-north")
        );
        assert_eq!(profile.prices.rent_per_gib_month, Amount::MAX);
        for good in ["10.0.0.7:1", "[2001:db8::1]:65535", "a_b.c-d:80"] {
            assert_eq!(with("address", json!(good)).unwrap().address, good);
        }
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in ["", "[]", "null", "{", "\"address\"", &"[".repeat(4096)] {
            assert!(matches!(Profile::parse(text), Err(ProfileError::Json(_))), "{text:.20}");
        }
        let twice = r#"{"address":"a:1","address":"b:2","operator":"a","region":"b","rent_per_gib_month":"1","egress_per_gib":"1"}"#;
        assert!(matches!(Profile::parse(twice), Err(ProfileError::Json(_))));
        let mut json = valid();
        json["padding"] = json!("x".repeat(4096));
        assert!(matches!(Profile::parse(&json.to_string()), Err(ProfileError::Length)));
        for bad in [
            "",
            "host",
            ":80",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "a b:1",
            "a/b:1",
            "k@h:1",
            "::1:80",
            "[x]:1",
        ] {
            assert!(matches!(with("address", json!(bad)), Err(ProfileError::Address)), "{bad}");
        }
        for bad in [json!(""), json!("x".repeat(65)), json!("\u{1b}[2J")] {
            assert!(matches!(with("operator", bad.clone()), Err(ProfileError::Text("operator"))));
            assert!(matches!(with("region", bad), Err(ProfileError::Text("region"))));
        }
        for bad in ["", "-1", "+1", "1.5", "1e3", "340282366920938463463374607431768211456"] {
            assert!(matches!(with("egress_per_gib", json!(bad)), Err(ProfileError::Price(_))), "{bad}");
        }
        assert!(matches!(with("egress_per_gib", json!(7)), Err(ProfileError::Json(_))));
    }

    proptest! {
        #[test]
        fn hostile_texts_are_refused_or_bounded(text in ".{0,400}", address in ".{0,40}") {
            drop(Profile::parse(&text));
            if let Ok(profile) = with("address", json!(address)) {
                assert_eq!(profile.address, address);
                assert!(profile.address.is_ascii());
            }
        }
    }
}
