//! The calls about money, against a provider that agrees to everything, and against liars.

use crate::support::{CLIENT_SEED, key, serve};
use http::StatusCode;
use seedbank_agreement::price::Prices;
use seedbank_agreement::{
    Address, AgreementId, Amount, Domain, Epoch, Nonce, Proposal, Quote, Rate, Revision, SetRoot, Typed,
    Voucher, WalletKey,
};
use seedbank_formats::{FragmentId, Timestamp};
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::payment::{
    PaymentDue, ProposalAnswer, ProposalRequest, QuoteAnswer, Refusal, RefusalReason, RevisionAnswer,
    RevisionRequest, SetLeaf, SetPage, SetSummary, Standing, TransactionHash, VoucherAnswer, VoucherRequest,
};
use seedbank_protocol::routes::Route;
use seedbank_transport::{
    Body, Call, CallError, ClientLimits, Identity, MalformedAnswer, PeerAddress, ProviderClient, Server,
    ServerLimits, TcpDial, answer_json, answer_problem,
};

const DOMAIN: Domain = Domain { chain_id: 31_337, contract: Address([9; 20]) };

fn wallet() -> WalletKey {
    WalletKey::from_secret(&[4; 32]).unwrap()
}

fn quote() -> QuoteAnswer {
    let quote = Quote {
        provider: wallet().address(),
        prices: Prices { rent_per_gib_month: Amount(7), egress_per_gib: Amount(8) },
        epochs_min: 3,
        expires: Timestamp(2_000_000_000),
        credit_bytes: 1 << 20,
    };
    QuoteAnswer {
        chain_id: 31_337,
        directory: Address([1; 20]),
        quote: quote.sign(&DOMAIN, &wallet()),
        pay_min: Amount(5),
    }
}

fn leaf(byte: u8) -> SetLeaf {
    SetLeaf { fragment: FragmentId([byte; 32]), length: 5, retain_until: Epoch(0) }
}

fn proposal() -> ProposalRequest {
    let proposal = Proposal {
        client: wallet().address(),
        provider: Address([2; 20]),
        set_root: SetRoot([3; 32]),
        size: 5,
        rate_per_epoch: Rate::ZERO,
        end_epoch: Epoch(9),
        escrow: Amount(1),
        retained_bytes: 0,
        retained_until: Epoch(0),
        accept_by: Epoch(2),
        nonce: Nonce([8; 32]),
    };
    let binding = seedbank_formats::Signature([10; 64]);
    ProposalRequest { proposal: proposal.sign(&DOMAIN, &wallet()), binding, added: vec![leaf(1)] }
}

fn revision() -> RevisionRequest {
    let revision = Revision {
        agreement: AgreementId(4),
        sequence: 1,
        set_root: SetRoot([3; 32]),
        size: 5,
        rate_per_epoch: Rate::ZERO,
        from_epoch: Epoch(3),
        end_epoch: Epoch(30),
        retained_bytes: 0,
        retained_until: Epoch(0),
    };
    // Above what a body may have without being asked for.
    let added = (0..4_000u16)
        .map(|number| {
            let mut id = [0xee; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            SetLeaf { fragment: FragmentId(id), ..leaf(0) }
        })
        .collect();
    RevisionRequest { base_sequence: 0, added, removed: vec![], revision: revision.sign(&DOMAIN, &wallet()) }
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

fn summary() -> SetSummary {
    SetSummary {
        agreement: Some(AgreementId(4)),
        sequence: 1,
        set_root: SetRoot([3; 32]),
        size: 5,
        rate_per_epoch: Rate::ZERO,
    }
}

fn refusal() -> Refusal {
    Refusal { own: Some(summary()), ..Refusal::new(RefusalReason::Behind, "list the set") }
}

async fn answer(mut call: Call) -> http::Response<Body> {
    let uri = call.request.uri().clone();
    let route = Route::parse(call.request.method().as_str(), uri.path(), uri.query()).unwrap();
    let limit = usize::try_from(route.spec().body_bytes_max).unwrap();
    let body = call.request.body_mut().read_all(limit).await.unwrap();
    let json = match route {
        Route::GetQuote => quote().encode(),
        Route::PostProposal => {
            assert_eq!(ProposalRequest::decode(&body).unwrap(), proposal());
            let transaction = TransactionHash([6; 32]);
            ProposalAnswer::Accepted { agreement: AgreementId(4), transaction }.encode()
        }
        Route::PostRevision => {
            assert_eq!(RevisionRequest::decode(&body).unwrap(), revision());
            RevisionAnswer::Refused(refusal()).encode()
        }
        // More than one was asked for when it is one.
        Route::ListSet { after: None, .. } => {
            SetPage { set: summary(), signed: None, leaves: vec![leaf(1), leaf(2)] }.encode()
        }
        Route::ListSet { after: Some(_), .. } => {
            SetPage { set: summary(), signed: None, leaves: vec![leaf(2)] }.encode()
        }
        Route::PostVoucher => {
            assert_eq!(VoucherRequest::decode(&body).unwrap(), voucher());
            let standing = Standing { owed: Amount(0), prepaid: Amount(3), credit_bytes: 9 };
            VoucherAnswer::Accepted(standing).encode()
        }
        Route::Hello => b"{}".to_vec(),
        _ => return answer_problem(&Problem::payment_required("pay", due())),
    };
    answer_json(StatusCode::OK, json)
}

fn due() -> PaymentDue {
    PaymentDue {
        owed: Amount(70),
        needed: Amount(5),
        credit_bytes: 0,
        payee: wallet().address(),
        egress_per_gib: Amount(8),
    }
}

async fn setup() -> (Server, PeerAddress, ProviderClient) {
    let (server, peer) = serve(ServerLimits::default(), answer).await;
    let client = ProviderClient::new(&Identity::new(&key(CLIENT_SEED)), TcpDial, ClientLimits::default());
    (server, peer, client)
}

#[tokio::test]
async fn money_is_talked_about_both_ways() {
    let (_server, peer, client) = setup().await;
    assert_eq!(client.quote(&peer).await.unwrap(), quote());
    let transaction = TransactionHash([6; 32]);
    let accepted = ProposalAnswer::Accepted { agreement: AgreementId(4), transaction };
    assert_eq!(client.propose(&peer, &proposal()).await.unwrap(), accepted);
    let refused = RevisionAnswer::Refused(refusal());
    assert_eq!(client.revise(&peer, &revision()).await.unwrap(), refused);
    assert_eq!(client.list_set(&peer, None, 10).await.unwrap().leaves, [leaf(1), leaf(2)]);
    let standing = Standing { owed: Amount(0), prepaid: Amount(3), credit_bytes: 9 };
    assert_eq!(client.pay(&peer, &voucher()).await.unwrap(), VoucherAnswer::Accepted(standing));
}

#[tokio::test]
async fn read_beyond_credit_says_what_is_due() {
    let (_server, peer, client) = setup().await;
    let refused = client.get_range(&peer, FragmentId([1; 32]), 0..5, None).await.unwrap_err();
    let CallError::Refused { problem, .. } = refused else { panic!("{refused}") };
    assert_eq!((problem.code, problem.payment.as_deref()), (ProblemCode::PaymentRequired, Some(&due())));
}

#[tokio::test]
async fn page_of_a_set_that_was_not_asked_for_is_malformed() {
    let (_server, peer, client) = setup().await;
    for (after, limit) in [(None, 1), (Some(FragmentId([2; 32])), 10)] {
        let refused = client.list_set(&peer, after, limit).await.unwrap_err();
        let CallError::Malformed { reason: MalformedAnswer::Mismatch(what), .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!(what, "page of a set");
    }
}
