//! What lies on a disk in memory: as programs see it, and as the next boot would.

use super::fault::{Effect, Fault, Operation};
use crate::testing::crash::{Change, Fate, Pending, Tear};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Calls so far, by kind.
pub type Counters = BTreeMap<Operation, u64>;

#[derive(Default, Clone)]
pub(super) struct World {
    /// By path; `""` is the root.
    pub(super) dirs: BTreeMap<String, Dir>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) used: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) held: Held,
    /// Calls that wait at this moment.
    pub(super) waiting: u64,
    pub(super) counters: Counters,
    /// Calls that changed something.
    pub(super) steps: u64,
    pub(super) power: Power,
}

/// Which calls wait.
#[derive(Default, Clone)]
pub(super) enum Held {
    #[default]
    Nothing,
    These(Vec<Operation>),
    Everything,
}

impl Held {
    pub(super) fn holds(&self, operation: Operation) -> bool {
        match self {
            Held::Nothing => false,
            Held::These(operations) => operations.contains(&operation),
            Held::Everything => true,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Power {
    #[default]
    On,
    /// On until this step.
    Until(u64),
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Dir,
}

#[derive(Default, Clone)]
pub(super) struct Dir {
    pub(super) names: BTreeMap<String, Node>,
    pub(super) synced: BTreeMap<String, Node>,
    /// Since the last sync, in order.
    pub(super) unsynced: Vec<NameChange>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Added(String, Node),
    Renamed { from: String, to: String, node: Node },
    Removed(String),
}

#[derive(Default, Clone)]
pub(super) struct Inode {
    /// For faults, which are told by path.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) synced: Vec<u8>,
    /// Since the last sync, in order.
    pub(super) unsynced: Vec<ByteChange>,
}

#[derive(Clone)]
pub(super) enum ByteChange {
    Written { offset: usize, bytes: Vec<u8> },
    Truncated(usize),
}

/// Which unsynced change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Name(String, usize),
    Bytes(u64, usize),
}

pub(super) fn apply(change: &ByteChange, to: &mut Vec<u8>) {
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

fn apply_in_part(change: &ByteChange, tear: Tear, to: &mut Vec<u8>) {
    let ByteChange::Written { offset, bytes } = change else {
        return apply(change, to);
    };
    let (first, last) = match tear {
        Tear::First(count) => (0, count.min(bytes.len())),
        Tear::Rest(count) => (count.min(bytes.len()), bytes.len()),
        Tear::Length => {
            let end = offset + bytes.len();
            return to.resize(to.len().max(end), 0);
        }
    };
    apply(&ByteChange::Written { offset: offset + first, bytes: bytes[first..last].to_vec() }, to);
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

pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

pub(super) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).expect("usize has at most 64 bits")
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

pub(super) fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// How a call goes on once faults and power were looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    Done,
    /// Power fails during this very call: what it changes may or may not last, and nobody hears of it.
    Interrupted,
    Faulty(Effect),
}

impl Grant {
    pub(super) fn answer(self) -> io::Result<()> {
        match self {
            Grant::Done | Grant::Faulty(_) => Ok(()),
            Grant::Interrupted => Err(power_is_off()),
        }
    }
}

impl World {
    /// Counts a call and says how it goes on.
    pub(super) fn enter(&mut self, operation: Operation, path: &str) -> io::Result<Grant> {
        if self.power == Power::Off {
            return Err(power_is_off());
        }
        *self.counters.entry(operation).or_default() += 1;
        let effect = self.fault(operation, path);
        if let Some(Effect::Fails(errno)) = effect {
            if operation == Operation::Sync
                && let Ok(inode) = self.lookup(path)
            {
                self.inode(inode).unsynced.clear();
            }
            return Err(io::Error::from_raw_os_error(errno));
        }
        if operation.changes() {
            let step = self.steps;
            self.steps += 1;
            if self.power == Power::Until(step) {
                self.power = Power::Off;
                return Ok(Grant::Interrupted);
            }
        }
        Ok(effect.map_or(Grant::Done, Grant::Faulty))
    }

    fn fault(&mut self, operation: Operation, path: &str) -> Option<Effect> {
        let fault = self.faults.iter_mut().find(|fault| {
            fault.operation == operation
                && path.starts_with(&fault.path)
                && (fault.skip > 0 || fault.times > 0)
        })?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.times -= 1;
        Some(fault.effect)
    }

    pub(super) fn dir(&mut self, path: &str) -> io::Result<&mut Dir> {
        self.dirs.get_mut(path).ok_or_else(not_found)
    }

    pub(super) fn change(&mut self, dir: &str, change: NameChange) -> io::Result<()> {
        let dir = self.dir(dir)?;
        rename_in(&mut dir.names, &change);
        dir.unsynced.push(change);
        Ok(())
    }

    pub(super) fn lookup(&self, path: &str) -> io::Result<u64> {
        let (dir, name) = split(path);
        match self.dirs.get(dir).and_then(|dir| dir.names.get(name)) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) | None => Err(not_found()),
        }
    }

    pub(super) fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("inodes are never dropped")
    }

    /// Every unsynced change that a boot could see, in the order of paths and of time.
    fn keyed_pending(&self) -> Vec<(Key, Pending)> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for (path, dir) in &self.dirs {
            for (at, change) in dir.unsynced.iter().enumerate() {
                let name = match change {
                    NameChange::Added(name, _) | NameChange::Removed(name) => name,
                    NameChange::Renamed { to, .. } => to,
                };
                let pending = Pending { path: join(path, name), change: Change::Name };
                found.push((Key::Name(path.clone(), at), pending));
            }
            let added = dir.unsynced.iter().filter_map(|change| match change {
                NameChange::Added(_, node) | NameChange::Renamed { node, .. } => Some(node),
                NameChange::Removed(_) => None,
            });
            for node in dir.synced.values().chain(added) {
                let Node::File(number) = node else { continue };
                if !seen.insert(*number) {
                    continue;
                }
                let inode = &self.inodes[number];
                for (at, change) in inode.unsynced.iter().enumerate() {
                    let change = match change {
                        ByteChange::Written { offset, bytes } => {
                            Change::Write { offset: *offset, length: bytes.len() }
                        }
                        ByteChange::Truncated(length) => Change::Truncate(*length),
                    };
                    found.push((Key::Bytes(*number, at), Pending { path: inode.path.clone(), change }));
                }
            }
        }
        found
    }

    pub(super) fn pending(&self) -> Vec<Pending> {
        self.keyed_pending().into_iter().map(|(_, pending)| pending).collect()
    }

    /// The disk as the next boot finds it when the pending changes met these fates, in their order.
    pub(super) fn after(&self, fates: &[Fate]) -> World {
        let keys = self.keyed_pending().into_iter().map(|(key, _)| key);
        let fates = keys.zip(fates.iter().copied()).collect::<BTreeMap<_, _>>();
        let mut next = World { next_inode: self.next_inode, ..World::default() };
        self.survive("", &fates, &mut next);
        next
    }

    /// Copies what survives of `dir` and below into `next`.
    fn survive(&self, path: &str, fates: &BTreeMap<Key, Fate>, next: &mut World) {
        let dir = &self.dirs[path];
        let mut names = dir.synced.clone();
        for (at, change) in dir.unsynced.iter().enumerate() {
            // A name is written in one step: journals of file systems see to that.
            if fates[&Key::Name(path.to_owned(), at)] != Fate::Lost {
                rename_in(&mut names, change);
            }
        }
        for (name, node) in &names {
            let inner = join(path, name);
            match node {
                Node::File(number) if !next.inodes.contains_key(number) => {
                    let inode = &self.inodes[number];
                    let mut bytes = inode.synced.clone();
                    // Each change by itself, whatever happened to those before it: pages are written in any order.
                    for (at, change) in inode.unsynced.iter().enumerate() {
                        match fates[&Key::Bytes(*number, at)] {
                            Fate::Lost => {}
                            Fate::Torn(tear) => apply_in_part(change, tear, &mut bytes),
                            Fate::Kept => apply(change, &mut bytes),
                        }
                    }
                    next.used += count(bytes.len());
                    let file =
                        Inode { path: inner, bytes: bytes.clone(), synced: bytes, unsynced: Vec::new() };
                    next.inodes.insert(*number, file);
                }
                Node::File(_) => {}
                Node::Dir => self.survive(&inner, fates, next),
            }
        }
        next.dirs.insert(path.to_owned(), Dir { names: names.clone(), synced: names, unsynced: Vec::new() });
    }

    /// Equal for equal folders and files.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (path, dir) in &self.dirs {
            for (name, node) in &dir.names {
                let file = match node {
                    Node::File(number) => self.inodes[number].bytes.as_slice(),
                    Node::Dir => &[],
                };
                for part in [path.as_bytes(), name.as_bytes(), file] {
                    hasher.update(&count(part.len()).to_le_bytes()).update(part);
                }
            }
        }
        *hasher.finalize().as_bytes()
    }
}
