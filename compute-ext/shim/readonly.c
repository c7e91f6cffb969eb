/*
 * readonly.c: a read-only endpoint stays a hot standby at its start LSN until it is stopped.
 *
 * Stock Postgres does the work: a standby without a source of WAL waits for ever, answers reads and refuses writes. The
 * one way out of that is promotion. It would write WAL that nobody ever gets and acknowledge commits that are in no
 * quorum, so it is refused where it is asked for in SQL, and ends the endpoint where it comes otherwise (pg_ctl, the
 * trigger file).
 */
#include "ironpage.h"

#include <signal.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/fmgroids.h"

static object_access_hook_type previous_object_access;
static emit_log_hook_type previous_emit_log;

void
ironpage_readonly_check(void)
{
	if (access(STANDBY_SIGNAL_FILE, F_OK) != 0 || !EnableHotStandby)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("this data directory is one of a read-only endpoint, but not of a hot standby"),
				 errdetail("It has no \"%s\", or hot_standby is off.", STANDBY_SIGNAL_FILE),
				 errhint("Start the endpoint with the ironpage command: it makes a new data directory.")));
}

void
ironpage_readonly_promoted(void)
{
	ereport(LOG,
			(errmsg("a read-only endpoint was promoted: this postmaster stops at once"),
			 errdetail("What is written here would reach no safekeeper."),
			 errhint("Make a branch at this LSN and start an endpoint on it.")));
	kill(PostmasterPid, SIGQUIT);

	/* Nothing was committed yet: the client must not hear that anything was. */
	_exit(2);
}

/*
 * What the startup process warns of here is as it should be, and its advice, to remove the tablespaces' directories, would
 * ruin the endpoint. `message_id` is the text before translation.
 */
static void
emit_log(ErrorData *error)
{
	static const char *const expected[] = {
		"specified neither primary_conninfo nor restore_command",	/* validateRecoveryParameters, xlogrecovery.c */
		"unexpected directory entry \"%s\" found in %s",	/* CheckTablespaceDirectory there */
	};

	if (previous_emit_log)
		previous_emit_log(error);
	if (!ironpage_ticket.read_only || MyBackendType != B_STARTUP || error->elevel != WARNING || error->message_id == NULL)
		return;
	for (int i = 0; i < (int) lengthof(expected); i++)
		if (strcmp(error->message_id, expected[i]) == 0)
			error->output_to_server = false;
}

/* Told of each function before it is called (InvokeFunctionExecuteHook). */
static void
object_access(ObjectAccessType access, Oid class, Oid object, int part, void *argument)
{
	if (previous_object_access)
		previous_object_access(access, class, object, part, argument);
	if (access == OAT_FUNCTION_EXECUTE && object == F_PG_PROMOTE && ironpage_ticket.read_only)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a read-only endpoint cannot be promoted"),
				 errdetail("It shows the branch as it was at %X/%X, and shares that with others.",
						   LSN_FORMAT_ARGS(ironpage_ticket.start_lsn)),
				 errhint("Make a branch at this LSN and start an endpoint on it.")));
}

void
ironpage_readonly_init(void)
{
	previous_object_access = object_access_hook;
	object_access_hook = object_access;
	previous_emit_log = emit_log_hook;
	emit_log_hook = emit_log;
}
