//! The disk in memory.

mod fault;
mod world;

pub use fault::{Effect, Fault, Operation, Syncs};
pub use world::Counters;

use super::crash::{Fate, Pending};
use crate::disk::{Disk, DiskFile};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use world::{ByteChange, Dir, Grant, Held, Inode, NameChange, Node, Power, World, apply, join, split};

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

/// A disk in memory that keeps what was written apart from what was synced. Clones are the same disk.
#[derive(Clone)]
pub struct MemDisk {
    shared: Arc<Shared>,
}

struct Shared {
    options: MemDiskOptions,
    world: Mutex<World>,
    gate: Condvar,
}

fn exists() -> io::Error {
    io::Error::from(io::ErrorKind::AlreadyExists)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a file in memory fits into memory")
}

fn count(length: usize) -> u64 {
    u64::try_from(length).expect("usize has at most 64 bits")
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
        MemDisk { shared: Arc::new(Shared { options, world: Mutex::new(world), gate: Condvar::new() }) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().expect("no call of this disk panics while it holds the world")
    }

    /// Waits while such calls are held, then counts the call and says how it goes on.
    fn enter(&self, operation: Operation, path: &str) -> io::Result<(MutexGuard<'_, World>, Grant)> {
        let mut world = self.world();
        world.waiting += 1;
        let waited = self.shared.gate.wait_while(world, |world| world.held.holds(operation));
        let mut world = waited.expect("no call of this disk panics while it holds the world");
        world.waiting -= 1;
        let grant = world.enter(operation, path)?;
        Ok((world, grant))
    }

    /// Ends all power: this disk and its handles only fail from now on.
    pub fn power_off(&self) {
        self.world().power = Power::Off;
        self.release();
    }

    /// Power fails during the changing call with this number (see [`MemDisk::steps`]); later calls fail too.
    pub fn power_off_at(&self, step: u64) {
        self.world().power = Power::Until(step);
    }

    /// The changes that were not synced.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        self.world().pending()
    }

    /// The disk as the next boot finds it when the [`MemDisk::pending`] changes met these fates. What was synced is there.
    #[must_use]
    pub fn after(&self, fates: &[Fate]) -> MemDisk {
        MemDisk::with(self.shared.options, self.world().after(fates))
    }

    /// Turns power off, then as [`MemDisk::after`].
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(&Pending) -> Fate) -> MemDisk {
        self.power_off();
        let fates = self.pending().iter().map(choose).collect::<Vec<_>>();
        self.after(&fates)
    }

    /// The disk as the next process finds it when this one is killed: nothing is lost, and what was not synced still is
    /// not. This disk and its handles only fail from now on.
    #[must_use]
    pub fn killed(&self) -> MemDisk {
        let mut next = self.world().clone();
        (next.power, next.steps, next.held, next.waiting) = (Power::On, 0, Held::Nothing, 0);
        next.counters.clear();
        self.power_off();
        MemDisk::with(self.shared.options, next)
    }

    /// Equal for disks with equal folders and files.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.world().digest()
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

    /// Lets calls go wrong.
    pub fn inject(&self, fault: Fault) {
        self.world().faults.push(fault);
    }

    /// Ends all injected failures.
    pub fn heal(&self) {
        self.world().faults.clear();
    }

    /// Lets calls of these kinds wait until [`MemDisk::release`], so that a test sees what gathers behind one.
    pub fn hold(&self, operations: &[Operation]) {
        self.world().held = Held::These(operations.to_vec());
    }

    /// Lets every call wait until [`MemDisk::release`]: the disk hangs.
    pub fn hang(&self) {
        self.world().held = Held::Everything;
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.world().waiting
    }

    /// Lets waiting calls go on.
    pub fn release(&self) {
        self.world().held = Held::Nothing;
        self.shared.gate.notify_all();
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
        self.nodes(|node| node != Node::Dir)
    }

    /// Every folder's path, in byte order, without the root.
    #[must_use]
    pub fn folders(&self) -> Vec<String> {
        self.nodes(|node| node == Node::Dir)
    }

    fn nodes(&self, wanted: fn(Node) -> bool) -> Vec<String> {
        let world = self.world();
        let names = world.dirs.iter().flat_map(|(dir, content)| {
            let nodes = content.names.iter().filter(|(_, node)| wanted(**node));
            nodes.map(|(name, _)| join(dir, name))
        });
        let mut names = names.collect::<Vec<_>>();
        names.sort_unstable();
        names
    }
}

impl Disk for MemDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let (mut world, grant) = self.enter(Operation::Create, path)?;
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
        let (world, _) = self.enter(Operation::Look, path)?;
        Ok(Arc::new(MemFile { disk: self.clone(), inode: world.lookup(path)? }))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::CreateDir, path)?;
        let (dir, name) = split(path);
        if world.dir(dir)?.names.contains_key(name) {
            return Err(exists());
        }
        world.change(dir, NameChange::Added(name.to_owned(), Node::Dir))?;
        world.dirs.insert(path.to_owned(), Dir::default());
        grant.answer()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::Rename, from)?;
        let inode = world.lookup(from)?;
        let ((dir, from), (to_dir, to_name)) = (split(from), split(to));
        assert_eq!(dir, to_dir, "a rename stays in its folder");
        if let Ok(replaced) = world.lookup(to) {
            world.used -= count(world.inodes[&replaced].bytes.len());
        }
        world.inode(inode).path = to.to_owned();
        let change =
            NameChange::Renamed { from: from.to_owned(), to: to_name.to_owned(), node: Node::File(inode) };
        world.change(dir, change)?;
        grant.answer()
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::Remove, path)?;
        let inode = world.lookup(path)?;
        let (dir, name) = split(path);
        world.change(dir, NameChange::Removed(name.to_owned()))?;
        world.used -= count(world.inodes[&inode].bytes.len());
        grant.answer()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let (mut world, _) = self.enter(Operation::Look, dir)?;
        Ok(world.dir(dir)?.names.keys().cloned().collect())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::SyncDir, dir)?;
        grant.answer()?;
        let content = world.dir(dir)?;
        if self.shared.options.dir_syncs.is_honest(dir) && grant != Grant::Faulty(Effect::Ignored) {
            content.synced = content.names.clone();
            content.unsynced.clear();
        }
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        let (world, _) = self.enter(Operation::FreeSpace, "")?;
        Ok(self.shared.options.capacity_bytes.saturating_sub(world.used))
    }
}

struct MemFile {
    disk: MemDisk,
    inode: u64,
}

impl MemFile {
    fn enter(&self, operation: Operation) -> io::Result<(MutexGuard<'_, World>, Grant)> {
        let path = self.disk.world().inode(self.inode).path.clone();
        self.disk.enter(operation, &path)
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::Read)?;
        let bytes = &world.inode(self.inode).bytes;
        let start = index(offset);
        let found = bytes.get(start..start + into.len());
        into.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        if let (Grant::Faulty(Effect::Flipped), Some(first)) = (grant, into.first_mut()) {
            *first ^= 1;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::Write)?;
        let half = &bytes[..bytes.len() / 2];
        let (offset, bytes, answer) = match grant {
            Grant::Faulty(Effect::Ignored) => return Ok(()),
            Grant::Faulty(Effect::Torn) => (index(offset), half, Ok(())),
            Grant::Faulty(Effect::Half(errno)) => {
                (index(offset), half, Err(io::Error::from_raw_os_error(errno)))
            }
            Grant::Faulty(Effect::Misdirected(by)) => {
                (index(offset).saturating_add_signed(by), bytes, Ok(()))
            }
            _ => (index(offset), bytes, grant.answer()),
        };
        let capacity = self.disk.shared.options.capacity_bytes;
        let used = world.used;
        let inode = world.inode(self.inode);
        let growth = count((offset + bytes.len()).saturating_sub(inode.bytes.len()));
        if used + growth > capacity {
            const ENOSPC: i32 = 28;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let change = ByteChange::Written { offset, bytes: bytes.to_vec() };
        apply(&change, &mut inode.bytes);
        inode.unsynced.push(change);
        world.used += growth;
        answer
    }

    fn length(&self) -> io::Result<u64> {
        let (mut world, _) = self.enter(Operation::Look)?;
        Ok(count(world.inode(self.inode).bytes.len()))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::Truncate)?;
        let inode = world.inode(self.inode);
        let before = count(inode.bytes.len());
        let change = ByteChange::Truncated(index(length));
        apply(&change, &mut inode.bytes);
        inode.unsynced.push(change);
        world.used = world.used - before + length;
        grant.answer()
    }

    fn sync(&self) -> io::Result<()> {
        let (mut world, grant) = self.enter(Operation::Sync)?;
        grant.answer()?;
        let path = world.inode(self.inode).path.clone();
        if self.disk.shared.options.file_syncs.is_honest(&path) && grant != Grant::Faulty(Effect::Ignored) {
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
    use super::{Disk, Effect, Fault, MemDisk, MemDiskOptions, Operation, Syncs};
    use crate::testing::{Fate, Tear, kept, lost};

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
        let after = disk.crash(&mut lost);
        assert_eq!(after.files(), ["kept"]);
        assert_eq!(after.bytes("kept"), b"synced");
        assert!(file.sync().is_err());
    }

    #[test]
    fn torn_write_leaves_a_part_of_its_bytes() {
        let disk = MemDisk::default();
        let file = disk.create("torn").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(0, b"abcdef").unwrap();
        for (tear, left) in
            [(Tear::First(4), &b"abcd"[..]), (Tear::Rest(4), b"\0\0\0\0ef"), (Tear::Length, b"\0\0\0\0\0\0")]
        {
            assert_eq!(disk.crash(&mut |_| Fate::Torn(tear)).bytes("torn"), left);
        }
    }

    #[test]
    fn interrupted_call_fails_and_may_have_happened() {
        let disk = MemDisk::default();
        let file = disk.create("file").unwrap();
        disk.sync_dir("").unwrap();
        disk.power_off_at(disk.steps());
        assert!(file.write_at(0, b"last").is_err());
        assert!(disk.list("").is_err());
        assert_eq!(disk.crash(&mut kept).bytes("file"), b"last");
        assert_eq!(disk.crash(&mut lost).bytes("file"), b"");
    }

    #[test]
    fn ignored_syncs_keep_nothing() {
        let options = MemDiskOptions { file_syncs: Syncs::Ignored(""), ..MemDiskOptions::default() };
        let disk = MemDisk::new(options);
        let file = disk.create("file").unwrap();
        file.write_at(0, b"bytes").unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        assert_eq!(disk.crash(&mut lost).bytes("file"), b"");
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
            effect: Effect::Fails(5),
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

    #[test]
    fn what_a_failed_sync_forgot_reads_back_but_is_never_durable() {
        let disk = MemDisk::default();
        let file = disk.create("file").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(0, b"bytes").unwrap();
        disk.inject(fault(Operation::Sync, Effect::Fails(5)));
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert_eq!(disk.bytes("file"), b"bytes");
        assert_eq!(disk.crash(&mut kept).bytes("file"), b"");
    }

    fn fault(operation: Operation, effect: Effect) -> Fault {
        Fault { operation, path: String::new(), skip: 0, times: 1, effect }
    }

    #[test]
    fn writes_go_wrong_as_told() {
        for (effect, left) in [
            (Effect::Half(28), &b"ab"[..]),
            (Effect::Torn, b"ab"),
            (Effect::Ignored, b""),
            (Effect::Misdirected(2), b"\0\0abcd"),
        ] {
            let disk = MemDisk::default();
            let file = disk.create("file").unwrap();
            disk.inject(fault(Operation::Write, effect));
            assert_eq!(file.write_at(0, b"abcd").is_err(), matches!(effect, Effect::Half(_)));
            assert_eq!(disk.bytes("file"), left, "{effect:?}");
        }
    }

    #[test]
    fn killed_process_leaves_what_it_did_not_sync_as_it_was() {
        let disk = MemDisk::default();
        disk.create("file").unwrap().write_at(0, b"bytes").unwrap();
        let next = disk.killed();
        assert!(disk.list("").is_err());
        assert_eq!(next.bytes("file"), b"bytes");
        assert_eq!(next.crash(&mut lost).files(), Vec::<String>::new());
    }
}
