//! Edits a tree: reads and writes only pages near the edits, and gives exactly the root that a full build would.
//!
//! The old tree and the edits are merged from left to right into the levels of a builder. Wherever every open page up to
//! some level is empty, a new page of that level would start; if an old page starts there too and no edit falls into
//! it, a full build would write the same page again, so it is taken over unread. Only the last page of each level may
//! have ended without the rule, and that one is taken over only when nothing follows.

use super::build::{Above, Edit};
use super::walk::{Cursor, Head, get, read};
use super::{
    BuildError, Entry, LeafRow, PageId, PageSource, TreeChild, TreePage, TreePath, TreeRoot, TreeShape,
    WalkError,
};
use crate::pages::Levels;
use std::cmp::Ordering;
use std::iter::Peekable;

/// Why a tree could not be edited.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E: std::error::Error + 'static> {
    /// The edits can't be: out of order, an entry that is wrong, or a path below another entry.
    #[error(transparent)]
    Edit(#[from] BuildError),
    /// The old tree could not be read.
    #[error(transparent)]
    Walk(#[from] WalkError<E>),
}

/// Puts (`Some`) and removes (`None`) entries of the tree under `root`. Edits come by rising path, each path once;
/// removing what is not there changes nothing. `sink` gets every page that was written, children before parents; some of
/// them the old tree may have had already.
///
/// # Errors
/// [`UpdateError`]; pages that `sink` got until then are of no use.
pub fn update<S: PageSource>(
    source: &S,
    root: &PageId,
    edits: impl IntoIterator<Item = (TreePath, Option<Entry>)>,
    sink: &mut impl FnMut(PageId, Vec<u8>),
) -> Result<TreeRoot, UpdateError<S::Error>> {
    let cursor = Cursor::open(source, root)?;
    let mut edits = edits.into_iter().peekable();
    if edits.peek().is_none() {
        return Ok(cursor.root());
    }
    let mut merge = Merge {
        source,
        root,
        cursor,
        levels: Levels::default(),
        above: Above::default(),
        last_edit: None,
        last_seen: None,
    };
    while merge.step(&mut edits, sink)? {}
    let top = merge.levels.finish(sink);
    let mut found = TreeRoot { page: top.page, entries: top.totals.items, bytes: top.totals.bytes };
    if top.is_reused {
        // When all that is left hangs on one old page, that page may have a single child: then the child is the root.
        while let TreePage::Inner { children, .. } = read(source, &found.page)?
            && let [only] = children.as_slice()
        {
            found.page = only.page;
        }
    }
    Ok(found)
}

struct Merge<'a, S: PageSource> {
    source: &'a S,
    root: &'a PageId,
    cursor: Cursor,
    levels: Levels<TreeShape>,
    /// Edits behind us below whose path something may still come.
    above: Above,
    last_edit: Option<(TreePath, Edit)>,
    /// The last path of the old tree that was read: none of the folders above it is an entry there.
    last_seen: Option<TreePath>,
}

/// What the next step is, decided from the head of the old tree and the next edit.
enum Step {
    End,
    Apply,
    Replace,
    Keep,
    TakeOver(TreeChild, u8),
    Open,
}

impl<S: PageSource> Merge<'_, S> {
    /// Does the next step, and says whether more may follow.
    fn step(
        &mut self,
        edits: &mut Peekable<impl Iterator<Item = (TreePath, Option<Entry>)>>,
        sink: &mut impl FnMut(PageId, Vec<u8>),
    ) -> Result<bool, UpdateError<S::Error>> {
        match self.next_step(edits.peek().map(|(path, _)| path))? {
            Step::End => return Ok(false),
            Step::Apply => {
                if let Some((path, entry)) = edits.next() {
                    self.apply(path, entry, sink)?;
                }
            }
            Step::Replace => {
                if let Some((path, entry)) = edits.next() {
                    self.last_seen = Some(path.clone());
                    self.apply(path, entry, sink)?;
                }
                self.cursor.advance();
            }
            Step::Keep => {
                if let Some(Head::Entry(path, entry)) = self.cursor.head() {
                    self.above.move_to(path);
                    self.above.check(path)?;
                    self.last_seen = Some(path.clone());
                    self.levels.push(&LeafRow { path, entry }, sink);
                }
                self.cursor.advance();
            }
            Step::TakeOver(child, level) => {
                self.levels.reuse(level, child.page, &child, sink);
                self.cursor.advance();
            }
            Step::Open => self.cursor.expand(self.source)?,
        }
        Ok(true)
    }

    fn next_step(&mut self, edit: Option<&TreePath>) -> Result<Step, BuildError> {
        let Some(head) = self.cursor.head() else {
            return Ok(if edit.is_some() { Step::Apply } else { Step::End });
        };
        match head {
            Head::Entry(path, _) => Ok(match edit.map(|edit| edit.cmp(path)) {
                Some(Ordering::Less) => Step::Apply,
                Some(Ordering::Equal) => Step::Replace,
                Some(Ordering::Greater) | None => Step::Keep,
            }),
            Head::Subtree(child, level) => {
                if edit.is_some_and(|edit| *edit < child.first) {
                    return Ok(Step::Apply);
                }
                let upper = self.cursor.upper();
                let is_untouched = edit.is_none_or(|edit| upper.is_some_and(|upper| *edit >= *upper));
                if !is_untouched || !self.levels.is_at_cut(level) {
                    return Ok(Step::Open);
                }
                self.above.move_to(&child.first);
                self.above.check(&child.first)?;
                if self.above.may_cover(&child.first, upper) {
                    return Ok(Step::Open);
                }
                Ok(Step::TakeOver(child.clone(), level))
            }
        }
    }

    fn apply(
        &mut self,
        path: TreePath,
        entry: Option<Entry>,
        sink: &mut impl FnMut(PageId, Vec<u8>),
    ) -> Result<(), UpdateError<S::Error>> {
        if let Some((previous, _)) = self.last_edit.as_ref().filter(|(last, _)| *last >= path) {
            return Err(BuildError::Disorder { previous: previous.clone(), path }.into());
        }
        self.above.move_to(&path);
        let edit = match entry {
            Some(entry) => {
                entry.check(&path).map_err(|reason| BuildError::Entry { path: path.clone(), reason })?;
                self.above.check(&path)?;
                self.check_folders(&path)?;
                self.levels.push(&LeafRow { path: &path, entry: &entry }, sink);
                Edit::Put
            }
            None => Edit::Remove,
        };
        self.above.push(path.clone(), edit);
        self.last_edit = Some((path, edit));
        Ok(())
    }

    /// Whether every folder above a new path is free of an entry in the old tree. A folder that an edit removed is; so
    /// is one above a path that the old tree has, since nothing lies below an entry, or above one that was just put.
    fn check_folders(&self, path: &TreePath) -> Result<(), UpdateError<S::Error>> {
        let head = match self.cursor.head() {
            Some(Head::Entry(path, _)) => Some(path),
            Some(Head::Subtree(child, _)) => Some(&child.first),
            None => None,
        };
        let put = self.last_edit.as_ref().filter(|(_, edit)| *edit == Edit::Put).map(|(path, _)| path);
        let seen = [head, self.last_seen.as_ref(), put];
        for folder in path.folders() {
            let is_free = seen.iter().flatten().any(|seen| seen.is_below(&folder));
            if is_free || self.above.edit_of(&folder).is_some() {
                continue;
            }
            if get(self.source, self.root, &folder)?.is_some() {
                return Err(BuildError::BelowEntry { entry: folder, below: path.clone() }.into());
            }
        }
        Ok(())
    }
}
