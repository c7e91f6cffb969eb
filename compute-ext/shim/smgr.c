/*
 * smgr.c: our functions in the place of Postgres's only storage manager, md.c.
 *
 * smgr.c of Postgres calls md.c through a constant array of one element. It is found in the read-only-after-relocation
 * part of the binary by the functions it must hold, and overwritten. The compiler calls some members directly (open,
 * init, the last one): those are not replaced, and selftest.c makes sure of the others.
 *
 * A block that the map knows is valid in the local file, and only such a block is read from there. The partition's lock
 * is held over the file access, so that a punch, a truncation or a store never comes in between; it is never held while
 * waiting for the pageserver.
 */
#include "cache.h"

#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/md.h"

/*
 * f_smgr of smgr.c, which no header declares: its members and their order, per major version. Prototypes come from md.h,
 * where minor releases have changed them.
 */
typedef struct StorageManager
{
	void		(*init) (void);
	void		(*shutdown) (void);
	void		(*open) (SMgrRelation reln);
	void		(*close) (SMgrRelation reln, ForkNumber fork);
	void		(*create) (SMgrRelation reln, ForkNumber fork, bool redo);
	bool		(*exists) (SMgrRelation reln, ForkNumber fork);
	void		(*unlink) (RelFileNodeBackend node, ForkNumber fork, bool redo);
	void		(*extend) (SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync);
	bool		(*prefetch) (SMgrRelation reln, ForkNumber fork, BlockNumber block);
	void		(*read) (SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer);
	void		(*write) (SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync);
	void		(*writeback) (SMgrRelation reln, ForkNumber fork, BlockNumber block, BlockNumber count);
	BlockNumber (*nblocks) (SMgrRelation reln, ForkNumber fork);
	void		(*truncate) (SMgrRelation reln, ForkNumber fork, BlockNumber old_blocks, BlockNumber blocks);
	void		(*immedsync) (SMgrRelation reln, ForkNumber fork);
} StorageManager;

static const StorageManager md = {
	mdinit, NULL, mdopen, mdclose, mdcreate, mdexists, mdunlink, mdextend, mdprefetch, mdread, mdwrite, mdwriteback,
	mdnblocks, mdtruncate, mdimmedsync
};

void
ironpage_md_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer)
{
	md.read(reln, fork, block, buffer);
}

/*
 * Classifies the relation and takes the lock of the block, exclusively. False, and no lock, if it is local storage.
 *
 * The creator of an init fork bumps the generation and then forgets the relation's blocks, lock by lock. So whoever
 * holds the lock and sees the old generation is forgotten afterwards, and whoever sees the new one classifies anew.
 */
static bool
lock_remote_block(SMgrRelation reln, const IronpageKey *key, LWLock **lock)
{
	uint64		generation;

	*lock = ironpage_lock_of(key);
	while (!ironpage_is_local(reln->smgr_rnode, (ForkNumber) key->fork, &generation))
	{
		LWLockAcquire(*lock, LW_EXCLUSIVE);
		if (generation == pg_atomic_read_u64(&ironpage_shared->init_generation))
			return true;
		LWLockRelease(*lock);
	}
	return false;
}

/* ---- writing ---- */

/*
 * The local file need not survive this machine, so nothing is registered for fsync (skip_fsync). The page is copied
 * first: others set hint bits in the buffer while it is being written, and the CRC must be that of what is stored. The
 * entry goes first: should the write fail, its CRC shows that the file does not hold the page.
 */
static void
ironpage_write(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
	IronpageKey key = ironpage_key(reln->smgr_rnode.node, fork, block);
	IronpageWritten written;
	PGAlignedBlock copy;
	LWLock	   *lock;

	if (ironpage_probed(reln->smgr_rnode.node, IPP_WRITE))
		return;
	if (!lock_remote_block(reln, &key, &lock))
	{
		md.write(reln, fork, block, buffer, skip_fsync);
		return;
	}
	memcpy(copy.data, buffer, BLCKSZ);
	written = ironpage_written_now(&key, copy.data);
	ironpage_put(&key, &written);
	md.write(reln, fork, block, copy.data, true);
	LWLockRelease(lock);
	ironpage_count(IPC_WRITES);
}

/*
 * Blocks between the old end and the new one were never written by anybody (hash indexes and copies of databases extend
 * that way): they are zeros here and now, whatever the pageserver still remembers from before a truncation.
 */
static void
fill_gap(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
	static const PGAlignedBlock zeros;
	BlockNumber end = md.nblocks(reln, fork);

	for (BlockNumber gap = end; gap < block; gap++)
	{
		IronpageKey key = ironpage_key(reln->smgr_rnode.node, fork, gap);
		IronpageWritten written = ironpage_written_now(&key, zeros.data);
		LWLock	   *lock;

		if (!lock_remote_block(reln, &key, &lock))
			return;
		ironpage_put(&key, &written);
		LWLockRelease(lock);
	}
}

static void
ironpage_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
	IronpageKey key = ironpage_key(reln->smgr_rnode.node, fork, block);
	IronpageWritten written;
	PGAlignedBlock copy;
	LWLock	   *lock;
	uint64		generation;

	if (ironpage_probed(reln->smgr_rnode.node, IPP_EXTEND))
		return;
	if (!ironpage_is_local(reln->smgr_rnode, fork, &generation))
	{
		ironpage_cache_throttle();
		ironpage_wal_throttle_extend();
		fill_gap(reln, fork, block);
	}
	if (!lock_remote_block(reln, &key, &lock))
	{
		md.extend(reln, fork, block, buffer, skip_fsync);
		return;
	}
	memcpy(copy.data, buffer, BLCKSZ);
	written = ironpage_written_now(&key, copy.data);
	ironpage_put(&key, &written);
	md.extend(reln, fork, block, copy.data, true);
	LWLockRelease(lock);
	ironpage_count(IPC_WRITES);
}

/* ---- reading ---- */

/* The local file holds something else than what was stored there. Forgets the block so that it is fetched, if it can be. */
static void
handle_mismatch(SMgrRelation reln, const IronpageKey *key, const IronpageEntry *entry, uint32 found_crc)
{
	LWLock	   *lock = ironpage_lock_of(key);
	char	   *path = relpath(reln->smgr_rnode, (ForkNumber) key->fork);
	IronpageView view;
	IronpageEntry now;
	int			pin;

	ironpage_count(IPC_CRC_MISMATCHES);
	ironpage_view_now(&view);
	pin = ironpage_rs_pin_now(entry, &view);
	if (pin != IPV_FREE)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("block %u of \"%s\" is damaged in the local files, and only they have it", key->block, path),
				 errdetail("Its CRC is %08X, %08X was stored.", found_crc, entry->written.crc),
				 errhint("The transactions that wrote it cannot be saved; restart the endpoint to go on from the last commit.")));
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("block %u of \"%s\" is damaged in the local files; reading it from the pageserver", key->block, path),
			 errdetail("Its CRC is %08X, %08X was stored.", found_crc, entry->written.crc)));
	pfree(path);

	/* The pageserver gets only flushed WAL. */
	if (entry->written.lwlsn != 0 && !RecoveryInProgress())
		XLogFlush(entry->written.lwlsn);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (ironpage_rs_map_find(ironpage_map, key, &now) == 0 &&
		memcmp(&now.written, &entry->written, sizeof(IronpageWritten)) == 0)
	{
		ironpage_raise(&ironpage_shared->horizon, entry->written.lwlsn);
		ironpage_rs_map_remove(ironpage_map, key);
	}
	LWLockRelease(lock);
}

/*
 * Keeps a fetched page in the local file, unless somebody wrote the block meanwhile, or wrote it and the janitor punched
 * it: then a version older than the horizon must not come back. False if the block has become valid.
 *
 * The read itself does not need the copy: a full disk here is a line in the log.
 */
static bool
store_fetched(SMgrRelation reln, const IronpageKey *key, const char *page, XLogRecPtr served)
{
	IronpageWritten written = {.crc = ironpage_rs_page_crc(page)};
	MemoryContext context = CurrentMemoryContext;
	uint32		holdoff;
	IronpageEntry entry;
	LWLock	   *lock;

	if (!lock_remote_block(reln, key, &lock))
		return true;
	if (ironpage_rs_map_find(ironpage_map, key, &entry) == 0)
	{
		LWLockRelease(lock);
		return false;
	}
	holdoff = InterruptHoldoffCount;
	PG_TRY();
	{
		if (served >= pg_atomic_read_u64(&ironpage_shared->horizon) && key->block < md.nblocks(reln, (ForkNumber) key->fork) &&
			CritSectionCount == 0)
		{
			md.write(reln, (ForkNumber) key->fork, key->block, unconstify(char *, page), true);
			ironpage_put(key, &written);
		}
	}
	PG_CATCH();
	{
		static bool warned;

		/* errfinish() cleared the count that LWLockRelease() lowers. */
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(context);
		if (!warned)
		{
			ErrorData  *error = CopyErrorData();

			ereport(LOG, (errmsg("a page was read but not cached: %s", error->message)));
			FreeErrorData(error);
			warned = true;
		}
		FlushErrorState();
	}
	PG_END_TRY();
	LWLockRelease(lock);
	return true;
}

static void
ironpage_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer)
{
	IronpageKey key = ironpage_key(reln->smgr_rnode.node, fork, block);
	uint64		generation;

	if (ironpage_probed(reln->smgr_rnode.node, IPP_READ))
	{
		ironpage_poison(buffer);
		return;
	}
	for (;;)
	{
		LWLock	   *lock = ironpage_lock_of(&key);
		IronpageEntry entry;
		XLogRecPtr	served;

		if (ironpage_is_local(reln->smgr_rnode, fork, &generation))
		{
			md.read(reln, fork, block, buffer);
			return;
		}

		LWLockAcquire(lock, LW_SHARED);
		if (ironpage_rs_map_find(ironpage_map, &key, &entry) == 0)
		{
			uint32		crc;

			md.read(reln, fork, block, buffer);
			LWLockRelease(lock);
			crc = ironpage_rs_page_crc(buffer);
			if (likely(crc == entry.written.crc))
			{
				ironpage_count(IPC_HITS);
				if (ironpage_paranoid)
					ironpage_compare(reln, fork, block, buffer, &entry);
				return;
			}
			handle_mismatch(reln, &key, &entry, crc);
			continue;
		}
		LWLockRelease(lock);

		/* Behind the end of the file: md.c knows what to say. */
		if (block >= md.nblocks(reln, fork))
		{
			md.read(reln, fork, block, buffer);
			return;
		}

		/* Read after the lock: the horizon was raised before the block was forgotten. */
		served = ironpage_fetch(&key, pg_atomic_read_u64(&ironpage_shared->horizon), buffer);
		if (store_fetched(reln, &key, buffer, served))
			return;
	}
}

static bool
ironpage_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
	IronpageKey key = ironpage_key(reln->smgr_rnode.node, fork, block);
	IronpageEntry entry;
	uint64		generation;
	bool		valid;
	LWLock	   *lock;

	if (ironpage_probed(reln->smgr_rnode.node, IPP_PREFETCH))
		return true;
	if (ironpage_is_local(reln->smgr_rnode, fork, &generation))
		return md.prefetch(reln, fork, block);
	lock = ironpage_lock_of(&key);
	LWLockAcquire(lock, LW_SHARED);
	valid = ironpage_rs_map_find(ironpage_map, &key, &entry) == 0;
	LWLockRelease(lock);

	/* Recovery's prefetcher takes false for a file that is gone (XLogPrefetcherNextBlock). */
	return valid ? md.prefetch(reln, fork, block) : true;
}

/* Starts the write-back of local storage alone: copies of pages may stay in memory as long as the kernel likes. */
static void
ironpage_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber block, BlockNumber count)
{
	uint64		generation;

	if (ironpage_is_local(reln->smgr_rnode, fork, &generation))
		md.writeback(reln, fork, block, count);
}

/* ---- files ---- */

static void
ironpage_create(SMgrRelation reln, ForkNumber fork, bool redo)
{
	RelFileNode node = reln->smgr_rnode.node;

	if (ironpage_probed(node, IPP_CREATE))
		return;
	md.create(reln, fork, redo);

	/*
	 * The relation is unlogged, and is known as such only from here on: an index builds its main fork before
	 * (index_build in catalog/index.c). Its file holds every page, since all were written by the transaction that still
	 * runs, which pins them.
	 */
	if (fork == INIT_FORKNUM && !SmgrIsTemp(reln))
	{
		pg_atomic_fetch_add_u64(&ironpage_shared->init_generation, 1);
		if (md.exists(reln, MAIN_FORKNUM))
			ironpage_forget(node, MAIN_FORKNUM, 0, md.nblocks(reln, MAIN_FORKNUM));
		if (md.exists(reln, VISIBILITYMAP_FORKNUM))
			ironpage_forget(node, VISIBILITYMAP_FORKNUM, 0, md.nblocks(reln, VISIBILITYMAP_FORKNUM));
	}
}

/* Blocks of a fork by the sizes of its files: there is no SMgrRelation any more when a fork is removed. */
static BlockNumber
blocks_on_disk(RelFileNode node, ForkNumber fork)
{
	char	   *path = relpathperm(node, fork);
	char		segment_path[MAXPGPATH];
	uint64		blocks = 0;
	struct stat status;

	for (uint32 segment = 0;; segment++)
	{
		if (segment == 0)
			strlcpy(segment_path, path, sizeof(segment_path));
		else
			snprintf(segment_path, sizeof(segment_path), "%s.%u", path, segment);
		if (stat(segment_path, &status) != 0)
			break;
		blocks = (uint64) segment * RELSEG_SIZE + (status.st_size + BLCKSZ - 1) / BLCKSZ;
	}
	pfree(path);
	return (BlockNumber) Min(blocks, MaxBlockNumber);
}

static void
ironpage_unlink(RelFileNodeBackend node, ForkNumber fork, bool redo)
{
	if (ironpage_probed(node.node, IPP_UNLINK))
		return;
	if (!RelFileNodeBackendIsTemp(node))
	{
		ForkNumber	first = fork == InvalidForkNumber ? MAIN_FORKNUM : fork;
		ForkNumber	last = fork == InvalidForkNumber ? MAX_FORKNUM : fork;

		for (ForkNumber each = first; each <= last; each++)
			if (each == MAIN_FORKNUM || each == VISIBILITYMAP_FORKNUM)
				ironpage_forget(node.node, each, 0, blocks_on_disk(node.node, each));
	}
	md.unlink(node, fork, redo);
	if (!RelFileNodeBackendIsTemp(node) && (fork == INIT_FORKNUM || fork == InvalidForkNumber))
		pg_atomic_fetch_add_u64(&ironpage_shared->init_generation, 1);
}

/* md.c's own answer; ours alone for the probe relation, which smgrtruncate() asks for its size first. */
static BlockNumber
ironpage_nblocks(SMgrRelation reln, ForkNumber fork)
{
	return ironpage_probed(reln->smgr_rnode.node, IPP_NBLOCKS) ? 0 : md.nblocks(reln, fork);
}

/*
 * The relation is locked against everybody, its buffers are gone: nothing stores a block between the two steps, and the
 * janitor does not touch what the map does not know.
 */
static void
ironpage_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber old_blocks, BlockNumber blocks)
{
	if (ironpage_probed(reln->smgr_rnode.node, IPP_TRUNCATE))
		return;
	if (!SmgrIsTemp(reln) && old_blocks > blocks)
		ironpage_forget(reln->smgr_rnode.node, fork, blocks, old_blocks - blocks);
	md.truncate(reln, fork, old_blocks, blocks);
}

/* ---- taking md.c's place ---- */

typedef struct Search
{
	StorageManager *found;
	int			matches;
} Search;

/* Looks through the main program's RELRO segment; dl_iterate_phdr gives it first, with an empty name. */
static int
search_program(struct dl_phdr_info *info, size_t size, void *argument)
{
	Search	   *search = argument;

	if (info->dlpi_name[0] != '\0')
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
	{
		const		ElfW(Phdr) * header = &info->dlpi_phdr[i];
		uintptr_t	at = (info->dlpi_addr + header->p_vaddr + 7) & ~(uintptr_t) 7;
		uintptr_t	end = info->dlpi_addr + header->p_vaddr + header->p_memsz;

		if (header->p_type != PT_GNU_RELRO)
			continue;
		for (; at + sizeof(md) <= end; at += sizeof(void *))
		{
			if (memcmp((void *) at, &md, sizeof(md)) == 0)
			{
				search->found = (StorageManager *) at;
				search->matches++;
			}
		}
	}
	return 1;
}

void
ironpage_smgr_install(void)
{
	uintptr_t	page_size = sysconf(_SC_PAGESIZE);
	Search		search = {0};
	uintptr_t	start,
				end;

	dl_iterate_phdr(search_program, &search);
	if (search.matches != 1)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("ironpage found %d storage manager tables in this Postgres binary, not one", search.matches),
				 errdetail("It was built against %s and can only run where that server's layout holds.", PG_VERSION_STR),
				 errhint("Use the server of PostgreSQL 15 of Debian or the PGDG packages, and build again with ./dev build.")));

	start = (uintptr_t) search.found & ~(page_size - 1);
	end = ((uintptr_t) search.found + sizeof(md) + page_size - 1) & ~(page_size - 1);
	if (mprotect((void *) start, end - start, PROT_READ | PROT_WRITE) != 0)
		ereport(FATAL,
				(errmsg("could not make the storage manager table writable: %m"),
				 errhint("A security policy forbids mprotect(2) for this process; allow it for the endpoint's Postgres.")));
	search.found->create = ironpage_create;
	search.found->unlink = ironpage_unlink;
	search.found->extend = ironpage_extend;
	search.found->prefetch = ironpage_prefetch;
	search.found->read = ironpage_read;
	search.found->write = ironpage_write;
	search.found->writeback = ironpage_writeback;
	search.found->nblocks = ironpage_nblocks;
	search.found->truncate = ironpage_truncate;
	if (mprotect((void *) start, end - start, PROT_READ) != 0)
		ereport(FATAL, (errmsg("could not make the storage manager table read-only again: %m")));
}
