/*
 * drain.c: when the walproposer may end.
 *
 * At a smart or fast shutdown the postmaster sends SIGTERM to backends and workers at the same time, and goes on once all
 * of them, the walproposer included, are gone. Only then the checkpointer writes its last checkpoint, which nobody needs:
 * the next start begins at the last record that a quorum has.
 */
#include "proposer.h"

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/proc.h"

/* pg_terminate_backend sends the same signal; the postmaster's own state is in its lock file (utils/pidfile.h). */
static bool
postmaster_stops(void)
{
	FILE	   *file = fopen("postmaster.pid", "r");
	char		line[MAXPGPATH];
	bool		stops = false;

	if (file == NULL)
		return true;
	while (fgets(line, sizeof(line), file) != NULL)
		stops = strncmp(line, "stopping", 8) == 0;
	fclose(file);
	return stops;
}

/* Walsenders outlive us: they end after the last checkpoint. */
static bool
is_walsender(int pid)
{
	for (int i = 0; i < max_wal_senders; i++)
		if (WalSndCtl->walsnds[i].pid == pid)
			return true;
	return false;
}

bool
ironpage_drain_begins(void)
{
	Latch	   *janitor = ironpage_shared->janitor_latch;

	if (!postmaster_stops())
	{
		ereport(LOG,
				(errmsg("walproposer ignores a request to terminate"),
				 errdetail("It ends when the server shuts down; commits could not be acknowledged without it.")));
		ShutdownRequestPending = false;
		return false;
	}
	for (int i = 0; i < MaxBackends; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		/* ProcKill (storage/lmgr/proc.c) leaves proc->pid behind; it does give up the latch. */
		int			pid = proc->procLatch.owner_pid;

		if (pid != 0 && pid != MyProcPid && &proc->procLatch != janitor && !is_walsender(pid))
			return false;
	}
	return true;
}
