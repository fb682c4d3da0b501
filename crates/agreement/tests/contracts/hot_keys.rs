//! What a client's hot key may do: as much as its cap, up to and with its last second.

use crate::evm::Deployment;
use crate::market::{PARAMETERS, Pair, Step};
use seedbank_agreement::market::SignedRevision;
use seedbank_agreement::{
    AgreementId, Amount, Epoch, Nonce, Proposal, Rate, Revision, SetRoot, Typed, WalletKey,
};
use seedbank_formats::Timestamp;

#[test]
fn a_hot_key_signs_up_to_its_cap_and_with_its_last_second() {
    let key = |byte| WalletKey::from_secret(&[byte; 32]).unwrap();
    let (client, hot) = (key(1), key(2));
    let first = key(11);
    let providers = [first.address(), key(12).address(), key(13).address()];
    let everyone = [&[client.address()][..], &providers].concat();
    let mut pair = Pair::new(&Deployment::new(&PARAMETERS), PARAMETERS, &everyone, &providers);
    let amount = Amount(10_000);
    for account in everyone {
        pair.act(account, &Step::Deposit { to: account, amount }).unwrap();
    }
    let until = Timestamp(pair.deployment.evm.time.0 + 10);
    let authorize = Step::Authorize { signer: hot.address(), cap: Amount(150), until };
    pair.act(client.address(), &authorize).unwrap();
    let domain = Deployment::domain(pair.deployment.market);
    let now = pair.now();
    let mut opened = 0;
    // The second wants more than is left of the cap, the third comes a second too late.
    for (provider, escrow, time, opens) in
        [(0, 100, until.0, 1), (1, 51, until.0, 1), (2, 50, until.0 + 1, 1)]
    {
        let provider = providers[provider];
        pair.deployment.evm.time = Timestamp(time);
        pair.act(provider, &Step::Register).unwrap();
        pair.act(provider, &Step::AddStake { provider, amount: Amount(9_000) }).unwrap();
        let proposal = Proposal {
            client: client.address(),
            provider,
            set_root: SetRoot([1; 32]),
            size: 1,
            rate_per_epoch: Rate::new(10).unwrap(),
            end_epoch: Epoch(now.0 + 6),
            escrow: Amount(escrow),
            retained_bytes: 0,
            retained_until: Epoch(0),
            accept_by: now,
            nonce: Nonce([0; 32]),
        };
        pair.act(provider, &Step::Activate(vec![proposal.sign(&domain, &hot)])).unwrap();
        opened += 1;
        assert_eq!(pair.opened(), opens, "proposal {opened}");

        let revision = Revision {
            agreement: AgreementId(1),
            sequence: opened,
            set_root: SetRoot([1; 32]),
            size: 1,
            rate_per_epoch: Rate::new(10).unwrap(),
            from_epoch: Epoch(now.0 + 1),
            end_epoch: Epoch(now.0 + 6),
            retained_bytes: 0,
            retained_until: Epoch(0),
        };
        let digest = revision.digest(&domain);
        let signed =
            SignedRevision { revision, of_client: hot.sign(&digest), of_provider: first.sign(&digest) };
        pair.act(provider, &Step::Revise(vec![signed])).unwrap();
        let sequence = pair.model.agreement(AgreementId(1)).unwrap().sequence;
        assert_eq!(sequence, opened.min(2), "revisions need no cap, but the time");
    }
}
