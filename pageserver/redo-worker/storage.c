/*
 * A storage manager in memory. It knows one page, the target of the request. Every other page is a
 * bystander: initialised, with an LSN past any record's, so that redo takes it for done
 * (XLogReadBufferForRedoExtended, access/transam/xlogutils.c). Uninitialised ones would be noted as
 * invalid pages, and visibilitymap.c and freespace.c would initialise them anew, without the LSN.
 */
#include "postgres.h"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/md.h"
#include "worker.h"

#define FUTURE_LSN ((XLogRecPtr) PG_UINT64_MAX)

static BufferTag target;
/* The target, once the buffer pool's clock sweep has written it out. */
static char evicted[BLCKSZ];
static bool evicted_valid;

void
storage_make_bystander(char *page)
{
    PageInit((Page) page, BLCKSZ, 0);
    PageSetLSN((Page) page, FUTURE_LSN);
}

void
storage_set_target(RelFileNode node, ForkNumber fork, BlockNumber block)
{
    INIT_BUFFERTAG(target, node, fork, block);
    evicted_valid = false;
}

RelFileNode
storage_target_node(void)
{
    return target.rnode;
}

bool
storage_is_target(RelFileNode node, ForkNumber fork, BlockNumber block)
{
    return block == target.blockNum && fork == target.forkNum && RelFileNodeEquals(node, target.rnode);
}

Buffer
storage_read_target(ReadBufferMode mode)
{
    return ReadBufferWithoutRelcache(target.rnode, target.forkNum, target.blockNum, mode, NULL, true);
}

/*
 * Redo of a record that changes several pages stamps its LSN on those of them it initialises or
 * restores from an image. They become bystanders again, or a later record would be applied to them.
 */
void
storage_forget_bystanders(bool target_too)
{
    for (int i = 0; i < NBuffers; i++) {
        BufferDesc *desc = GetBufferDescriptor(i);
        Page page = BufferGetPage(BufferDescriptorGetBuffer(desc));

        if (!(pg_atomic_read_u32(&desc->state) & BM_VALID))
            continue;
        if (!target_too && BUFFERTAGS_EQUAL(desc->tag, target))
            continue;
        if (target_too || PageIsNew(page)) /* new: restored from an image of zeros */
            storage_make_bystander(page);
        else
            PageSetLSN(page, FUTURE_LSN);
    }
}

/* Signatures as in storage/md.h. Every relation exists and is as large as can be, so that
 * xlogutils.c and visibilitymap.c never extend one. */

static void
mem_open(SMgrRelation reln)
{
}

static void
mem_close(SMgrRelation reln, ForkNumber fork)
{
}

static void
mem_create(SMgrRelation reln, ForkNumber fork, bool redo)
{
}

static bool
mem_exists(SMgrRelation reln, ForkNumber fork)
{
    return true;
}

static bool
mem_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
    return true;
}

static void
mem_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber block, BlockNumber blocks)
{
}

static BlockNumber
mem_nblocks(SMgrRelation reln, ForkNumber fork)
{
    return MaxBlockNumber;
}

static void
mem_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *page)
{
    if (!storage_is_target(reln->smgr_rnode.node, fork, block))
        storage_make_bystander(page);
    else if (evicted_valid)
        memcpy(page, evicted, BLCKSZ);
    else /* it was loaded dirty, so that a write comes before any read */
        elog(ERROR, "the page was lost from the buffer pool");
}

static void
mem_write(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *page, bool skip_fsync)
{
    if (storage_is_target(reln->smgr_rnode.node, fork, block)) {
        memcpy(evicted, page, BLCKSZ);
        evicted_valid = true;
    }
}

/* Stands in for several signatures: it reads no argument and does not return. */
static void
mem_refuse(void)
{
    elog(ERROR, "the record tries to change a relation's files");
}

/* The members of struct f_smgr in order (smgr.c). */
static const void *const stock_methods[] = {
    mdinit,     NULL,    mdopen,  mdclose,     mdcreate,  mdexists,   mdunlink,    mdextend,
    mdprefetch, mdread,  mdwrite, mdwriteback, mdnblocks, mdtruncate, mdimmedsync,
};
static const void *const our_methods[] = {
    NULL,         NULL,     mem_open,  mem_close,     mem_create,  mem_exists, mem_refuse, mem_refuse,
    mem_prefetch, mem_read, mem_write, mem_writeback, mem_nblocks, mem_refuse, mem_refuse,
};

StaticAssertDecl(sizeof(stock_methods) == sizeof(our_methods), "one for one");

/*
 * smgrsw[] is private to smgr.c; its content, known pointers in a known order, gives it away. It is
 * const but made of relocated pointers, so that ld.so keeps it in RELRO: inside the writable
 * segment, made read-only after relocation. Hence the mprotect.
 */
static int
replace_methods(struct dl_phdr_info *info, size_t size, void *arg)
{
    const size_t page_mask = (size_t) sysconf(_SC_PAGESIZE) - 1;
    char *found = NULL;
    char *from;
    int matches = 0;
    int protection = PROT_READ | PROT_WRITE;

    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        char *at = (char *) MAXALIGN(info->dlpi_addr + header->p_vaddr);
        char *end = (char *) info->dlpi_addr + header->p_vaddr + header->p_filesz;

        /* Program headers list RELRO after the segments it lies in. */
        if (header->p_type == PT_GNU_RELRO && found >= at && found < end)
            protection = PROT_READ;
        if (header->p_type != PT_LOAD || !(header->p_flags & PF_W))
            continue;
        for (; at + sizeof(stock_methods) <= end; at += sizeof(void *)) {
            if (memcmp(at, stock_methods, sizeof(stock_methods)) == 0) {
                found = at;
                matches++;
            }
        }
    }
    if (matches != 1)
        elog(FATAL, "found %d candidates for smgrsw, expected 1: this build of postgres is not supported", matches);

    from = (char *) ((uintptr_t) found & ~page_mask);
    if (mprotect(from, found + sizeof(our_methods) - from, PROT_READ | PROT_WRITE) != 0)
        elog(FATAL, "could not make smgrsw writable: %m");
    memcpy(found, our_methods, sizeof(our_methods));
    if (mprotect(from, found + sizeof(our_methods) - from, protection) != 0)
        elog(FATAL, "could not protect smgrsw: %m");
    return 1; /* The first object is the executable: stop here. */
}

void
storage_install(void)
{
    dl_iterate_phdr(replace_methods, NULL);
}
