//! Open handles of volumes and loose files, the most recently used ones.

use crate::disk::{Disk, DiskFile};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Well below the 1,024 handles that a process gets by default, most of which are for connections.
const HANDLES_MAX: usize = 128;

/// A bounded cache of handles by path.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    handles: HashMap<String, (u64, Arc<dyn DiskFile>)>,
    uses: u64,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Files {
        Files { disk, cache: Mutex::new(Cache::default()) }
    }

    /// The file's handle.
    pub(crate) fn get(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let cached = self.with(|cache| {
            cache.uses += 1;
            let uses = cache.uses;
            cache.handles.get_mut(path).map(|(used, file)| {
                *used = uses;
                file.clone()
            })
        });
        if let Some(file) = cached {
            return Ok(file);
        }
        let file = self.disk.open(path)?;
        self.with(|cache| {
            if cache.handles.len() >= HANDLES_MAX {
                let oldest = cache.handles.iter().min_by_key(|(_, (used, _))| *used);
                if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                    cache.handles.remove(&oldest);
                }
            }
            cache.handles.insert(path.to_owned(), (cache.uses, file.clone()));
        });
        Ok(file)
    }

    /// Removes the file and its handle.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        let removed = self.disk.remove(path);
        self.with(|cache| cache.handles.remove(path));
        removed
    }

    fn with<T>(&self, act: impl FnOnce(&mut Cache) -> T) -> T {
        act(&mut self.cache.lock().expect("no call panics while it holds the handles"))
    }
}
