//! What a killed postmaster leaves in shared memory. Postgres removes it at the next start in the same data directory
//! (dsm_cleanup_using_control_segment, dsm.c); an endpoint never starts twice in one, so the supervisor does.

use crate::sys;
use std::fs;
use std::path::{Path, PathBuf};

/// PGShmemMagic (storage/pg_shmem.h) and where PGShmemHeader has the handle of the control segment.
const HEADER_MAGIC: u32 = 679_834_894;
const HEADER_CONTROL_OFFSET: usize = 24;
/// PG_DYNSHMEM_CONTROL_MAGIC, and the layout of dsm_control_header and dsm_control_item (dsm.c).
const CONTROL_MAGIC: u32 = 0x9a50_3d32;
const CONTROL_ITEMS_OFFSET: usize = 16;
const CONTROL_ITEM_SIZE: usize = 40;
/// Directory of POSIX shared memory on Linux, shm_overview(7).
const DIRECTORY: &str = "/dev/shm";

/// The segments of one postmaster by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedMemory {
    /// The System V segment that tells the data directory's postmasters apart.
    id: i32,
    /// Handle of the segment that lists the dynamic ones.
    control: u32,
}

impl SharedMemory {
    /// Of the postmaster that runs in `data_dir`: line 7 of its postmaster.pid (utils/pidfile.h) has the segment.
    pub fn of(data_dir: &Path) -> Option<SharedMemory> {
        let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
        let id = text.lines().nth(6)?.split_whitespace().nth(1)?.parse().ok()?;
        let header: [u8; HEADER_CONTROL_OFFSET + 4] = sys::read_shared_memory(id)?;
        (word(&header, 0) == Some(HEADER_MAGIC)).then_some(())?;
        Some(SharedMemory { id, control: word(&header, HEADER_CONTROL_OFFSET)? })
    }

    /// Removes all names. Backends that have not noticed yet keep what they mapped.
    pub fn remove(&self) {
        let control = segment(self.control);
        let handles = fs::read(&control).ok().and_then(|bytes| listed(&bytes)).unwrap_or_default();
        for path in handles.into_iter().map(segment).chain([control]) {
            // Those the postmaster's children removed meanwhile are gone already.
            let _ = fs::remove_file(path);
        }
        sys::remove_shared_memory(self.id);
    }
}

fn segment(handle: u32) -> PathBuf {
    Path::new(DIRECTORY).join(format!("PostgreSQL.{handle}"))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// Handles of the segments in use that a control segment lists; `None` if it is none.
fn listed(control: &[u8]) -> Option<Vec<u32>> {
    (word(control, 0) == Some(CONTROL_MAGIC)).then_some(())?;
    let items = control.get(CONTROL_ITEMS_OFFSET..)?.chunks_exact(CONTROL_ITEM_SIZE).take(word(control, 4)? as usize);
    let used = items.filter_map(|item| Some((word(item, 0)?, word(item, 4)?))).filter(|(_, references)| *references > 0);
    // Odd handles lie in the main segment and have no file (is_main_region_dsm_handle, dsm.c).
    Some(used.map(|(handle, _)| handle).filter(|handle| handle % 2 == 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_in_use_that_have_files_are_listed() {
        let mut control = Vec::new();
        for value in [CONTROL_MAGIC, 4, 100, 0] {
            control.extend_from_slice(&u32::to_le_bytes(value));
        }
        for (handle, references) in [(10u32, 2u32), (12, 0), (13, 2), (14, 1), (16, 2)] {
            let mut item = [0; CONTROL_ITEM_SIZE];
            item[..4].copy_from_slice(&handle.to_le_bytes());
            item[4..8].copy_from_slice(&references.to_le_bytes());
            control.extend_from_slice(&item);
        }
        assert_eq!(listed(&control), Some(vec![10, 14]));
        assert_eq!(listed(&control[..50]), Some(vec![]));
        control[0] ^= 1;
        assert_eq!(listed(&control), None);
        assert_eq!(listed(&[]), None);
    }
}
