//! Addresses of accounts and contracts, with the checksum in their text (EIP-55).

use crate::hex;
use crate::keccak::keccak256;
use std::fmt;
use std::str::FromStr;

/// An account's or a contract's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

impl Address {
    /// Nobody's address: what `ecrecover` answers to what is no signature.
    pub const ZERO: Address = Address([0; 20]);

    /// The address of an uncompressed public key without its leading 4.
    pub(crate) fn of_point(point: &[u8; 64]) -> Address {
        let hash = keccak256(point);
        Address(hash[12..].try_into().expect("20 of 32 bytes"))
    }

    /// The 40 digits with the checksum in their case.
    fn checksummed(&self) -> [u8; 40] {
        let mut text = String::with_capacity(40);
        hex::digits(&self.0, &mut text).expect("a string takes all text");
        let hash = keccak256(text.as_bytes());
        let mut digits: [u8; 40] = text.as_bytes().try_into().expect("20 bytes have 40 digits");
        for (at, digit) in digits.iter_mut().enumerate() {
            let nibble = if at % 2 == 0 { hash[at / 2] >> 4 } else { hash[at / 2] & 15 };
            if nibble >= 8 {
                digit.make_ascii_uppercase();
            }
        }
        digits
    }
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Not 40 hex digits behind `0x`.
    #[error("an address is 0x and 40 hex digits")]
    Shape,
    /// Upper and lower case are mixed, and not as the checksum asks: a digit is wrong.
    #[error("the address does not fit its checksum: a digit is wrong")]
    Checksum,
}

impl FromStr for Address {
    type Err = ParseAddressError;

    /// Reads what [`Address`] shows. A text in one case carries no checksum and is taken as it is (EIP-55).
    fn from_str(text: &str) -> Result<Address, ParseAddressError> {
        let digits = text.strip_prefix("0x").ok_or(ParseAddressError::Shape)?;
        let address = Address(hex::read(text).ok_or(ParseAddressError::Shape)?);
        let has = |wanted: fn(&u8) -> bool| digits.as_bytes().iter().any(wanted);
        let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
        if mixed && address.checksummed() != digits.as_bytes() {
            return Err(ParseAddressError::Checksum);
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.checksummed();
        write!(out, "0x{}", std::str::from_utf8(&digits).expect("hex digits are ASCII"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Address({self})")
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, ParseAddressError};

    #[test]
    fn addresses_are_shown_as_eip_55_says() {
        // The examples of EIP-55.
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0xde709f2102306220921060314715629080e2fb77",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(text.to_lowercase().parse(), Ok(address), "no checksum is no wrong checksum");
        }
    }

    #[test]
    fn a_wrong_digit_is_noticed() {
        let wrong = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD";
        assert_eq!(wrong.parse::<Address>(), Err(ParseAddressError::Checksum));
        for shape in
            ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeA"]
        {
            assert_eq!(shape.parse::<Address>(), Err(ParseAddressError::Shape));
        }
    }
}
