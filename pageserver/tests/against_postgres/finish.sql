-- What a stop finds: a prepared transaction, and pages that only redo can make.
BEGIN;
INSERT INTO heap SELECT g, 'prepared', repeat('p', 50) FROM generate_series(1, 100) g;
UPDATE heap SET b = 'held' WHERE a BETWEEN 9000 AND 9010;
PREPARE TRANSACTION 'left open';
VACUUM (FREEZE) pgbench_accounts;
VACUUM heap;
DELETE FROM trees WHERE a % 5 = 0;
VACUUM trees;
INSERT INTO trees (a, t, p, r) SELECT g, md5(g::text), point(g, g % 100), int4range(g, g + 10) FROM generate_series(50000, 52000) g;
SELECT nextval('numbers') FROM generate_series(1, 50);
SELECT pg_switch_wal();
UPDATE pgbench_branches SET bbalance = bbalance + 1;
