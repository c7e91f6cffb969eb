/*
 * cache.h: the map of valid blocks and the page client, as the storage half of the shim uses them.
 *
 * The structs mirror those of ../src/cache, ../src/pins.rs and ../src/pages/ffi.rs, field by field.
 */
#ifndef IRONPAGE_CACHE_H
#define IRONPAGE_CACHE_H

#include "ironpage.h"

typedef struct IronpageKey
{
	uint32		tablespace;
	uint32		database;
	uint32		relation;
	uint32		fork;
	uint32		block;
} IronpageKey;

typedef struct IronpageWritten
{
	uint64		lwlsn;
	uint64		next_xid;
	uint64		vacuum_generation;
	uint32		crc;
	uint8		pin;
	uint8		local;
	uint8		reserved[2];
} IronpageWritten;

typedef struct IronpageEntry
{
	IronpageKey key;
	uint32		hash;
	IronpageWritten written;
	uint32		next;
	uint8		accessed;
	uint8		reserved[3];
} IronpageEntry;

StaticAssertDecl(sizeof(IronpageEntry) == 64, "an entry takes one cache line");

typedef struct IronpageView
{
	uint64		oldest_xid;
	uint64		vacuum_generation;
	uint64		ingested_lsn;
} IronpageView;

typedef struct IronpageMatch
{
	uint32		tablespace;
	uint32		database;
	uint32		relation;
	uint32		fork;
	uint32		from_block;
} IronpageMatch;

/* Verdicts on a block: it may go, a pin holds it, or the pageserver does not have its WAL yet. */
typedef enum IronpageVerdict
{
	IPV_FREE = 0,
	IPV_PIN_XID = 1,
	IPV_PIN_VACUUM = 2,
	IPV_PIN_LOW_LSN = 3,
	IPV_PIN_VM = 4,
	IPV_PIN_SEQUENCE = 5,
	IPV_PIN_CATALOG = 6,
	IPV_UNACKNOWLEDGED = 7,
	IPV_COUNT = 8
} IronpageVerdict;

/* What Rust returns below 0. */
#define IRONPAGE_RS_PANICKED	(-1)
#define IRONPAGE_RS_MALFORMED	(-2)
#define IRONPAGE_RS_FULL		(-3)
#define IRONPAGE_RS_MISSING		(-4)

extern uint64 ironpage_rs_map_size(uint32 bucket_count, uint32 capacity);
extern int	ironpage_rs_map_create(void *base, uint32 bucket_count, uint32 capacity);
extern int	ironpage_rs_map_partition(void *base, const IronpageKey *key);
extern uint64 ironpage_rs_map_count(void *base);
extern uint32 ironpage_rs_map_buckets(void *base);
extern int	ironpage_rs_map_find(void *base, const IronpageKey *key, IronpageEntry *out);
extern int	ironpage_rs_map_peek(void *base, const IronpageKey *key, IronpageEntry *out);
extern int	ironpage_rs_map_put(void *base, const IronpageKey *key, const IronpageWritten *written);
extern int	ironpage_rs_map_remove(void *base, const IronpageKey *key);
extern int	ironpage_rs_map_remove_matching(void *base, uint32 bucket, const IronpageMatch *which);
extern int	ironpage_rs_map_matching(void *base, uint32 bucket, const IronpageMatch *which, IronpageEntry *out, uint32 room);
extern int	ironpage_rs_map_sweep(void *base, uint32 bucket, const IronpageView *view, IronpageEntry *out, uint32 room, uint64 *tally);
extern int	ironpage_rs_verdict(const IronpageEntry *entry, const IronpageView *view);
extern int	ironpage_rs_pin_now(const IronpageEntry *entry, const IronpageView *view);
extern int	ironpage_rs_standing_pin(const IronpageKey *key, const char *page);
extern uint32 ironpage_rs_page_crc(const char *page);

/* cache.c */
extern void *ironpage_map;
extern uint64 ironpage_map_capacity;	/* entries it has room for */

static inline IronpageKey
ironpage_key(RelFileNode node, ForkNumber fork, BlockNumber block)
{
	return (IronpageKey) {node.spcNode, node.dbNode, node.relNode, (uint32) fork, block};
}

static inline LWLock *
ironpage_lock_of_bucket(uint32 bucket)
{
	return &ironpage_locks[bucket % IRONPAGE_PARTITIONS].lock;
}

extern LWLock *ironpage_lock_of(const IronpageKey *key);

/*
 * Is the relation's fork plain local storage, without the pageserver? `generation` is what the answer was made under;
 * it may be outdated once ironpage_shared->init_generation differs.
 */
extern bool ironpage_is_local(RelFileNodeBackend node, ForkNumber fork, uint64 *generation);

/* What decides over pins and acknowledgements right now. While in recovery only the pageserver's own copies are free. */
extern void ironpage_view_now(IronpageView *view);

/* The record of a page that this backend writes: its CRC, and everything that ran until now (of a primary). */
extern IronpageWritten ironpage_written_now(const IronpageKey *key, const char *page);

/* Makes a block valid; ERROR if the map is full. The caller holds the partition's lock exclusively. */
extern void ironpage_put(const IronpageKey *key, const IronpageWritten *written);

/* Forgets `count` blocks of a fork from `first` on, taking each partition's lock. */
extern void ironpage_forget(RelFileNode node, ForkNumber fork, BlockNumber first, BlockNumber count);

/* Blocks that ironpage.cache_size allows, and never so many that the map is full before the janitor begins. */
static inline uint64
ironpage_cache_target(void)
{
	return Min((uint64) ironpage_cache_size_mb * (1024 * 1024 / BLCKSZ), ironpage_map_capacity / 4 * 3);
}

/* pages.c */

/*
 * Reads a block from the pageserver, not older than `not_modified_since`; waits for it, cancellably. Returns its LSN. A
 * read-only endpoint reads it as it was at its start LSN.
 */
extern XLogRecPtr ironpage_fetch(const IronpageKey *key, XLogRecPtr not_modified_since, char *page);

/* Asks the pageserver how far it is. False, at once, if it cannot be reached or does not answer. */
extern bool ironpage_ask_ingest(XLogRecPtr *last_record_lsn, XLogRecPtr *disk_consistent_lsn);

/* smgr.c: the storage manager as it was found, for what stays with it. */
extern void ironpage_md_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer);

/* paranoid.c */
extern void ironpage_compare(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page, const IronpageEntry *entry);

/*
 * selftest.c: calls that name the probe relation (number 0, which no relation has) do nothing but say that they came.
 */
typedef enum IronpageProbe
{
	IPP_READ = 1 << 0,
	IPP_WRITE = 1 << 1,
	IPP_EXTEND = 1 << 2,
	IPP_CREATE = 1 << 3,
	IPP_UNLINK = 1 << 4,
	IPP_TRUNCATE = 1 << 5,
	IPP_PREFETCH = 1 << 6,
	IPP_NBLOCKS = 1 << 7
} IronpageProbe;

extern uint32 ironpage_probes_seen;
extern void ironpage_poison(char *page);

static inline bool
ironpage_probed(RelFileNode node, IronpageProbe probe)
{
	if (likely(node.relNode != InvalidOid))
		return false;
	ironpage_probes_seen |= probe;
	return true;
}

#endif							/* IRONPAGE_CACHE_H */
