//! Files by direct I/O through the ring, and the names they have.
//!
//! Data moves through the ring. Operations on names and metadata (open, rename, remove, sizes,
//! listings) are plain system calls that block the core for a moment: they are rare, and a flush
//! that may take long (a file's, a directory's) goes through the ring like data. All are `async`, so
//! that any of them can move to the ring without a change above.

mod file;
mod io;
mod names;
mod poison;

pub use file::{File, Options};
pub use names::{create_dir_all, exists, read, read_dir, remove_dir_all, remove_file, rename, sync_dir, write_atomic};

#[cfg(test)]
mod tests;
