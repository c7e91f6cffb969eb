/*
 * janitor.c: the background worker that keeps the local files near ironpage.cache_size.
 *
 * It asks the pageserver how far it has come, numbers the generations of vacuums (../src/pins.rs says what for), and
 * when more is cached than the setting allows punches blocks out of the local files: only those that the pageserver has
 * with their last change, that no pin holds, and that were not read since the clock's last turn.
 */
#include "cache.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define NAP_MS			100		/* with room in the cache */
#define NAP_BUSY_MS		20		/* with too much in it */
#define NAP_STUCK_MS	500		/* with too much in it that must stay */
/* Blocks collected before they are punched, in the order of their files. */
#define BATCH			512
/* Neighbouring blocks punched at once, and so partitions locked at once. */
#define RUN_MAX			16
#define FLUSH_EVERY_MS	100
#define WARN_EVERY_MS	60000

/* A vacuum, or another bulk delete of an index, that was active when the current generation was opened. */
typedef struct Vacuum
{
	int			pgprocno;
	LocalTransactionId lxid;
} Vacuum;

static Vacuum *vacuums;			/* room for one a process */
static int	vacuum_count;

static uint32 hand;				/* the bucket the clock is at */
static TimestampTz flushed_at;
static TimestampTz warned_at;
static bool cannot_punch;

/* ---- generations of vacuums ---- */

static bool
still_active(const Vacuum *vacuum)
{
	return ProcGlobal->allProcs[vacuum->pgprocno].lxid == vacuum->lxid;
}

static void
note_vacuum(PGPROC *proc)
{
	LocalTransactionId lxid = proc->lxid;

	if (LocalTransactionIdIsValid(lxid) && vacuum_count < (int) ProcGlobal->allProcCount)
		vacuums[vacuum_count++] = (Vacuum) {proc->pgprocno, lxid};
}

/*
 * Every process that may be inside btbulkdelete(): vacuums, and CREATE INDEX or REINDEX CONCURRENTLY, whose
 * validate_index() walks the index the same way. The flag PROC_IN_SAFE_IC is not set for indexes with expressions, so
 * the reported progress is looked at as well.
 */
static void
collect_vacuums(void)
{
	int			backends;

	vacuum_count = 0;
	LWLockAcquire(ProcArrayLock, LW_SHARED);
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
		if (ProcGlobal->allProcs[i].statusFlags & (PROC_IN_VACUUM | PROC_IN_SAFE_IC))
			note_vacuum(&ProcGlobal->allProcs[i]);
	LWLockRelease(ProcArrayLock);

	backends = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= backends; i++)
	{
		LocalPgBackendStatus *local = pgstat_fetch_stat_local_beentry(i);
		ProgressCommandType command = local ? local->backendStatus.st_progress_command : PROGRESS_COMMAND_INVALID;

		if (command == PROGRESS_COMMAND_CREATE_INDEX || command == PROGRESS_COMMAND_VACUUM)
		{
			PGPROC	   *proc = BackendPidGetProc(local->backendStatus.st_procpid);

			if (proc)
				note_vacuum(proc);
		}
	}
	pgstat_clear_backend_activity_snapshot();
}

/* Published before the active ones are collected: a vacuum that this misses began in the new generation. */
static void
advance_generation(void)
{
	int			left = 0;

	for (int i = 0; i < vacuum_count; i++)
		if (still_active(&vacuums[i]))
			vacuums[left++] = vacuums[i];
	vacuum_count = left;
	if (vacuum_count > 0)
		return;
	pg_atomic_fetch_add_u64(&ironpage_shared->vacuum_generation, 1);
	pg_memory_barrier();
	collect_vacuums();
}

/* ---- punching ---- */

static int
compare_by_file(const void *left, const void *right)
{
	const IronpageKey *a = &((const IronpageEntry *) left)->key;
	const IronpageKey *b = &((const IronpageEntry *) right)->key;

#define COMPARE(member) if (a->member != b->member) return a->member < b->member ? -1 : 1
	COMPARE(tablespace);
	COMPARE(database);
	COMPARE(relation);
	COMPARE(fork);
	COMPARE(block);
#undef COMPARE
	return 0;
}

static bool
same_file(const IronpageKey *a, const IronpageKey *b)
{
	return a->tablespace == b->tablespace && a->database == b->database && a->relation == b->relation && a->fork == b->fork &&
		a->block / RELSEG_SIZE == b->block / RELSEG_SIZE;
}

static RelFileNodeBackend
node_of(const IronpageKey *key)
{
	return (RelFileNodeBackend) {{key->tablespace, key->database, key->relation}, InvalidBackendId};
}

/* The segment file of a block, -1 if there is none. */
static int
open_segment(const IronpageKey *key)
{
	char	   *base = relpathperm(node_of(key).node, (ForkNumber) key->fork);
	char		path[MAXPGPATH];
	uint32		segment = key->block / RELSEG_SIZE;

	if (segment == 0)
		strlcpy(path, base, sizeof(path));
	else
		snprintf(path, sizeof(path), "%s.%u", base, segment);
	pfree(base);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Takes the locks of the partitions that `count` blocks lie in, in the order of the partitions; returns their number. */
static int
lock_run(const IronpageEntry *run, int count, int *partitions)
{
	bool		wanted[IRONPAGE_PARTITIONS] = {false};
	int			locks = 0;

	for (int i = 0; i < count; i++)
		wanted[ironpage_rs_map_partition(ironpage_map, &run[i].key)] = true;
	for (int partition = 0; partition < IRONPAGE_PARTITIONS; partition++)
	{
		if (wanted[partition])
		{
			LWLockAcquire(ironpage_lock_of_bucket(partition), LW_EXCLUSIVE);
			partitions[locks++] = partition;
		}
	}
	return locks;
}

/* Is the block what the clock saw? The caller holds its lock. */
static bool
unchanged(const IronpageEntry *seen)
{
	IronpageEntry now;

	return ironpage_rs_map_peek(ironpage_map, &seen->key, &now) == 0 &&
		memcmp(&now.written, &seen->written, sizeof(IronpageWritten)) == 0 && !now.accessed;
}

static bool
punch_hole(int fd, BlockNumber block, int count)
{
	/* The file is gone, as its database is: only the entries are left. */
	if (fd < 0)
		return true;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) (block % RELSEG_SIZE) * BLCKSZ,
				  (off_t) count * BLCKSZ) == 0)
		return true;
	if (errno == EOPNOTSUPP && !cannot_punch)
	{
		cannot_punch = true;
		ereport(WARNING,
				(errmsg("the file system of the data directory cannot punch holes: the page cache only grows"),
				 errhint("Put the endpoint's directory on ext4, xfs, btrfs or tmpfs.")));
	}
	return false;
}

/*
 * Drops neighbouring blocks of one file, those that still are what the clock saw. A hole costs the file system the same
 * whatever its size, so neighbours share one. No other process holds two partitions at once or waits for one while it
 * holds another.
 */
static int
punch_run(int fd, const IronpageEntry *run, int count)
{
	int			partitions[RUN_MAX];
	int			locks;
	uint64		generation;
	int			punched = 0;

	/* Storage that is local alone is never in the map; a hole in it would be a loss, so look once more. */
	if (ironpage_is_local(node_of(&run->key), (ForkNumber) run->key.fork, &generation))
		return 0;

	locks = lock_run(run, count, partitions);
	for (int start = 0; start < count;)
	{
		int			end = start;

		while (end < count && generation == pg_atomic_read_u64(&ironpage_shared->init_generation) && unchanged(&run[end]))
		{
			/* First the horizon: whoever misses the block from now on must wait for its last change. */
			ironpage_raise(&ironpage_shared->horizon, run[end].written.lwlsn);
			end++;
		}
		if (end > start && punch_hole(fd, run[start].key.block, end - start))
		{
			for (int i = start; i < end; i++)
				ironpage_rs_map_remove(ironpage_map, &run[i].key);
			punched += end - start;
		}
		start = end + 1;
	}
	while (locks > 0)
		LWLockRelease(ironpage_lock_of_bucket(partitions[--locks]));
	return punched;
}

/* How many entries from the first on are neighbours in one file. */
static int
run_length(const IronpageEntry *entries, int count)
{
	int			length = 1;

	while (length < Min(count, RUN_MAX) && same_file(&entries[0].key, &entries[length].key) &&
		   entries[length].key.block == entries[0].key.block + length)
		length++;
	return length;
}

static int
punch_batch(IronpageEntry *batch, int count)
{
	int			fd = -1;
	int			punched = 0;

	qsort(batch, count, sizeof(IronpageEntry), compare_by_file);
	for (int i = 0, length; i < count; i += length)
	{
		length = run_length(batch + i, count - i);
		if (i == 0 || !same_file(&batch[i - 1].key, &batch[i].key))
		{
			if (fd >= 0)
				close(fd);
			fd = open_segment(&batch[i].key);
			if (fd < 0 && errno != ENOENT)
			{
				ereport(LOG,
						(errcode_for_file_access(),
						 errmsg("could not open relation %u/%u/%u to drop cached blocks: %m", batch[i].key.tablespace,
								batch[i].key.database, batch[i].key.relation)));
				/* Without the file, blocks would be forgotten but keep their space. */
				break;
			}
		}
		punched += punch_run(fd, batch + i, length);
	}
	if (fd >= 0)
		close(fd);
	for (int i = 0; i < punched; i++)
		ironpage_count(IPC_PUNCHES);
	return punched;
}

static void
count_tally(const uint64 *tally)
{
	for (int verdict = IPV_PIN_XID; verdict <= IPV_PIN_CATALOG; verdict++)
		pg_atomic_fetch_add_u64(&ironpage_shared->counters[IPC_PINNED_XID + verdict - IPV_PIN_XID], tally[verdict]);
	pg_atomic_fetch_add_u64(&ironpage_shared->counters[IPC_UNACKNOWLEDGED], tally[IPV_UNACKNOWLEDGED]);
}

/*
 * One turn of the clock at most; ends as soon as enough is free. Returns the blocks punched.
 */
static uint64
make_room(void)
{
	static IronpageEntry batch[BATCH];
	uint32		buckets = ironpage_rs_map_buckets(ironpage_map);
	uint64		tally[IPV_COUNT] = {0};
	uint64		pinned = 0;
	uint64		punched = 0;
	int			filled = 0;
	IronpageView view;

	ironpage_view_now(&view);
	for (uint32 step = 0; step < buckets; step++)
	{
		LWLock	   *lock = ironpage_lock_of_bucket(hand);
		int			found;

		LWLockAcquire(lock, LW_SHARED);
		found = ironpage_rs_map_sweep(ironpage_map, hand, &view, batch + filled, BATCH - filled, tally);
		LWLockRelease(lock);
		filled += Max(found, 0);
		hand = (hand + 1) % buckets;

		if (filled > BATCH / 2 || step == buckets - 1 ||
			ironpage_rs_map_count(ironpage_map) <= ironpage_cache_target() + filled)
		{
			punched += punch_batch(batch, filled);
			filled = 0;
			if (ironpage_rs_map_count(ironpage_map) <= ironpage_cache_target() || ShutdownRequestPending)
				break;
		}
	}
	for (int verdict = IPV_PIN_XID; verdict <= IPV_PIN_CATALOG; verdict++)
		pinned += tally[verdict];
	count_tally(tally);
	pg_atomic_write_u64(&ironpage_shared->last_pass_pinned, pinned);
	pg_atomic_write_u64(&ironpage_shared->last_pass_unacked, tally[IPV_UNACKNOWLEDGED]);
	return punched;
}

/* What a block was last written with may not be flushed yet, and then nobody can acknowledge it. */
static void
push_wal(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (pg_atomic_read_u64(&ironpage_shared->last_pass_unacked) == 0 ||
		!TimestampDifferenceExceeds(flushed_at, now, FLUSH_EVERY_MS))
		return;
	XLogFlush(ironpage_insert_record_end());
	flushed_at = now;
}

static void
warn_of_growth(void)
{
	uint64		count = ironpage_rs_map_count(ironpage_map);
	TimestampTz now = GetCurrentTimestamp();

	if (count < ironpage_cache_target() * 3 / 2 || !TimestampDifferenceExceeds(warned_at, now, WARN_EVERY_MS))
		return;
	warned_at = now;
	ereport(WARNING,
			(errmsg("the page cache holds " UINT64_FORMAT " MB, ironpage.cache_size is %d MB",
					count * BLCKSZ / (1024 * 1024), ironpage_cache_size_mb),
			 errdetail("On the last turn " UINT64_FORMAT " blocks had to stay for running transactions, vacuums or what WAL does"
					   " not hold, and " UINT64_FORMAT " waited for the pageserver.",
					   pg_atomic_read_u64(&ironpage_shared->last_pass_pinned),
					   pg_atomic_read_u64(&ironpage_shared->last_pass_unacked))));
}

/* ---- the worker ---- */

static void
forget_latch(int code, Datum argument)
{
	ironpage_shared->janitor_latch = NULL;
}

/* The pageserver's word, as it is: after a restart it is behind, and what it forgot must not be punched. */
static void
ask_pageserver(void)
{
	XLogRecPtr	ingested;
	XLogRecPtr	disk_consistent;

	if (!ironpage_ask_ingest(&ingested, &disk_consistent))
		return;
	pg_atomic_write_u64(&ironpage_shared->ingested_lsn, ingested);
	pg_atomic_write_u64(&ironpage_shared->disk_consistent_lsn, disk_consistent);
}

void
ironpage_janitor_main(Datum argument)
{
	long		nap_ms = NAP_MS;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	vacuums = MemoryContextAlloc(TopMemoryContext, ProcGlobal->allProcCount * sizeof(Vacuum));
	on_shmem_exit(forget_latch, (Datum) 0);
	ironpage_shared->janitor_latch = MyLatch;
	ironpage_selftest_worker();

	/* A janitor before us may have opened the current generation: the vacuums it waited for are among these. */
	collect_vacuums();

	while (!ShutdownRequestPending)
	{
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		ask_pageserver();
		advance_generation();
		if (ironpage_rs_map_count(ironpage_map) <= ironpage_cache_target())
			nap_ms = NAP_MS;
		else if (ironpage_ticket.read_only || !RecoveryInProgress())
		{
			nap_ms = make_room() > 0 ? NAP_BUSY_MS : Min(Max(nap_ms, NAP_BUSY_MS) * 2, NAP_STUCK_MS);
			push_wal();
			warn_of_growth();
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, nap_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}

	/* With status 0 a worker is gone for good (bgworker.c), but the signal may have been for this one alone. */
	proc_exit(1);
}

void
ironpage_janitor_register(void)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_PostmasterStart,
		.bgw_restart_time = 1,
		.bgw_library_name = "ironpage",
		.bgw_function_name = "ironpage_janitor_main",
		.bgw_name = "ironpage janitor",
		.bgw_type = "ironpage janitor",
	};

	RegisterBackgroundWorker(&worker);
}
