//! `seedbank chain deploy`: a new set of contracts on any EVM chain.

use crate::app::App;
use crate::args::ChainDeploy;
use crate::output::{count, tokens};
use anyhow::{Context, bail};
use seedbank_agreement::{Amount, WalletKey};
use seedbank_settlement::{
    Beacon, Deployment, EndpointUrl, MarketParameters, SendPolicy, Settings, deploy, one_token,
};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// 32 bytes in hex with `0x`, a line end, and a little more, so that what is no key is noticed.
const KEY_FILE_BYTES_MAX: u64 = 80;
const GWEI: u128 = 1_000_000_000;

pub(crate) async fn run(app: &App, options: &ChainDeploy) -> anyhow::Result<()> {
    let endpoint: EndpointUrl = options.rpc.parse().context("--rpc")?;
    let key = read_key(&options.key_file)?;
    let bond = match (options.question_bond, options.token) {
        (None, Some(token)) => {
            let one = one_token(&endpoint, options.chain_id, token).await;
            Some(one.with_context(|| {
                format!("taking one token for a question's bond through {endpoint}; or say it with --question-bond")
            })?)
        }
        (bond, _) => bond,
    };
    let settings = settings(options, bond)?;
    let policy = SendPolicy {
        gas_price_max: options.gas_price_max.map(|gwei| u128::from(gwei) * GWEI),
        confirmations: options.confirmations,
        ..if options.confirmations > 1 { SendPolicy::public() } else { SendPolicy::local() }
    };
    app.output.say(format_args!("deploying as {}", key.address()));
    let made = |contract: &'static str, at| app.output.say(format_args!("{contract} is {at}"));
    let deployment = deploy(&endpoint, &key, &settings, policy, made).await.with_context(|| {
        format!("deploying through {endpoint}; what was made so far stays unused, so begin again")
    })?;
    app.output.data(&deployment, text)?;
    Ok(())
}

fn text(deployment: &Deployment) -> String {
    let Deployment { chain_id, directory, market, parameters, .. } = deployment;
    let (symbol, bond) = (&parameters.token_symbol, parameters.market.question_bond);
    format!(
        "chain      {chain_id}\ndirectory  {directory}\nmarket     {market}\ntoken      {symbol} at {}\nquestion   {} {symbol} of bond: \
         compare it with about {} gas that an answer costs the provider,\n           for anybody with an agreement can ask",
        deployment.token,
        tokens(bond, parameters.token_decimals),
        count(parameters.answer_gas()),
    )
}

/// What was asked for, with this bond for a question, or one test token.
fn settings(options: &ChainDeploy, bond: Option<Amount>) -> anyhow::Result<Settings> {
    let genesis = match options.genesis {
        Some(genesis) => genesis,
        None => SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock")?.as_secs(),
    };
    let usual = Settings::local(genesis);
    Ok(Settings {
        chain_id: options.chain_id,
        token: options.token,
        beacon: match options.beacon_delay {
            Some(delay_blocks) => Beacon::Blockhash { delay_blocks },
            None => Beacon::Embedded,
        },
        blocks_min: options.blocks_min.unwrap_or(usual.blocks_min),
        genesis,
        epoch_seconds: options.epoch_seconds.unwrap_or(usual.epoch_seconds),
        market: MarketParameters {
            challenges: options.challenges.unwrap_or(usual.market.challenges),
            slash_epochs: options.slash_epochs.unwrap_or(usual.market.slash_epochs),
            stake_epochs: options.stake_epochs.unwrap_or(usual.market.stake_epochs),
            misses_max: options.misses_max.unwrap_or(usual.market.misses_max),
            notice_epochs: options.notice_epochs.unwrap_or(usual.market.notice_epochs),
            bounty_basis_points: options.bounty_basis_points.unwrap_or(usual.market.bounty_basis_points),
            question_bond: bond.unwrap_or(usual.market.question_bond),
        },
        exit_seconds: options.exit_seconds.unwrap_or(usual.exit_seconds),
    })
}

/// A secret key in hex, as wallets export it, in a file that only its owner reads.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<WalletKey> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("can't read {shown}"))?;
    let mode = file.metadata().with_context(|| format!("can't look at {shown}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("others may read the key in {shown}; `chmod 600` it");
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(KEY_FILE_BYTES_MAX)?));
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("can't read {shown}"))?;
    let secret = secret(text.trim()).with_context(|| format!("{shown} holds no key: 64 hex digits"))?;
    WalletKey::from_secret(&secret).with_context(|| format!("{shown} holds no key"))
}

fn secret(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut secret = Zeroizing::new([0; 32]);
    for (byte, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::read_key;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_read_from_a_private_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let digits = "01".repeat(32);
        for text in [digits.clone(), format!("0x{digits}\n")] {
            write(&text, 0o600);
            assert_eq!(
                read_key(&path).unwrap().address().to_string(),
                "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1"
            );
        }
        for wrong in ["", "0x", &digits[1..], &"00".repeat(32), &"zz".repeat(32), &"01".repeat(60)] {
            write(wrong, 0o600);
            let error = format!("{:#}", read_key(&path).unwrap_err());
            assert!(error.contains("holds no key"), "{error}");
            assert!(wrong.len() < 10 || !error.contains(wrong), "no part of a key is shown");
        }
        for others in [0o640, 0o604, 0o620] {
            write(&digits, others);
            assert!(read_key(&path).unwrap_err().to_string().contains("chmod 600"), "{others:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, [0xff; 64]).unwrap();
        for unreadable in [path, folder.path().join("nothing"), folder.path().to_owned()] {
            let error = read_key(&unreadable).unwrap_err().to_string();
            assert!(error.contains(&unreadable.display().to_string()), "{error}");
        }
    }
}
