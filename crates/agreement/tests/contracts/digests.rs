//! What is signed hashes to what the contracts hash.

use crate::Dice;
use crate::abi::{Abi, Words};
use crate::evm::{CHANNELS, DATASETS, Deployment, MARKET};
use crate::market::PARAMETERS;
use seedbank_agreement::publication::{HeadHash, NameId};
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Nonce, Proposal, Publication, Rate, Revision, SetRoot, Typed,
    Voucher,
};
use seedbank_formats::VersionId;

pub(crate) fn proposal(p: &Proposal) -> Abi {
    Abi::Tuple(vec![
        Abi::address(p.client),
        Abi::address(p.provider),
        Abi::Word(p.set_root.0),
        Abi::uint(p.size),
        Abi::uint(p.rate_per_epoch.units()),
        Abi::uint(p.end_epoch.0),
        Abi::uint(p.escrow.0),
        Abi::uint(p.retained_bytes),
        Abi::uint(p.retained_until.0),
        Abi::uint(p.accept_by.0),
        Abi::Word(p.nonce.0),
    ])
}

pub(crate) fn revision(r: &Revision) -> Abi {
    Abi::Tuple(vec![
        Abi::uint(r.agreement.0),
        Abi::uint(r.sequence),
        Abi::Word(r.set_root.0),
        Abi::uint(r.size),
        Abi::uint(r.rate_per_epoch.units()),
        Abi::uint(r.from_epoch.0),
        Abi::uint(r.end_epoch.0),
        Abi::uint(r.retained_bytes),
        Abi::uint(r.retained_until.0),
    ])
}

pub(crate) fn voucher(v: &Voucher) -> Abi {
    Abi::Tuple(vec![
        Abi::address(v.payer),
        Abi::address(v.payee),
        Abi::address(v.signer),
        Abi::uint(v.cumulative.0),
    ])
}

#[test]
fn digests_are_the_contracts() {
    let deployment = Deployment::new(&PARAMETERS);
    let mut dice = Dice(0xd1_6e57);
    let address = |dice: &mut Dice| Address(dice.word()[..20].try_into().unwrap());
    let epoch = |dice: &mut Dice| Epoch(u32::try_from(dice.next() >> 32).unwrap());
    let rate =
        |dice: &mut Dice| Rate::new(u128::from(dice.next()) << 32 | u128::from(dice.next() >> 32)).unwrap();
    let amount = |dice: &mut Dice| Amount(u128::from(dice.next()) << 64 | u128::from(dice.next()));
    for _ in 0..20 {
        let message = Proposal {
            client: address(&mut dice),
            provider: address(&mut dice),
            set_root: SetRoot(dice.word()),
            size: dice.next(),
            rate_per_epoch: rate(&mut dice),
            end_epoch: epoch(&mut dice),
            escrow: amount(&mut dice),
            retained_bytes: dice.next(),
            retained_until: epoch(&mut dice),
            accept_by: epoch(&mut dice),
            nonce: Nonce(dice.word()),
        };
        let told = deployment.ask(&MARKET, deployment.market, "proposalDigest", &[proposal(&message)]);
        assert_eq!(Words::of(&told).word(), message.digest(&Deployment::domain(deployment.market)));

        let message = Revision {
            agreement: AgreementId(epoch(&mut dice).0),
            sequence: epoch(&mut dice).0,
            set_root: SetRoot(dice.word()),
            size: dice.next(),
            rate_per_epoch: rate(&mut dice),
            from_epoch: epoch(&mut dice),
            end_epoch: epoch(&mut dice),
            retained_bytes: dice.next(),
            retained_until: epoch(&mut dice),
        };
        let told = deployment.ask(&MARKET, deployment.market, "revisionDigest", &[revision(&message)]);
        assert_eq!(Words::of(&told).word(), message.digest(&Deployment::domain(deployment.market)));

        let message = Voucher {
            payer: address(&mut dice),
            payee: address(&mut dice),
            signer: address(&mut dice),
            cumulative: amount(&mut dice),
        };
        let told = deployment.ask(&CHANNELS, deployment.channels, "voucherDigest", &[voucher(&message)]);
        assert_eq!(Words::of(&told).word(), message.digest(&Deployment::domain(deployment.channels)));

        let message = Publication {
            id: NameId(dice.word()),
            sequence: dice.next(),
            previous_head: HeadHash(dice.word()),
            version: VersionId(dice.word()),
            head: HeadHash(dice.word()),
        };
        let publication = Abi::Tuple(vec![
            Abi::Word(message.id.0),
            Abi::uint(message.sequence),
            Abi::Word(message.previous_head.0),
            Abi::Word(*message.version.as_bytes()),
            Abi::Word(message.head.0),
        ]);
        let told = deployment.ask(&DATASETS, deployment.datasets, "publicationDigest", &[publication]);
        assert_eq!(Words::of(&told).word(), message.digest(&Deployment::domain(deployment.datasets)));
    }
}
