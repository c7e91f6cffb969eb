/*
 * ironpage.c: loading the extension: settings, shared memory, and the order in which the parts come up.
 */
#include "ironpage.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

IronpageShared *ironpage_shared;
LWLockPadded *ironpage_locks;

char	   *ironpage_safekeepers;
char	   *ironpage_pageserver;
int			ironpage_cache_size_mb;
bool		ironpage_paranoid;
int			ironpage_max_lag_mb;
int			ironpage_fence_after_ms;

static shmem_request_hook_type previous_shmem_request;
static shmem_startup_hook_type previous_shmem_startup;

static void
define_settings(void)
{
	DefineCustomStringVariable("ironpage.safekeepers", "Safekeepers that make the WAL durable.",
							   "host:port of each, separated by commas.",
							   &ironpage_safekeepers, "", PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("ironpage.pageserver", "Pageserver that pages are read from.", "host:port",
							   &ironpage_pageserver, "", PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("ironpage.cache_size", "Space the local copies of pages may take in the data directory.",
							"Grows past it, with a warning, while pages cannot be dropped safely.",
							&ironpage_cache_size_mb, 1024, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomBoolVariable("ironpage.paranoid", "Compare every page read from the cache with the pageserver's.",
							 "Evict-everything mode: slow, for tests.",
							 &ironpage_paranoid, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("ironpage.max_lag_mb", "WAL without a quorum above which writers are slowed down.", NULL,
							&ironpage_max_lag_mb, 512, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("ironpage.fence_after_ms", "Time without a quorum after which nothing is served any more.",
							NULL, &ironpage_fence_after_ms, 30000, 1000, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	MarkGUCPrefixReserved("ironpage");
}

/* What the rest relies on. Each refusal names the way out. */
static void
check_environment(void)
{
	const char *running = GetConfigOption("server_version_num", false, false);

	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ironpage can only be loaded by shared_preload_libraries"),
				 errhint("Start the endpoint with the ironpage command; it sets shared_preload_libraries = 'ironpage'.")));
	if (!IsPostmasterEnvironment)
		ereport(FATAL,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ironpage does not run in single-user mode"),
				 errdetail("What is written there would reach no safekeeper.")));
	if (atoi(running) != PG_VERSION_NUM)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("ironpage was built for PostgreSQL %d, this is %s", PG_VERSION_NUM, running),
				 errdetail("Minor releases of distributions have changed the storage manager's functions."),
				 errhint("Build it again against this server's headers: ./dev build.")));
}

/* Settings of Postgres that would break a promise; read when all of them have their final value. */
static void
check_settings(void)
{
	if (wal_level < WAL_LEVEL_REPLICA)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("ironpage needs wal_level = replica or logical"),
				 errdetail("With wal_level = minimal new relations are written without WAL, and pages come from WAL alone.")));
	if (wal_segment_size != 16 * 1024 * 1024)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("ironpage needs WAL segments of 16 MB, this cluster has %d bytes", wal_segment_size),
				 errhint("Create the cluster with initdb without --wal-segsize.")));
	if (ironpage_pageserver[0] == '\0' || ironpage_safekeepers[0] == '\0')
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("%s is not set", ironpage_pageserver[0] == '\0' ? "ironpage.pageserver" : "ironpage.safekeepers"),
				 errhint("Start the endpoint with the ironpage command; it fills in the addresses.")));
}

static void
shmem_request(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(IronpageShared)));
	RequestNamedLWLockTranche("ironpage_cache", IRONPAGE_PARTITIONS);
}

static void
shmem_startup(void)
{
	bool		found;

	if (previous_shmem_startup)
		previous_shmem_startup();

	check_settings();
	ironpage_ticket_consume();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ironpage_shared = ShmemInitStruct("ironpage", sizeof(IronpageShared), &found);
	if (!found)
	{
		memset(ironpage_shared, 0, sizeof(IronpageShared));
		pg_atomic_init_u64(&ironpage_shared->term, ironpage_ticket.term);
		pg_atomic_init_u64(&ironpage_shared->start_lsn, ironpage_ticket.start_lsn);
		pg_atomic_init_u64(&ironpage_shared->commit_lsn, ironpage_ticket.start_lsn);
		pg_atomic_init_u64(&ironpage_shared->horizon, ironpage_ticket.start_lsn);
		pg_atomic_init_u64(&ironpage_shared->vacuum_generation, 1);
		ConditionVariableInit(&ironpage_shared->commit_moved);
	}
	LWLockRelease(AddinShmemInitLock);
	ironpage_locks = GetNamedLWLockTranche("ironpage_cache");

	ironpage_cache_create();
	ironpage_selftest_postmaster();
}

void
_PG_init(void)
{
	check_environment();
	define_settings();

	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;

	ironpage_smgr_install();
	ironpage_walproposer_register();
	ironpage_janitor_register();
	ironpage_commit_init();
	ironpage_utility_init();
	ironpage_readonly_init();
}

void
ironpage_fence(uint64 higher_term, const char *told_by)
{
	uint32		not_yet = 0;

	if (pg_atomic_compare_exchange_u32(&ironpage_shared->fenced, &not_yet, 1))
	{
		/* For the supervisor, so that it does not start this endpoint again on its own. */
		char		text[256];
		int			length = snprintf(text, sizeof(text), "term=" UINT64_FORMAT "\nhigher_term=" UINT64_FORMAT "\ntold_by=%s\n",
									  pg_atomic_read_u64(&ironpage_shared->term), higher_term, told_by);
		int			fd = open("ironpage.fenced", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		if (fd >= 0)
		{
			if (write(fd, text, Min(length, (int) sizeof(text) - 1)) < 0)
				ereport(LOG, (errcode_for_file_access(), errmsg("could not write \"ironpage.fenced\": %m")));
			close(fd);
		}
		ereport(LOG,
				(errmsg("this endpoint is fenced: %s knows term " UINT64_FORMAT ", ours is " UINT64_FORMAT, told_by, higher_term,
						pg_atomic_read_u64(&ironpage_shared->term)),
				 errdetail("Another start of the branch won an election. This postmaster stops at once.")));
		kill(PostmasterPid, SIGQUIT);
	}

	/* A plain exit could let a client's last message out; the postmaster's SIGQUIT ends us the same way. */
	_exit(2);
}

XLogRecPtr
ironpage_insert_record_end(void)
{
	if (RecoveryInProgress())
		return pg_atomic_read_u64(&ironpage_shared->start_lsn);
	return ironpage_rs_to_record_end(GetXLogInsertRecPtr());
}
