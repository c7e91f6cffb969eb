/*
 * proposer.h: the walproposer's parts: the proposer of ../src/proposer, and the connections to the safekeepers.
 */
#ifndef IRONPAGE_PROPOSER_H
#define IRONPAGE_PROPOSER_H

#include "ironpage.h"

/* Rust: see ../src/proposer/ffi.rs, whose structs these are. */
typedef struct IronpageProposer IronpageProposer;

typedef struct IronpageProposerConfig
{
	const char *history;
	uint8		tenant[IRONPAGE_ID_SIZE];
	uint8		timeline[IRONPAGE_ID_SIZE];
	uint64		system_id;
	uint32		postgres_version;
	uint32		members;
} IronpageProposerConfig;

typedef struct IronpageProposerStatus
{
	uint64		commit_lsn;		/* 0 until a quorum confirmed the term's start */
	uint64		commit_known;	/* a quorum knows that this is committed */
	uint64		everywhere;		/* every safekeeper has the WAL before this */
	uint64		quorum_heard_ms;	/* 0 if never */
	uint64		deadline_ms;	/* when to tick at the latest */
	uint64		fenced_term;	/* a term above ours, 0 if none was seen */
	uint32		broken;			/* histories mixed: nothing may be served any more */
	uint32		padding;
} IronpageProposerStatus;

#define IPW_NOTHING 0
#define IPW_READ_WAL 1
#define IPW_DISCONNECT 2

typedef struct IronpageProposerWork
{
	uint32		kind;
	uint32		member;
	uint64		begin;
	uint64		length;
} IronpageProposerWork;

extern IronpageProposer *ironpage_rs_proposer_new(const IronpageProposerConfig *config);
extern int	ironpage_rs_proposer_connected(IronpageProposer *proposer, uint32 member);
extern int	ironpage_rs_proposer_disconnected(IronpageProposer *proposer, uint32 member);
extern int	ironpage_rs_proposer_received(IronpageProposer *proposer, uint32 member, const uint8 *bytes, size_t length,
										  uint64 now_ms);
extern int	ironpage_rs_proposer_wal(IronpageProposer *proposer, uint64 end, uint64 now_ms);
extern int	ironpage_rs_proposer_tick(IronpageProposer *proposer, uint64 now_ms);
extern int	ironpage_rs_proposer_next(IronpageProposer *proposer, IronpageProposerWork *work);
extern int	ironpage_rs_proposer_supply(IronpageProposer *proposer, const uint8 *wal, size_t length);
extern const uint8 *ironpage_rs_proposer_output(IronpageProposer *proposer, uint32 member, size_t *length);
extern int	ironpage_rs_proposer_sent(IronpageProposer *proposer, uint32 member, size_t bytes);
extern int	ironpage_rs_proposer_status(IronpageProposer *proposer, IronpageProposerStatus *status);
extern int	ironpage_rs_proposer_message(IronpageProposer *proposer, uint8 *buffer, size_t size);

/* An error if a call of Rust failed: the worker ends, and starts anew a second later in the same term. */
extern void ironpage_proposer_check(int status);

/* safekeepers.c: sockets of the walproposer. */

/* Reads ironpage.safekeepers; returns how many there are. */
extern uint32 ironpage_safekeepers_init(void);

/* Begins connections that are due. */
extern void ironpage_safekeepers_connect(IronpageProposer *proposer, uint64 now_ms);

/* Closes a connection; the next attempt comes after a pause. */
extern void ironpage_safekeepers_close(IronpageProposer *proposer, uint32 member, uint64 now_ms);

/* Sends what there is to send, as far as it goes without waiting. */
extern void ironpage_safekeepers_send(IronpageProposer *proposer, uint64 now_ms);

/* Waits for sockets or the latch until `until_ms` at the latest, and hands in what came. */
extern void ironpage_safekeepers_wait(IronpageProposer *proposer, uint64 now_ms, uint64 until_ms);

/* drain.c */

/* The postmaster is shutting down, and nobody is left who could write WAL that a client waits for. */
extern bool ironpage_drain_begins(void);

#endif							/* IRONPAGE_PROPOSER_H */
