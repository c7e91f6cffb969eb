-- What workload.sql leaves out of the records that native redo knows.

-- Upserts confirm what they insert; a conflict with another session takes it back.
CREATE TABLE upserted (id int PRIMARY KEY, n int);
INSERT INTO upserted SELECT g, 0 FROM generate_series(1, 400) g ON CONFLICT (id) DO UPDATE SET n = upserted.n + 1;
INSERT INTO upserted SELECT g, 0 FROM generate_series(200, 600) g ON CONFLICT (id) DO UPDATE SET n = upserted.n + 1;
CREATE TABLE locked (id int PRIMARY KEY, n int, pad text);
INSERT INTO locked SELECT g, 0, repeat('p', 100) FROM generate_series(1, 20) g;

CREATE TABLE parted (a int, b text) PARTITION BY RANGE (a);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (1000);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (1000) TO (2000);
INSERT INTO parted SELECT g, 'row' FROM generate_series(1, 900) g;
UPDATE parted SET a = a + 1000 WHERE a % 3 = 0;

CREATE TABLE frozen (a int, b text, c text);
BEGIN;
TRUNCATE frozen;
COPY frozen FROM '@DIR@/copy.bin' WITH (FORMAT binary, FREEZE);
COMMIT;
UPDATE frozen SET c = c || '?' WHERE a % 50 = 0;

-- Equal keys: posting lists are made, split by TIDs that are free again, and lose TIDs.
CREATE TABLE equal (k int, v text);
CREATE INDEX equal_k ON equal (k);
CREATE INDEX equal_one ON equal ((1));
INSERT INTO equal SELECT g % 50, repeat('e', g % 40) FROM generate_series(1, 20000) g;
DELETE FROM equal WHERE ctid::text LIKE '%,1_)' OR ctid::text LIKE '%3)';
VACUUM equal;
INSERT INTO equal SELECT g % 50, repeat('f', g % 40) FROM generate_series(1, 12000) g;
DELETE FROM equal WHERE k % 3 = 0;
VACUUM equal;
INSERT INTO equal SELECT g % 60, repeat('g', g % 40) FROM generate_series(1, 12000) g;

-- Versions that differ in another column only: the index deletes from the bottom up.
CREATE TABLE churn (id int PRIMARY KEY, a int, b text) WITH (autovacuum_enabled = off);
CREATE INDEX churn_a ON churn (a);
CREATE INDEX churn_b ON churn (b);
INSERT INTO churn SELECT g, g % 100, 'b' || g % 7 FROM generate_series(1, 1500) g;
DO $$
BEGIN
    FOR i IN 1..30 LOOP
        UPDATE churn SET a = a + 1 WHERE id % 2 = i % 2;
        COMMIT;
    END LOOP;
END $$;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
DELETE FROM churn WHERE id % 2 = 0;
SELECT count(*) FROM churn WHERE id > 0;
SELECT count(*) FROM churn WHERE a > 0;
SELECT count(*) FROM churn WHERE b > '';
INSERT INTO churn SELECT g, g % 130, 'b' || g % 7 FROM generate_series(2000, 4000) g;

-- Wide keys make deep trees; whole subtrees of them go, and the fast root comes down and up again.
CREATE TABLE deep (id int, pad text);
ALTER TABLE deep ALTER COLUMN pad SET STORAGE PLAIN;
CREATE INDEX deep_pad ON deep (pad);
INSERT INTO deep SELECT g, lpad(g::text, 6, '0') || repeat('x', 700) FROM generate_series(1, 3000) g;
DELETE FROM deep WHERE id BETWEEN 200 AND 2800;
VACUUM deep;
SELECT txid_current();
VACUUM deep;
DELETE FROM deep WHERE id < 2996;
VACUUM deep;
INSERT INTO deep SELECT g, lpad(g::text, 6, '0') || repeat('y', 700) FROM generate_series(3001, 3300) g;
DELETE FROM deep WHERE id % 2 = 0;
VACUUM deep;
INSERT INTO deep SELECT g, lpad(g::text, 6, '0') || repeat('z', 700) FROM generate_series(1, 1500) g;

-- Hash: buckets split, chains grow, shrink and are squeezed.
-- Index scans find dead tuples before vacuum does.
CREATE TABLE hashed (id int, k int) WITH (autovacuum_enabled = off);
CREATE INDEX hashed_k ON hashed USING hash (k);
INSERT INTO hashed SELECT g, g FROM generate_series(1, 9000) g;
INSERT INTO hashed SELECT g, 7 FROM generate_series(1, 3000) g;
INSERT INTO hashed SELECT g, g % 40 FROM generate_series(1, 9000) g;
DELETE FROM hashed WHERE k = 7 AND id % 4 > 0;
SELECT count(*) FROM hashed WHERE k = 7;
INSERT INTO hashed SELECT g, 7 FROM generate_series(1, 2500) g;
DELETE FROM hashed WHERE k = 7 AND id % 4 = 0;
SELECT count(*) FROM hashed WHERE k = 7;
INSERT INTO hashed SELECT g, 7 FROM generate_series(1, 500) g;
DELETE FROM hashed WHERE k = 7 AND id % 3 = 0;
SELECT pg_sleep(0.5);
SELECT count(*) FROM hashed WHERE k = 7;
INSERT INTO hashed SELECT g, 7 FROM generate_series(1, 500) g;
DELETE FROM hashed WHERE k < 40 AND id % 5 > 1;
VACUUM hashed;
INSERT INTO hashed SELECT g, g FROM generate_series(9001, 24000) g;
DELETE FROM hashed WHERE id % 3 = 0;
VACUUM hashed;
INSERT INTO hashed SELECT g, g % 4000 FROM generate_series(1, 9000) g;
DELETE FROM hashed WHERE k > 100;
VACUUM hashed;
CREATE INDEX hashed_id ON hashed USING hash (id) WITH (fillfactor = 40);
CREATE UNLOGGED TABLE hashed_unlogged (k int);
CREATE INDEX ON hashed_unlogged USING hash (k);

CREATE SEQUENCE counted;
SELECT setval('counted', 1000);
SELECT nextval('counted') FROM generate_series(1, 70);
VACUUM (FREEZE) locked, upserted, equal, churn, frozen;
