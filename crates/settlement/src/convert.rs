//! Between our types and the ABI's.

use alloy_primitives::aliases::U96;
use alloy_primitives::{Address as AbiAddress, B256, U256};
use seedbank_agreement::{Address, Amount, Rate};

pub(crate) fn to_abi(address: Address) -> AbiAddress {
    AbiAddress::from(address.0)
}

pub(crate) fn from_abi(address: AbiAddress) -> Address {
    Address(address.0.0)
}

/// A zero address stands for nobody.
pub(crate) fn somebody(address: AbiAddress) -> Option<Address> {
    (!address.is_zero()).then(|| from_abi(address))
}

/// Sums of a token whose supply is absurd count as the most that there can be: no decision hangs on the difference.
pub(crate) fn amount(units: U256) -> Amount {
    Amount(units.saturating_to())
}

pub(crate) fn units(amount: Amount) -> U256 {
    U256::from(amount.0)
}

pub(crate) fn rate(units: U96) -> Rate {
    Rate::new(units.to()).expect("96 bits hold every rate")
}

pub(crate) fn rate_units(rate: Rate) -> U96 {
    U96::from(rate.units())
}

pub(crate) fn word(bytes: [u8; 32]) -> B256 {
    B256::from(bytes)
}
