/*
 * Applies WAL records to one page by the server's own redo routines.
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/lwlock.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "worker.h"

/* smgr.c remembers every relation it has seen; forget them once in so many requests. */
#define REQUESTS_PER_FORGETTING 4096

static XLogReaderState *reader;
static DecodedXLogRecord *decoded; /* grown to the largest record seen */
static size_t decoded_size;
static MemoryContext request_context; /* reset after every request */

void
redo_init(void)
{
    decoded_size = 64 * 1024;
    decoded = palloc(decoded_size);
    reader = XLogReaderAllocate(DEFAULT_XLOG_SEG_SIZE, NULL, XL_ROUTINE(), NULL);
    if (reader == NULL)
        elog(FATAL, "out of memory");
    request_context = AllocSetContextCreate(TopMemoryContext, "redo request", ALLOCSET_DEFAULT_SIZES);
}

/* ApplyWalRecord() (access/transam/xlogrecovery.c), reduced to its effect on pages. */
static void
apply_record(XLogRecord *record, XLogRecPtr end_lsn)
{
    const RmgrId rmgr = record->xl_rmid;
    const size_t need = DecodeXLogRecordRequiredSpace(record->xl_tot_len);
    bool target_referenced = false;
    bool others_referenced = false;
    char *message = NULL;

    if (need > decoded_size) {
        decoded = repalloc_huge(decoded, need);
        decoded_size = need;
    }
    decoded->oversized = false;
    /* Where the record starts is not known here; redo routines look at EndRecPtr only. */
    reader->ReadRecPtr = reader->EndRecPtr = end_lsn;
    if (!DecodeXLogRecord(reader, decoded, record, end_lsn, &message))
        elog(ERROR, "%s", message);
    reader->record = decoded;

    for (int i = 0; i <= decoded->max_block_id; i++) {
        DecodedBkpBlock *block = &decoded->blocks[i];

        if (!block->in_use)
            continue;
        if (storage_is_target(block->rnode, block->forknum, block->blkno)) {
            target_referenced = true;
            continue;
        }
        others_referenced = true;
        /* Restoring the image of another page is wasted work where redo takes BLK_DONE instead;
         * xlog_redo(), ginxlog.c and hash_xlog.c would raise an ERROR. */
        if (rmgr == RM_HEAP_ID || rmgr == RM_HEAP2_ID || rmgr == RM_BTREE_ID)
            block->apply_image = false;
    }
    /* This also keeps out every record that acts on files, transactions or databases. */
    if (!target_referenced)
        elog(ERROR, "the record does not reference the page");
    GetRmgr(rmgr).rm_redo(reader);
    if (others_referenced)
        storage_forget_bystanders(false);
}

static void
redo_page(const RedoRequest *request, RedoReply *reply)
{
    const char *at = (const char *) (request + 1);
    const char *end = (const char *) request + request->length;
    Buffer buffer;

    if (request->fork > MAX_FORKNUM || request->block >= MaxBlockNumber)
        elog(ERROR, "bad block address in the request");
    if (request->has_base && end - at < BLCKSZ)
        elog(ERROR, "the request lacks its base page");

    buffer = storage_read_target(RBM_ZERO_AND_LOCK);
    if (request->has_base) {
        memcpy(BufferGetPage(buffer), at, BLCKSZ);
        at += BLCKSZ;
    } else { /* bufmgr.c does not zero a page it finds in the pool */
        memset(BufferGetPage(buffer), 0, BLCKSZ);
    }
    MarkBufferDirty(buffer);      /* so that its eviction goes through mem_write() */
    UnlockReleaseBuffer(buffer);  /* LockBufferForCleanup() wants to hold the only pin */

    for (uint32 i = 0; i < request->records; i++) {
        XLogRecPtr end_lsn;
        XLogRecord *record = (XLogRecord *) (at + sizeof(end_lsn));

        if (end - at < (ptrdiff_t) (sizeof(end_lsn) + SizeOfXLogRecord) || record->xl_tot_len < SizeOfXLogRecord ||
            MAXALIGN(record->xl_tot_len) > end - at - sizeof(end_lsn))
            elog(ERROR, "the record overruns the request");
        memcpy(&end_lsn, at, sizeof(end_lsn));
        apply_record(record, end_lsn);
        reply->applied = i + 1;
        at += sizeof(end_lsn) + MAXALIGN(record->xl_tot_len);
    }
    buffer = storage_read_target(RBM_NORMAL);
    memcpy(reply->page, BufferGetPage(buffer), BLCKSZ);
    storage_make_bystander(BufferGetPage(buffer)); /* which it is from now on */
    ReleaseBuffer(buffer);
}

/* After an ERROR: the buffer part of AbortTransaction() (access/transam/xact.c). */
static void
recover_from_error(RedoReply *reply)
{
    ErrorData *error;

    MemoryContextSwitchTo(request_context);
    error = CopyErrorData();
    FlushErrorState();
    LWLockReleaseAll();
    AbortBufferIO();
    UnlockBuffers();
    ReleaseAuxProcessResources(false);
    storage_forget_bystanders(true); /* half-applied pages, the target included */
    /* A redo routine may have left a fake relcache entry (xlogutils.c) as the owner of an smgr
     * relation: unhook it before its memory is freed with the context. */
    smgrcloseall();
    reply->failed = 1;
    memset(reply->page, 0, BLCKSZ);
    strlcpy(reply->page, error->message ? error->message : "an error without text", BLCKSZ);
}

void
redo_handle(const RedoRequest *request, RedoReply *reply)
{
    static unsigned requests = 0;
    RelFileNode node = {request->tablespace, request->database, request->relation};

    memset(reply, 0, sizeof(*reply));
    if (request->op == OP_PING)
        return;

    /* There is no pg_control to say that pages have checksums; this setting has the same effect on redo. */
    wal_log_hints = request->hint_bits_logged != 0;
    storage_set_target(node, request->fork, request->block);
    MemoryContextSwitchTo(request_context);
    PG_TRY();
    {
        redo_page(request, reply);
    }
    PG_CATCH();
    {
        recover_from_error(reply);
    }
    PG_END_TRY();

    if (XLogHaveInvalidPages()) { /* xlogutils.c noted a page it skipped */
        reply->invalid = 1;
        XLogDropDatabase(storage_target_node().dbNode); /* forgets the note, and the smgr relations */
    }
    if (++requests % REQUESTS_PER_FORGETTING == 0)
        smgrcloseall();
    MemoryContextSwitchTo(TopMemoryContext);
    MemoryContextReset(request_context);
}
