//! What every disk must do.

use crate::disk::Disk;
use std::io::ErrorKind;

/// Checks an empty disk against what [`Disk`] promises to a running process.
///
/// # Panics
/// At the first promise that is broken.
pub fn disk_conformance(disk: &dyn Disk) {
    let kind = |result: std::io::Result<()>| result.map_err(|error| error.kind());
    let done = "the disk does what it is told";

    assert_eq!(disk.list("").expect(done), Vec::<String>::new());
    assert_eq!(kind(disk.open("absent").map(drop)), Err(ErrorKind::NotFound));
    assert_eq!(kind(disk.remove("absent")), Err(ErrorKind::NotFound));

    disk.create_dir("dir").expect(done);
    assert_eq!(kind(disk.create_dir("dir")), Err(ErrorKind::AlreadyExists));
    let file = disk.create("dir/file").expect(done);
    assert_eq!(kind(disk.create("dir/file").map(drop)), Err(ErrorKind::AlreadyExists));
    assert_eq!(file.length().expect(done), 0);

    file.write_at(3, b"def").expect(done);
    file.write_at(0, b"a").expect(done);
    let mut bytes = [0; 6];
    disk.open("dir/file").expect(done).read_at(0, &mut bytes).expect(done);
    assert_eq!(&bytes, b"a\0\0def");
    assert_eq!(kind(file.read_at(4, &mut bytes)), Err(ErrorKind::UnexpectedEof));
    file.sync().expect(done);
    disk.sync_dir("dir").expect(done);
    disk.sync_dir("").expect(done);

    file.truncate(2).expect(done);
    assert_eq!(file.length().expect(done), 2);

    let other = disk.create("dir/other").expect(done);
    other.write_at(0, b"other").expect(done);
    disk.rename("dir/other", "dir/file").expect(done);
    assert_eq!(disk.list("dir").expect(done), ["file"]);
    let mut bytes = [0; 5];
    disk.open("dir/file").expect(done).read_at(0, &mut bytes).expect(done);
    assert_eq!(&bytes, b"other");

    disk.remove("dir/file").expect(done);
    assert_eq!(disk.list("dir").expect(done), Vec::<String>::new());
    other.read_at(0, &mut bytes).expect("an open handle outlives its name");
    assert_eq!(disk.list("").expect(done), ["dir"]);
    assert!(disk.free_space().expect(done) > 0);
}

#[cfg(test)]
mod tests {
    use super::disk_conformance;
    use crate::disk::RealDisk;
    use crate::testing::MemDisk;

    #[test]
    fn memory_keeps_the_promises() {
        disk_conformance(&MemDisk::default());
    }

    #[test]
    fn the_operating_system_keeps_the_promises() {
        let folder = tempfile::tempdir().unwrap();
        disk_conformance(&RealDisk::lock(folder.path()).unwrap());
    }
}
