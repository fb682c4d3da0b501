//! What a disk in memory can be told to do wrong.

/// What the disk does when it is told to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syncs {
    /// It syncs.
    #[default]
    Honest,
    /// It says that it did, for paths that start with this. A store whose tests pass on such a disk does not need that
    /// sync, or is not tested.
    Ignored(&'static str),
}

impl Syncs {
    pub(super) fn is_honest(self, path: &str) -> bool {
        match self {
            Syncs::Honest => true,
            Syncs::Ignored(prefix) => !path.starts_with(prefix),
        }
    }
}

/// The kinds of call that can be counted, held or made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`crate::Disk::create`].
    Create,
    /// [`crate::Disk::create_dir`].
    CreateDir,
    /// [`crate::DiskFile::write_at`].
    Write,
    /// [`crate::DiskFile::truncate`].
    Truncate,
    /// [`crate::DiskFile::sync`].
    Sync,
    /// [`crate::Disk::sync_dir`].
    SyncDir,
    /// [`crate::Disk::rename`].
    Rename,
    /// [`crate::Disk::remove`].
    Remove,
    /// [`crate::DiskFile::read_at`].
    Read,
    /// [`crate::Disk::open`], [`crate::Disk::list`], [`crate::DiskFile::length`].
    Look,
    /// [`crate::Disk::free_space`].
    FreeSpace,
}

impl Operation {
    /// Whether power can fail during it with a trace.
    pub(super) fn changes(self) -> bool {
        !matches!(self, Operation::Read | Operation::Look | Operation::FreeSpace)
    }
}

/// What goes wrong in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this error number (5 is EIO, 28 is ENOSPC) and does nothing. A failed [`Operation::Sync`] also
    /// forgets what it was to make durable: the bytes still read back, and no later sync writes them, as on Linux.
    Fails(i32),
    /// A write stores its first half, then fails with this error number.
    Half(i32),
    /// A write or a sync says that it is done and does nothing.
    Ignored,
    /// A write stores its first half and says that it is done.
    Torn,
    /// A write goes so many bytes further on than it should, or back, and says that it is done.
    Misdirected(isize),
    /// A read gives the bytes with the lowest bit of the first one flipped.
    Flipped,
}

/// A failure to inject.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which call goes wrong.
    pub operation: Operation,
    /// On which paths: those that start with this.
    pub path: String,
    /// How many such calls still succeed first.
    pub skip: u64,
    /// How many then go wrong.
    pub times: u64,
    /// How.
    pub effect: Effect,
}
