\set aid random(1, 30)
BEGIN;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid FOR SHARE;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid + 1 FOR KEY SHARE;
SAVEPOINT one;
UPDATE pgbench_accounts SET filler = 'x' WHERE aid = :aid + 1000;
ROLLBACK TO one;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, 0, now());
END;
