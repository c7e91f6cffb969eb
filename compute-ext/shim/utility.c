/*
 * utility.c: commands that would bypass the pageserver or the safekeepers, and who may connect.
 */
#include "ironpage.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "commit.h"
#include "move.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "replication/walsender.h"
#include "tcop/utility.h"

/* As in libpq/auth.h, which needs the headers of Kerberos to compile. */
struct Port;
typedef void (*ClientAuthentication_hook_type) (struct Port *port, int status);
extern PGDLLIMPORT ClientAuthentication_hook_type ClientAuthentication_hook;

static ProcessUtility_hook_type previous_process_utility;
static ClientAuthentication_hook_type previous_client_authentication;

/* Settings the endpoint's promises rest on. They stand on the postmaster's command line; a change would only mislead. */
static const char *const fixed_settings[] = {
	"synchronous_standby_names",
	"restart_after_crash",
	"max_slot_wal_keep_size",
	"max_replication_slots",
	"wal_level",
	"max_wal_senders",
	"archive_mode",
	"data_sync_retry",
};

static void
refuse_fixed_setting(const VariableSetStmt *set)
{
	if (set == NULL || set->name == NULL)
		return;
	for (int i = 0; i < (int) lengthof(fixed_settings); i++)
		if (pg_strcasecmp(set->name, fixed_settings[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_CANT_CHANGE_RUNTIME_PARAM),
					 errmsg("\"%s\" cannot be changed on an Ironpage endpoint", fixed_settings[i]),
					 errdetail("That no acknowledged commit is lost rests on its value.")));
}

/* FILE_COPY copies files past WAL and buffers, and a file here may have holes whose pages only the pageserver has. */
static void
force_wal_log(CreatedbStmt *create)
{
	ListCell   *cell;

	foreach(cell, create->options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "strategy") != 0 || option->arg == NULL)
			continue;
		if (pg_strcasecmp(defGetString(option), "wal_log") != 0)
			ereport(NOTICE, (errmsg("using strategy wal_log: an Ironpage database cannot be copied as files")));
		option->arg = (Node *) makeString(pstrdup("wal_log"));
	}
}

/* A tablespace somewhere else would be written by every branch that comes to life from this one. */
static bool
keep_tablespace_inside(CreateTableSpaceStmt *create)
{
	if (create->location == NULL || create->location[0] == '\0')
		return false;
	ereport(NOTICE,
			(errmsg("tablespace \"%s\" is kept inside the endpoint, not in \"%s\"", create->tablespacename, create->location)));
	create->location = pstrdup("");
	return true;
}

static bool
finishes_prepared(const Node *statement)
{
	if (!IsA(statement, TransactionStmt))
		return false;
	return ((const TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED ||
		((const TransactionStmt *) statement)->kind == TRANS_STMT_ROLLBACK_PREPARED;
}

/* These call ForceSyncCommit. */
static bool
forces_commit(const Node *statement)
{
	return IsA(statement, CreatedbStmt) || IsA(statement, DropdbStmt) ||
		IsA(statement, CreateTableSpaceStmt) || IsA(statement, DropTableSpaceStmt);
}

static void
call_next(PlannedStmt *planned, const char *text, bool read_only_tree, ProcessUtilityContext context, ParamListInfo params,
		  QueryEnvironment *environment, DestReceiver *destination, QueryCompletion *completion)
{
	if (previous_process_utility)
		previous_process_utility(planned, text, read_only_tree, context, params, environment, destination, completion);
	else
		standard_ProcessUtility(planned, text, read_only_tree, context, params, environment, destination, completion);
}

static void
call_next_in_place(PlannedStmt *planned, const char *text, bool read_only_tree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *environment, DestReceiver *destination,
				   QueryCompletion *completion)
{
	bool		was_allowed = allow_in_place_tablespaces;

	allow_in_place_tablespaces = true;
	PG_TRY();
	{
		call_next(planned, text, read_only_tree, context, params, environment, destination, completion);
	}
	PG_FINALLY();
	{
		allow_in_place_tablespaces = was_allowed;
	}
	PG_END_TRY();
}

static void
call_next_moving(const IronpageMove *move, PlannedStmt *planned, const char *text, bool read_only_tree,
				 ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				 DestReceiver *destination, QueryCompletion *completion)
{
	PG_TRY();
	{
		call_next(planned, text, read_only_tree, context, params, environment, destination, completion);
		ironpage_move_done(move);
	}
	PG_FINALLY();
	{
		ironpage_move_release(move);
	}
	PG_END_TRY();
}

static void
process_utility(PlannedStmt *planned, const char *text, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *destination, QueryCompletion *completion)
{
	Node	   *statement = planned->utilityStmt;
	bool		inside = false;
	bool		moves = false;
	IronpageMove move;
	Oid			dropped = InvalidOid;

	if (!IsA(statement, TransactionStmt))
		ironpage_check_contact();

	/* What is refused during recovery is refused by Postgres, in its own words and before any of the below. */
	if (RecoveryInProgress() && !IsA(statement, AlterSystemStmt) && !IsA(statement, VariableSetStmt))
	{
		call_next(planned, text, read_only_tree, context, params, environment, destination, completion);
		return;
	}

	if (forces_commit(statement))
		ironpage_commit_force();

	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
		case T_CreateTableSpaceStmt:
			/* The tree may be a cached plan's: change a copy. */
			planned = copyObject(planned);
			statement = planned->utilityStmt;
			read_only_tree = false;
			if (IsA(statement, CreatedbStmt))
				force_wal_log((CreatedbStmt *) statement);
			else
				inside = keep_tablespace_inside((CreateTableSpaceStmt *) statement);
			break;
		case T_AlterSystemStmt:
			refuse_fixed_setting(((AlterSystemStmt *) statement)->setstmt);
			break;
		case T_VariableSetStmt:
			refuse_fixed_setting((VariableSetStmt *) statement);
			break;
		case T_AlterDatabaseSetStmt:
			refuse_fixed_setting(((AlterDatabaseSetStmt *) statement)->setstmt);
			break;
		case T_AlterRoleSetStmt:
			refuse_fixed_setting(((AlterRoleSetStmt *) statement)->setstmt);
			break;
		case T_AlterDatabaseStmt:
			moves = ironpage_move_begin((AlterDatabaseStmt *) statement, &move);
			break;
		case T_DropdbStmt:
			dropped = get_database_oid(((DropdbStmt *) statement)->dbname, true);
			break;
		default:
			break;
	}

	if (finishes_prepared(statement))
		ironpage_commit_hold_cancels();
	if (moves)
		call_next_moving(&move, planned, text, read_only_tree, context, params, environment, destination, completion);
	else if (inside)
		call_next_in_place(planned, text, read_only_tree, context, params, environment, destination, completion);
	else
		call_next(planned, text, read_only_tree, context, params, environment, destination, completion);

	/* Committed or rolled back locally; an error above has let go of the cancels as it aborted the transaction. */
	if (finishes_prepared(statement))
	{
		ironpage_commit_wait_last();
		ironpage_commit_release_cancels();
	}
	if (OidIsValid(dropped))
		ironpage_cache_database_dropped(dropped);
}

/*
 * A physical copy of this endpoint would have holes, and WAL past what is committed; a logical one could be ahead of what
 * survives us. `am_walsender` is set by the startup packet, before authentication.
 */
static void
client_authentication(struct Port *port, int status)
{
	if (previous_client_authentication)
		previous_client_authentication(port, status);
	if (am_walsender)
		ereport(FATAL,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Ironpage endpoints accept no replication connections"),
				 errdetail("The local files hold only part of the pages, and local WAL may run ahead of what a quorum has."),
				 errhint("Use pg_dump for a copy.")));
}

void
ironpage_utility_init(void)
{
	previous_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	previous_client_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = client_authentication;
}
