//! `seedbank key`: make, show and bring back the owner's keys.

use crate::app::App;
use crate::args::Key;
use crate::keystore::{
    GUESS_COST_DEFAULT, KeyRing, NewProtection, PassphraseUse, Phrase, Protection, create_private,
};
use crate::recovery::NewChain;
use anyhow::Context;
use seedbank_agreement::Address;
use seedbank_agreement::wallet::WalletRole;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Shown {
    owner: String,
    wallet: Address,
    hot_signer: Address,
    operator: Address,
    home_dataset: String,
    protection: &'static str,
    imported: Vec<String>,
}

/// Whether new keys get a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protect {
    WithPassphrase,
    Insecurely,
}

pub(crate) async fn run(app: &App, command: Key) -> anyhow::Result<()> {
    match command {
        Key::Init { insecure_no_passphrase, phrase_out } => {
            let phrase = Phrase::generate()?;
            let ring = create(app, &phrase, protect(insecure_no_passphrase))?;
            hand_over(app, &phrase, phrase_out.as_deref())?;
            show(app, &ring)
        }
        Key::Show => show(app, &app.keys()?),
        Key::Recover { provider, rpc, directory, budget, phrase_file, insecure_no_passphrase } => {
            let provider = provider.map(|provider| provider.parse().context("--provider")).transpose()?;
            let phrase = Phrase::read(phrase_file.as_deref())?;
            let chain = directory.map(|directory| NewChain { rpc, directory, budget });
            crate::recovery::recover(app, &phrase, provider, chain, protect(insecure_no_passphrase)).await
        }
    }
}

fn protect(insecure: bool) -> Protect {
    if insecure { Protect::Insecurely } else { Protect::WithPassphrase }
}

/// Seals a phrase into this home's new key store.
pub(crate) fn create(app: &App, phrase: &Phrase, protect: Protect) -> anyhow::Result<KeyRing> {
    app.home.create()?;
    let store = app.key_store();
    let ring = match protect {
        Protect::Insecurely => store.create(phrase, &NewProtection::InsecureNone)?,
        Protect::WithPassphrase => {
            if store.exists() {
                // Say so before a passphrase is asked for.
                return Ok(store.create(phrase, &NewProtection::InsecureNone)?);
            }
            let passphrase = app.passphrase.read(PassphraseUse::Choose)?;
            store.create(phrase, &NewProtection::Passphrase(&passphrase, GUESS_COST_DEFAULT))?
        }
    };
    Ok(ring)
}

/// Shows the phrase once, or writes it to a file.
fn hand_over(app: &App, phrase: &Phrase, file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(file) => {
            let mut words = phrase.words();
            words.push('\n');
            create_private(file, words.as_bytes()).with_context(|| format!("writing {}", file.display()))?;
            app.output.say(format_args!("The recovery phrase is in {}. Keep it safe.", file.display()));
        }
        None => app.output.complain(format_args!(
            "Recovery phrase. Write it down: it is shown once, and with it alone everything can be read again.\n\n  {}\n",
            *phrase.words()
        )),
    }
    Ok(())
}

fn show(app: &App, ring: &KeyRing) -> anyhow::Result<()> {
    let owner = ring.identity().public();
    let protection = match app.key_store().protection()? {
        Protection::Passphrase(_) => "passphrase",
        Protection::None => "none (insecure)",
    };
    let shown = Shown {
        owner: owner.to_string(),
        wallet: ring.wallet(WalletRole::Wallet)?.address(),
        hot_signer: ring.wallet(WalletRole::HotSigner)?.address(),
        operator: ring.wallet(WalletRole::Operator)?.address(),
        home_dataset: seedbank_formats::keys::dataset_id(&owner, &[0; 32]).to_string(),
        protection,
        imported: ring.imported().values().map(|key| format!("{} {}", key.dataset(), key.name())).collect(),
    };
    app.output.data(&shown, |shown| {
        let mut text = format!(
            "owner        {}\nwallet       {}\nhot signer   {}\noperator     {}\nprotection   {}",
            shown.owner, shown.wallet, shown.hot_signer, shown.operator, shown.protection
        );
        for imported in &shown.imported {
            text.push_str(&format!("\nimported     {imported}"));
        }
        text
    })?;
    Ok(())
}
