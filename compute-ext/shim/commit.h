/*
 * commit.h: the gate before a success is reported, for the utility hook.
 */
#ifndef IRONPAGE_COMMIT_H
#define IRONPAGE_COMMIT_H

#include "access/xlogdefs.h"

/*
 * Returns when a quorum has all WAL before `record`, a record's end. A cancel does not end the wait. If the connection is
 * being terminated it returns early with output shut off, so that no success is reported. Raises no error.
 */
extern void ironpage_commit_wait(XLogRecPtr record);

/* The same for the last record this process inserted. */
extern void ironpage_commit_wait_last(void);

/* The commit of the current transaction waits whatever synchronous_commit is (ForceSyncCommit, access/transam/xact.c). */
extern void ironpage_commit_force(void);

/* Cancel requests between the two calls are only remembered. The first may raise one that came before it. */
extern void ironpage_commit_hold_cancels(void);
extern void ironpage_commit_release_cancels(void);

#endif							/* IRONPAGE_COMMIT_H */
