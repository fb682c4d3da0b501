//! Requests and answers that make no sense.

use super::{DATASET, Desk, dataset, fragment, key, link, profile, provider, restoration, segment, version};
use crate::error::CatalogError;
use crate::operations::{Books, Carrier, Request, Response};
use crate::records::{
    BranchBase, ChangeNumber, Commit, Contact, Counts, DuePosition, HeadRecord, Holding, LeaseId, LiveDelta,
    NewVersion, NumberedList, NumberedPage, Outcome, Push, RegisteredProvider, RenewedClaim, Restoration,
    Work,
};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_oneof, proptest};
use seedbank_agreement::Address;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::{Asked, DatasetId, SegmentNumber, Timestamp, VersionId};

#[test]
fn an_answer_to_another_question_is_an_error() {
    struct Confused;
    impl Carrier for Confused {
        fn call(&self, _: Request) -> Result<Response, CatalogError> {
            Ok(Response::EndPush(()))
        }
    }
    assert!(matches!(Confused.datasets(), Err(CatalogError::Unreachable { .. })));
    std::sync::Arc::new(Confused).end_push(LeaseId(1)).unwrap();
}

/// One request of each kind that takes more than numbers, all of them well-formed.
fn requests() -> Vec<Request> {
    let (text, lease) = (|| "main".to_owned(), LeaseId(1));
    let push = Push { lease, parent: None, first_segment: SegmentNumber(0) };
    let new = NewVersion {
        record: version(1, push.first_segment.0),
        branch: text(),
        base: BranchBase { slot: 0, parent: None },
    };
    let commit = Commit {
        dataset: DATASET,
        lease,
        version: Some(new),
        relies_on: None,
        relocations: Vec::new(),
        pages: vec![NumberedPage { list: NumberedList::Map, level: 0, page: 0, link: link(0, 0) }],
        head: HeadRecord { sequence: 1, bytes: vec![1], segments: vec![SegmentNumber(0)] },
        through: ChangeNumber(0),
        counts: Counts { segments: 0, versions: 1, refs: 1 },
        live: vec![LiveDelta { segment: SegmentNumber(0), bytes: -1 }],
    };
    let holding = Holding { provider: provider(1), until: Timestamp(1) };
    let release =
        Work::ReleaseClaims { provider: provider(1), fragments: vec![fragment(0, 0)], asked: Asked(1) };
    let part = Restoration {
        segments: vec![segment(3)],
        head: Some(commit.head.clone()),
        ..restoration("restored", DATASET, vec![version(4, 3)])
    };
    vec![
        Request::PutSetting { key: text(), value: text() },
        Request::PutProvider { profile: profile(1) },
        Request::HearProvider { profile: profile(1) },
        Request::MergeRegistered {
            entries: vec![RegisteredProvider {
                key: provider(9),
                wallet: Address([9; 20]),
                address: text(),
                leaving: false,
                greeted: Some(profile(9)),
            }],
        },
        Request::RecordContacts {
            contacts: vec![Contact { provider: provider(1), outcome: Outcome::Answered { latency_us: 1 } }],
        },
        Request::CreateDataset { dataset: dataset(DatasetId([5; 32]), "other") },
        Request::Dataset { name: text() },
        Request::RenameDataset { dataset: DATASET, name: text() },
        Request::BeginPush { dataset: DATASET, branch: text(), owner: text(), hold_seconds: 9, reserve: 9 },
        Request::AllocateSegments { lease, count: 3 },
        Request::RecordSegment { lease, placement: segment(0), claims_until: Timestamp(1) },
        Request::UseSegments { lease, segments: vec![SegmentNumber(0)] },
        Request::CommitBase { lease, branch: Some(text()) },
        Request::Commit { commit },
        Request::SegmentsIn {
            dataset: DATASET,
            first: SegmentNumber(0),
            last: SegmentNumber(9),
            lease: Some(lease),
        },
        Request::Pages { dataset: DATASET, list: NumberedList::Refs, level: 0, first: 0, last: 9 },
        Request::PagesIn { dataset: DATASET, list: NumberedList::Refs, segments: vec![SegmentNumber(0)] },
        Request::SetHolder { key: key(0, 0), holding: Some(holding) },
        Request::DueClaims {
            dataset: Some(DATASET),
            before: Timestamp(9),
            after: Some(DuePosition { until: Timestamp(1), key: key(0, 0) }),
            limit: 9,
        },
        Request::Unheld { provider: provider(1), fragments: vec![fragment(0, 0)] },
        Request::RenewClaims { claims: vec![RenewedClaim { key: key(0, 0), holding }] },
        Request::Resolve { dataset: DATASET, text: text() },
        Request::CreateRef {
            dataset: DATASET,
            name: text(),
            kind: RefKind::Branch,
            version: VersionId([1; 32]),
        },
        Request::MarkPublished { dataset: DATASET, sequence: 1, provider: provider(1) },
        Request::AddJob { work: release, not_before: Timestamp(1) },
        Request::TakeJobs { limit: 9, hold_seconds: 9 },
        Request::FailJob { job: crate::records::JobId(1), error: text() },
        Request::Restore { part },
    ]
}

fn hostile() -> impl Strategy<Value = serde_json::Value> {
    let text = prop_oneof![
        prop::sample::select(vec![
            "",
            "\u{0}",
            "../..",
            "' OR 1=1 --",
            "main",
            "deadbeef",
            "\u{202e}x",
            "-rf",
            "NaN",
            "branch",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,40}",
        "[0-9a-f]{64}",
        any::<bool>().prop_map(|long| "a".repeat(if long { 100_000 } else { 129 })),
    ];
    let number = prop::sample::select(vec![
        0u64,
        1,
        2,
        255,
        256,
        u64::from(u32::MAX),
        1 << 40,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX,
    ]);
    prop_oneof![
        4 => text.prop_map(serde_json::Value::from),
        4 => number.prop_map(serde_json::Value::from),
        1 => any::<i64>().prop_map(serde_json::Value::from),
        1 => any::<f64>().prop_map(serde_json::Value::from),
        1 => prop::sample::select(vec!["null", "[]", "{}", "true", "[[[]]]"])
            .prop_map(|text| serde_json::from_str(text).unwrap()),
    ]
}

/// Puts `hostile` in place of the `at`-th value (modulo their number), counted from the leaves' side.
fn poison(value: &mut serde_json::Value, at: &mut usize, hostile: &serde_json::Value) -> bool {
    let inside = match value {
        serde_json::Value::Array(values) => values.iter_mut().any(|value| poison(value, at, hostile)),
        serde_json::Value::Object(fields) => fields.values_mut().any(|value| poison(value, at, hostile)),
        _ => false,
    };
    if inside {
        return true;
    }
    if *at == 0 {
        *value = hostile.clone();
        return true;
    }
    *at -= 1;
    false
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    #[test]
    fn hostile_requests_are_errors_and_leave_whole_books(
        poisons in prop::collection::vec((any::<prop::sample::Index>(), 0..24usize, hostile()), 16),
    ) {
        let desk = Desk::new();
        let all = requests();
        for (which, mut at, hostile) in poisons {
            let mut json = serde_json::to_value(which.get(&all)).unwrap();
            poison(&mut json, &mut at, &hostile);
            // From bytes, as the socket gets them.
            let Ok(request) = serde_json::from_slice::<Request>(&serde_json::to_vec(&json).unwrap()) else { continue };
            let answer = desk.catalog.borrow_mut().execute(request.clone(), Timestamp(1_000_000));
            let broken = matches!(answer, Err(CatalogError::Corrupt { .. } | CatalogError::Disk { .. }));
            prop_assert!(!broken, "{request:?}: {answer:?}");
        }
        // Everything that was let in can be read.
        desk.datasets().unwrap();
        desk.providers().unwrap();
        desk.take_jobs(100, 1).unwrap();
        let connection = &desk.catalog.borrow().connection;
        prop_assert!(!connection.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
    }
}
