//! Removing a timeline's files so that after a crash at any moment it is whole or gone.
//!
//! A timeline exists as long as its control file has its name. That name becomes `deleting`, durably, and with that the
//! timeline is gone; then all other files are removed, durably, and that one last. What a crash leaves on the way is
//! recognised by it and removed at the next start, or before a timeline of the same id is made.

use crate::control;
use crate::error::Result;
use ironpage_io::{fs, yield_now};
use std::path::Path;

/// What the control file of a deleted timeline is called until all else is removed.
const MARKER: &str = "deleting";

/// Removes the timeline in `dir`; whether there was one. Nothing may write there any more.
pub async fn delete(dir: &Path) -> Result<bool> {
    if !fs::exists(dir).await? {
        return Ok(false);
    }
    let control = dir.join(control::FILE_NAME);
    if fs::exists(&control).await? {
        fs::rename(&control, dir.join(MARKER)).await?;
    }
    remove(dir).await?;
    Ok(true)
}

/// Ends a deletion that a crash or an error ended early. Whether there was one.
pub async fn finish(dir: &Path) -> Result<bool> {
    let begun = fs::exists(dir.join(MARKER)).await?;
    if begun {
        remove(dir).await?;
    }
    Ok(begun)
}

async fn remove(dir: &Path) -> Result<()> {
    // A killed process may have renamed and flushed nothing.
    fs::sync_dir(dir).await?;
    for name in fs::read_dir(dir).await? {
        if name != MARKER {
            fs::remove_file(dir.join(name)).await?;
            // Thousands of segments: others have their turn in between.
            yield_now().await;
        }
    }
    fs::sync_dir(dir).await?;
    fs::remove_dir_all(dir).await?;
    if let Some(parent) = dir.parent() {
        fs::sync_dir(parent).await?;
    }
    Ok(())
}
