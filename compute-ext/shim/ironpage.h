/*
 * ironpage.h: what the files of the extension share.
 *
 * The C side holds everything that calls Postgres: hooks, settings, shared memory, locks, sockets, latches.
 * The Rust side (../src) holds formats and decisions; it never calls Postgres, so no longjmp crosses its frames.
 */
#ifndef IRONPAGE_H
#define IRONPAGE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/relfilenode.h"
#include "storage/smgr.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 160000
#error "Ironpage supports PostgreSQL 15: point PG_CONFIG at its pg_config"
#endif

#define IRONPAGE_ID_SIZE 16		/* tenant and timeline identifiers */

/*
 * The launch ticket: what this one start is for. Read by the postmaster, inherited by every fork, never changed.
 *
 * A primary has the term that the launcher won. `history` is "term:lsn,term:lsn", oldest first, its last entry
 * (term, start_lsn).
 *
 * A read-only endpoint is a hot standby that stays at start_lsn for ever: it won nothing, so its term is 0 and its
 * history NULL. It writes no WAL, reads pages as they were at start_lsn, and holds nothing that the pageserver does not.
 */
typedef struct IronpageTicket
{
	bool		read_only;
	uint64		term;
	XLogRecPtr	start_lsn;
	uint8		tenant[IRONPAGE_ID_SIZE];
	uint8		timeline[IRONPAGE_ID_SIZE];
	uint64		system_id;
	char	   *history;
} IronpageTicket;

extern IronpageTicket ironpage_ticket;

/* Counters, each only ever added to. The order is that of `ironpage_counter_names` in stats.c. */
typedef enum IronpageCounter
{
	IPC_HITS,
	IPC_FETCHES,
	IPC_WRITES,
	IPC_PUNCHES,
	IPC_CRC_MISMATCHES,
	IPC_PARANOID_READS,			/* reads of unpinned valid blocks in evict-everything mode */
	IPC_COMPARED,
	IPC_DIFFERING,
	IPC_PINNED_XID,				/* punches put off, by reason */
	IPC_PINNED_VACUUM,
	IPC_PINNED_LOW_LSN,
	IPC_PINNED_VM,
	IPC_PINNED_SEQUENCE,
	IPC_PINNED_CATALOG,
	IPC_UNACKNOWLEDGED,
	IPC_PARANOID_PINNED,		/* reads in evict-everything mode that a pin kept from being compared */
	IPC_PARANOID_XID,			/* and those by reason */
	IPC_PARANOID_VACUUM,
	IPC_PARANOID_LOW_LSN,
	IPC_PARANOID_VM,
	IPC_PARANOID_SEQUENCE,
	IPC_PARANOID_CATALOG,
	IPC_THROTTLED_US,
	IPC_RECONNECTS,
	IPC_COUNT
} IronpageCounter;

/* In shared memory, zero at start except what the ticket gives. */
typedef struct IronpageShared
{
	pg_atomic_uint64 term;
	pg_atomic_uint64 start_lsn; /* X: where this term's WAL begins */
	pg_atomic_uint64 commit_lsn;	/* a quorum holds everything up to here; only ever grows */
	pg_atomic_uint64 ingested_lsn;	/* the pageserver's last word; goes back when it restarts */
	pg_atomic_uint64 disk_consistent_lsn;
	pg_atomic_uint64 horizon;	/* max(X, last-written LSN of every block punched): what a fetch must wait for */
	pg_atomic_uint64 init_generation;	/* bumped when an init fork comes or goes */
	pg_atomic_uint64 vacuum_generation; /* see janitor.c */
	pg_atomic_uint64 last_pass_unacked; /* blocks the janitor's last pass could not punch, by cause */
	pg_atomic_uint64 last_pass_pinned;
	pg_atomic_uint32 fenced;	/* a higher term exists: answer nothing any more */
	Latch	   *volatile janitor_latch;
	pg_atomic_uint64 counters[IPC_COUNT];

	/* Below: owned by the walproposer (walproposer.c). */
	pg_atomic_uint64 quorum_contact_us; /* ironpage_now_us() when a quorum was last heard from */
	ConditionVariable commit_moved; /* told when commit_lsn grows */
} IronpageShared;

extern IronpageShared *ironpage_shared;
extern LWLockPadded *ironpage_locks;	/* IRONPAGE_PARTITIONS of them, one a partition of the cache map */

#define IRONPAGE_PARTITIONS 128

static inline void
ironpage_count(IronpageCounter counter)
{
	pg_atomic_fetch_add_u64(&ironpage_shared->counters[counter], 1);
}

/* Raises `target` to `value` if it is lower. */
static inline void
ironpage_raise(pg_atomic_uint64 *target, uint64 value)
{
	uint64		seen = pg_atomic_read_u64(target);

	while (seen < value && !pg_atomic_compare_exchange_u64(target, &seen, value))
		;
}

/* Settings (ironpage.c). */
extern char *ironpage_safekeepers;
extern char *ironpage_pageserver;
extern int	ironpage_cache_size_mb;
extern bool ironpage_paranoid;
extern int	ironpage_max_lag_mb;
extern int	ironpage_fence_after_ms;

/* ironpage.c */

/*
 * A higher term is known: writes ironpage.fenced, stops the postmaster at once (SIGQUIT) and ends this process.
 * Does nothing more than end this process if another one was first.
 */
extern void ironpage_fence(uint64 higher_term, const char *told_by) pg_attribute_noreturn();

/* ticket.c */
extern void ironpage_ticket_consume(void);

/* walproposer.c, commit.c, utility.c: each called once, from _PG_init. */
extern void ironpage_walproposer_register(void);
extern void ironpage_commit_init(void);
extern void ironpage_utility_init(void);

/* CLOCK_MONOTONIC, the same in all processes. */
extern uint64 ironpage_now_us(void);

/* throttle.c */

/*
 * Sleeps up to 10 ms, in proportion, while more WAL than ironpage.max_lag_mb waits for a quorum. For backends that
 * write, with no spinlock or LWLock held; never for the walproposer.
 */
extern void ironpage_wal_throttle(void);

/* The same for each block a relation grows by: a bulk load writes much WAL within one statement. */
extern void ironpage_wal_throttle_extend(void);

/* An error if no quorum was heard from for ironpage.fence_after_ms: another start of the branch may have taken over. */
extern void ironpage_check_contact(void);

/* smgr.c */
extern void ironpage_smgr_install(void);

/* cache.c */
extern void ironpage_cache_create(void);

/*
 * The database moved to another tablespace (ALTER DATABASE SET TABLESPACE copied its files): what was valid at the
 * old place is valid at the new one. Call after the move, before anyone can connect to the database.
 */
extern void ironpage_cache_database_moved(Oid database, Oid from_tablespace, Oid to_tablespace);

/* The database is gone (DROP DATABASE removed its directories): forgets its blocks. */
extern void ironpage_cache_database_dropped(Oid database);

/* Slows a writer down while the cache is far above its size. Only where no lock or critical section is held. */
extern void ironpage_cache_throttle(void);

/* janitor.c */
extern void ironpage_janitor_register(void);
extern PGDLLEXPORT void ironpage_janitor_main(Datum arg);

/* selftest.c */
extern void ironpage_selftest_postmaster(void);
extern void ironpage_selftest_worker(void);

/* The end of the last record that can have been inserted: GetXLogInsertRecPtr() as a record end, X in recovery. */
extern XLogRecPtr ironpage_insert_record_end(void);

/* Rust: 0 is success everywhere, below 0 an error; nothing unwinds into C. */
extern uint64 ironpage_rs_to_record_end(uint64 lsn);

/* readonly.c */
extern void ironpage_readonly_init(void);

/* FATAL unless the data directory is one that stock Postgres starts as a hot standby. */
extern void ironpage_readonly_check(void);

/* Recovery of a read-only endpoint has ended, which it never may: stops the postmaster, and ends this process. */
extern void ironpage_readonly_promoted(void) pg_attribute_noreturn();

#endif							/* IRONPAGE_H */
