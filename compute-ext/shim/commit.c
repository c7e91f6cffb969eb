/*
 * commit.c: the gate before a success is reported.
 *
 * Stock synchronous replication alone is not enough. A cancel ends its wait, and the client reads success with a warning
 * (SyncRepWaitForLSN, replication/syncrep.c); a session may set synchronous_commit = local. Here nothing but a quorum, or
 * the end of the connection, ends the wait of a session that asked for durability. synchronous_commit = off keeps its
 * meaning.
 *
 * A cancel is kept away from the stock wait as well: while a transaction commits, SIGINT goes to our handler. Other
 * sessions see a transaction's changes only once the stock wait is over, so they do not read what could still be lost.
 *
 * After RecordTransactionCommit nothing may raise an error: the transaction is committed, and aborting it would PANIC.
 */
#include "ironpage.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commit.h"
#include "executor/executor.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/wait_event.h"

static ExecutorRun_hook_type previous_executor_run;

static volatile sig_atomic_t cancel_came;
static bool cancels_held;
static pqsigfunc stock_cancel_handler;

static void
remember_cancel(SIGNAL_ARGS)
{
	int			saved_errno = errno;

	cancel_came = true;
	SetLatch(MyLatch);
	errno = saved_errno;
}

void
ironpage_commit_hold_cancels(void)
{
	if (cancels_held)
		return;
	cancel_came = false;
	stock_cancel_handler = pqsignal(SIGINT, remember_cancel);
	if (stock_cancel_handler == SIG_IGN || stock_cancel_handler == SIG_DFL)
	{
		pqsignal(SIGINT, stock_cancel_handler);
		return;
	}
	cancels_held = true;

	/* One that came before is still in time. */
	CHECK_FOR_INTERRUPTS();
}

void
ironpage_commit_release_cancels(void)
{
	if (!cancels_held)
		return;
	cancels_held = false;
	pqsignal(SIGINT, stock_cancel_handler);
	if (cancel_came && whereToSendOutput == DestRemote)
		ereport(WARNING,
				(errmsg("the cancel request came too late: the transaction was already committed locally"),
				 errdetail("It is now in a quorum of safekeepers as well.")));
	cancel_came = false;
}

void
ironpage_commit_wait(XLogRecPtr record)
{
	if (record == InvalidXLogRecPtr || RecoveryInProgress() || pg_atomic_read_u64(&ironpage_shared->commit_lsn) >= record)
		return;

	HOLD_INTERRUPTS();
	for (;;)
	{
		int			events;

		ConditionVariablePrepareToSleep(&ironpage_shared->commit_moved);
		ResetLatch(MyLatch);
		if (pg_atomic_read_u64(&ironpage_shared->commit_lsn) >= record)
			break;

		/* The connection ends after the commit is cleaned up; until then the client hears nothing. */
		if (ProcDiePending)
		{
			if (whereToSendOutput != DestNone)
				ereport(WARNING,
						(errcode(ERRCODE_ADMIN_SHUTDOWN),
						 errmsg("terminating connection while a commit waits for a quorum of safekeepers"),
						 errdetail("The transaction is committed locally, but may be lost.")));
			whereToSendOutput = DestNone;
			break;
		}
		if (QueryCancelPending)
			QueryCancelPending = false;

		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH, 1000, WAIT_EVENT_SYNC_REP);
		if (events & WL_POSTMASTER_DEATH)
		{
			ProcDiePending = true;
			InterruptPending = true;
			whereToSendOutput = DestNone;
			break;
		}
	}
	ConditionVariableCancelSleep();
	RESUME_INTERRUPTS();
}

static void
transaction_event(XactEvent event, void *arg)
{
	bool		wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (wrote && MyBackendType == B_BACKEND)
			{
				ironpage_wal_throttle();
				ironpage_commit_hold_cancels();
			}
			break;
		case XACT_EVENT_COMMIT:
			if (wrote && synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
				ironpage_commit_wait(XactLastCommitEnd);
			ironpage_commit_release_cancels();
			break;
		case XACT_EVENT_PREPARE:
			if (synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
				ironpage_commit_wait_last();
			ironpage_commit_release_cancels();
			break;
		case XACT_EVENT_ABORT:
			cancel_came = false;
			ironpage_commit_release_cancels();
			break;
		default:
			break;
	}
}

/*
 * The last record this process inserted, whose end nobody kept (PrepareTransaction resets XactLastRecEnd). Since commit_lsn
 * only ever stands at a record's end, it is past the record's end as soon as it is past its start.
 */
void
ironpage_commit_wait_last(void)
{
	if (ProcLastRecPtr != InvalidXLogRecPtr)
		ironpage_commit_wait(ProcLastRecPtr + 1);
}

static void
executor_run(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	ironpage_check_contact();
	if (query->operation != CMD_SELECT)
		ironpage_wal_throttle();
	if (previous_executor_run)
		previous_executor_run(query, direction, count, execute_once);
	else
		standard_ExecutorRun(query, direction, count, execute_once);
}

void
ironpage_commit_init(void)
{
	RegisterXactCallback(transaction_event, NULL);
	previous_executor_run = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
}
