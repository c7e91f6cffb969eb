/*
 * selftest.c: is our storage manager really the one that Postgres calls?
 *
 * The table was found and overwritten, but a compiler that knows a constant array may have called md.c's functions past
 * it. Each function we rely on is called once through Postgres's own entry points, for a relation that cannot exist; ours
 * do nothing there but say that they came, and a read gives a poisoned page.
 */
#include "cache.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/smgr.h"

#define POISON 0xA5

uint32		ironpage_probes_seen;

void
ironpage_poison(char *page)
{
	memset(page, POISON, BLCKSZ);
}

static SMgrRelation
probe_relation(void)
{
	RelFileNode node = {0};

	return smgropen(node, InvalidBackendId);
}

static void
report_missing(uint32 wanted, int level)
{
	uint32		missing = wanted & ~ironpage_probes_seen;

	if (missing != 0)
		ereport(level,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("this Postgres binary calls its storage past ironpage (functions %#x)", missing),
				 errdetail("Pages would be read from files that do not hold them."),
				 errhint("Use the server of PostgreSQL 15 of Debian or the PGDG packages, and build again with ./dev build.")));
}

/* In the postmaster, before there is any other process: what needs no locks. */
void
ironpage_selftest_postmaster(void)
{
	SMgrRelation reln = probe_relation();
	PGAlignedBlock page = {0};

	smgrread(reln, MAIN_FORKNUM, 0, page.data);
	for (int i = 0; i < BLCKSZ; i++)
		if ((uint8) page.data[i] != POISON)
			ironpage_probes_seen &= ~IPP_READ;
	smgrwrite(reln, MAIN_FORKNUM, 0, page.data, true);
	smgrextend(reln, MAIN_FORKNUM, 0, page.data, true);
	smgrcreate(reln, MAIN_FORKNUM, false);
	(void) smgrprefetch(reln, MAIN_FORKNUM, 0);
	smgrclose(reln);
	report_missing(IPP_READ | IPP_WRITE | IPP_EXTEND | IPP_CREATE | IPP_PREFETCH, FATAL);
}

/* In the janitor: truncating and removing look at buffers and tell other processes, which takes locks. */
void
ironpage_selftest_worker(void)
{
	ForkNumber	fork = MAIN_FORKNUM;
	BlockNumber blocks = 0;
	SMgrRelation reln = probe_relation();

	smgrtruncate(reln, &fork, 1, &blocks);
	reln = probe_relation();
	smgrdounlinkall(&reln, 1, false);
	report_missing(IPP_TRUNCATE | IPP_UNLINK, LOG);
	if ((ironpage_probes_seen & (IPP_TRUNCATE | IPP_UNLINK)) != (IPP_TRUNCATE | IPP_UNLINK))
	{
		kill(PostmasterPid, SIGQUIT);
		proc_exit(1);
	}
}
