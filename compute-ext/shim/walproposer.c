/*
 * walproposer.c: the background worker that brings WAL to the safekeepers.
 *
 * It poses as a walsender and as the synchronous standby 'walproposer': stock Postgres then wakes it when WAL is
 * flushed, and holds commits until it has confirmed them (replication/syncrep.c). It needs no database connection; an
 * outside replication client would deadlock, for its login reads catalogs that wait for the WAL it is to bring.
 *
 * If it fails it starts anew a second later and goes on in the same term: the WAL it sends is in local files, the same
 * bytes at the same positions. It never starts an election.
 *
 * The physical slot 'ironpage' keeps local WAL until every safekeeper has it.
 */
#include "proposer.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#define SLOT_NAME "ironpage"
#define SLOT_STEP (1024 * 1024) /* bytes by which restart_lsn moves */
#define WAL_CHUNK_MAX (1024 * 1024)
#define DRAIN_COMPLAINT_MS 5000
#define DRAIN_TELL_MS 200		/* longest wait for safekeepers to hear what is committed */

PGDLLEXPORT void ironpage_walproposer_main(Datum arg);

static IronpageProposer *proposer;
static bool contact_lost;

uint64
ironpage_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void
ironpage_walproposer_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "ironpage", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "ironpage_walproposer_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "ironpage walproposer", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "ironpage walproposer", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

void
ironpage_proposer_check(int status)
{
	if (status < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("the proposer failed with status %d", status),
				 errdetail("The lines above say where. It continues the same term in a second.")));
}

/* Nothing may be told to any client any more; what is committed is at the safekeepers. */
static void stop_postmaster(const char *why) pg_attribute_noreturn();

static void
stop_postmaster(const char *why)
{
	ereport(LOG, (errmsg("this endpoint stops at once: %s", why)));
	kill(PostmasterPid, SIGQUIT);
	_exit(2);
}

static void
log_messages(void)
{
	uint8		line[512];

	while (ironpage_rs_proposer_message(proposer, line, sizeof(line)) > 0)
		ereport(LOG, (errmsg("walproposer: %s", (char *) line)));
}

/* `length` bytes of flushed WAL from `begin` on, which lie in one segment. */
static const uint8 *
read_wal(XLogRecPtr begin, size_t length)
{
	static uint8 wal[WAL_CHUNK_MAX];
	static int	fd = -1;
	static XLogSegNo open_segment;
	XLogSegNo	segment;
	size_t		done = 0;

	XLByteToSeg(begin, segment, wal_segment_size);
	if (length > sizeof(wal))
		elog(ERROR, "%zu bytes of WAL asked for at once", length);
	if (fd < 0 || open_segment != segment)
	{
		char		path[MAXPGPATH];

		if (fd >= 0)
			close(fd);
		XLogFilePath(path, 1, segment, wal_segment_size);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not open WAL file \"%s\": %m", path)));
		open_segment = segment;
	}
	while (done < length)
	{
		ssize_t		got = pread(fd, wal + done, length - done, XLogSegmentOffset(begin + done, wal_segment_size));

		if (got > 0)
			done += got;
		else if (got == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("WAL file ends before %X/%X, up to where it is flushed", LSN_FORMAT_ARGS(begin + length))));
		else if (errno != EINTR)
			ereport(ERROR,
					(errcode_for_file_access(), errmsg("could not read WAL at %X/%X: %m", LSN_FORMAT_ARGS(begin + done))));
	}
	return wal;
}

static void
do_work(uint64 now_ms)
{
	for (;;)
	{
		IronpageProposerWork work;

		ironpage_proposer_check(ironpage_rs_proposer_next(proposer, &work));
		if (work.kind == IPW_NOTHING)
			return;
		if (work.kind == IPW_READ_WAL)
			ironpage_proposer_check(ironpage_rs_proposer_supply(proposer, read_wal(work.begin, work.length), work.length));
		else
			ironpage_safekeepers_close(proposer, work.member, now_ms);
	}
}

/* What a standby's reply is to a walsender (ProcessStandbyReplyMessage, replication/walsender.c). */
static void
confirm(XLogRecPtr commit_lsn)
{
	SpinLockAcquire(&MyWalSnd->mutex);
	MyWalSnd->sentPtr = commit_lsn;
	MyWalSnd->write = commit_lsn;
	MyWalSnd->flush = commit_lsn;
	MyWalSnd->apply = commit_lsn;
	MyWalSnd->replyTime = GetCurrentTimestamp();
	SpinLockRelease(&MyWalSnd->mutex);
	SyncRepReleaseWaiters();
	ConditionVariableBroadcast(&ironpage_shared->commit_moved);
}

static void
move_slot(XLogRecPtr to)
{
	XLogRecPtr	from = MyReplicationSlot->data.restart_lsn;

	if (to < from + SLOT_STEP)
		return;
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.restart_lsn = to;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredLSN();
}

/*
 * Running statements are cancelled when contact is lost; new ones fail by themselves (ironpage_check_contact).
 * Commits that wait for a quorum take no notice.
 */
static void
watch_contact(uint64 heard_ms, uint64 now_us)
{
	uint64		silent_ms;

	ironpage_raise(&ironpage_shared->quorum_contact_us, heard_ms * 1000);
	silent_ms = (now_us - Min(now_us, pg_atomic_read_u64(&ironpage_shared->quorum_contact_us))) / 1000;
	if (silent_ms <= ironpage_fence_after_ms)
	{
		if (contact_lost)
			ereport(LOG, (errmsg("a quorum of safekeepers answers again: serving")));
		contact_lost = false;
		return;
	}
	if (contact_lost)
		return;
	contact_lost = true;
	ereport(LOG,
			(errmsg("no quorum of safekeepers answered for %d ms: nothing is served until one does", ironpage_fence_after_ms),
			 errdetail("Another start of this branch may have taken over without our hearing of it.")));
	for (int i = 0; i < MaxBackends; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		int			pid = proc->procLatch.owner_pid;	/* 0 if nobody has this PGPROC */

		if (pid != 0 && !proc->isBackgroundWorker && proc->databaseId != InvalidOid)
			kill(pid, SIGINT);
	}
}

static void
publish(IronpageProposerStatus *status, uint64 now_us)
{
	XLogRecPtr	known = pg_atomic_read_u64(&ironpage_shared->commit_lsn);

	ironpage_proposer_check(ironpage_rs_proposer_status(proposer, status));
	log_messages();
	if (status->fenced_term != 0)
		ironpage_fence(status->fenced_term, "a safekeeper");
	if (status->broken)
		stop_postmaster("a safekeeper has WAL of our term that we never wrote");
	if (status->commit_lsn > known)
	{
		ironpage_raise(&ironpage_shared->commit_lsn, status->commit_lsn);
		confirm(status->commit_lsn);
		known = status->commit_lsn;
	}
	move_slot(Min(status->everywhere, known));
	watch_contact(status->quorum_heard_ms, now_us);
}

/*
 * True when all that was written is in a quorum, and the worker may end. It tells the safekeepers first how far they may
 * hand out WAL, so that the pageserver is up to date when the next start asks for a base backup.
 */
static bool
drained(const IronpageProposerStatus *status, uint64 now_ms)
{
	static XLogRecPtr target = InvalidXLogRecPtr;
	static uint64 complained_ms,
				reached_ms;
	XLogRecPtr	commit_lsn = pg_atomic_read_u64(&ironpage_shared->commit_lsn);

	if (target == InvalidXLogRecPtr)
	{
		if (!ironpage_drain_begins())
			return false;
		target = ironpage_insert_record_end();
		XLogFlush(target);
		complained_ms = now_ms;
	}
	if (commit_lsn >= target)
	{
		if (reached_ms == 0)
			reached_ms = now_ms;
		if (status->commit_known < target && now_ms - reached_ms < DRAIN_TELL_MS)
			return false;
		ereport(LOG, (errmsg("all WAL up to %X/%X is in a quorum of safekeepers", LSN_FORMAT_ARGS(target))));
		return true;
	}
	if (now_ms - complained_ms > DRAIN_COMPLAINT_MS)
	{
		complained_ms = now_ms;
		ereport(LOG,
				(errmsg("shutdown waits for a quorum of safekeepers: " UINT64_FORMAT " bytes of WAL are not there yet",
						(uint64) (target - commit_lsn)),
				 errhint("An immediate shutdown gives up what no client was told is committed, and asynchronous commits.")));
	}
	return false;
}

static void
become_walsender(void)
{
	XLogRecPtr	commit_lsn = pg_atomic_read_u64(&ironpage_shared->commit_lsn);

	am_walsender = true;
	SetConfigOption("application_name", "walproposer", PGC_USERSET, PGC_S_OVERRIDE);
	InitWalSender();

	if (SearchNamedReplicationSlot(SLOT_NAME, true) == NULL)
	{
		ReplicationSlotCreate(SLOT_NAME, false, RS_PERSISTENT, false);
		SpinLockAcquire(&MyReplicationSlot->mutex);
		MyReplicationSlot->data.restart_lsn = ironpage_ticket.start_lsn;
		SpinLockRelease(&MyReplicationSlot->mutex);
		ReplicationSlotMarkDirty();
		ReplicationSlotsComputeRequiredLSN();
		ReplicationSlotSave();
	}
	else
		ReplicationSlotAcquire(SLOT_NAME, true);

	SyncRepInitConfig();
	WalSndSetState(WALSNDSTATE_STREAMING);
	confirm(commit_lsn);
}

static void
make_proposer(void)
{
	IronpageProposerConfig config = {
		.history = ironpage_ticket.history,
		.system_id = ironpage_ticket.system_id,
		.postgres_version = PG_VERSION_NUM,
		.members = ironpage_safekeepers_init(),
	};

	memcpy(config.tenant, ironpage_ticket.tenant, IRONPAGE_ID_SIZE);
	memcpy(config.timeline, ironpage_ticket.timeline, IRONPAGE_ID_SIZE);
	proposer = ironpage_rs_proposer_new(&config);
	if (proposer == NULL)
		stop_postmaster("the launch ticket's term history makes no sense");
}

void
ironpage_walproposer_main(Datum arg)
{
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	/* It is started when recovery ends. */
	if (ironpage_ticket.read_only)
		ironpage_readonly_promoted();

	make_proposer();
	become_walsender();
	ironpage_raise(&ironpage_shared->quorum_contact_us, 1);
	if (pg_atomic_read_u64(&ironpage_shared->quorum_contact_us) == 1)
		ironpage_raise(&ironpage_shared->quorum_contact_us, ironpage_now_us());
	ereport(LOG,
			(errmsg("walproposer continues term " UINT64_FORMAT " from %X/%X", ironpage_ticket.term,
					LSN_FORMAT_ARGS(ironpage_ticket.start_lsn))));

	for (;;)
	{
		IronpageProposerStatus status;
		uint64		now_us = ironpage_now_us();
		uint64		now_ms = now_us / 1000;
		uint64		until_ms;

		ResetLatch(MyLatch);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			SyncRepInitConfig();
		}

		ironpage_safekeepers_connect(proposer, now_ms);
		ironpage_proposer_check(ironpage_rs_proposer_wal(proposer, GetFlushRecPtr(NULL), now_ms));
		ironpage_proposer_check(ironpage_rs_proposer_tick(proposer, now_ms));
		do_work(now_ms);
		ironpage_safekeepers_send(proposer, now_ms);
		publish(&status, now_us);

		if (ShutdownRequestPending && drained(&status, now_ms))
			proc_exit(0);

		until_ms = Min(status.deadline_ms, now_ms + 250);
		if (ShutdownRequestPending)
			until_ms = Min(until_ms, now_ms + 10);
		ironpage_safekeepers_wait(proposer, now_ms, until_ms);
	}
}
