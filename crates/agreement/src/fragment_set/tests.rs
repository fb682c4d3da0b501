use super::{Fragment, FragmentSet, SetChange, SetError, SetPathError};
use crate::epoch::Epoch;
use crate::proposal::SetRoot;
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use seedbank_formats::FragmentId;
use std::collections::{BTreeMap, BTreeSet};

fn fragment(number: u64, length: u64) -> Fragment {
    Fragment { id: FragmentId::of(&number.to_le_bytes()), length, retain_until: Epoch(0) }
}

fn set(count: u64) -> FragmentSet {
    FragmentSet::new((0..count).map(|number| fragment(number, 1 + number * 37 % 1_000))).unwrap()
}

#[test]
fn every_byte_of_a_set_belongs_to_the_fragment_that_its_path_shows() {
    for count in 1..40 {
        let set = set(count);
        let mut offset = 0;
        for fragment in set.fragments() {
            for inside in [0, fragment.length / 2, fragment.length - 1] {
                let path = set.path(offset + inside).unwrap();
                assert_eq!(path.fragment, *fragment);
                assert_eq!(
                    path.locate(&set.root(), set.total(), offset + inside),
                    Ok(inside),
                    "{count} fragments"
                );
            }
            let path = set.path(offset).unwrap();
            let wrong = Err(SetPathError::WrongFragment);
            assert_eq!(path.locate(&set.root(), set.total(), offset + fragment.length), wrong);
            if let Some(before) = offset.checked_sub(1) {
                assert_eq!(path.locate(&set.root(), set.total(), before), wrong);
            }
            offset += fragment.length;
        }
        assert_eq!(offset, set.total());
        assert_eq!(set.path(offset), None);
    }
}

#[test]
fn a_changed_path_leads_nowhere() {
    let set = set(13);
    let offset = set.total() / 3;
    let path = set.path(offset).unwrap();
    let refused = |change: &dyn Fn(&mut super::SetPath)| {
        let mut changed = path.clone();
        change(&mut changed);
        changed.locate(&set.root(), set.total(), offset).unwrap_err()
    };
    assert_eq!(refused(&|path| path.fragment.length += 1), SetPathError::WrongSetPath);
    assert_eq!(refused(&|path| path.fragment.retain_until = Epoch(1)), SetPathError::WrongSetPath);
    assert_eq!(refused(&|path| path.fragment.id.0[31] ^= 1), SetPathError::WrongSetPath);
    assert_eq!(refused(&|path| path.hashes[0][0] ^= 1), SetPathError::WrongSetPath);
    assert_eq!(refused(&|path| path.sums[0] += 1), SetPathError::WrongSetPath);
    assert_eq!(refused(&|path| path.sums[0] = u64::MAX), SetPathError::Overflow);
    assert_eq!(refused(&|path| path.turns ^= 1), SetPathError::WrongSetPath);
    assert_eq!(refused(&|path| path.hashes.truncate(1)), SetPathError::SetPathLength);
    assert_eq!(refused(&|path| path.turns |= 1 << path.hashes.len()), SetPathError::SetPathLength);
    let other = SetRoot([0; 32]);
    assert_eq!(path.locate(&other, set.total(), offset), Err(SetPathError::WrongSetPath));
    assert_eq!(path.locate(&set.root(), set.total() + 1, offset), Err(SetPathError::WrongSetPath));
}

#[test]
fn what_makes_no_set_is_refused() {
    let one = fragment(1, 10);
    assert_eq!(FragmentSet::new([one, one]).unwrap_err(), SetError::Twice(one.id));
    assert_eq!(FragmentSet::new([Fragment { length: 0, ..one }]).unwrap_err(), SetError::NoBytes(one.id));
    let all = Fragment { length: u64::MAX, ..one };
    assert_eq!(FragmentSet::new([all]).unwrap().total(), u64::MAX);
    assert_eq!(FragmentSet::new([all, fragment(2, 1)]).unwrap_err(), SetError::TooLarge);
    let dropped = SetChange { dropped: BTreeSet::from([one.id]), ..SetChange::default() };
    assert_eq!(FragmentSet::new([]).unwrap().changed(&dropped).unwrap_err(), SetError::Missing(one.id));
}

#[test]
fn a_promise_is_not_dropped_before_its_time() {
    let promised = Fragment { retain_until: Epoch(20), ..fragment(1, 10) };
    let before = FragmentSet::new([promised, fragment(2, 10)]).unwrap();
    let after = |fragments: &[Fragment]| FragmentSet::new(fragments.iter().copied()).unwrap();
    assert_eq!(before.broken_promise(&after(&[promised]), Epoch(19)), None);
    assert_eq!(before.broken_promise(&after(&[fragment(2, 10)]), Epoch(19)), Some(&promised));
    assert_eq!(before.broken_promise(&after(&[fragment(2, 10)]), Epoch(20)), None, "its time has come");
    let sooner = Fragment { retain_until: Epoch(19), ..promised };
    assert_eq!(before.broken_promise(&after(&[sooner]), Epoch(10)), Some(&promised));
    let later = Fragment { retain_until: Epoch(21), ..promised };
    assert_eq!(before.broken_promise(&after(&[later]), Epoch(10)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_set_is_the_set_built_anew(
        start in prop::collection::btree_map(0..60u64, (1..1_000u64, any::<u32>()), 0..50),
        put in prop::collection::btree_map(0..60u64, (1..1_000u64, any::<u32>()), 0..20),
        dropped in prop::collection::btree_set(0..60u64, 0..20),
    ) {
        let fragment = |(number, (length, until)): (&u64, &(u64, u32))| {
            Fragment { retain_until: Epoch(*until), ..fragment(*number, *length) }
        };
        let before = FragmentSet::new(start.iter().map(fragment)).unwrap();
        let put: BTreeMap<_, _> = put.iter().map(fragment).map(|fragment| (fragment.id, fragment)).collect();
        let dropped: BTreeSet<_> = dropped
            .iter()
            .map(|number| FragmentId::of(&number.to_le_bytes()))
            .filter(|id| before.get(id).is_some())
            .collect();
        let mut expected: BTreeMap<_, _> =
            before.fragments().iter().map(|fragment| (fragment.id, *fragment)).collect();
        expected.retain(|id, _| !dropped.contains(id));
        expected.extend(put.iter().map(|(id, fragment)| (*id, *fragment)));
        let anew = FragmentSet::new(expected.into_values()).unwrap();
        let changed = before.changed(&SetChange { put, dropped }).unwrap();
        assert_eq!(changed.fragments(), anew.fragments());
        assert_eq!(changed.levels, anew.levels);
        assert_eq!(changed.root(), anew.root());
    }
}
