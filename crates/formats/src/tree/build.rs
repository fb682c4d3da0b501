//! Builds a tree from its sorted entries, in memory bounded by one open page a level.

use super::{Entry, EntryError, LeafRow, PageId, TreeRoot, TreeShape};
use crate::pages::Levels;
use crate::path::{Reach, TreePath};

/// Takes entries by rising path and gives the finished pages, children before parents.
#[derive(Default)]
pub struct TreeBuilder {
    levels: Levels<TreeShape>,
    above: Above,
}

/// Why an entry can't be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// It comes before the last one, or twice: the caller has to sort.
    #[error("paths do not rise: {path} after {previous}")]
    Disorder {
        /// The path before.
        previous: TreePath,
        /// The path that should come later.
        path: TreePath,
    },
    /// One path is an entry and would also have to be a folder.
    #[error("{below} can't lie below {entry}, which is no folder")]
    BelowEntry {
        /// The file, symlink or empty folder.
        entry: TreePath,
        /// What would lie below it.
        below: TreePath,
    },
    /// The entry can't be what it says.
    #[error("the entry of {path} can't be")]
    Entry {
        /// Its path.
        path: TreePath,
        /// What is wrong with it.
        #[source]
        reason: EntryError,
    },
}

impl TreeBuilder {
    /// A builder without entries.
    #[must_use]
    pub fn new() -> TreeBuilder {
        TreeBuilder::default()
    }

    /// Adds the next entry. `sink` gets every page that this finishes.
    ///
    /// # Errors
    /// [`BuildError`]; the entry is not added, and the builder can go on.
    pub fn push(
        &mut self,
        path: &TreePath,
        entry: &Entry,
        sink: &mut impl FnMut(PageId, Vec<u8>),
    ) -> Result<(), BuildError> {
        // The path before is always among them.
        if let Some(previous) = self.above.last().filter(|last| *last >= path) {
            return Err(BuildError::Disorder { previous: previous.clone(), path: path.clone() });
        }
        entry.check(path).map_err(|reason| BuildError::Entry { path: path.clone(), reason })?;
        self.above.check(path)?;
        self.above.move_to(path);
        self.above.push(path.clone(), Edit::Put);
        self.levels.push(&LeafRow { path, entry }, sink);
        Ok(())
    }

    /// Finishes the last pages and gives the root. The tree without entries is one empty leaf.
    #[must_use]
    pub fn finish(self, sink: &mut impl FnMut(PageId, Vec<u8>)) -> TreeRoot {
        let top = self.levels.finish(sink);
        TreeRoot { page: top.page, entries: top.totals.items, bytes: top.totals.bytes }
    }
}

impl std::fmt::Debug for TreeBuilder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TreeBuilder").field("last", &self.above.last()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    Put,
    Remove,
}

/// The paths behind the present one below which something may still come. Each begins with the one before it, so
/// there are never more than a path has bytes.
#[derive(Debug, Default)]
pub(super) struct Above(Vec<(TreePath, Edit)>);

impl Above {
    /// Forgets the paths below which nothing can come any more at `path`.
    pub(super) fn move_to(&mut self, path: &TreePath) {
        while self.0.last().is_some_and(|(above, _)| above.reach(path) == Reach::After) {
            self.0.pop();
        }
    }

    pub(super) fn push(&mut self, path: TreePath, edit: Edit) {
        self.0.push((path, edit));
    }

    fn last(&self) -> Option<&TreePath> {
        self.0.last().map(|(path, _)| path)
    }

    /// Refuses what would lie below an entry that was put.
    pub(super) fn check(&self, path: &TreePath) -> Result<(), BuildError> {
        match self.put().find(|above| above.reach(path) == Reach::Below) {
            Some(entry) => Err(BuildError::BelowEntry { entry: entry.clone(), below: path.clone() }),
            None => Ok(()),
        }
    }

    /// Whether something below an entry that was put could lie after `first` and before `upper`.
    pub(super) fn may_cover(&self, first: &TreePath, upper: Option<&TreePath>) -> bool {
        self.put().any(|above| {
            above.reach(first) == Reach::Between
                && upper.is_none_or(|upper| matches!(above.reach(upper), Reach::Below | Reach::After))
        })
    }

    /// What became of `path`, if it is one of these.
    pub(super) fn edit_of(&self, path: &TreePath) -> Option<Edit> {
        self.0.iter().find(|(above, _)| above == path).map(|(_, edit)| *edit)
    }

    fn put(&self) -> impl Iterator<Item = &TreePath> {
        self.0.iter().filter(|(_, edit)| *edit == Edit::Put).map(|(path, _)| path)
    }
}
