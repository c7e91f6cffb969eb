/*
 * The redo worker's parts, and the protocol it speaks on stdin and stdout.
 *
 * Numbers are little-endian. Every request but a malformed one gets one reply, in order; requests may
 * be sent before earlier ones are answered. A malformed request ends the process, as does the end of
 * its input. A PANIC or FATAL in redo ends it too, without a reply.
 */
#ifndef IRONPAGE_REDO_WORKER_H
#define IRONPAGE_REDO_WORKER_H

#include "postgres.h"

#include "storage/block.h"
#include "storage/bufmgr.h"
#include "storage/relfilenode.h"

#if PG_VERSION_NUM / 10000 != 15
#error "the smgr layout, the order of shared memory and the redo behaviour relied upon are those of PostgreSQL 15"
#endif

/* The op of a request. */
#define OP_REDO 'R' /* apply the records to the base page */
#define OP_PING 'P' /* answer with zeros */

/*
 * Header of a request. Behind it: the base page if has_base is 1 (else all zeros is the base), then
 * `records` times a record, each as its end LSN (8 bytes), the record as in WAL, zeros up to 8 bytes.
 */
typedef struct RedoRequest {
    uint32 length; /* of header and body, a multiple of 8, at most MAX_REQUEST */
    uint8 op;
    uint8 has_base;
    uint8 hint_bits_logged; /* 1: the cluster has data checksums, see XLogHintBitIsNeeded (access/xlog.h) */
    uint8 fork;
    Oid tablespace;
    Oid database;
    Oid relation;
    BlockNumber block;
    uint32 records;
    uint32 reserved2;
} RedoRequest;

/* Most bytes of a request; the pageserver cuts long chains into several. */
#define MAX_REQUEST (64u << 20)

typedef struct RedoReply {
    uint32 failed;  /* 1: an ERROR was raised, `page` holds its text, zero-terminated */
    uint32 invalid; /* 1: a record found an uninitialised page and did nothing: a base or a record is missing */
    uint32 applied; /* records applied before the ERROR; all of them if there was none */
    uint32 reserved;
    char page[BLCKSZ];
} RedoReply;

StaticAssertDecl(sizeof(RedoRequest) == 32, "layout of a request, pageserver/src/worker/protocol.rs");
StaticAssertDecl(sizeof(RedoReply) == 16 + BLCKSZ, "layout of a reply, pageserver/src/worker/protocol.rs");

/* storage.c: a storage manager in memory that knows one page, the target. */
extern void storage_install(void);
extern void storage_set_target(RelFileNode node, ForkNumber fork, BlockNumber block);
extern bool storage_is_target(RelFileNode node, ForkNumber fork, BlockNumber block);
extern void storage_forget_bystanders(bool target_too);
extern void storage_make_bystander(char *page);
extern RelFileNode storage_target_node(void);
extern Buffer storage_read_target(ReadBufferMode mode);

/* redo.c: a request in, a reply out. */
extern void redo_init(void);
extern void redo_handle(const RedoRequest *request, RedoReply *reply);

/* sandbox.c: gives up all the process does not need. Called before the first byte of input is read. */
extern void sandbox_enter(void);

#endif
