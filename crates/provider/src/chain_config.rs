//! How a provider is paid: the section `[chain]` of `provider.toml`. Without it nothing is asked and nothing is paid.

use crate::byte_size::ByteSize;
use seedbank_agreement::{Address, Amount};
use serde::Deserialize;

/// Wei in one of the chain's coins.
pub(crate) const WEI_PER_COIN: u128 = 1_000_000_000_000_000_000;

/// Where money comes from and how it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainConfig {
    /// JSON-RPC endpoints, in order of preference.
    pub rpc: Vec<String>,
    /// The directory of the contracts.
    pub directory: Address,
    /// The chain's id, if only one is to be believed.
    pub chain_id: Option<u64>,
    /// The file of the key that sends and signs, in the provider's folder: the wallet's own, or an operator's.
    pub wallet: String,
    /// The wallet that is paid, if its key is kept elsewhere.
    pub payee: Option<Address>,
    /// Where clients find the provider, as the registry says it; the listening address if nothing else is said.
    pub public_address: Option<String>,
    /// What is staked at least; more is added at the start if there is less.
    pub stake: Amount,
    /// The shortest agreement.
    pub epochs_min: u32,
    /// The longest agreement: nobody knows the price of a disk much later.
    pub epochs_max: u32,
    /// What an agreement brings must be so many times the gas that it costs.
    pub gas_factor: u32,
    /// For how many seconds a quote holds.
    pub quote_s: u64,
    /// Above this price of a unit of gas, in wei, transactions wait.
    pub gas_price_max: Option<u128>,
    /// How many blocks must hold a transaction until it counts as done.
    pub confirmations: u64,
    /// Whether the stake may come from the token's own `mint`: test tokens of local networks only.
    pub faucet: bool,
    /// What readers may owe.
    pub credit: CreditConfig,
    /// When vouchers are cashed.
    pub redeem: RedeemConfig,
}

impl ChainConfig {
    /// What must be brought by what costs so much gas, at this price in wei.
    pub(crate) fn worth(&self, gas_price: u128, gas: u64) -> Amount {
        Amount(self.in_units(gas_price, gas).0.saturating_mul(self.gas_factor.into()))
    }

    /// What so much gas costs at this price in wei, in token units.
    pub(crate) fn in_units(&self, gas_price: u128, gas: u64) -> Amount {
        let wei = u128::from(gas).saturating_mul(gas_price);
        // In thousands of gas: sums of coin and units have 60 bits each.
        Amount((wei / 1_000).saturating_mul(self.redeem.coin_in_units.0) / (WEI_PER_COIN / 1_000))
    }
}

/// How many bytes may be read and not yet paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreditConfig {
    /// By one key.
    pub per_key: ByteSize,
    /// From one IPv4 /24 or IPv6 /48.
    pub per_network: ByteSize,
    /// In all.
    pub total: ByteSize,
    /// After how many seconds a debt is written off.
    pub write_off_s: u64,
}

impl Default for CreditConfig {
    fn default() -> CreditConfig {
        CreditConfig {
            per_key: ByteSize(256 << 20),
            per_network: ByteSize(2 << 30),
            total: ByteSize(16 << 30),
            write_off_s: 30 * 86_400,
        }
    }
}

/// When vouchers are cashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedeemConfig {
    /// A batch must bring so many times its gas.
    pub factor: u32,
    /// A voucher so many seconds old is cashed as soon as it is worth its own gas.
    pub age_s: u64,
    /// What 10^18 wei of the chain's coin are worth in the token's smallest units, as far as this decision goes.
    pub coin_in_units: Units,
    /// Seconds between two batches at least, unless a payer is about to leave.
    pub every_s: u64,
}

impl Default for RedeemConfig {
    fn default() -> RedeemConfig {
        let coin_in_units = Units(1_000_000_000_000_000_000);
        RedeemConfig { factor: 20, age_s: 7 * 86_400, coin_in_units, every_s: 60 }
    }
}

/// Token units: a TOML integer, or a string of digits for what TOML's 64 bits can't hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units(pub u128);

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Units, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Units;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a whole number of token units, as a number or as a string of digits")
            }

            fn visit_i64<E: serde::de::Error>(self, units: i64) -> Result<Units, E> {
                u128::try_from(units).map(Units).map_err(|_| E::custom("an amount is not negative"))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Units, E> {
                let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse() {
                    Ok(units) if digits_only => Ok(Units(units)),
                    _ => Err(E::custom("an amount is a whole number of token units")),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// The section as it was written. Nothing in it may be believed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UncheckedChain {
    rpc: Vec<String>,
    directory: Address,
    chain_id: Option<u64>,
    #[serde(default = "wallet_default")]
    wallet: String,
    payee: Option<Address>,
    public_address: Option<String>,
    #[serde(default)]
    stake: Units,
    #[serde(default = "epochs_min_default")]
    epochs_min: u32,
    #[serde(default = "epochs_max_default")]
    epochs_max: u32,
    #[serde(default = "gas_factor_default")]
    gas_factor: u32,
    #[serde(default = "quote_default")]
    quote_s: u64,
    gas_price_max: Option<Units>,
    #[serde(default = "confirmations_default")]
    confirmations: u64,
    #[serde(default)]
    faucet: bool,
    #[serde(default)]
    credit: CreditConfig,
    #[serde(default)]
    redeem: RedeemConfig,
}

/// The wallet's key in a provider's folder, unless the operator says otherwise.
pub const WALLET_FILE: &str = "wallet.key";
/// The operator's key in the folder of a provider whose wallet is kept elsewhere.
pub const OPERATOR_FILE: &str = "operator.key";

fn wallet_default() -> String {
    WALLET_FILE.to_owned()
}

fn epochs_min_default() -> u32 {
    7
}

fn epochs_max_default() -> u32 {
    400
}

fn gas_factor_default() -> u32 {
    1
}

fn quote_default() -> u64 {
    7 * 86_400
}

fn confirmations_default() -> u64 {
    1
}

/// Quotes bind: nobody knows the price of a disk in a year.
const QUOTE_S_MAX: u64 = 366 * 86_400;
/// Shorter ones would end on their way.
const QUOTE_S_MIN: u64 = 60;

impl UncheckedChain {
    pub(crate) fn check(self) -> Result<ChainConfig, (&'static str, String)> {
        if self.rpc.is_empty() {
            return Err(("chain.rpc", "names no endpoint".to_owned()));
        }
        let wallet_is_name =
            !self.wallet.is_empty() && !self.wallet.contains(['/', '\0']) && !self.wallet.starts_with('.');
        if !wallet_is_name {
            return Err(("chain.wallet", "is no file name in the provider's folder".to_owned()));
        }
        if self.epochs_min == 0 {
            return Err(("chain.epochs_min", "is 0: an agreement has an epoch at least".to_owned()));
        }
        if self.epochs_max < self.epochs_min {
            return Err(("chain.epochs_max", "is below epochs_min".to_owned()));
        }
        if !(QUOTE_S_MIN..=QUOTE_S_MAX).contains(&self.quote_s) {
            return Err(("chain.quote_s", format!("is not between {QUOTE_S_MIN} and {QUOTE_S_MAX}")));
        }
        let CreditConfig { per_key, per_network, total, write_off_s } = self.credit;
        if per_key > per_network || per_network > total {
            return Err(("chain.credit", "per_key is above per_network, or that above total".to_owned()));
        }
        if write_off_s == 0 {
            return Err(("chain.credit.write_off_s", "is 0: no debt would last".to_owned()));
        }
        if self.confirmations == 0 {
            return Err(("chain.confirmations", "is 0: a transaction's own block counts as one".to_owned()));
        }
        Ok(ChainConfig {
            rpc: self.rpc,
            directory: self.directory,
            chain_id: self.chain_id,
            wallet: self.wallet,
            payee: self.payee,
            public_address: self.public_address,
            stake: Amount(self.stake.0),
            epochs_min: self.epochs_min,
            epochs_max: self.epochs_max,
            gas_factor: self.gas_factor,
            quote_s: self.quote_s,
            gas_price_max: self.gas_price_max.map(|units| units.0),
            confirmations: self.confirmations,
            faucet: self.faucet,
            credit: self.credit,
            redeem: self.redeem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ChainConfig, CreditConfig, RedeemConfig, UncheckedChain, WALLET_FILE};
    use seedbank_agreement::{Address, Amount};

    const LEAST: &str =
        "rpc = [\"http://127.0.0.1:8545\"]\ndirectory = \"0x00000000000000000000000000000000000000ab\"\n";

    fn parse(more: &str) -> Result<ChainConfig, &'static str> {
        let unchecked: UncheckedChain = toml::from_str(&format!("{LEAST}{more}")).map_err(|_| "syntax")?;
        unchecked.check().map_err(|(key, _)| key)
    }

    #[test]
    fn section_needs_an_endpoint_and_a_directory_only() {
        let config = parse("").unwrap();
        let mut directory = [0; 20];
        directory[19] = 0xab;
        assert_eq!((config.directory, config.stake), (Address(directory), Amount(0)));
        assert_eq!((config.wallet.as_str(), config.faucet), (WALLET_FILE, false));
        assert_eq!((config.credit, config.redeem), (CreditConfig::default(), RedeemConfig::default()));
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (key, line) in [
            ("chain.wallet", "wallet = \"../other.key\""),
            ("chain.wallet", "wallet = \".hidden\""),
            ("chain.epochs_min", "epochs_min = 0"),
            ("chain.epochs_max", "epochs_max = 6"),
            ("chain.quote_s", "quote_s = 59"),
            ("chain.quote_s", "quote_s = 99_999_999"),
            ("chain.confirmations", "confirmations = 0"),
            ("chain.credit", "[credit]\nper_key = \"3GB\""),
            ("chain.credit", "[credit]\nper_network = \"17GiB\""),
            ("chain.credit.write_off_s", "[credit]\nwrite_off_s = 0"),
            ("syntax", "stake = -1"),
            ("syntax", "stake = \"1e3\""),
            ("syntax", "stakes = 1"),
            ("syntax", "[redeem]\nfactors = 1"),
        ] {
            assert_eq!(parse(line).unwrap_err(), key, "{line}");
        }
        let unchecked: UncheckedChain =
            toml::from_str(&LEAST.replace("\"http://127.0.0.1:8545\"", "")).unwrap();
        assert_eq!(unchecked.check().unwrap_err().0, "chain.rpc");
    }
}
