use super::{
    BuildError, Change, Content, Entries, Entry, EntryError, Found, PageId, PageSource, RefCounts,
    TreeBuilder, TreeChild, TreePage, TreeRoot, UpdateError, diff, get, update,
};
use crate::golden;
use crate::ids::{ChunkId, Sha256};
use crate::path::TreePath;
use crate::place::ChunkRef;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Pages in memory, counting reads.
#[derive(Default)]
struct Pages {
    pages: BTreeMap<PageId, Vec<u8>>,
    reads: Cell<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("no such page")]
struct NoPage;

impl PageSource for Pages {
    type Error = NoPage;

    fn page(&self, id: &PageId) -> Result<Vec<u8>, NoPage> {
        self.reads.set(self.reads.get() + 1);
        self.pages.get(id).cloned().ok_or(NoPage)
    }
}

type Map = BTreeMap<TreePath, Entry>;

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn hash(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

/// A file with as many inline chunks as asked for.
fn file(seed: u64, chunks: u32) -> Entry {
    let chunks: Vec<_> = (0..chunks)
        .map(|at| ChunkRef { id: ChunkId(hash(seed * 31 + u64::from(at))), len: 4096 + at })
        .collect();
    let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    Entry::File {
        executable: seed.is_multiple_of(7),
        size,
        sha256: Sha256(hash(seed)),
        content: Content::Chunks(chunks),
    }
}

fn large(seed: u64) -> Entry {
    let content = Content::Manifest { root: ChunkId(hash(seed)), chunks: 17 + seed, xet: hash(seed + 1) };
    Entry::File { executable: false, size: 1 << 30, sha256: Sha256(hash(seed + 2)), content }
}

fn build(map: &Map) -> (TreeRoot, Pages) {
    let mut pages = Pages::default();
    let mut sink = |id, bytes: Vec<u8>| {
        pages.pages.insert(id, bytes);
    };
    let mut builder = TreeBuilder::new();
    for (path, entry) in map {
        builder.push(path, entry, &mut sink).unwrap();
    }
    let root = builder.finish(&mut sink);
    (root, pages)
}

fn files(count: u64) -> Map {
    (0..count).map(|at| (path(&format!("part-{:03}/image_{at:06}.jpg", at / 1000)), file(at, 1))).collect()
}

fn edit(map: &Map, edits: &BTreeMap<TreePath, Option<Entry>>) -> Map {
    let mut map = map.clone();
    for (path, entry) in edits {
        match entry {
            Some(entry) => map.insert(path.clone(), entry.clone()),
            None => map.remove(path),
        };
    }
    map
}

/// Updates, adds what was written to the pages, and gives the root and the written pages.
fn apply(
    pages: &mut Pages,
    root: &TreeRoot,
    edits: &BTreeMap<TreePath, Option<Entry>>,
) -> (TreeRoot, BTreeMap<PageId, Vec<u8>>) {
    let mut written = BTreeMap::new();
    let edits = edits.iter().map(|(path, entry)| (path.clone(), entry.clone()));
    let root = update(pages, &root.page, edits, &mut |id, bytes: Vec<u8>| {
        written.insert(id, bytes);
    })
    .unwrap();
    pages.pages.extend(written.clone());
    (root, written)
}

#[test]
fn the_tree_without_entries_is_one_empty_leaf() {
    let (root, pages) = build(&Map::new());
    assert_eq!((root.entries, root.bytes, pages.pages.len()), (0, 0, 1));
    assert_eq!(TreePage::decode(&pages.pages[&root.page]), Ok(TreePage::Leaf(Vec::new())));
    assert_eq!(Entries::all(&pages, &root.page).unwrap().count(), 0);
}

#[test]
fn the_same_tree_has_the_same_root_in_any_order_of_insertion() {
    let map = files(3_000);
    let (root, _) = build(&map);
    let mut order: Vec<_> = map.iter().collect();
    order.sort_by_key(|(path, _)| *blake3::hash(path.as_str().as_bytes()).as_bytes());
    let (mut grown, mut pages) = build(&Map::new());
    for batch in order.chunks(331) {
        let edits = batch.iter().map(|(path, entry)| ((*path).clone(), Some((*entry).clone()))).collect();
        grown = apply(&mut pages, &grown, &edits).0;
    }
    assert_eq!(grown, root);
}

#[test]
fn one_changed_file_of_a_hundred_thousand_writes_and_reads_few_pages() {
    let map = files(100_000);
    let (root, mut pages) = build(&map);
    let leaves = pages.pages.values().filter(|page| TreePage::decode(page).unwrap().level() == 0).count();
    assert!((90..190).contains(&(100_000 / leaves)), "{} files a leaf", 100_000 / leaves);
    for at in [0u64, 37, 50_123, 99_999] {
        let changed = path(&format!("part-{:03}/image_{at:06}.jpg", at / 1000));
        let added = path(&format!("part-{:03}/image_{at:06}.txt", at / 1000));
        for edits in [
            BTreeMap::from([(changed.clone(), Some(file(at + 1_000_000, 1)))]),
            BTreeMap::from([(changed.clone(), None)]),
            BTreeMap::from([(added, Some(file(at, 3)))]),
        ] {
            pages.reads.set(0);
            let (new, written) = apply(&mut pages, &root, &edits);
            let bytes: usize = written.values().map(Vec::len).sum();
            assert!(written.len() <= 6, "{} pages", written.len());
            assert!(bytes < 150_000, "{bytes} bytes");
            assert!(pages.reads.get() <= 10, "{} reads", pages.reads.get());
            pages.reads.set(0);
            let changes: Vec<_> = diff(&pages, &root.page, &new.page).unwrap().map(Result::unwrap).collect();
            assert_eq!(changes.len(), 1);
            assert!(pages.reads.get() <= 14, "{} reads", pages.reads.get());
        }
    }
}

#[test]
fn an_update_can_shrink_a_tree_to_one_old_leaf_or_to_nothing() {
    let map = files(20_000);
    let (root, mut pages) = build(&map);
    for keep in [0, 1, 10, 150, 700] {
        let edits = map.keys().take(20_000 - keep).map(|path| (path.clone(), None)).collect();
        let (new, _) = apply(&mut pages, &root, &edits);
        assert_eq!(new, build(&edit(&map, &edits)).0, "keeping the last {keep}");
        let edits = map.keys().skip(keep).map(|path| (path.clone(), None)).collect();
        let (new, _) = apply(&mut pages, &root, &edits);
        assert_eq!(new, build(&edit(&map, &edits)).0, "keeping the first {keep}");
    }
}

#[test]
fn an_old_page_with_a_single_child_does_not_become_the_root() {
    let map = files(100_000);
    let (root, pages) = build(&map);
    let TreePage::Inner { level: 2, children } = TreePage::decode(&pages.pages[&root.page]).unwrap() else {
        panic!("100,000 files take three levels");
    };
    // The second page of the middle level starts here; cut a little later, it has one leaf.
    let start = &children[1].first;
    let before = map.range(..start).count();
    let short: Map = map.into_iter().take(before + 5).collect();
    let (root, mut pages) = build(&short);
    let edits = short.keys().take(before).map(|path| (path.clone(), None)).collect();
    let (new, written) = apply(&mut pages, &root, &edits);
    assert_eq!((new, written.len()), (build(&edit(&short, &edits)).0, 0));
}

#[test]
fn a_diff_of_equal_trees_reads_nothing() {
    let (root, pages) = build(&files(2_000));
    assert_eq!(diff(&pages, &root.page, &root.page).unwrap().count(), 0);
    assert_eq!(pages.reads.get(), 0);
}

#[test]
fn a_path_is_found_by_reading_one_page_a_level() {
    let map = files(100_000);
    let (root, pages) = build(&map);
    let wanted = path("part-042/image_042042.jpg");
    assert_eq!(get(&pages, &root.page, &wanted).unwrap().as_ref(), map.get(&wanted));
    assert!(pages.reads.get() <= 4, "{} reads", pages.reads.get());
    assert_eq!(get(&pages, &root.page, &path("part-042")).unwrap(), None);
    assert_eq!(get(&pages, &root.page, &path("a")).unwrap(), None);
    assert_eq!(get(&pages, &root.page, &path("z")).unwrap(), None);
}

#[test]
fn a_folder_is_listed_by_reading_only_its_pages() {
    let map = files(50_000);
    let (root, pages) = build(&map);
    let listed: Vec<_> =
        Entries::below(&pages, &root.page, &path("part-007")).unwrap().map(Result::unwrap).collect();
    assert_eq!(listed.len(), 1000);
    assert!(listed.iter().all(|(path, _)| path.as_str().starts_with("part-007/")));
    assert!(pages.reads.get() <= 24, "{} reads", pages.reads.get());
    pages.reads.set(0);
    let from = path("part-007/image_007990.jpg");
    let rest = Entries::below(&pages, &root.page, &path("part-007")).unwrap().after(&from).unwrap();
    assert_eq!(rest.count(), 9);
    assert!(pages.reads.get() <= 8, "{} reads", pages.reads.get());
    assert_eq!(Entries::below(&pages, &root.page, &path("part-0")).unwrap().count(), 0);
    let all: Map = Entries::all(&pages, &root.page).unwrap().map(Result::unwrap).collect();
    assert_eq!(all, map);
}

#[test]
fn names_between_a_folder_and_its_files_are_left_out_of_its_listing() {
    let map: Map =
        ["d!", "d-old/a", "d-old/b", "d/x", "d/y/z", "d0"].map(|text| (path(text), file(1, 1))).into();
    let (root, pages) = build(&map);
    let below = Entries::below(&pages, &root.page, &path("d")).unwrap();
    let below: Vec<_> = below.map(|item| item.unwrap().0.to_string()).collect();
    assert_eq!(below, ["d/x", "d/y/z"]);
}

#[test]
fn disorder_and_paths_below_entries_are_refused() {
    let mut sink = |_, _: Vec<u8>| {};
    let mut builder = TreeBuilder::new();
    for name in ["a", "a-b", "a.c/d"] {
        builder.push(&path(name), &file(1, 1), &mut sink).unwrap();
    }
    let refused = builder.push(&path("a/b"), &file(1, 1), &mut sink);
    assert_eq!(refused, Err(BuildError::BelowEntry { entry: path("a"), below: path("a/b") }));
    let refused = builder.push(&path("a.c/d"), &file(1, 1), &mut sink);
    assert_eq!(refused, Err(BuildError::Disorder { previous: path("a.c/d"), path: path("a.c/d") }));
    let leaving = Entry::Symlink { target: "../../x".to_owned() };
    assert!(matches!(builder.push(&path("b/c"), &leaving, &mut sink), Err(BuildError::Entry { .. })));
    builder.push(&path("b/c"), &Entry::Folder, &mut sink).unwrap();
    assert!(matches!(
        builder.push(&path("b/c/d"), &file(1, 1), &mut sink),
        Err(BuildError::BelowEntry { .. })
    ));
    assert_eq!(builder.finish(&mut sink).entries, 4);
}

#[test]
fn an_update_refuses_paths_below_entries_wherever_they_lie() {
    let mut map = files(5_000);
    map.insert(path("part-001.txt"), file(1, 1));
    let (root, pages) = build(&map);
    let conflict = |edits: &[(&str, Option<Entry>)]| {
        let edits = edits.iter().map(|(text, entry)| (path(text), entry.clone()));
        match update(&pages, &root.page, edits, &mut |_, _: Vec<u8>| {}) {
            Err(UpdateError::Edit(BuildError::BelowEntry { entry, below })) => {
                Some((entry.to_string(), below.to_string()))
            }
            Ok(_) => None,
            Err(other) => panic!("{other}"),
        }
    };
    let below = |entry: &str, below: &str| Some((entry.to_owned(), below.to_owned()));
    let put = || Some(file(9, 1));
    assert_eq!(conflict(&[("part-001", put())]), below("part-001", "part-001/image_001000.jpg"));
    assert_eq!(conflict(&[("part-001.txt/x/y", put())]), below("part-001.txt", "part-001.txt/x/y"));
    assert_eq!(conflict(&[("new", put()), ("new/x", put())]), below("new", "new/x"));
    assert_eq!(conflict(&[("part-001.txt", None), ("part-001.txt/x/y", put())]), None);
    assert_eq!(
        conflict(&[("part-001.txt/x/a", None), ("part-001.txt/x/y", put())]),
        below("part-001.txt", "part-001.txt/x/y")
    );
    let removals: Vec<_> = (1000..2000).map(|at| format!("part-001/image_{at:06}.jpg")).collect();
    let mut edits = vec![("part-001", put())];
    edits.extend(removals.iter().map(|text| (text.as_str(), None)));
    assert_eq!(conflict(&edits), None);
    edits.pop();
    assert_eq!(conflict(&edits), below("part-001", "part-001/image_001999.jpg"));
}

#[test]
fn a_folder_far_behind_its_own_name_is_found_to_be_in_the_way() {
    // Thousands of `data-…` lie between the name `data` and what is below it.
    let mut map: Map = (0..5_000).map(|at| (path(&format!("data-{at:05}")), file(at, 1))).collect();
    map.insert(path("data/x"), file(1, 1));
    let (root, pages) = build(&map);
    let put = [(path("data"), Some(file(2, 1)))];
    let refused = update(&pages, &root.page, put, &mut |_, _: Vec<u8>| {});
    assert!(matches!(refused, Err(UpdateError::Edit(BuildError::BelowEntry { .. }))));
    assert!(pages.reads.get() < 12, "{} reads", pages.reads.get());
}

#[test]
fn a_page_says_where_its_refs_stand() {
    let entries =
        vec![(path("a"), file(1, 3)), (path("b"), large(5)), (path("c"), file(2, 2)), (path("d"), large(9))];
    let page = TreePage::Leaf(entries.clone());
    assert_eq!(page.chunk_refs().count(), 5);
    assert_eq!(page.page_refs().collect::<Vec<_>>(), [ChunkId(hash(5)), ChunkId(hash(9))]);
    assert_eq!(page.refs_before(2), RefCounts { chunks: 3, pages: 1 });
    assert_eq!(page.find(&path("c")), Found::Entry { position: 2, entry: &entries[2].1 });
    assert_eq!(page.find(&path("bb")), Found::Absent);
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let inline = |size, chunks: &[u32]| Entry::File {
        executable: false,
        size,
        sha256: Sha256([0; 32]),
        content: Content::Chunks(
            chunks.iter().map(|len| ChunkRef { id: ChunkId([1; 32]), len: *len }).collect(),
        ),
    };
    let at = path("x");
    assert_eq!(inline(0, &[]).check(&at), Ok(()));
    assert_eq!(inline(7, &[3, 5]).check(&at), Err(EntryError::Size { chunks: 8, size: 7 }));
    assert_eq!(inline(0, &[0]).check(&at), Err(EntryError::ChunkLength { len: 0 }));
    assert_eq!(inline(17, &[1; 17]).check(&at), Err(EntryError::TooManyChunks { chunks: 17 }));
    let content = Content::Manifest { root: ChunkId([1; 32]), chunks: 16, xet: [0; 32] };
    let short = Entry::File { executable: false, size: 9, sha256: Sha256([0; 32]), content };
    assert_eq!(short.check(&at), Err(EntryError::TooFewChunks { chunks: 16 }));
}

#[test]
fn a_page_that_is_not_what_its_parent_says_is_broken() {
    let (root, pages) = build(&files(3_000));
    let TreePage::Inner { level, mut children } = TreePage::decode(&pages.pages[&root.page]).unwrap() else {
        panic!("3,000 files take several leaves");
    };
    let lies: [fn(&mut TreeChild); 3] =
        [|child| child.entries += 1, |child| child.bytes += 1, |child| child.first = path("part-000/a")];
    for lie in lies {
        let original = children[0].clone();
        lie(&mut children[0]);
        let bytes = TreePage::Inner { level, children: children.clone() }.encode();
        let id = crate::seal::page_id(&bytes);
        let mut source = Pages { pages: pages.pages.clone(), reads: Cell::new(0) };
        source.pages.insert(id, bytes);
        assert!(Entries::all(&source, &id).unwrap().any(|item| item.is_err()));
        children[0] = original;
    }
}

fn samples() -> [(&'static str, TreePage); 2] {
    let link = Entry::Symlink { target: "../a/plain.txt".to_owned() };
    let leaf = TreePage::Leaf(vec![
        (path("a/empty"), file(3, 0)),
        (path("a/plain.txt"), file(5, 2)),
        (path("a/run.sh"), file(7, 1)),
        (path("b/große.bin"), large(11)),
        (path("b/link"), link),
        (path("c"), Entry::Folder),
    ]);
    let child = |first: &str, number: u8| TreeChild {
        first: path(first),
        page: ChunkId([number; 32]),
        entries: 120 + u64::from(number),
        bytes: 1 << number,
    };
    let inner = TreePage::Inner { level: 2, children: vec![child("a/x", 20), child("a/y/z", 33)] };
    [("leaf", leaf), ("inner", inner)]
}

#[test]
fn pages_have_the_bytes_of_the_vectors() {
    let vectors = include_str!("../../../../testdata/tree.txt");
    for (name, page) in samples() {
        golden::check(vectors, name, &page.encode());
        assert_eq!(TreePage::decode(&page.encode()), Ok(page));
    }
    golden::check(vectors, "root-of-3000", build(&files(3_000)).0.page.as_bytes());
    golden::check(vectors, "root-of-empty", build(&Map::new()).0.page.as_bytes());
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        8 => (any::<u16>(), 0u32..17).prop_map(|(seed, chunks)| file(seed.into(), chunks)),
        1 => any::<u16>().prop_map(|seed| large(seed.into())),
        1 => proptest::strategy::Just(Entry::Folder),
    ]
}

/// Paths in one folder, so that none lies below another.
fn any_path() -> impl Strategy<Value = TreePath> {
    (0u16..3000).prop_map(|number| path(&format!("f{}/{number:05}", number / 700)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_edits_give_exactly_the_root_of_a_full_build(
        base in 0u64..2500,
        edits in proptest::collection::btree_map(any_path(), proptest::option::of(any_entry()), 0..40),
        cut in 0u16..3000,
        span in 0u16..1500,
        weight in 1u32..4,
    ) {
        let map: Map = (0..base).map(|at| (path(&format!("f{}/{at:05}", at / 700)), file(at, weight))).collect();
        let (root, mut pages) = build(&map);
        // A few scattered edits, and a stretch that goes as a whole.
        let mut all: BTreeMap<TreePath, Option<Entry>> =
            (cut..cut.saturating_add(span)).map(|at| (path(&format!("f{}/{at:05}", at / 700)), None)).collect();
        all.extend(edits);
        let expected = edit(&map, &all);
        let (new, written) = apply(&mut pages, &root, &all);
        let (full, full_pages) = build(&expected);
        assert_eq!(new, full);
        assert!(written.keys().all(|id| full_pages.pages.contains_key(id)), "only pages of the new tree");

        let changes: BTreeSet<_> = diff(&pages, &root.page, &new.page)
            .unwrap()
            .map(|change| change.unwrap().path().clone())
            .collect();
        let paths: BTreeSet<_> = map.keys().chain(expected.keys()).collect();
        let differing: BTreeSet<_> =
            paths.into_iter().filter(|path| map.get(path) != expected.get(path)).cloned().collect();
        assert_eq!(changes, differing);
    }

    #[test]
    fn a_diff_turned_into_edits_makes_one_tree_of_the_other(seed in any::<u64>(), other in any::<u64>()) {
        let pick = |seed: u64| -> Map {
            let kept = files(2_500).into_iter().enumerate();
            kept.filter(|(at, _)| hash(seed ^ (*at as u64 / 40))[0] > 60).map(|(_, item)| item).collect()
        };
        let (one, mut pages) = build(&pick(seed));
        let (two, more) = build(&pick(other));
        pages.pages.extend(more.pages);
        let edits = diff(&pages, &one.page, &two.page).unwrap().map(|change| match change.unwrap() {
            Change::Added { path, entry } | Change::Modified { path, after: entry, .. } => (path, Some(entry)),
            Change::Removed { path, .. } => (path, None),
        });
        let edits = edits.collect();
        assert_eq!(apply(&mut pages, &one, &edits).0, two);
    }
}

proptest! {
    #[test]
    fn any_leaf_reads_back(entries in proptest::collection::btree_map("[a-cé]{1,4}(/[a-c]{1,3})?", any_entry(), 0..30)) {
        let page = TreePage::Leaf(entries.into_iter().map(|(text, entry)| (path(&text), entry)).collect());
        assert_eq!(TreePage::decode(&page.encode()), Ok(page));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), level in 0u8..3) {
        for bytes in [bytes.clone(), [b"SBTP\x01".as_slice(), &[level], &bytes].concat()] {
            if let Ok(page) = TreePage::decode(&bytes) {
                assert_eq!(page.encode(), bytes);
            }
        }
    }

    #[test]
    fn flipped_and_cut_pages_are_refused_or_canonical(at in any::<usize>(), bit in 0u8..8, keep in any::<usize>()) {
        for (_, page) in samples() {
            let mut bytes = page.encode();
            let index = at % bytes.len();
            bytes[index] ^= 1 << bit;
            bytes.truncate(1 + keep % (bytes.len() + 20).min(bytes.len()));
            if let Ok(page) = TreePage::decode(&bytes) {
                assert_eq!(page.encode(), bytes);
            }
        }
    }
}
