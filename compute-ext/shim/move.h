/*
 * move.h: the steps around ALTER DATABASE SET TABLESPACE, for utility.c.
 */
#ifndef IRONPAGE_MOVE_H
#define IRONPAGE_MOVE_H

#include "postgres.h"

#include "nodes/parsenodes.h"

typedef struct IronpageMove
{
	Oid			database;
	Oid			from;
} IronpageMove;

/* True if the statement moves a database: then it is locked, until ironpage_move_release(). */
extern bool ironpage_move_begin(const AlterDatabaseStmt *alter, IronpageMove *move);

/* After the statement succeeded. */
extern void ironpage_move_done(const IronpageMove *move);

/* In any case. */
extern void ironpage_move_release(const IronpageMove *move);

#endif							/* IRONPAGE_MOVE_H */
