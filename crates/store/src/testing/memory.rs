//! The disk in memory.

use crate::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

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
    fn is_honest(self, path: &str) -> bool {
        match self {
            Syncs::Honest => true,
            Syncs::Ignored(prefix) => !path.starts_with(prefix),
        }
    }
}

/// How a [`MemDisk`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemDiskOptions {
    /// What [`DiskFile::sync`] does.
    pub file_syncs: Syncs,
    /// What [`Disk::sync_dir`] does.
    pub dir_syncs: Syncs,
    /// Bytes that fit in all files together.
    pub capacity_bytes: u64,
}

impl Default for MemDiskOptions {
    fn default() -> MemDiskOptions {
        MemDiskOptions { file_syncs: Syncs::Honest, dir_syncs: Syncs::Honest, capacity_bytes: 1 << 32 }
    }
}

/// The kinds of call that can be counted or made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`Disk::create`].
    Create,
    /// [`Disk::create_dir`].
    CreateDir,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::truncate`].
    Truncate,
    /// [`DiskFile::sync`].
    Sync,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`DiskFile::read_at`].
    Read,
}

/// A failure to inject.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which call fails.
    pub operation: Operation,
    /// On which paths: those that start with this.
    pub path: String,
    /// How many such calls still succeed first.
    pub skip: u64,
    /// How many then fail.
    pub times: u64,
    /// With which error number: 5 is EIO, 28 is ENOSPC.
    pub errno: i32,
}

/// Calls so far, by kind.
pub type Counters = BTreeMap<Operation, u64>;

/// A disk in memory that keeps what was written apart from what was synced. Clones are the same disk.
#[derive(Clone)]
pub struct MemDisk {
    shared: Arc<Shared>,
}

struct Shared {
    options: MemDiskOptions,
    world: Mutex<World>,
    sync_gate: Condvar,
}

#[derive(Default)]
struct World {
    /// By path; `""` is the root.
    dirs: BTreeMap<String, Dir>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    used: u64,
    faults: Vec<Fault>,
    counters: Counters,
    /// Calls that changed something.
    steps: u64,
    power: Power,
    syncs_held: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Power {
    #[default]
    On,
    /// On until this step.
    Until(u64),
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File(u64),
    Dir,
}

#[derive(Default)]
struct Dir {
    names: BTreeMap<String, Node>,
    synced: BTreeMap<String, Node>,
    /// Since the last sync, in order.
    unsynced: Vec<NameChange>,
}

enum NameChange {
    Added(String, Node),
    Renamed { from: String, to: String, node: Node },
    Removed(String),
}

#[derive(Default)]
struct Inode {
    /// For faults, which are told by path.
    path: String,
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<ByteChange>,
}

#[derive(Clone)]
enum ByteChange {
    Written { offset: usize, bytes: Vec<u8> },
    Truncated(usize),
}

fn apply(change: &ByteChange, to: &mut Vec<u8>) {
    match change {
        ByteChange::Written { offset, bytes } => {
            let end = offset + bytes.len();
            if to.len() < end {
                to.resize(end, 0);
            }
            to[*offset..end].copy_from_slice(bytes);
        }
        ByteChange::Truncated(length) => to.resize(*length, 0),
    }
}

fn rename_in(names: &mut BTreeMap<String, Node>, change: &NameChange) {
    match change {
        NameChange::Added(name, node) => {
            names.insert(name.clone(), *node);
        }
        NameChange::Renamed { from, to, node } => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
        NameChange::Removed(name) => {
            names.remove(name);
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn exists() -> io::Error {
    io::Error::from(io::ErrorKind::AlreadyExists)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a file in memory fits into memory")
}

/// What a call may do once faults and power were looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    Done,
    /// Power fails during this very call: what it changes may or may not last, and nobody hears of it.
    Interrupted,
}

impl Grant {
    fn answer(self) -> io::Result<()> {
        match self {
            Grant::Done => Ok(()),
            Grant::Interrupted => Err(power_is_off()),
        }
    }
}

impl World {
    fn enter(&mut self, operation: Operation, path: &str) -> io::Result<Grant> {
        if self.power == Power::Off {
            return Err(power_is_off());
        }
        *self.counters.entry(operation).or_default() += 1;
        let fault = self.faults.iter_mut().find(|fault| {
            fault.operation == operation
                && path.starts_with(&fault.path)
                && (fault.skip > 0 || fault.times > 0)
        });
        if let Some(fault) = fault {
            if fault.skip == 0 {
                fault.times -= 1;
                return Err(io::Error::from_raw_os_error(fault.errno));
            }
            fault.skip -= 1;
        }
        if operation == Operation::Read {
            return Ok(Grant::Done);
        }
        let step = self.steps;
        self.steps += 1;
        if self.power == Power::Until(step) {
            self.power = Power::Off;
            return Ok(Grant::Interrupted);
        }
        Ok(Grant::Done)
    }

    fn dir(&mut self, path: &str) -> io::Result<&mut Dir> {
        self.dirs.get_mut(path).ok_or_else(not_found)
    }

    fn change(&mut self, dir: &str, change: NameChange) -> io::Result<()> {
        let dir = self.dir(dir)?;
        rename_in(&mut dir.names, &change);
        dir.unsynced.push(change);
        Ok(())
    }

    fn lookup(&self, path: &str) -> io::Result<u64> {
        let (dir, name) = split(path);
        match self.dirs.get(dir).and_then(|dir| dir.names.get(name)) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) | None => Err(not_found()),
        }
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("inodes are never dropped")
    }

    /// Copies what survives of `dir` and below into `next`.
    fn survive(&self, path: &str, choose: &mut dyn FnMut(usize) -> usize, next: &mut World) {
        let dir = &self.dirs[path];
        let mut names = dir.synced.clone();
        for change in &dir.unsynced {
            if choose(2) == 1 {
                rename_in(&mut names, change);
            }
        }
        for (name, node) in &names {
            let inner = join(path, name);
            match node {
                Node::File(inode) if !next.inodes.contains_key(inode) => {
                    let bytes = self.inodes[inode].after_crash(choose);
                    next.used += u64::try_from(bytes.len()).expect("usize has at most 64 bits");
                    let file =
                        Inode { path: inner, bytes: bytes.clone(), synced: bytes, unsynced: Vec::new() };
                    next.inodes.insert(*inode, file);
                }
                Node::File(_) => {}
                Node::Dir => self.survive(&inner, choose, next),
            }
        }
        next.dirs.insert(path.to_owned(), Dir { names: names.clone(), synced: names, unsynced: Vec::new() });
    }
}

impl Inode {
    /// Each unsynced change is lost, kept, or kept in part, whatever happened to those before it: pages are written
    /// in any order.
    fn after_crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for change in &self.unsynced {
            match (change, choose(3)) {
                (_, 0) | (ByteChange::Truncated(_), 1) => {}
                (ByteChange::Written { offset, bytes: written }, 1) => {
                    let torn = written[..choose(written.len() + 1)].to_vec();
                    apply(&ByteChange::Written { offset: *offset, bytes: torn }, &mut bytes);
                }
                _ => apply(change, &mut bytes),
            }
        }
        bytes
    }
}

impl Default for MemDisk {
    fn default() -> MemDisk {
        MemDisk::new(MemDiskOptions::default())
    }
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(options: MemDiskOptions) -> MemDisk {
        let mut world = World::default();
        world.dirs.insert(String::new(), Dir::default());
        MemDisk::with(options, world)
    }

    fn with(options: MemDiskOptions, world: World) -> MemDisk {
        let shared = Shared { options, world: Mutex::new(world), sync_gate: Condvar::new() };
        MemDisk { shared: Arc::new(shared) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().expect("no call of this disk panics while it holds the world")
    }

    /// The disk as the next boot finds it. Power goes off here: this disk and its handles only fail from now on.
    ///
    /// Everything synced is there. For each unsynced change of a folder `choose(2)` is asked (1 keeps it), for each
    /// unsynced write `choose(3)`: 0 loses it, 1 tears it after the first `choose(length + 1)` bytes, 2 keeps it.
    /// `choose(n)` answers with a number below `n`.
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> MemDisk {
        let mut world = self.world();
        world.power = Power::Off;
        world.syncs_held = false;
        self.shared.sync_gate.notify_all();
        let mut next = World { next_inode: world.next_inode, ..World::default() };
        world.survive("", choose, &mut next);
        MemDisk::with(self.shared.options, next)
    }

    /// Power fails during the changing call with this number (see [`MemDisk::steps`]); later calls fail too.
    pub fn power_off_at(&self, step: u64) {
        self.world().power = Power::Until(step);
    }

    /// How many calls changed something so far, failed ones left out.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.world().steps
    }

    /// Calls so far, by kind.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.world().counters.clone()
    }

    /// Lets calls fail.
    pub fn inject(&self, fault: Fault) {
        self.world().faults.push(fault);
    }

    /// Ends all injected failures.
    pub fn heal(&self) {
        self.world().faults.clear();
    }

    /// Lets every sync wait until [`MemDisk::release_syncs`], so that a test sees what gathers behind one.
    pub fn hold_syncs(&self) {
        self.world().syncs_held = true;
    }

    /// Lets waiting syncs go on.
    pub fn release_syncs(&self) {
        self.world().syncs_held = false;
        self.shared.sync_gate.notify_all();
    }

    /// Flips a bit at rest, synced and not.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &str, offset: usize, bit: u32) {
        let mut world = self.world();
        let inode = world.lookup(path).expect("the file exists");
        let inode = world.inode(inode);
        inode.bytes[offset] ^= 1 << bit;
        if let Some(byte) = inode.synced.get_mut(offset) {
            *byte ^= 1 << bit;
        }
    }

    /// The bytes of a file.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let mut world = self.world();
        let inode = world.lookup(path).expect("the file exists");
        world.inode(inode).bytes.clone()
    }

    /// Every file's path, in byte order.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let world = self.world();
        let names = world.dirs.iter().flat_map(|(dir, content)| {
            let files = content.names.iter().filter(|(_, node)| **node != Node::Dir);
            files.map(|(name, _)| join(dir, name))
        });
        let mut files = names.collect::<Vec<_>>();
        files.sort_unstable();
        files
    }

    /// Waits while syncs are held, then enters the call.
    fn enter_sync(&self, operation: Operation, path: &str) -> io::Result<(MutexGuard<'_, World>, Grant)> {
        let world = self.world();
        let mut world = self
            .shared
            .sync_gate
            .wait_while(world, |world| world.syncs_held)
            .expect("no call of this disk panics while it holds the world");
        let grant = world.enter(operation, path)?;
        Ok((world, grant))
    }
}

impl Disk for MemDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let grant = world.enter(Operation::Create, path)?;
        let (dir, name) = split(path);
        if world.dir(dir)?.names.contains_key(name) {
            return Err(exists());
        }
        let inode = world.next_inode;
        world.next_inode += 1;
        world.inodes.insert(inode, Inode { path: path.to_owned(), ..Inode::default() });
        world.change(dir, NameChange::Added(name.to_owned(), Node::File(inode)))?;
        grant.answer()?;
        Ok(Arc::new(MemFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.world();
        if world.power == Power::Off {
            return Err(power_is_off());
        }
        Ok(Arc::new(MemFile { disk: self.clone(), inode: world.lookup(path)? }))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        let grant = world.enter(Operation::CreateDir, path)?;
        let (dir, name) = split(path);
        if world.dir(dir)?.names.contains_key(name) {
            return Err(exists());
        }
        world.change(dir, NameChange::Added(name.to_owned(), Node::Dir))?;
        world.dirs.insert(path.to_owned(), Dir::default());
        grant.answer()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let grant = world.enter(Operation::Rename, from)?;
        let inode = world.lookup(from)?;
        let ((dir, from), (to_dir, to_name)) = (split(from), split(to));
        assert_eq!(dir, to_dir, "a rename stays in its folder");
        if let Ok(replaced) = world.lookup(to) {
            world.used -=
                u64::try_from(world.inodes[&replaced].bytes.len()).expect("usize has at most 64 bits");
        }
        world.inode(inode).path = to.to_owned();
        let change =
            NameChange::Renamed { from: from.to_owned(), to: to_name.to_owned(), node: Node::File(inode) };
        world.change(dir, change)?;
        grant.answer()
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut world = self.world();
        let grant = world.enter(Operation::Remove, path)?;
        let inode = world.lookup(path)?;
        let (dir, name) = split(path);
        world.change(dir, NameChange::Removed(name.to_owned()))?;
        world.used -= u64::try_from(world.inodes[&inode].bytes.len()).expect("usize has at most 64 bits");
        grant.answer()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut world = self.world();
        if world.power == Power::Off {
            return Err(power_is_off());
        }
        Ok(world.dir(dir)?.names.keys().cloned().collect())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let (mut world, grant) = self.enter_sync(Operation::SyncDir, dir)?;
        grant.answer()?;
        let content = world.dir(dir)?;
        if self.shared.options.dir_syncs.is_honest(dir) {
            content.synced = content.names.clone();
            content.unsynced.clear();
        }
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        let world = self.world();
        if world.power == Power::Off {
            return Err(power_is_off());
        }
        Ok(self.shared.options.capacity_bytes.saturating_sub(world.used))
    }
}

struct MemFile {
    disk: MemDisk,
    inode: u64,
}

impl DiskFile for MemFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut world = self.disk.world();
        let path = world.inode(self.inode).path.clone();
        world.enter(Operation::Read, &path)?;
        let bytes = &world.inode(self.inode).bytes;
        let start = index(offset);
        let found = bytes.get(start..start + into.len());
        into.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.disk.world();
        let path = world.inode(self.inode).path.clone();
        let grant = world.enter(Operation::Write, &path)?;
        let capacity = self.disk.shared.options.capacity_bytes;
        let used = world.used;
        let inode = world.inode(self.inode);
        let growth = (index(offset) + bytes.len()).saturating_sub(inode.bytes.len());
        let growth = u64::try_from(growth).expect("usize has at most 64 bits");
        if used + growth > capacity {
            const ENOSPC: i32 = 28;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let change = ByteChange::Written { offset: index(offset), bytes: bytes.to_vec() };
        apply(&change, &mut inode.bytes);
        inode.unsynced.push(change);
        world.used += growth;
        grant.answer()
    }

    fn length(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        if world.power == Power::Off {
            return Err(power_is_off());
        }
        Ok(u64::try_from(world.inode(self.inode).bytes.len()).expect("usize has at most 64 bits"))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let path = world.inode(self.inode).path.clone();
        let grant = world.enter(Operation::Truncate, &path)?;
        let inode = world.inode(self.inode);
        let before = u64::try_from(inode.bytes.len()).expect("usize has at most 64 bits");
        let change = ByteChange::Truncated(index(length));
        apply(&change, &mut inode.bytes);
        inode.unsynced.push(change);
        world.used = world.used - before + length;
        grant.answer()
    }

    fn sync(&self) -> io::Result<()> {
        let path = self.disk.world().inode(self.inode).path.clone();
        let (mut world, grant) = self.disk.enter_sync(Operation::Sync, &path)?;
        grant.answer()?;
        if self.disk.shared.options.file_syncs.is_honest(&path) {
            let inode = world.inode(self.inode);
            // Only the changes, not the whole file: a volume is synced a thousand times.
            for change in std::mem::take(&mut inode.unsynced) {
                apply(&change, &mut inode.synced);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, Fault, MemDisk, MemDiskOptions, Operation, Syncs};

    fn lose_all(_: usize) -> usize {
        0
    }

    #[test]
    fn unsynced_bytes_and_names_are_lost() {
        let disk = MemDisk::default();
        let file = disk.create("kept").unwrap();
        file.write_at(0, b"synced").unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(6, b" and not").unwrap();
        let nameless = disk.create("nameless").unwrap();
        nameless.write_at(0, b"bytes").unwrap();
        nameless.sync().unwrap();
        let after = disk.crash(&mut lose_all);
        assert_eq!(after.files(), ["kept"]);
        assert_eq!(after.bytes("kept"), b"synced");
        assert!(file.sync().is_err());
    }

    #[test]
    fn torn_write_leaves_its_first_bytes() {
        let disk = MemDisk::default();
        let file = disk.create("torn").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(0, b"abcdef").unwrap();
        let mut choices = [1, 4].into_iter();
        let after = disk.crash(&mut |_| choices.next().unwrap());
        assert_eq!(after.bytes("torn"), b"abcd");
    }

    #[test]
    fn interrupted_call_fails_and_may_have_happened() {
        let disk = MemDisk::default();
        let file = disk.create("file").unwrap();
        disk.sync_dir("").unwrap();
        disk.power_off_at(disk.steps());
        assert!(file.write_at(0, b"last").is_err());
        assert!(disk.list("").is_err());
        assert_eq!(disk.crash(&mut |options| options - 1).bytes("file"), b"last");
        assert_eq!(disk.crash(&mut lose_all).bytes("file"), b"");
    }

    #[test]
    fn ignored_syncs_keep_nothing() {
        let options = MemDiskOptions { file_syncs: Syncs::Ignored(""), ..MemDiskOptions::default() };
        let disk = MemDisk::new(options);
        let file = disk.create("file").unwrap();
        file.write_at(0, b"bytes").unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        assert_eq!(disk.crash(&mut lose_all).bytes("file"), b"");
    }

    #[test]
    fn faults_hit_the_call_they_name() {
        let disk = MemDisk::default();
        let file = disk.create("volumes-1").unwrap();
        disk.inject(Fault {
            operation: Operation::Sync,
            path: "volumes".into(),
            skip: 1,
            times: 1,
            errno: 5,
        });
        file.sync().unwrap();
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.sync().unwrap();
    }

    #[test]
    fn full_disk_refuses_growth_only() {
        let disk = MemDisk::new(MemDiskOptions { capacity_bytes: 4, ..MemDiskOptions::default() });
        let file = disk.create("file").unwrap();
        file.write_at(0, b"abcd").unwrap();
        assert_eq!(file.write_at(2, b"xyz").unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        file.write_at(2, b"xy").unwrap();
        disk.remove("file").unwrap();
        assert_eq!(disk.free_space().unwrap(), 4);
    }
}
