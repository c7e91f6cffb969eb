/*
 * cache.c: the map of valid blocks in memory shared by all processes, and what is known at the time of a write.
 */
#include "cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include "access/transam.h"
#include "access/xlog.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/procarray.h"

/* Bounds of the map. The larger ones are address space alone until it is used. */
#define BUCKETS_MIN		(1 << 14)
#define BUCKETS_MAX		(1 << 26)
#define CAPACITY_MAX	(1 << 27)	/* entries: 1 TiB of cached pages */
#define CAPACITY_MIN	(1 << 18)

/* Slots of the classification that each backend remembers. */
#define CLASSES 1024

void	   *ironpage_map;
uint64		ironpage_map_capacity = CAPACITY_MAX;

typedef struct Class
{
	RelFileNode node;
	uint64		generation;		/* 0: slot never used */
	bool		local;
} Class;

static Class classes[CLASSES];

void
ironpage_cache_create(void)
{
	uint32		buckets = BUCKETS_MIN;
	uint32		capacity = CAPACITY_MAX;

	/* Generation 0 means an unused class. */
	pg_atomic_write_u64(&ironpage_shared->init_generation, 1);

	while (buckets < BUCKETS_MAX && buckets < 2 * ironpage_cache_target())
		buckets *= 2;

	/*
	 * Inherited by every fork, so the addresses agree. It grows with what is cached, past ironpage.cache_size if need
	 * be, and costs no memory before.
	 */
	for (;; capacity /= 2)
	{
		ironpage_map = mmap(NULL, ironpage_rs_map_size(buckets, capacity), PROT_READ | PROT_WRITE,
							MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (ironpage_map != MAP_FAILED)
			break;
		if (capacity <= CAPACITY_MIN)
			ereport(FATAL,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("could not map %zu bytes for the cache map: %m", (size_t) ironpage_rs_map_size(buckets, capacity)),
					 errhint("Allow the process more address space (ulimit -v), or lower ironpage.cache_size.")));
	}
	ironpage_map_capacity = capacity;
	if (ironpage_rs_map_create(ironpage_map, buckets, capacity) != 0)
		elog(FATAL, "could not create the cache map");
}

LWLock *
ironpage_lock_of(const IronpageKey *key)
{
	return &ironpage_locks[ironpage_rs_map_partition(ironpage_map, key)].lock;
}

/*
 * Temporary and unlogged relations have no WAL to come back from. Free space maps have no reliable one: stale ones would
 * name blocks behind a relation's end, so they live and die with the data directory.
 */
bool
ironpage_is_local(RelFileNodeBackend node, ForkNumber fork, uint64 *generation)
{
	Class	   *class = &classes[(node.node.relNode ^ node.node.dbNode * 31) % CLASSES];

	/* Read before the file is looked for: a change in between makes the answer outdated, not wrong for ever. */
	*generation = pg_atomic_read_u64(&ironpage_shared->init_generation);
	if (RelFileNodeBackendIsTemp(node) || fork == INIT_FORKNUM || fork == FSM_FORKNUM)
		return true;
	if (class->generation != *generation || !RelFileNodeEquals(class->node, node.node))
	{
		char	   *path = relpathperm(node.node, INIT_FORKNUM);

		class->local = access(path, F_OK) == 0;
		class->node = node.node;
		class->generation = *generation;
		pfree(path);
	}
	return class->local;
}

void
ironpage_view_now(IronpageView *view)
{
	view->vacuum_generation = pg_atomic_read_u64(&ironpage_shared->vacuum_generation);
	view->ingested_lsn = pg_atomic_read_u64(&ironpage_shared->ingested_lsn);
	view->oldest_xid = 0;
	if (!RecoveryInProgress())
	{
		TransactionId oldest = GetOldestActiveTransactionId();
		FullTransactionId next = ReadNextFullTransactionId();
		uint32		epoch = EpochFromFullTransactionId(next);

		/* An id above the next one is of the epoch before. */
		if (oldest > XidFromFullTransactionId(next))
			epoch--;
		view->oldest_xid = U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, oldest));
	}
}

/*
 * Everything is read after the page was copied: a later LSN, transaction id or generation only keeps the block longer.
 *
 * What a read-only endpoint writes are pages of the pageserver with hint bits set: they can go like those it reads.
 */
IronpageWritten
ironpage_written_now(const IronpageKey *key, const char *page)
{
	IronpageWritten written = {0};

	written.crc = ironpage_rs_page_crc(page);
	if (ironpage_ticket.read_only)
		return written;
	written.local = 1;
	written.pin = (uint8) ironpage_rs_standing_pin(key, page);
	written.lwlsn = ironpage_insert_record_end();
	written.next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	written.vacuum_generation = pg_atomic_read_u64(&ironpage_shared->vacuum_generation);
	return written;
}

void
ironpage_put(const IronpageKey *key, const IronpageWritten *written)
{
	static uint32 puts;

	if (ironpage_rs_map_put(ironpage_map, key, written) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("the page cache has no room for block %u of relation %u/%u/%u", key->block, key->tablespace,
						key->database, key->relation),
				 errdetail("It holds " UINT64_FORMAT " blocks.", ironpage_rs_map_count(ironpage_map))));

	/* The janitor looks by itself many times a second; a burst need not wait for that. */
	if (++puts % 256 == 0 && ironpage_rs_map_count(ironpage_map) > ironpage_cache_target())
	{
		Latch	   *latch = ironpage_shared->janitor_latch;

		if (latch)
			SetLatch(latch);
	}
}

/* Calls for what covers much look at every bucket; the others at their blocks. */
static void
forget_matching(const IronpageMatch *which)
{
	uint32		buckets = ironpage_rs_map_buckets(ironpage_map);

	for (uint32 bucket = 0; bucket < buckets; bucket++)
	{
		LWLock	   *lock = ironpage_lock_of_bucket(bucket);

		LWLockAcquire(lock, LW_EXCLUSIVE);
		ironpage_rs_map_remove_matching(ironpage_map, bucket, which);
		LWLockRelease(lock);
	}
}

void
ironpage_forget(RelFileNode node, ForkNumber fork, BlockNumber first, BlockNumber count)
{
	if (count > ironpage_rs_map_buckets(ironpage_map))
	{
		IronpageMatch which = {node.spcNode, node.dbNode, node.relNode, (uint32) fork, first};

		forget_matching(&which);
		return;
	}
	for (BlockNumber i = 0; i < count; i++)
	{
		IronpageKey key = ironpage_key(node, fork, first + i);
		LWLock	   *lock = ironpage_lock_of(&key);

		LWLockAcquire(lock, LW_EXCLUSIVE);
		ironpage_rs_map_remove(ironpage_map, &key);
		LWLockRelease(lock);
	}
}

void
ironpage_cache_database_dropped(Oid database)
{
	IronpageMatch which = {.database = database};

	forget_matching(&which);

	/* Its init forks are gone too, without a call for each. */
	pg_atomic_fetch_add_u64(&ironpage_shared->init_generation, 1);
}

void
ironpage_cache_database_moved(Oid database, Oid from_tablespace, Oid to_tablespace)
{
	IronpageMatch which = {.tablespace = from_tablespace, .database = database};
	uint32		buckets = ironpage_rs_map_buckets(ironpage_map);
	XLogRecPtr	moved = ironpage_insert_record_end();
	uint32		room = 64;
	IronpageEntry *entries = palloc(room * sizeof(IronpageEntry));

	/*
	 * Nobody is connected to the database and the checkpoint of the move wrote its buffers, so the copies do not change
	 * here. Under its new name no page exists at the pageserver before the record of the move, so fetches will wait for
	 * that: it must be on its way.
	 */
	XLogFlush(moved);
	ironpage_raise(&ironpage_shared->horizon, moved);
	for (uint32 bucket = 0; bucket < buckets; bucket++)
	{
		LWLock	   *lock = ironpage_lock_of_bucket(bucket);
		int			found;

		for (;;)
		{
			LWLockAcquire(lock, LW_SHARED);
			found = ironpage_rs_map_matching(ironpage_map, bucket, &which, entries, room);
			LWLockRelease(lock);
			if (found <= (int) room)
				break;
			room = found + 64;
			entries = repalloc(entries, room * sizeof(IronpageEntry));
		}
		for (int i = 0; i < found; i++)
		{
			IronpageKey key = entries[i].key;
			IronpageWritten written = entries[i].written;
			LWLock	   *new_lock;

			key.tablespace = to_tablespace;
			written.lwlsn = Max(written.lwlsn, moved);
			new_lock = ironpage_lock_of(&key);
			LWLockAcquire(new_lock, LW_EXCLUSIVE);
			ironpage_put(&key, &written);
			LWLockRelease(new_lock);
		}
	}
	pfree(entries);
	forget_matching(&which);
}

/*
 * While the pageserver lags or pins hold much, the cache grows. The pauses are short: a transaction's own pages are
 * pinned until it ends, so making it wait for room would be for ever.
 */
void
ironpage_cache_throttle(void)
{
	uint64		count = ironpage_rs_map_count(ironpage_map);
	uint64		target = ironpage_cache_target();
	uint64		pause_us;

	if (likely(count < 2 * target) || InterruptHoldoffCount > 0 || CritSectionCount > 0)
		return;
	if (pg_atomic_read_u64(&ironpage_shared->last_pass_unacked) > pg_atomic_read_u64(&ironpage_shared->last_pass_pinned))
		pause_us = Min(2000, 100 * count / target);
	else
		pause_us = Min(100, 10 * count / target);
	CHECK_FOR_INTERRUPTS();
	pg_usleep((long) pause_us);
	pg_atomic_fetch_add_u64(&ironpage_shared->counters[IPC_THROTTLED_US], pause_us);
}
