//! Making a folder so that it outlives a power failure: what is synced inside it is lost with its name.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// How many names at the end of a path are made durable although they are there: whoever made them may have been killed
/// before it came to that. Those further up are a person's, or were made long before.
const LEVELS_ALWAYS: usize = 2;

/// Makes the folder, and those above that are missing, for its owner only, and makes their names durable.
///
/// # Errors
/// What the disk says.
pub fn make_folder(dir: &Path) -> io::Result<()> {
    let levels = || dir.ancestors().filter(|level| level.file_name().is_some());
    let missing = levels().take_while(|level| !level.exists()).count();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for (number, level) in levels().take(missing.max(LEVELS_ALWAYS)).enumerate() {
        let above = level.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match File::open(above).and_then(|above| above.sync_all()) {
            // A folder of somebody else that we may only pass through, and in which we made nothing.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && number >= missing => {}
            synced => synced?,
        }
    }
    Ok(())
}
