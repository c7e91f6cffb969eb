/*
 * throttle.c: writers slow down while the safekeepers are behind, and everyone stops while none can be heard.
 */
#include "ironpage.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/proc.h"

#define SLEEP_US_MAX 10000
#define EXTENDS_PER_SLEEP 32	/* so that a bulk load keeps 25 MB/s */

void
ironpage_wal_throttle(void)
{
	uint64		limit = (uint64) ironpage_max_lag_mb * 1024 * 1024;
	uint64		inserted,
				commit_lsn,
				sleep_us;

	if (ironpage_shared == NULL || MyProc == NULL || RecoveryInProgress() || CritSectionCount > 0)
		return;
	inserted = GetXLogInsertRecPtr();
	commit_lsn = pg_atomic_read_u64(&ironpage_shared->commit_lsn);
	if (inserted <= commit_lsn + limit)
		return;

	/* Full at twice the limit; never more, so that whoever must get through does. */
	sleep_us = Min((inserted - commit_lsn - limit) * SLEEP_US_MAX / limit, SLEEP_US_MAX);
	pg_usleep(sleep_us);
	pg_atomic_fetch_add_u64(&ironpage_shared->counters[IPC_THROTTLED_US], sleep_us);
}

void
ironpage_wal_throttle_extend(void)
{
	static int	blocks;

	if (++blocks % EXTENDS_PER_SLEEP == 0)
		ironpage_wal_throttle();
}

void
ironpage_check_contact(void)
{
	uint64		contact_us,
				now_us;

	if (MyBackendType != B_BACKEND || ironpage_shared == NULL)
		return;
	contact_us = pg_atomic_read_u64(&ironpage_shared->quorum_contact_us);
	now_us = ironpage_now_us();
	if (contact_us <= 1 || now_us <= contact_us + (uint64) ironpage_fence_after_ms * 1000)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("no quorum of safekeepers answered for " UINT64_FORMAT " ms", (now_us - contact_us) / 1000),
			 errdetail("Another start of this branch may have taken over, so nothing is answered until a quorum is back."),
			 errhint("ironpage.fence_after_ms sets this time; ironpage status shows the safekeepers.")));
}
