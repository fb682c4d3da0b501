//! What changed between two trees, reading only pages that differ.

use super::walk::{Cursor, Head};
use super::{Entry, PageId, PageSource, WalkError};
use crate::path::TreePath;
use std::cmp::Ordering;

/// One path's change from the first tree to the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the second tree has it.
    Added {
        /// The path.
        path: TreePath,
        /// What it is.
        entry: Entry,
    },
    /// Only the first tree has it.
    Removed {
        /// The path.
        path: TreePath,
        /// What it was.
        entry: Entry,
    },
    /// Both have it, and it differs.
    Modified {
        /// The path.
        path: TreePath,
        /// What it was.
        before: Entry,
        /// What it is.
        after: Entry,
    },
}

impl Change {
    /// The path that changed.
    #[must_use]
    pub fn path(&self) -> &TreePath {
        match self {
            Change::Added { path, .. } | Change::Removed { path, .. } | Change::Modified { path, .. } => path,
        }
    }
}

/// The changes from the tree `before` to the tree `after`, by rising path. Where both have the same page, neither is read.
///
/// # Errors
/// [`WalkError`] when a root can't be read; later pages fail in the iterator.
pub fn diff<'s, S: PageSource>(
    source: &'s S,
    before: &PageId,
    after: &PageId,
) -> Result<Diff<'s, S>, WalkError<S::Error>> {
    let trees = if before == after {
        None
    } else {
        Some(Trees { before: Cursor::open(source, before)?, after: Cursor::open(source, after)? })
    };
    Ok(Diff { source, trees })
}

/// An iterator over changes; see [`diff`]. After an error it ends.
pub struct Diff<'s, S: PageSource> {
    source: &'s S,
    trees: Option<Trees>,
}

struct Trees {
    before: Cursor,
    after: Cursor,
}

/// What to do next, decided from the two heads.
enum Step {
    End,
    Skip,
    Open { before: bool, after: bool },
    Give { change: Option<Box<Change>>, before: bool, after: bool },
}

impl Trees {
    fn step(&self) -> Step {
        use Head::{Entry, Subtree};
        match (self.before.head(), self.after.head()) {
            (None, None) => Step::End,
            (Some(Subtree(..)), None) => Step::Open { before: true, after: false },
            (None, Some(Subtree(..))) => Step::Open { before: false, after: true },
            (Some(Subtree(old, old_level)), Some(Subtree(new, new_level))) => {
                if old.page == new.page {
                    return Step::Skip;
                }
                // What starts first is opened, and of two that start together the higher: a page of one tree meets
                // the same page of the other before either is opened.
                let order = new.first.cmp(&old.first).then(old_level.cmp(&new_level));
                Step::Open { before: order != Ordering::Less, after: order != Ordering::Greater }
            }
            (Some(Subtree(old, _)), Some(Entry(path, _))) if old.first <= *path => {
                Step::Open { before: true, after: false }
            }
            (Some(Entry(path, _)), Some(Subtree(new, _))) if new.first <= *path => {
                Step::Open { before: false, after: true }
            }
            (Some(Entry(path, entry)), None | Some(Subtree(..))) => removed(path, entry),
            (None | Some(Subtree(..)), Some(Entry(path, entry))) => added(path, entry),
            (Some(Entry(old_path, old)), Some(Entry(new_path, new))) => match old_path.cmp(new_path) {
                Ordering::Less => removed(old_path, old),
                Ordering::Greater => added(new_path, new),
                Ordering::Equal => {
                    let change = (old != new).then(|| {
                        let (before, after) = (old.clone(), new.clone());
                        Box::new(Change::Modified { path: old_path.clone(), before, after })
                    });
                    Step::Give { change, before: true, after: true }
                }
            },
        }
    }
}

fn removed(path: &TreePath, entry: &Entry) -> Step {
    let change = Some(Box::new(Change::Removed { path: path.clone(), entry: entry.clone() }));
    Step::Give { change, before: true, after: false }
}

fn added(path: &TreePath, entry: &Entry) -> Step {
    let change = Some(Box::new(Change::Added { path: path.clone(), entry: entry.clone() }));
    Step::Give { change, before: false, after: true }
}

impl<S: PageSource> Diff<'_, S> {
    fn open(&mut self, before: bool, after: bool) -> Result<(), WalkError<S::Error>> {
        let Some(trees) = &mut self.trees else { return Ok(()) };
        if before {
            trees.before.expand(self.source)?;
        }
        if after {
            trees.after.expand(self.source)?;
        }
        Ok(())
    }
}

impl<S: PageSource> Iterator for Diff<'_, S> {
    type Item = Result<Change, WalkError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let trees = self.trees.as_mut()?;
            let given = match trees.step() {
                Step::End => {
                    self.trees = None;
                    return None;
                }
                Step::Open { before, after } => {
                    if let Err(error) = self.open(before, after) {
                        self.trees = None;
                        return Some(Err(error));
                    }
                    continue;
                }
                Step::Skip => {
                    trees.before.advance();
                    trees.after.advance();
                    continue;
                }
                Step::Give { change, before, after } => {
                    if before {
                        trees.before.advance();
                    }
                    if after {
                        trees.after.advance();
                    }
                    change
                }
            };
            if let Some(change) = given {
                return Some(Ok(*change));
            }
        }
    }
}

impl<S: PageSource> std::fmt::Debug for Diff<'_, S> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Diff").finish_non_exhaustive()
    }
}
