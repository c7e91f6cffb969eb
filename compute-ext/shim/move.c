/*
 * move.c: ALTER DATABASE SET TABLESPACE.
 *
 * Postgres copies the files of the database. They hold what is cached, and what is valid in the old ones is valid in
 * their copies; everything else comes from the pageserver under its new name, once that has the record of the move. So
 * the map of valid blocks moves too, and nobody may connect to the database in between: connecting takes a lock on it
 * (InitPostgres in utils/init/postinit.c), which is held here, from before the move, in the name of the session.
 */
#include "ironpage.h"

#include "access/htup_details.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "move.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/syscache.h"

static Oid
tablespace_of(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	Oid			tablespace;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	tablespace = ((Form_pg_database) GETSTRUCT(tuple))->dattablespace;
	ReleaseSysCache(tuple);
	return tablespace;
}

static bool
sets_tablespace(const AlterDatabaseStmt *alter)
{
	ListCell   *cell;

	foreach(cell, alter->options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
			return true;
	return false;
}

/* False where movedb() (commands/dbcommands.c) refuses: it says why. */
bool
ironpage_move_begin(const AlterDatabaseStmt *alter, IronpageMove *move)
{
	if (!sets_tablespace(alter))
		return false;
	move->database = get_database_oid(alter->dbname, true);
	if (!OidIsValid(move->database) || move->database == MyDatabaseId ||
		!pg_database_ownercheck(move->database, GetUserId()))
		return false;
	LockSharedObjectForSession(DatabaseRelationId, move->database, 0, AccessExclusiveLock);
	move->from = tablespace_of(move->database);
	return true;
}

void
ironpage_move_done(const IronpageMove *move)
{
	Oid			to = tablespace_of(move->database);

	if (OidIsValid(to) && OidIsValid(move->from) && to != move->from)
		ironpage_cache_database_moved(move->database, move->from, to);
}

void
ironpage_move_release(const IronpageMove *move)
{
	UnlockSharedObjectForSession(DatabaseRelationId, move->database, 0, AccessExclusiveLock);
}
