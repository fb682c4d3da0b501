//! What the version that a push builds on has already: which pages need not be stored again, and where they lie.
//!
//! A page may be used again only if everything below it is there. That a page is stored somewhere does not say so: when
//! versions are removed, a page that no version reaches stays as long as its segment does, and the chunks that its layout
//! names go. What a retained version reaches is kept whole. So only the pages of one version are used again, and the
//! commit asks for that version to be there still, with its tree in the same place.
//!
//! The walk follows the push, which goes through its paths in order, too: it reads inner pages of the tree, and leaves only
//! where something has changed. Memory is a few pages a level. It runs on the push's own thread and waits there.

use crate::reader::{ReadError, Reader, Wanted};
use crate::snapshot::{Snapshot, SnapshotError};
use crate::walk::LAYOUT_BYTES_MAX;
use seedbank_catalog::records::{Reliance, VersionRecord};
use seedbank_formats::codec::DecodeError;
use seedbank_formats::layout::{ChildPlace, LayoutPage, layout_id};
use seedbank_formats::manifest::ManifestPage;
use seedbank_formats::pages::PageId;
use seedbank_formats::path::TreePath;
use seedbank_formats::policy::Policy;
use seedbank_formats::tree::{Found, TreePage};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Inner pages read at once: all of them are needed, one after another, and they lie beside each other.
const PAGES_AHEAD: usize = 16;

/// A page with its layout.
struct Page<P> {
    id: PageId,
    page: P,
    layout: LayoutPage,
}

/// Where the walk is on one level.
#[derive(Default)]
struct Level {
    here: Option<Page<TreePage>>,
    /// Pages that follow.
    ahead: VecDeque<Page<TreePage>>,
}

/// A version whose pages may be used again.
pub(crate) struct Base {
    reader: Arc<Reader>,
    runtime: Handle,
    root: (PageId, ChildPlace),
    policy: Policy,
    reliance: Reliance,
    /// The way from the root down to where the walk is.
    way: Vec<Level>,
}

impl Base {
    /// Reads a version. `runtime` runs the reading while a thread waits for it.
    pub(crate) async fn open(
        reader: Arc<Reader>,
        record: &VersionRecord,
        runtime: Handle,
    ) -> Result<Base, SnapshotError> {
        let snapshot = Snapshot::open(&reader, record.id, record.version, record.tree).await?;
        Ok(Base {
            reader,
            runtime,
            root: (snapshot.version.tree.page, record.tree),
            policy: snapshot.version.policy,
            reliance: Reliance { version: record.id, tree: record.tree },
            way: Vec::new(),
        })
    }

    /// What the commit must find as it is now.
    pub(crate) fn reliance(&self) -> Reliance {
        self.reliance
    }

    /// Whether a version with this tree and policy would say the same again.
    pub(crate) fn is_same(&self, root: PageId, policy: &Policy) -> bool {
        self.root.0 == root && self.policy == *policy
    }

    /// Where a tree page lies, if the version has it. Ask for pages in the order in which a builder gives them. `first` is
    /// the first path of the page or below it.
    pub(crate) fn tree_page(
        &mut self,
        id: PageId,
        level: u8,
        first: Option<&TreePath>,
    ) -> Result<Option<ChildPlace>, ReadError> {
        if id == self.root.0 {
            return Ok(Some(self.root.1));
        }
        let Some(first) = first else { return Ok(None) };
        let found = self.covering(level, first)?;
        Ok(found.filter(|(found, _)| *found == id).map(|(_, place)| place))
    }

    /// Where the manifest of the file at `path` begins, and what its root is, if the version has such a file.
    pub(crate) fn manifest(&mut self, path: &TreePath) -> Result<Option<(PageId, ChildPlace)>, ReadError> {
        let Some((id, place)) = self.covering(0, path)? else { return Ok(None) };
        // The leaf is one level below the last page of the way to it, or the root.
        let depth = self.way.iter().position(|level| level.here.as_ref().is_some_and(|here| here.id == id));
        let depth = depth.unwrap_or_else(|| self.depth_of_leaves());
        self.load(depth, id, place, &[])?;
        let leaf = self.here(depth);
        let (TreePage::Leaf(entries), Found::Entry { position, entry }) = (&leaf.page, leaf.page.find(path))
        else {
            return Ok(None);
        };
        let Some(root) = entry.manifest() else { return Ok(None) };
        let before = entries[..position].iter().filter(|(_, entry)| entry.manifest().is_some()).count();
        Ok(Some((root, child_place(&leaf.layout, before)?)))
    }

    /// Places of all pages of a manifest. Reads its inner pages.
    pub(crate) fn manifest_pages(
        &self,
        root: PageId,
        place: ChildPlace,
    ) -> Result<HashMap<PageId, ChildPlace>, ReadError> {
        let mut places = HashMap::from([(root, place)]);
        let mut unread = VecDeque::from([(root, place)]);
        while !unread.is_empty() {
            let some: Vec<_> = unread.drain(..unread.len().min(PAGES_AHEAD)).collect();
            for Page { page, layout, .. } in self.fetch(&some, ManifestPage::decode)? {
                for (position, child) in page.page_refs().enumerate() {
                    let place = child_place(&layout, position)?;
                    places.insert(child, place);
                    if page.level() > 1 {
                        unread.push_back((child, place));
                    }
                }
            }
        }
        Ok(places)
    }

    /// The page of `level` that has the path, if it is in the tree; itself unread.
    fn covering(&mut self, level: u8, path: &TreePath) -> Result<Option<(PageId, ChildPlace)>, ReadError> {
        let (mut id, mut place) = self.root;
        let mut ahead = Vec::new();
        for depth in 0.. {
            self.load(depth, id, place, &ahead)?;
            let here = self.here(depth);
            if here.page.level() <= level {
                return Ok((here.page.level() == level).then_some((id, place)));
            }
            let (Found::Below { position, child }, TreePage::Inner { level: own, children }) =
                (here.page.find(path), &here.page)
            else {
                return Ok(None);
            };
            let below = own - 1;
            (id, place) = (child.page, child_place(&here.layout, position)?);
            if below == level {
                return Ok(Some((id, place)));
            }
            ahead = (position + 1..children.len().min(position + PAGES_AHEAD))
                .map(|next| Ok((children[next].page, child_place(&here.layout, next)?)))
                .collect::<Result<_, ReadError>>()?;
        }
        Ok(None)
    }

    /// How deep leaves are, once the way to one was gone.
    fn depth_of_leaves(&self) -> usize {
        let above = |level: &Level| level.here.as_ref().is_some_and(|here| here.page.level() == 1);
        self.way.iter().position(above).map_or(0, |depth| depth + 1)
    }

    fn here(&self, depth: usize) -> &Page<TreePage> {
        self.way[depth].here.as_ref().expect("it was loaded")
    }

    /// Goes to a page, and reads `ahead` with it if it has to be read.
    fn load(
        &mut self,
        depth: usize,
        id: PageId,
        place: ChildPlace,
        ahead: &[(PageId, ChildPlace)],
    ) -> Result<(), ReadError> {
        if self.way.len() <= depth {
            self.way.resize_with(depth + 1, Level::default);
        }
        let level = &mut self.way[depth];
        if level.here.as_ref().is_some_and(|here| here.id == id) {
            return Ok(());
        }
        while let Some(next) = level.ahead.pop_front() {
            if next.id == id {
                level.here = Some(next);
                return Ok(());
            }
        }
        let wanted: Vec<_> = [(id, place)].into_iter().chain(ahead.iter().copied()).collect();
        let mut pages = VecDeque::from(self.fetch(&wanted, TreePage::decode)?);
        let here = pages.pop_front();
        self.way[depth] = Level { here, ahead: pages };
        Ok(())
    }

    fn fetch<P>(
        &self,
        wanted: &[(PageId, ChildPlace)],
        decode: impl Fn(&[u8]) -> Result<P, DecodeError>,
    ) -> Result<Vec<Page<P>>, ReadError> {
        let items: Vec<Wanted> = wanted
            .iter()
            .flat_map(|(id, place)| {
                let layout = Wanted::named(layout_id(id), place.layout, LAYOUT_BYTES_MAX);
                [Wanted::page(*id, place.page), layout]
            })
            .collect();
        let plains = self.runtime.block_on(self.reader.items(&items))?;
        let pairs = wanted.iter().zip(plains.chunks_exact(2));
        pairs
            .map(|((id, _), pair)| {
                let (page, layout) = (decode(&pair[0])?, LayoutPage::decode(&pair[1])?);
                Ok(Page { id: *id, page, layout })
            })
            .collect()
    }
}

fn child_place(layout: &LayoutPage, position: usize) -> Result<ChildPlace, ReadError> {
    layout.children().get(position).copied().ok_or(ReadError::Broken(DecodeError::Invalid {
        format: "layout page",
        reason: "it describes fewer pages than its page has",
    }))
}
