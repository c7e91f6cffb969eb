/*
 * stats.c: ironpage_stats(), what the cache and the page client have done since the postmaster started.
 */
#include "cache.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(ironpage_stats);

static const char *const ironpage_counter_names[IPC_COUNT] = {
	[IPC_HITS] = "hits",
	[IPC_FETCHES] = "fetches",
	[IPC_WRITES] = "writes",
	[IPC_PUNCHES] = "punches",
	[IPC_CRC_MISMATCHES] = "crc_mismatches",
	[IPC_PARANOID_READS] = "paranoid_unpinned_reads",
	[IPC_COMPARED] = "compared",
	[IPC_DIFFERING] = "differing",
	[IPC_PINNED_XID] = "pinned_xid",
	[IPC_PINNED_VACUUM] = "pinned_vacuum",
	[IPC_PINNED_LOW_LSN] = "pinned_low_lsn",
	[IPC_PINNED_VM] = "pinned_vm",
	[IPC_PINNED_SEQUENCE] = "pinned_sequence",
	[IPC_PINNED_CATALOG] = "pinned_catalog",
	[IPC_UNACKNOWLEDGED] = "unacknowledged",
	[IPC_PARANOID_PINNED] = "paranoid_pinned_reads",
	[IPC_PARANOID_XID] = "paranoid_pinned_xid",
	[IPC_PARANOID_VACUUM] = "paranoid_pinned_vacuum",
	[IPC_PARANOID_LOW_LSN] = "paranoid_pinned_low_lsn",
	[IPC_PARANOID_VM] = "paranoid_pinned_vm",
	[IPC_PARANOID_SEQUENCE] = "paranoid_pinned_sequence",
	[IPC_PARANOID_CATALOG] = "paranoid_pinned_catalog",
	[IPC_THROTTLED_US] = "throttled_us",
	[IPC_RECONNECTS] = "reconnects",
};

static void
put(ReturnSetInfo *result, const char *name, uint64 value)
{
	Datum		values[2] = {CStringGetTextDatum(name), Int64GetDatum((int64) value)};
	bool		nulls[2] = {false, false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
ironpage_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < IPC_COUNT; i++)
		put(result, ironpage_counter_names[i], pg_atomic_read_u64(&ironpage_shared->counters[i]));
	put(result, "cached_blocks", ironpage_rs_map_count(ironpage_map));
	put(result, "cache_size_blocks", ironpage_cache_target());
	put(result, "vacuum_generation", pg_atomic_read_u64(&ironpage_shared->vacuum_generation));
	put(result, "term", pg_atomic_read_u64(&ironpage_shared->term));
	put(result, "start_lsn", pg_atomic_read_u64(&ironpage_shared->start_lsn));
	put(result, "commit_lsn", pg_atomic_read_u64(&ironpage_shared->commit_lsn));
	put(result, "ingested_lsn", pg_atomic_read_u64(&ironpage_shared->ingested_lsn));
	put(result, "disk_consistent_lsn", pg_atomic_read_u64(&ironpage_shared->disk_consistent_lsn));
	put(result, "horizon", pg_atomic_read_u64(&ironpage_shared->horizon));
	return (Datum) 0;
}
