use super::{
    PaymentDue, ProposalAnswer, ProposalRequest, QuoteAnswer, Refusal, RefusalReason, RevisionAnswer,
    RevisionRequest, SetLeaf, SetPage, SetSummary, SignedTerms, Standing, TransactionHash, VoucherAnswer,
    VoucherReason, VoucherRefusal, VoucherRequest,
};
use crate::messages::{MessageError, Problem, ProblemCode};
use crate::routes::{FRAGMENT_BYTES_MAX, JSON_BYTES_MAX, SET_CHANGE_BYTES_MAX, SET_CHANGE_MAX, SET_PAGE_MAX};
use proptest::prelude::{any, proptest};
use seedbank_agreement::price::Prices;
use seedbank_agreement::{
    Address, AgreementId, Amount, Domain, Epoch, Nonce, Proposal, Quote, Rate, Revision, SetRoot, Signature,
    Typed, Voucher, WalletKey,
};
use seedbank_formats::{FragmentId, Timestamp};

const DOMAIN: Domain = Domain { chain_id: 199, contract: Address([2; 20]) };

fn wallet() -> WalletKey {
    WalletKey::from_secret(&[4; 32]).unwrap()
}

fn signature() -> Signature {
    wallet().sign(&[5; 32])
}

fn quote() -> QuoteAnswer {
    let quote = Quote {
        provider: wallet().address(),
        prices: Prices { rent_per_gib_month: Amount(u128::MAX), egress_per_gib: Amount(0) },
        epochs_min: 7,
        credit_bytes: 1 << 26,
        expires: Timestamp(1_900_000_000),
    };
    QuoteAnswer {
        chain_id: 199,
        directory: Address([1; 20]),
        quote: quote.sign(&DOMAIN, &wallet()),
        pay_min: Amount(u128::MAX),
    }
}

fn leaf(number: u16) -> SetLeaf {
    let mut id = [0xfe; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    SetLeaf { fragment: FragmentId(id), length: FRAGMENT_BYTES_MAX, retain_until: Epoch(u32::MAX) }
}

fn leaves(count: usize) -> Vec<SetLeaf> {
    (0..count).map(|number| leaf(u16::try_from(number).unwrap())).collect()
}

fn proposal(added: Vec<SetLeaf>) -> ProposalRequest {
    let proposal = Proposal {
        client: wallet().address(),
        provider: Address([2; 20]),
        set_root: SetRoot([3; 32]),
        size: u64::MAX,
        rate_per_epoch: Rate::MAX,
        end_epoch: Epoch(u32::MAX),
        escrow: Amount(u128::MAX),
        retained_bytes: 5,
        retained_until: Epoch(6),
        accept_by: Epoch(7),
        nonce: Nonce([8; 32]),
    };
    let binding = seedbank_formats::Signature([10; 64]);
    ProposalRequest { proposal: proposal.sign(&DOMAIN, &wallet()), binding, added }
}

fn revision(added: Vec<SetLeaf>, removed: Vec<FragmentId>) -> RevisionRequest {
    let revision = Revision {
        agreement: AgreementId(4),
        sequence: 9,
        set_root: SetRoot([3; 32]),
        size: 10,
        rate_per_epoch: Rate::MAX,
        from_epoch: Epoch(3),
        end_epoch: Epoch(30),
        retained_bytes: 0,
        retained_until: Epoch(0),
    };
    RevisionRequest { base_sequence: 8, added, removed, revision: revision.sign(&DOMAIN, &wallet()) }
}

fn refusal() -> Refusal {
    Refusal {
        own: Some(SetSummary {
            agreement: None,
            sequence: 2,
            set_root: SetRoot([3; 32]),
            size: 4,
            rate_per_epoch: Rate::ZERO,
        }),
        fragments: vec![FragmentId([7; 32])],
        ..Refusal::new(RefusalReason::NotHeld, "send them first")
    }
}

fn page(leaves: Vec<SetLeaf>) -> SetPage {
    let signed = SignedTerms { revision: revision(vec![], vec![]).revision, provider: signature() };
    SetPage { set: refusal().own.unwrap(), signed: Some(signed), leaves }
}

fn voucher() -> VoucherRequest {
    let voucher = Voucher {
        payer: Address([1; 20]),
        payee: Address([2; 20]),
        signer: wallet().address(),
        cumulative: Amount(12),
    };
    VoucherRequest { voucher: voucher.sign(&DOMAIN, &wallet()) }
}

#[test]
fn every_message_reads_back() {
    assert_eq!(QuoteAnswer::decode(&quote().encode()).unwrap(), quote());
    let offer = proposal(leaves(3));
    assert_eq!(ProposalRequest::decode(&offer.encode()).unwrap(), offer);
    let terms = revision(leaves(3), vec![leaf(9).fragment]);
    assert_eq!(RevisionRequest::decode(&terms.encode()).unwrap(), terms);
    for answer in [
        ProposalAnswer::Accepted { agreement: AgreementId(4), transaction: TransactionHash([1; 32]) },
        ProposalAnswer::Pending { retry_after_s: 3 },
        ProposalAnswer::Refused(refusal()),
    ] {
        assert_eq!(ProposalAnswer::decode(&answer.encode()).unwrap(), answer);
    }
    for answer in [RevisionAnswer::Accepted { signature: signature() }, RevisionAnswer::Refused(refusal())] {
        assert_eq!(RevisionAnswer::decode(&answer.encode()).unwrap(), answer);
    }
    let page = page(leaves(5));
    assert_eq!(SetPage::decode(&page.encode()).unwrap(), page);
    let of_proposal = SetPage { signed: None, ..page };
    assert_eq!(SetPage::decode(&of_proposal.encode()).unwrap(), of_proposal);
    assert_eq!(VoucherRequest::decode(&voucher().encode()).unwrap(), voucher());
    let standing = Standing { owed: Amount(1), prepaid: Amount(0), credit_bytes: 9 };
    let refused = VoucherRefusal {
        reason: VoucherReason::Stale,
        message: "sign for more".to_owned(),
        cumulative: Amount(5),
        covered: Amount(7),
    };
    for answer in [VoucherAnswer::Accepted(standing), VoucherAnswer::Refused(refused)] {
        assert_eq!(VoucherAnswer::decode(&answer.encode()).unwrap(), answer);
    }
}

#[test]
fn what_is_owed_stands_in_the_problem() {
    let due = PaymentDue {
        owed: Amount(70),
        needed: Amount(5),
        credit_bytes: 0,
        payee: Address([0xab; 20]),
        egress_per_gib: Amount(1_000),
    };
    let problem = Problem::payment_required("pay first", due);
    assert_eq!((problem.code, problem.code.status()), (ProblemCode::PaymentRequired, 402));
    let read = Problem::decode(&problem.encode()).unwrap();
    assert_eq!((read.payment.as_deref(), &read), (Some(&due), &problem));
    let json = String::from_utf8(problem.encode()).unwrap();
    assert!(json.contains(r#""payment":{"owed":"70","needed":"5","credit_bytes":0,"payee":"0x"#), "{json}");
}

#[test]
fn transaction_hash_has_one_spelling() {
    let hash = TransactionHash([0xab; 32]);
    let text = format!("\"{hash}\"");
    assert_eq!(serde_json::from_str::<TransactionHash>(&text).unwrap(), hash);
    for refused in [text.replace("0x", ""), text.replace("ab", "AB"), text.replace("0xab", "0x")] {
        assert!(serde_json::from_str::<TransactionHash>(&refused).is_err(), "{refused}");
    }
}

#[test]
fn largest_change_fits_and_one_more_is_refused() {
    let removed = |count: usize| -> Vec<FragmentId> {
        let number = |at: usize| u16::try_from(SET_CHANGE_MAX + at + 1).unwrap();
        (0..count).map(|at| leaf(number(at)).fragment).collect()
    };
    let largest = revision(leaves(SET_CHANGE_MAX), removed(SET_CHANGE_MAX));
    assert!(largest.encode().len() <= SET_CHANGE_BYTES_MAX);
    assert_eq!(RevisionRequest::decode(&largest.encode()).unwrap(), largest);
    let over = [revision(leaves(SET_CHANGE_MAX + 1), vec![]), revision(vec![], removed(SET_CHANGE_MAX + 1))];
    for request in over {
        let refused = RevisionRequest::decode(&request.encode());
        assert!(matches!(refused, Err(MessageError::OverLimit { limit: SET_CHANGE_MAX, .. })));
    }
    let refused = ProposalRequest::decode(&proposal(leaves(SET_CHANGE_MAX + 1)).encode());
    assert!(matches!(refused, Err(MessageError::OverLimit { limit: SET_CHANGE_MAX, .. })));
    assert!(page(leaves(SET_PAGE_MAX)).encode().len() <= JSON_BYTES_MAX);
}

#[test]
fn sets_must_rise_and_hold_real_fragments() {
    let wrong = [
        vec![leaf(2), leaf(1)],
        vec![leaf(1), leaf(1)],
        vec![SetLeaf { length: 0, ..leaf(1) }],
        vec![SetLeaf { length: FRAGMENT_BYTES_MAX + 1, ..leaf(1) }],
    ];
    for leaves in wrong {
        assert!(SetPage::decode(&page(leaves.clone()).encode()).is_err(), "{leaves:?}");
        assert!(ProposalRequest::decode(&proposal(leaves.clone()).encode()).is_err(), "{leaves:?}");
        assert!(RevisionRequest::decode(&revision(leaves.clone(), vec![]).encode()).is_err(), "{leaves:?}");
    }
    let wrong = [
        revision(vec![leaf(1)], vec![leaf(1).fragment]),
        revision(vec![], vec![leaf(2).fragment, leaf(1).fragment]),
        revision(vec![], vec![leaf(2).fragment, leaf(2).fragment]),
        RevisionRequest { base_sequence: 9, ..revision(vec![], vec![]) },
    ];
    for request in wrong {
        assert!(matches!(RevisionRequest::decode(&request.encode()), Err(MessageError::Invalid { .. })));
    }
}

#[test]
fn unknown_fields_are_refused_where_money_is_decided_and_let_pass_where_people_read() {
    let with_more = |bytes: Vec<u8>| {
        let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        json["moon_phase"] = "full".into();
        json.to_string().into_bytes()
    };
    assert!(VoucherRequest::decode(&with_more(voucher().encode())).is_err());
    assert!(RevisionRequest::decode(&with_more(revision(vec![], vec![]).encode())).is_err());
    assert!(ProposalRequest::decode(&with_more(proposal(vec![]).encode())).is_err());
    assert_eq!(QuoteAnswer::decode(&with_more(quote().encode())).unwrap(), quote());
    assert_eq!(SetPage::decode(&with_more(page(vec![]).encode())).unwrap(), page(vec![]));
    let mut older: serde_json::Value = serde_json::from_slice(&quote().encode()).unwrap();
    older.as_object_mut().unwrap().remove("pay_min").unwrap();
    let older = QuoteAnswer::decode(older.to_string().as_bytes()).unwrap();
    assert_eq!(older, QuoteAnswer { pay_min: Amount::ZERO, ..quote() });
    let json = br#"{"refused":{"reason":"on_holiday","message":"\u001b[31mlater","more":1}}"#;
    let read = RevisionAnswer::decode(json).unwrap();
    assert_eq!(read, RevisionAnswer::Refused(Refusal::new(RefusalReason::Other, " [31mlater")));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (QuoteAnswer::decode(&bytes), ProposalRequest::decode(&bytes), ProposalAnswer::decode(&bytes));
        let _ = (RevisionRequest::decode(&bytes), RevisionAnswer::decode(&bytes), SetPage::decode(&bytes));
        let _ = (VoucherRequest::decode(&bytes), VoucherAnswer::decode(&bytes));
    }

    #[test]
    fn mangled_revision_is_refused_or_within_its_limits(at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = revision(leaves(3), vec![leaf(9).fragment]).encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(read) = RevisionRequest::decode(&bytes) {
            assert!(read.added.len() <= 3 && read.revision.message.sequence > read.base_sequence);
            assert_eq!(RevisionRequest::decode(&read.encode()).unwrap(), read);
        }
    }
}
