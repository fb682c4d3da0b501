//! Walks a tree from left to right, reading only the pages that it has to open.

use super::{Entry, Found, PageId, PageSource, TreeChild, TreePage, TreeRoot, WalkError};
use crate::path::TreePath;

/// The entry at `path`, reading one page a level.
///
/// # Errors
/// [`WalkError`].
pub fn get<S: PageSource>(
    source: &S,
    root: &PageId,
    path: &TreePath,
) -> Result<Option<Entry>, WalkError<S::Error>> {
    let mut page = read(source, root)?;
    loop {
        let below = match page.find(path) {
            Found::Entry { entry, .. } => return Ok(Some(entry.clone())),
            Found::Absent => return Ok(None),
            Found::Below { position, child } => {
                let upper = upper_of(&page, position);
                read_below(source, page.level() - 1, child, upper)?
            }
        };
        page = below;
    }
}

pub(super) fn read<S: PageSource>(source: &S, id: &PageId) -> Result<TreePage, WalkError<S::Error>> {
    let bytes = source.page(id).map_err(|source| WalkError::Source { page: *id, source })?;
    TreePage::decode(&bytes).map_err(|reason| WalkError::Broken { page: *id, reason })
}

fn read_below<S: PageSource>(
    source: &S,
    level: u8,
    child: &TreeChild,
    upper: Option<&TreePath>,
) -> Result<TreePage, WalkError<S::Error>> {
    let page = read(source, &child.page)?;
    page.check_below(level, child, upper).map_err(|reason| WalkError::Broken { page: child.page, reason })?;
    Ok(page)
}

fn upper_of(page: &TreePage, position: usize) -> Option<&TreePath> {
    match page {
        TreePage::Leaf(_) => None,
        TreePage::Inner { children, .. } => children.get(position + 1).map(|child| &child.first),
    }
}

/// A position in a tree: the next entry, or the next page that is not opened yet.
pub(super) struct Cursor {
    /// From the root down. Of an inner page the position is that of the child which is next, or which is open below.
    stack: Vec<(TreePage, usize)>,
    root: TreeRoot,
}

/// What comes next.
pub(super) enum Head<'a> {
    Entry(&'a TreePath, &'a Entry),
    /// A page with its level, and everything below it.
    Subtree(&'a TreeChild, u8),
}

impl Cursor {
    pub(super) fn open<S: PageSource>(source: &S, root: &PageId) -> Result<Cursor, WalkError<S::Error>> {
        let page = read(source, root)?;
        let root = page.totals(*root);
        let mut cursor = Cursor { stack: vec![(page, 0)], root };
        cursor.settle();
        Ok(cursor)
    }

    /// The root with its sums.
    pub(super) fn root(&self) -> TreeRoot {
        self.root
    }

    pub(super) fn head(&self) -> Option<Head<'_>> {
        let (page, position) = self.stack.last()?;
        match page {
            TreePage::Leaf(entries) => {
                let (path, entry) = entries.get(*position)?;
                Some(Head::Entry(path, entry))
            }
            TreePage::Inner { level, children } => Some(Head::Subtree(children.get(*position)?, level - 1)),
        }
    }

    /// Everything in the head lies before this path; `None` when nothing comes after it.
    pub(super) fn upper(&self) -> Option<&TreePath> {
        self.stack.iter().rev().find_map(|(page, position)| upper_of(page, *position))
    }

    /// Passes the head, with everything below it.
    pub(super) fn advance(&mut self) {
        if let Some((_, position)) = self.stack.last_mut() {
            *position += 1;
        }
        self.settle();
    }

    /// Opens the subtree that is the head. An entry stays as it is.
    pub(super) fn expand<S: PageSource>(&mut self, source: &S) -> Result<(), WalkError<S::Error>> {
        let Some(Head::Subtree(child, level)) = self.head() else { return Ok(()) };
        let page = read_below(source, level, child, self.upper())?;
        self.stack.push((page, 0));
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        while let Some((page, position)) = self.stack.last() {
            let rows = match page {
                TreePage::Leaf(entries) => entries.len(),
                TreePage::Inner { children, .. } => children.len(),
            };
            if *position < rows {
                return;
            }
            self.stack.pop();
            if let Some((_, position)) = self.stack.last_mut() {
                *position += 1;
            }
        }
    }

    /// Passes everything before `start` (as bytes, which need not be a path), opening one page a level.
    fn seek<S: PageSource>(&mut self, source: &S, start: &[u8]) -> Result<(), WalkError<S::Error>> {
        loop {
            match self.head() {
                Some(Head::Entry(path, _)) if path.as_str().as_bytes() < start => self.advance(),
                Some(Head::Subtree(child, _)) if child.first.as_str().as_bytes() < start => {
                    if self.upper().is_some_and(|upper| upper.as_str().as_bytes() <= start) {
                        self.advance();
                    } else {
                        self.expand(source)?;
                    }
                }
                Some(Head::Entry(..) | Head::Subtree(..)) | None => return Ok(()),
            }
        }
    }
}

/// Entries by rising path. Reads each page when it comes to it; after an error it ends.
pub struct Entries<'s, S: PageSource> {
    source: &'s S,
    cursor: Option<Cursor>,
    below: Option<TreePath>,
}

impl<'s, S: PageSource> Entries<'s, S> {
    /// All entries of a tree.
    ///
    /// # Errors
    /// [`WalkError`] when the root can't be read.
    pub fn all(source: &'s S, root: &PageId) -> Result<Entries<'s, S>, WalkError<S::Error>> {
        Ok(Entries { source, cursor: Some(Cursor::open(source, root)?), below: None })
    }

    /// The entries below a folder. None when there is no such folder, or when `folder` is an entry itself: [`get`] tells.
    ///
    /// # Errors
    /// [`WalkError`] when a page on the way can't be read.
    pub fn below(
        source: &'s S,
        root: &PageId,
        folder: &TreePath,
    ) -> Result<Entries<'s, S>, WalkError<S::Error>> {
        let mut cursor = Cursor::open(source, root)?;
        cursor.seek(source, format!("{folder}/").as_bytes())?;
        Ok(Entries { source, cursor: Some(cursor), below: Some(folder.clone()) })
    }

    /// Leaves out everything up to `path`, and `path` itself, without reading what is left out.
    ///
    /// # Errors
    /// [`WalkError`] when a page on the way can't be read.
    pub fn after(mut self, path: &TreePath) -> Result<Entries<'s, S>, WalkError<S::Error>> {
        if let Some(cursor) = &mut self.cursor {
            // The least path after this one: no path has a NUL byte.
            cursor.seek(self.source, format!("{path}\0").as_bytes())?;
        }
        Ok(self)
    }
}

impl<S: PageSource> Iterator for Entries<'_, S> {
    type Item = Result<(TreePath, Entry), WalkError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let cursor = self.cursor.as_mut()?;
            let is_below = |path: &TreePath| self.below.as_ref().is_none_or(|folder| path.is_below(folder));
            match cursor.head() {
                Some(Head::Entry(path, entry)) if is_below(path) => {
                    let item = (path.clone(), entry.clone());
                    cursor.advance();
                    return Some(Ok(item));
                }
                Some(Head::Subtree(child, _)) if is_below(&child.first) => {
                    if let Err(error) = cursor.expand(self.source) {
                        self.cursor = None;
                        return Some(Err(error));
                    }
                }
                Some(Head::Entry(..) | Head::Subtree(..)) | None => {
                    self.cursor = None;
                    return None;
                }
            }
        }
    }
}

impl<S: PageSource> std::fmt::Debug for Entries<'_, S> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Entries").field("below", &self.below).finish_non_exhaustive()
    }
}
