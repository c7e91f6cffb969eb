/*
 * commit.c: the gate before a success is reported.
 *
 * Stock synchronous replication alone is not enough. A cancel ends its wait, and the client reads success with a warning
 * (SyncRepWaitForLSN, replication/syncrep.c); a session may set synchronous_commit = local. Here nothing but a quorum, or
 * the end of the connection, ends the wait of a session that asked for durability. synchronous_commit = off keeps its
 * meaning: what stock Postgres flushes at once even then, waits here even then (two-phase commands, and commits that
 * remove files or make and drop databases and tablespaces: RecordTransactionCommit, access/transam/xact.c).
 *
 * A cancel is kept away from the stock wait as well: while a transaction commits, SIGINT goes to our handler. Other
 * sessions see a transaction's changes only once the stock wait is over, so they do not read what could still be lost.
 *
 * In the extended protocol the client's CommandComplete lies in the output buffer while a transaction without BEGIN
 * commits, and any message to the client takes it along (send_message_to_frontend, utils/error/elog.c). So whatever ends
 * the process meanwhile first shuts off its output.
 *
 * After RecordTransactionCommit nothing may raise an error: the transaction is committed, and aborting it would PANIC.
 */
#include "ironpage.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/storage.h"
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
static pqsigfunc stock_terminate_handler;
static pqsigfunc stock_quit_handler;

/* Stock Postgres flushes this transaction's commit whatever synchronous_commit is. */
static bool commit_forced;

static void
remember_cancel(SIGNAL_ARGS)
{
	int			saved_errno = errno;

	cancel_came = true;
	SetLatch(MyLatch);
	errno = saved_errno;
}

static void
terminate_silently(SIGNAL_ARGS)
{
	whereToSendOutput = DestNone;
	stock_terminate_handler(postgres_signal_arg);
}

static void
quit_silently(SIGNAL_ARGS)
{
	whereToSendOutput = DestNone;
	stock_quit_handler(postgres_signal_arg);
}

/* `replacement` handles a signal that has a stock handler, which is returned; NULL if it has none. */
static pqsigfunc
replace_handler(int signo, pqsigfunc replacement)
{
	pqsigfunc	stock = pqsignal(signo, replacement);

	if (stock != SIG_IGN && stock != SIG_DFL && stock != SIG_ERR)
		return stock;
	pqsignal(signo, stock);
	return NULL;
}

static void
restore_handler(int signo, pqsigfunc *stock)
{
	if (*stock != NULL)
		pqsignal(signo, *stock);
	*stock = NULL;
}

void
ironpage_commit_hold_cancels(void)
{
	sigset_t	blocked,
				before;

	if (cancels_held)
		return;
	cancel_came = false;

	/* None may come before the handler it goes on to is known. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGQUIT);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	stock_cancel_handler = replace_handler(SIGINT, remember_cancel);
	stock_terminate_handler = replace_handler(SIGTERM, terminate_silently);
	stock_quit_handler = replace_handler(SIGQUIT, quit_silently);
	sigprocmask(SIG_SETMASK, &before, NULL);
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
	restore_handler(SIGINT, &stock_cancel_handler);
	restore_handler(SIGTERM, &stock_terminate_handler);
	restore_handler(SIGQUIT, &stock_quit_handler);
	if (cancel_came && whereToSendOutput == DestRemote)
		ereport(WARNING, (errmsg("the cancel request came too late: the transaction was already committed")));
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

		/* The connection ends after the commit is cleaned up; until then the client hears nothing, the log does. */
		if (ProcDiePending)
		{
			whereToSendOutput = DestNone;
			ereport(WARNING,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("terminating connection while a commit waits for a quorum of safekeepers"),
					 errdetail("The transaction is committed locally, but may be lost.")));
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

void
ironpage_commit_force(void)
{
	commit_forced = true;
}

/* RecordTransactionCommit flushes the commit of a transaction that removes files at once. */
static bool
removes_files(void)
{
	RelFileNode *files = NULL;
	int			count = smgrGetPendingDeletes(true, &files);

	if (files != NULL)
		pfree(files);
	return count > 0;
}

static void
transaction_event(XactEvent event, void *arg)
{
	bool		wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (wrote && ironpage_ticket.read_only)
				ironpage_readonly_promoted();
			if (wrote && synchronous_commit == SYNCHRONOUS_COMMIT_OFF && removes_files())
				commit_forced = true;
			/* FALLTHROUGH */
		case XACT_EVENT_PRE_PREPARE:
			if (wrote && MyBackendType == B_BACKEND)
			{
				ironpage_wal_throttle();
				ironpage_commit_hold_cancels();
			}
			break;
		case XACT_EVENT_COMMIT:
			if (wrote && (synchronous_commit > SYNCHRONOUS_COMMIT_OFF || commit_forced))
			{
				/* Stock Postgres leaves a commit that wrote nothing else, as to temporary tables, to the walwriter. */
				XLogFlush(XactLastCommitEnd);
				ironpage_commit_wait(XactLastCommitEnd);
			}
			commit_forced = false;
			ironpage_commit_release_cancels();
			break;
		case XACT_EVENT_PREPARE:
			ironpage_commit_wait_last();
			commit_forced = false;
			ironpage_commit_release_cancels();
			break;
		case XACT_EVENT_ABORT:
			commit_forced = false;
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
