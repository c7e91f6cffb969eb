//! File names and metadata by plain system calls; these are rare and short, so they may block the core.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Handle, Names};
use crate::error::Errno;
use crate::fs::Options;

pub(crate) struct Posix;

impl Names for Posix {
    fn open(&mut self, path: &Path, options: &Options) -> Result<Handle, Errno> {
        let access = match (options.read, options.write) {
            (_, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
        };
        let mut flags = access | libc::O_CLOEXEC;
        for (wanted, flag) in [
            (options.create, libc::O_CREAT),
            (options.create_new, libc::O_CREAT | libc::O_EXCL),
            (options.truncate, libc::O_TRUNC),
            (options.direct, libc::O_DIRECT),
            (options.dsync, libc::O_DSYNC),
        ] {
            if wanted {
                flags |= flag;
            }
        }
        open(path, flags)
    }

    fn open_dir(&mut self, path: &Path) -> Result<Handle, Errno> {
        open(path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
    }

    fn size(&mut self, handle: &Handle) -> Result<u64, Errno> {
        // SAFETY: all zeros is a valid stat.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and stat is a valid place to write to.
        let result = unsafe { libc::fstat(handle.raw(), &mut stat) };
        if result < 0 { Err(Errno::last()) } else { Ok(stat.st_size as u64) }
    }

    fn set_len(&mut self, handle: &Handle, len: u64) -> Result<(), Errno> {
        let len = i64::try_from(len).map_err(|_| Errno(libc::EFBIG))?;
        loop {
            // SAFETY: plain system call on an open descriptor.
            if unsafe { libc::ftruncate(handle.raw(), len) } == 0 {
                return Ok(());
            }
            match Errno::last() {
                Errno(libc::EINTR) => {}
                errno => return Err(errno),
            }
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        Ok(std::fs::rename(from, to)?)
    }

    fn remove_file(&mut self, path: &Path) -> Result<(), Errno> {
        Ok(std::fs::remove_file(path)?)
    }

    fn remove_dir_all(&mut self, path: &Path) -> Result<(), Errno> {
        Ok(std::fs::remove_dir_all(path)?)
    }

    fn create_dir_all(&mut self, path: &Path) -> Result<(), Errno> {
        Ok(std::fs::create_dir_all(path)?)
    }

    fn read_dir(&mut self, path: &Path) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&mut self, path: &Path) -> Result<bool, Errno> {
        Ok(std::fs::exists(path)?)
    }

    fn filesystem(&mut self, path: &Path) -> String {
        filesystem(path).or_else(|| filesystem(path.parent()?)).unwrap_or_else(|| "an unknown file system".into())
    }
}

fn c_path(path: &Path) -> Result<std::ffi::CString, Errno> {
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno(libc::EINVAL))
}

fn open(path: &Path, flags: libc::c_int) -> Result<Handle, Errno> {
    let path = c_path(path)?;
    loop {
        // SAFETY: path is a NUL-terminated string.
        let fd = unsafe { libc::open(path.as_ptr(), flags, 0o600 as libc::c_uint) };
        if fd >= 0 {
            // SAFETY: just opened, owned by nobody else.
            return Ok(Handle::kernel(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        match Errno::last() {
            Errno(libc::EINTR) => {}
            errno => return Err(errno),
        }
    }
}

fn filesystem(path: &Path) -> Option<String> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let path = c_path(path).ok()?;
    // SAFETY: all zeros is a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: path is NUL-terminated and stat a valid place to write to.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } < 0 {
        return None;
    }
    // Numbers from linux/magic.h.
    Some(match stat.f_type as u32 {
        0xef53 => "ext4".into(),
        0x5846_5342 => "xfs".into(),
        0x9123_683e => "btrfs".into(),
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlayfs".into(),
        0x2fc1_2fc1 => "zfs".into(),
        0x6969 => "nfs".into(),
        0x6573_5546 => "fuse".into(),
        other => format!("a file system of type {other:#x}"),
    })
}
