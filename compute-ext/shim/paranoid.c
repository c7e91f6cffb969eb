/*
 * paranoid.c: evict-everything mode. Every block that could have been dropped from the cache is read from the pageserver
 * as well, as if it had been, and compared.
 *
 * Pages may differ in what no WAL record carries and nobody relies on: hint bits, unused space, the LSN where a page
 * was changed without it. Postgres knows those per resource manager (the masks of wal_consistency_checking), and its
 * masks are used here.
 */
#include "cache.h"

#include "access/bufmask.h"
#include "access/rmgr.h"
#include "access/spgist_private.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/buf_internals.h"
#include "storage/bufpage.h"

/* Last two bytes of a page, by which the index access methods tell their pages apart (as pg_filedump does). */
#define MAX_BT_CYCLE_ID			0xFF7F	/* access/nbtree.h */
#define HASHO_PAGE_ID			0xFF80	/* access/hash.h */
#define GIST_PAGE_ID			0xFF81	/* access/gist.h */
#define GIN_FLAGS_LAST			0x01FF	/* access/ginblock.h: bits in the place of a page id */
#define BRIN_PAGETYPE_FIRST		0xF091	/* access/brin_page.h */
#define BRIN_PAGETYPE_LAST		0xF093
#define SEQ_MAGIC				0x1717	/* commands/sequence.c */

static RmgrId
rmgr_of_page(const char *page)
{
	uint16		special = ((const PageHeaderData *) page)->pd_special;
	uint16		last;
	uint32		first;

	memcpy(&last, page + BLCKSZ - sizeof(last), sizeof(last));
	if (special == BLCKSZ)
		return RM_HEAP_ID;
	if (special == BLCKSZ - 16)
	{
		if (last == HASHO_PAGE_ID)
			return RM_HASH_ID;
		if (last == GIST_PAGE_ID)
			return RM_GIST_ID;
		if (last <= MAX_BT_CYCLE_ID)
			return RM_BTREE_ID;
	}
	if (special == BLCKSZ - 8)
	{
		memcpy(&first, page + special, sizeof(first));
		if (last == SPGIST_PAGE_ID)
			return RM_SPGIST_ID;
		if (last >= BRIN_PAGETYPE_FIRST && last <= BRIN_PAGETYPE_LAST)
			return RM_BRIN_ID;
		if (first == SEQ_MAGIC)
			return RM_SEQ_ID;
		if (last <= GIN_FLAGS_LAST)
			return RM_GIN_ID;
	}
	return RM_GENERIC_ID;
}

/* Masks a copy of a page, by the kind of the local one: both must be of the same. */
static void
mask(char *page, ForkNumber fork, BlockNumber block, RmgrId rmgr)
{
	if (PageIsNew((Page) page))
		return;
	if (fork == VISIBILITYMAP_FORKNUM)
		mask_page_lsn_and_checksum(page);
	else
		GetRmgr(rmgr).rm_mask(page, block);

	/* Where to look for free space first: changed without WAL (SpGistUpdateMetaPage in spgutils.c), checked when used. */
	if (rmgr == RM_SPGIST_ID && fork == MAIN_FORKNUM && block == SPGIST_METAPAGE_BLKNO && SpGistPageIsMeta((Page) page))
		memset(&SpGistPageGetMeta((Page) page)->lastUsedPages, 0, sizeof(SpGistLUPCache));
}

/*
 * Does somebody else have the page in shared buffers, or has it been written since? pg_prewarm reads files past the
 * buffers, where a page can be newer. For a read into a buffer neither can be: its buffer is not valid yet.
 */
static bool
is_outdated(const IronpageEntry *entry)
{
	LWLock	   *lock = ironpage_lock_of(&entry->key);
	IronpageEntry now;
	BufferTag	tag;
	uint32		hash;
	LWLock	   *mapping;
	int			buffer;
	bool		outdated;

	INIT_BUFFERTAG(tag, ((RelFileNode) {entry->key.tablespace, entry->key.database, entry->key.relation}),
				   (ForkNumber) entry->key.fork, entry->key.block);
	hash = BufTableHashCode(&tag);
	mapping = BufMappingPartitionLock(hash);
	LWLockAcquire(mapping, LW_SHARED);
	buffer = BufTableLookup(&tag, hash);
	outdated = buffer >= 0 && (pg_atomic_read_u32(&GetBufferDescriptor(buffer)->state) & BM_VALID) != 0;
	LWLockRelease(mapping);
	if (outdated)
		return true;

	LWLockAcquire(lock, LW_SHARED);
	outdated = ironpage_rs_map_peek(ironpage_map, &entry->key, &now) == 0 &&
		memcmp(&now.written, &entry->written, sizeof(IronpageWritten)) != 0;
	LWLockRelease(lock);
	return outdated;
}

static void
count_pinned(int pin)
{
	ironpage_count(IPC_PARANOID_PINNED);
	pg_atomic_fetch_add_u64(&ironpage_shared->counters[IPC_PARANOID_XID + pin - IPV_PIN_XID], 1);
}

void
ironpage_compare(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page, const IronpageEntry *entry)
{
	PGAlignedBlock local;
	PGAlignedBlock remote;
	XLogRecPtr	local_lsn;
	XLogRecPtr	remote_lsn;
	XLogRecPtr	served;
	IronpageView view;
	RmgrId		rmgr;
	int			pin;

	/* A primary that recovers has no last-written LSNs; a read-only endpoint needs none. */
	if (RecoveryInProgress() && !ironpage_ticket.read_only)
		return;
	ironpage_view_now(&view);
	pin = ironpage_rs_pin_now(entry, &view);
	if (pin != IPV_FREE)
	{
		count_pinned(pin);
		return;
	}
	ironpage_count(IPC_PARANOID_READS);
	if (CritSectionCount > 0)
		return;

	if (entry->written.lwlsn != 0)
		XLogFlush(entry->written.lwlsn);
	memcpy(local.data, page, BLCKSZ);
	served = ironpage_fetch(&entry->key, Max(entry->written.lwlsn, pg_atomic_read_u64(&ironpage_shared->horizon)), remote.data);
	local_lsn = PageGetLSN((Page) local.data);
	remote_lsn = PageGetLSN((Page) remote.data);
	rmgr = rmgr_of_page(local.data);
	mask(local.data, fork, block, rmgr);
	if (rmgr_of_page(remote.data) == rmgr)
		mask(remote.data, fork, block, rmgr);
	ironpage_count(IPC_COMPARED);

	if (memcmp(local.data, remote.data, BLCKSZ) != 0 && !is_outdated(entry))
	{
		int			offset = 0;

		while (local.data[offset] == remote.data[offset])
			offset++;
		ironpage_count(IPC_DIFFERING);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("block %u of \"%s\" differs from the pageserver's at byte %d (%02X here, %02X there)", block,
						relpath(reln->smgr_rnode, fork), offset, (uint8) local.data[offset], (uint8) remote.data[offset]),
				 errdetail("Page LSN %X/%X here, %X/%X there; last written at %X/%X; served at %X/%X; masked as %s.",
						   LSN_FORMAT_ARGS(local_lsn), LSN_FORMAT_ARGS(remote_lsn), LSN_FORMAT_ARGS(entry->written.lwlsn),
						   LSN_FORMAT_ARGS(served), GetRmgr(rmgr).rm_name)));
	}
}
