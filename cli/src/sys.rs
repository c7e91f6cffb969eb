//! The calls to the kernel that std does not have. The only unsafe code of this crate.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Whether we may become any user.
pub fn is_root() -> bool {
    // SAFETY: geteuid reads the caller's credentials and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The child leads a session of its own: a terminal's Ctrl-C and hangup do not reach it.
pub fn in_own_session(command: &mut Command) -> &mut Command {
    // SAFETY: setsid is async-signal-safe and touches nothing the parent shares.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}

/// The child gets `signal` once the thread that spawned it is gone: a postmaster does not outlive its supervisor.
/// Set after the change of user, which would clear it (prctl(2), PR_SET_PDEATHSIG).
pub fn dies_with_us(command: &mut Command, signal: i32) -> &mut Command {
    let parent = std::process::id() as i32;
    // SAFETY: prctl, getppid and _exit are async-signal-safe and touch nothing the parent shares.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == -1 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                libc::_exit(1);
            }
            Ok(())
        })
    }
}

/// A process held by descriptor, so that its number cannot come to mean another one.
pub struct PidFd(OwnedFd);

impl PidFd {
    pub fn open(pid: i32) -> io::Result<PidFd> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the descriptor is open; a null siginfo means what kill(2) would send.
        let rc = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until the process ended (a zombie has), or for `timeout`. Whether it ended.
    pub fn ended_within(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&[self.0.as_raw_fd()], left) {
                Some(0) => return true,
                _ if Instant::now() >= deadline => return false,
                _ => {}
            }
        }
    }
}

/// Index of a descriptor that became readable; `None` after `timeout` or on a signal.
fn poll(fds: &[i32], timeout: Duration) -> Option<usize> {
    let mut polled: Vec<libc::pollfd> = fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let ms = timeout.as_millis().min(i32::MAX as u128) as i32 + i32::from(!timeout.is_zero());
    // SAFETY: the array is ours, of the length passed, for the length of the call.
    let rc = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, ms) };
    if rc <= 0 {
        return None;
    }
    polled.iter().position(|fd| fd.revents != 0)
}

static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note_signal(signal: i32) {
    let fd = SIGNAL_PIPE.load(Ordering::Relaxed);
    let byte = signal as u8;
    // SAFETY: write is async-signal-safe; the byte lives on this stack. A full pipe already says that a signal came.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(fd, (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Signals turned into bytes of a pipe, read by whoever waits. One per process.
pub struct Signals(OwnedFd);

/// Why [`Signals::wait`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    Signal(i32),
    ProcessEnded,
    Timeout,
}

impl Signals {
    pub fn catch(signals: &[i32]) -> io::Result<Signals> {
        let mut ends = [0; 2];
        // SAFETY: pipe2 fills the two integers it is given.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } == -1 {
            return Err(io::Error::last_os_error());
        }
        SIGNAL_PIPE.store(ends[1], Ordering::Relaxed);
        for signal in signals {
            // SAFETY: the action is zeroed but for the handler, which is async-signal-safe; without SA_RESTART waits are cut short.
            let rc = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = note_signal as extern "C" fn(i32) as usize;
                libc::sigaction(*signal, &action, std::ptr::null_mut())
            };
            if rc == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the read end is new and nobody else owns it; the write end stays open for the handler.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(ends[0]) }))
    }

    /// A signal that came, without waiting.
    pub fn take(&self) -> Option<i32> {
        let mut byte = 0u8;
        // SAFETY: reads one byte into one byte; the pipe does not block.
        let got = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut byte).cast(), 1) };
        (got == 1).then_some(i32::from(byte))
    }

    /// Waits for a signal, the end of `process`, or `timeout`.
    pub fn wait(&self, process: Option<&PidFd>, timeout: Duration) -> Woken {
        if let Some(signal) = self.take() {
            return Woken::Signal(signal);
        }
        let mut fds = vec![self.0.as_raw_fd()];
        fds.extend(process.map(|process| process.0.as_raw_fd()));
        let woken = poll(&fds, timeout);
        match self.take() {
            Some(signal) => Woken::Signal(signal),
            None if woken == Some(1) => Woken::ProcessEnded,
            None => Woken::Timeout,
        }
    }
}

/// Marks for deletion a System V shared memory segment a killed postmaster left behind. One that others still use lives on until they end.
pub fn remove_shared_memory(id: i32) {
    // SAFETY: IPC_RMID ignores the buffer; a wrong id fails.
    unsafe {
        libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
    }
}

/// The first bytes of a System V shared memory segment; `None` if it is gone, shorter, or not ours to read.
pub fn read_shared_memory<const N: usize>(id: i32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the segment is mapped read-only at an address of the kernel's choice, its size is checked before N bytes
    // are copied, and it is unmapped before the function returns; others may write to it, so the copy is of plain bytes.
    unsafe {
        let mut about: libc::shmid_ds = std::mem::zeroed();
        if libc::shmctl(id, libc::IPC_STAT, &mut about) == -1 || about.shm_segsz < N {
            return None;
        }
        let mapped = libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY);
        if mapped as isize == -1 {
            return None;
        }
        std::ptr::copy_nonoverlapping(mapped.cast::<u8>(), bytes.as_mut_ptr(), N);
        libc::shmdt(mapped);
    }
    Some(bytes)
}

/// Bytes free to us where `path` lies.
pub fn free_space(path: &std::path::Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the path is NUL-terminated, the buffer is ours and zeroed.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &mut stat) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

/// Makes all that was written to the file system of `path` durable: one call for a tree of any size.
pub fn sync_file_system(path: &std::path::Path) -> io::Result<()> {
    let dir = File::open(path)?;
    // SAFETY: the descriptor is open for the length of the call.
    if unsafe { libc::syncfs(dir.as_raw_fd()) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Soft limit of locked memory in bytes; `None` if unlimited.
pub fn memlock_limit() -> io::Result<Option<u64>> {
    // SAFETY: the buffer is ours.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
    }
}

/// Whether io_uring_setup works for this process. `Err` has the kernel's reason.
pub fn io_uring_allowed() -> io::Result<()> {
    // struct io_uring_params is 120 bytes; zeros ask for the defaults.
    let mut params = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes at the pointer.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}

/// Whether a file of this directory can be opened for direct I/O. Leaves nothing behind.
pub fn direct_io_works(dir: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join(format!(".direct-io-{}", std::process::id()));
    let opened: io::Result<File> = File::options().write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path);
    let _ = std::fs::remove_file(&path);
    opened.map(drop)
}
