//! Every bound of the safekeeper, in one place.

use ironpage_layout::Lsn;
use std::time::Duration;

/// Connections open at once; one more is told so and closed.
pub const CONNECTIONS_MAX: usize = 1024;
/// WAL of one timeline that may wait for the flush under way, in bytes. Then its proposer waits.
pub const PENDING_BYTES_MAX: usize = 8 << 20;
/// Newest WAL of one timeline kept in memory for readers that keep up, in bytes.
pub const RECENT_BYTES_MAX: usize = 2 << 20;
/// Replies that may wait for one proposer's socket; then its next message waits.
pub const REPLIES_MAX: usize = 16;
/// WAL in one `WalData` frame, in bytes.
pub const WAL_DATA_BYTES_MAX: usize = 256 << 10;
/// One read or one cut at the disk, in bytes.
pub const DISK_CHUNK_BYTES: usize = 1 << 20;
/// A segment is prepared ahead once the current one is filled this far: an idle timeline keeps one.
pub const PREPARE_AHEAD_BYTES: u64 = 4 << 20;
/// commit_lsn is persisted once it has moved this far, and every `TICK` if it moved at all.
pub const COMMIT_PERSIST_BYTES: u64 = 16 << 20;
/// A WAL reader hears from us at least this often.
pub const KEEPALIVE: Duration = Duration::from_secs(1);
/// How often idle timelines are looked at.
pub const TICK: Duration = Duration::from_secs(5);
/// A timeline nobody used for this many ticks is unloaded: no memory, no open file.
pub const UNLOAD_TICKS: u32 = 12;
/// Timelines whose prefix of WAL, up to a segment each, may be in memory at once.
pub const PREFIXES_MAX: usize = 8;
/// How long a prefix may take to come in.
pub const PREFIX_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after all peers failed to give missing WAL.
pub const RECOVERY_PAUSE: Duration = Duration::from_millis(200);
/// A peer that sends nothing for so long is given up.
pub const RECOVERY_SILENCE: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted, as when all file descriptors are in use.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last words to a connection that ends may take.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// No WAL gets so far in any lifetime; positions beyond it are refused before anything is computed with them.
pub const LSN_MAX: Lsn = Lsn(1 << 62);
