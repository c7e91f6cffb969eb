-- Something of every resource manager, and of every way in which a relation comes, grows, shrinks and goes.
CREATE EXTENSION bloom;
CREATE EXTENSION btree_gist;
CREATE TABLESPACE elsewhere LOCATION '';

CREATE TABLE heap (a int, b text, c text) WITH (fillfactor = 70);
INSERT INTO heap SELECT g, 'row ' || g, repeat('x', g % 300) FROM generate_series(1, 20000) g;
CREATE INDEX heap_a ON heap (a);
UPDATE heap SET b = b || '!' WHERE a % 3 = 0;
UPDATE heap SET a = a + 100000 WHERE a % 10 = 0;
DELETE FROM heap WHERE a % 7 = 0;
VACUUM heap;
INSERT INTO heap SELECT g, 'again', repeat('y', 100) FROM generate_series(30001, 35000) g;
COPY heap TO '@DIR@/copy.bin' WITH (FORMAT binary);
COPY heap FROM '@DIR@/copy.bin' WITH (FORMAT binary);
DELETE FROM heap WHERE ctid >= '(400,0)';
VACUUM (TRUNCATE) heap;

CREATE TABLE trees (a int, t text, p point, r int4range, v tsvector, arr int[]);
CREATE INDEX ON trees USING btree (a);
CREATE UNIQUE INDEX trees_unique ON trees USING btree (t, a);
CREATE INDEX ON trees USING hash (a);
CREATE INDEX trees_words ON trees USING gin (v);
CREATE INDEX ON trees USING gin (arr) WITH (fastupdate = off);
CREATE INDEX ON trees USING gist (p);
CREATE INDEX ON trees USING gist (r);
CREATE INDEX ON trees USING spgist (t);
CREATE INDEX ON trees USING spgist (p);
CREATE INDEX trees_brin ON trees USING brin (a) WITH (pages_per_range = 4);
CREATE INDEX ON trees USING bloom (a, t);
INSERT INTO trees
    SELECT g, md5(g::text), point(g % 1000, g / 7), int4range(g, g + g % 50),
           to_tsvector('simple', 'word' || g % 500 || ' and ' || md5((g % 50)::text)), ARRAY[g % 10, g % 100, g]
    FROM generate_series(1, 8000) g;
CHECKPOINT;
UPDATE trees SET p = point(a, 5), t = md5(t) WHERE a % 4 = 0;
DELETE FROM trees WHERE a BETWEEN 1000 AND 4000;
VACUUM trees;
INSERT INTO trees
    SELECT g, md5(g::text), point(g % 1000, g / 7), int4range(g, g + g % 50),
           to_tsvector('simple', 'later' || g % 500), ARRAY[g % 10, g]
    FROM generate_series(20001, 25000) g;
SELECT gin_clean_pending_list('trees_words'), brin_summarize_new_values('trees_brin');
SELECT brin_desummarize_range('trees_brin', 0);
REINDEX TABLE trees;
DELETE FROM trees WHERE a > 20000 AND a % 2 = 0;
VACUUM trees;

CREATE TABLE toasted (id int PRIMARY KEY, body text);
ALTER TABLE toasted ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT g, repeat(md5(g::text), 400) FROM generate_series(1, 200) g;
UPDATE toasted SET body = body || 'more' WHERE id % 3 = 0;
DELETE FROM toasted WHERE id % 5 = 0;
VACUUM FULL toasted;
SET wal_compression = 'pglz';
CREATE TABLE rewritten AS SELECT g AS a, repeat('z', 200) AS b FROM generate_series(1, 3000) g;
ALTER TABLE rewritten ALTER COLUMN a TYPE bigint;
SET wal_compression = 'lz4';
CREATE INDEX rewritten_a ON rewritten (a);
CLUSTER rewritten USING rewritten_a;
SET wal_compression = 'zstd';
VACUUM FULL rewritten;
RESET wal_compression;

CREATE SEQUENCE numbers;
SELECT nextval('numbers') FROM generate_series(1, 100);
CREATE TABLE dropped AS SELECT generate_series(1, 5000) AS a;
DROP TABLE dropped;
CREATE TABLE truncated (a int PRIMARY KEY, b text);
INSERT INTO truncated SELECT g, repeat('t', 100) FROM generate_series(1, 5000) g;
VACUUM truncated;
TRUNCATE truncated;
INSERT INTO truncated SELECT g, 'new' FROM generate_series(1, 50) g;
BEGIN;
TRUNCATE truncated;
INSERT INTO truncated SELECT g, 'in the same transaction' FROM generate_series(1, 500) g;
TRUNCATE truncated;
INSERT INTO truncated SELECT g, 'once more' FROM generate_series(1, 70) g;
COMMIT;
BEGIN;
CREATE TABLE aborted AS SELECT generate_series(1, 2000) AS a;
ROLLBACK;

CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY, b text);
INSERT INTO unlogged SELECT g, 'u' FROM generate_series(1, 2000) g;
CREATE INDEX ON unlogged USING gist (a);
CREATE UNLOGGED TABLE now_logged (a int PRIMARY KEY, b text);
INSERT INTO now_logged SELECT g, 'u' FROM generate_series(1, 2000) g;
ALTER TABLE now_logged SET LOGGED;
CREATE TABLE now_unlogged AS SELECT generate_series(1, 2000) AS a;
ALTER TABLE now_unlogged SET UNLOGGED;
CREATE TEMPORARY TABLE temporary AS SELECT generate_series(1, 2000) AS a;

CREATE TABLE other_place (a int PRIMARY KEY, b text) TABLESPACE elsewhere;
INSERT INTO other_place SELECT g, repeat('o', 50) FROM generate_series(1, 3000) g;
ALTER TABLE heap SET TABLESPACE elsewhere;
ALTER TABLE heap SET TABLESPACE pg_default;

BEGIN;
INSERT INTO other_place SELECT g, 'prepared' FROM generate_series(4001, 4100) g;
SAVEPOINT s;
DELETE FROM other_place WHERE a < 100;
RELEASE s;
PREPARE TRANSACTION 'to commit';
COMMIT PREPARED 'to commit';
BEGIN;
DELETE FROM other_place WHERE a < 500;
CREATE TABLE never (a int);
PREPARE TRANSACTION 'to roll back';
ROLLBACK PREPARED 'to roll back';

-- More subtransactions than an assignment record holds, and as many transactions as fill a page of pg_xact.
DO $$
BEGIN
    FOR i IN 1..200 LOOP
        BEGIN
            INSERT INTO other_place VALUES (10000 + i, 'sub');
            IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END LOOP;
END $$;
DO $$
BEGIN
    FOR i IN 1..34000 LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$;
SELECT pg_logical_emit_message(true, 'prefix', 'content'), pg_logical_emit_message(false, 'prefix', repeat('long', 10000));
SELECT pg_create_restore_point('here');
SELECT txid_current();
SELECT lo_create(0) FROM generate_series(1, 100);
SELECT pg_replication_origin_create('somewhere');
SELECT pg_replication_origin_advance('somewhere', '0/1234');
CREATE MATERIALIZED VIEW seen AS SELECT a, count(*) FROM heap GROUP BY a;
REFRESH MATERIALIZED VIEW seen;
VACUUM (FREEZE, ANALYZE);
VACUUM FULL pg_class;
REINDEX DATABASE postgres;
CHECKPOINT;
