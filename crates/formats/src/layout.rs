//! Layout pages: where the chunks and pages that one tree or manifest page refers to lie.
//!
//! Trees and manifests name things and are a version's identity; a layout page stands beside each of them and says
//! places, so that compaction can rewrite it without changing a version. It lists, in its page's order, the places of all
//! chunk refs as runs, and for every page ref the places of that page and of that page's layout. A reader so walks a tree
//! page and its layout together, from two places at the root, and needs no index.
//!
//! A layout is a named item ([`layout_id`]), and nothing pins its bytes: a wrong one leads to an item with another id, so
//! it costs a failed read and never a wrong byte. `docs/formats/layout.md` draws it.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, SegmentNumber};
use crate::pages::PageId;
use crate::place::Place;
use crate::seal::named_id;

const MAGIC: &[u8; 4] = b"SBLP";
const VERSION: u8 = 1;
const NAME: &str = "layout page";

/// More refs than a page can have: one takes 32 bytes and more, and a page has at most 80 KiB.
const REFS_MAX: usize = 4096;

/// The id under which the layout of a tree or manifest page is sealed.
#[must_use]
pub fn layout_id(page: &PageId) -> ChunkId {
    named_id(&[b"layout".as_slice(), page.as_bytes()].concat())
}

/// Items that follow each other in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The segment.
    pub segment: SegmentNumber,
    /// Position of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Where a page and its layout lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildPlace {
    /// The tree or manifest page.
    pub page: Place,
    /// Its layout page.
    pub layout: Place,
}

/// The layout of one tree or manifest page. Its runs are as long as can be and hold at most 4,096 places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayoutPage {
    runs: Vec<Run>,
    children: Vec<ChildPlace>,
}

impl LayoutPage {
    /// Describes a page: the places of its chunk refs in its order, and those of its page refs.
    ///
    /// # Panics
    /// With more refs of a kind than a page can have.
    #[must_use]
    pub fn describe(
        chunks: impl IntoIterator<Item = Place>,
        children: impl IntoIterator<Item = ChildPlace>,
    ) -> LayoutPage {
        let mut runs: Vec<Run> = Vec::new();
        let mut refs = 0;
        for place in chunks {
            refs += 1;
            match runs.last_mut().filter(|run| continues(run, place)) {
                Some(run) => run.count += 1,
                None => runs.push(Run { segment: place.segment, first: place.index, count: 1 }),
            }
        }
        let children: Vec<_> = children.into_iter().collect();
        assert!(refs <= REFS_MAX && children.len() <= REFS_MAX, "a page has room for fewer refs");
        LayoutPage { runs, children }
    }

    /// Where the chunks of the page lie, as runs in the page's order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Where the pages that the page refers to lie, in its order.
    #[must_use]
    pub fn children(&self) -> &[ChildPlace] {
        &self.children
    }

    /// Where the page's chunk ref number `nth` lies. `None` when it describes fewer: then it is not this page's layout.
    #[must_use]
    pub fn place_of(&self, nth: usize) -> Option<Place> {
        let mut left = u32::try_from(nth).ok()?;
        for run in &self.runs {
            if left < run.count {
                return Some(Place { segment: run.segment, index: run.first + left });
            }
            left -= run.count;
        }
        None
    }

    /// The places of all chunk refs, in the page's order.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.runs.iter().flat_map(|run| {
            (run.first..run.first + run.count).map(|index| Place { segment: run.segment, index })
        })
    }

    /// Every segment that is needed to read the page's chunks and the pages below, each once and in order.
    #[must_use]
    pub fn segments(&self) -> std::collections::BTreeSet<SegmentNumber> {
        let children = self.children.iter().flat_map(|child| [child.page.segment, child.layout.segment]);
        self.runs.iter().map(|run| run.segment).chain(children).collect()
    }

    /// The page's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::format(MAGIC, VERSION);
        writer.len(self.runs.len());
        for run in &self.runs {
            writer.varint(run.segment.0);
            writer.varint(u64::from(run.first));
            writer.varint(u64::from(run.count));
        }
        writer.len(self.children.len());
        for child in &self.children {
            child.write(&mut writer);
        }
        writer.finish()
    }

    /// Reads a page.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no layout page, or not in canonical form.
    pub fn decode(bytes: &[u8]) -> Result<LayoutPage, DecodeError> {
        let mut reader = Reader::format(NAME, MAGIC, VERSION, bytes)?;
        let count = reader.count("runs", REFS_MAX, 3)?;
        let mut runs: Vec<Run> = Vec::with_capacity(count);
        let mut refs = 0usize;
        for _ in 0..count {
            let Place { segment, index: first } = Place::read(&mut reader)?;
            let places = reader.len("a run's count", REFS_MAX - refs)?;
            let run = Run { segment, first, count: u32::try_from(places).expect("at most REFS_MAX") };
            if run.count == 0 || run.first.checked_add(run.count).is_none() {
                return Err(reader.invalid("a run is empty or too long"));
            }
            if runs.last().is_some_and(|last| continues(last, Place { segment, index: first })) {
                return Err(reader.invalid("a run goes on in the next one"));
            }
            refs += places;
            runs.push(run);
        }
        let count = reader.count("children", REFS_MAX, 4)?;
        let children = (0..count).map(|_| ChildPlace::read(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(LayoutPage { runs, children })
    }
}

/// Whether `place` is the next item after the run.
fn continues(run: &Run, place: Place) -> bool {
    run.segment == place.segment && run.first.checked_add(run.count) == Some(place.index)
}

impl ChildPlace {
    pub(crate) fn write(&self, writer: &mut Writer) {
        self.page.write(writer);
        self.layout.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<ChildPlace, DecodeError> {
        Ok(ChildPlace { page: Place::read(reader)?, layout: Place::read(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{ChildPlace, LayoutPage, Run, layout_id};
    use crate::golden;
    use crate::ids::{ChunkId, SegmentNumber};
    use crate::place::Place;
    use proptest::prelude::{any, proptest};

    fn place(segment: u64, index: u32) -> Place {
        Place { segment: SegmentNumber(segment), index }
    }

    fn sample() -> LayoutPage {
        let chunks = [place(7, 3), place(7, 4), place(7, 5), place(300, 0), place(7, 6)];
        LayoutPage::describe(chunks, [ChildPlace { page: place(7, 9), layout: place(7, 10) }])
    }

    #[test]
    fn places_that_follow_each_other_are_one_run() {
        let layout = sample();
        let run = |segment, first, count| Run { segment: SegmentNumber(segment), first, count };
        assert_eq!(layout.runs(), [run(7, 3, 3), run(300, 0, 1), run(7, 6, 1)]);
        let places: Vec<_> = layout.places().collect();
        for (nth, expected) in places.iter().enumerate() {
            assert_eq!(layout.place_of(nth), Some(*expected));
        }
        assert_eq!((places.len(), layout.place_of(5)), (5, None));
        assert_eq!(layout.segments().into_iter().collect::<Vec<_>>(), [SegmentNumber(7), SegmentNumber(300)]);
    }

    #[test]
    fn pages_have_the_bytes_of_the_vectors() {
        let vectors = include_str!("../../../testdata/layout.txt");
        golden::check(vectors, "sample", &sample().encode());
        golden::check(vectors, "empty", &LayoutPage::default().encode());
        golden::check(vectors, "id", layout_id(&ChunkId([5; 32])).as_bytes());
    }

    #[test]
    fn a_run_that_goes_on_in_the_next_is_refused() {
        let mut layout = sample();
        layout.runs[1] = Run { segment: SegmentNumber(7), first: 6, count: 1 };
        assert!(LayoutPage::decode(&layout.encode()).is_err());
    }

    proptest! {
        #[test]
        fn any_places_read_back(
            chunks in proptest::collection::vec((0u64..4, 0u32..6), 0..60),
            children in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..5),
        ) {
            let chunks: Vec<_> = chunks.into_iter().map(|(segment, index)| place(segment, index)).collect();
            let children = children.into_iter().map(|(segment, index)| {
                ChildPlace { page: place(segment, index), layout: place(segment / 2, index) }
            });
            let layout = LayoutPage::describe(chunks.iter().copied(), children);
            assert_eq!(layout.places().collect::<Vec<_>>(), chunks);
            assert_eq!(LayoutPage::decode(&layout.encode()), Ok(layout));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for bytes in [bytes.clone(), [b"SBLP\x01".as_slice(), &bytes].concat()] {
                if let Ok(layout) = LayoutPage::decode(&bytes) {
                    assert_eq!(layout.encode(), bytes);
                    let _ = (layout.places().count(), layout.place_of(7), layout.segments());
                }
            }
        }
    }
}
