-- A bit of everything that writes WAL. Runs several times on one cluster.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bloom;
CREATE EXTENSION IF NOT EXISTS btree_gin;

DROP TABLE IF EXISTS refers, shared_rows CASCADE;
CREATE TABLE shared_rows (id int PRIMARY KEY, v int) WITH (fillfactor = 50);
CREATE TABLE refers (id int REFERENCES shared_rows);
INSERT INTO shared_rows SELECT i, 0 FROM generate_series(1, 10) i;

-- Every index type, with inserts, updates, deletes and vacuums.
DROP TABLE IF EXISTS indexed CASCADE;
CREATE TABLE indexed (id bigserial PRIMARY KEY, h int, t text, a int[], p point, r int4range, s text);
CREATE INDEX ON indexed USING hash (h);
CREATE INDEX ON indexed USING gin (a);
CREATE INDEX ON indexed USING gin (h) WITH (fastupdate = off);
CREATE INDEX ON indexed USING gist (p);
CREATE INDEX ON indexed USING gist (r);
CREATE INDEX ON indexed USING spgist (s);
CREATE INDEX ON indexed USING spgist (p);
CREATE INDEX ON indexed USING brin (id) WITH (pages_per_range = 4);
CREATE INDEX ON indexed USING bloom (h, t);
CREATE INDEX ON indexed (t, h);
INSERT INTO indexed (h, t, a, p, r, s)
  SELECT i % 97, repeat('x', i % 50), ARRAY[i % 7, i % 11], point(i % 100, i / 100), int4range(i, i + 10), md5(i::text)
  FROM generate_series(1, 6000) i;
UPDATE indexed SET h = h + 1, p = point(h, h), a = a || h WHERE id % 3 = 0;
DELETE FROM indexed WHERE id % 5 = 0;
VACUUM indexed;
INSERT INTO indexed (h, t, a, p, r, s) SELECT i, 'y', ARRAY[i], point(i, i), int4range(i, i + 1), 'same' || i % 3 FROM generate_series(1, 3000) i;
DELETE FROM indexed WHERE id > 3000;
VACUUM indexed;
SELECT brin_desummarize_range('indexed_id_idx', 0);
SELECT brin_summarize_new_values('indexed_id_idx');
SELECT gin_clean_pending_list('indexed_a_idx');
REINDEX TABLE indexed;
CLUSTER indexed USING indexed_pkey;

-- Visibility map: set, cleared by each kind of change, truncated.
DROP TABLE IF EXISTS visible CASCADE;
CREATE TABLE visible (id int, pad text) WITH (fillfactor = 70);
INSERT INTO visible SELECT i, repeat('p', 200) FROM generate_series(1, 4000) i;
VACUUM (FREEZE) visible;
SELECT count(*) FROM (SELECT * FROM visible WHERE id BETWEEN 1 AND 60 FOR UPDATE) l;
UPDATE visible SET pad = pad || 'q' WHERE id BETWEEN 500 AND 700;
DELETE FROM visible WHERE id BETWEEN 900 AND 1000;
VACUUM visible;
COPY visible FROM PROGRAM 'seq 5000 5400 | sed "s/$/\tcopied/"';
VACUUM visible;
INSERT INTO visible SELECT i, 'again' FROM generate_series(1, 300) i;
DELETE FROM visible WHERE id > 2000;
VACUUM visible;
INSERT INTO visible SELECT i, 'after truncation' FROM generate_series(1, 3000) i;
VACUUM visible;
BEGIN;
CREATE TABLE frozen_copy (id int);
COPY frozen_copy FROM PROGRAM 'seq 1 3000' WITH (FREEZE);
COMMIT;
DROP TABLE frozen_copy;

-- Large values, sequences, speculative inserts.
DROP TABLE IF EXISTS large CASCADE;
CREATE TABLE large (id int PRIMARY KEY, body text);
ALTER TABLE large ALTER body SET STORAGE EXTERNAL;
INSERT INTO large SELECT i, repeat(md5(i::text), 2000) FROM generate_series(1, 60) i;
UPDATE large SET body = body || 'z' WHERE id % 2 = 0;
INSERT INTO large VALUES (1, 'conflict'), (1000, 'new') ON CONFLICT (id) DO UPDATE SET body = excluded.body;
VACUUM large;
DROP SEQUENCE IF EXISTS counter;
CREATE SEQUENCE counter;
SELECT count(nextval('counter')) FROM generate_series(1, 100);
SELECT setval('counter', 5000);
SELECT count(lo_create(0)) FROM generate_series(1, 9000);

-- Files that come and go.
CREATE TABLE short_lived AS SELECT * FROM generate_series(1, 2000) i;
CREATE INDEX ON short_lived (i);
TRUNCATE short_lived;
INSERT INTO short_lived VALUES (1);
DROP TABLE short_lived;
BEGIN;
CREATE TABLE never_was AS SELECT * FROM generate_series(1, 2000) i;
ROLLBACK;
BEGIN;
SAVEPOINT a;
CREATE TABLE half_was (i int);
INSERT INTO half_was VALUES (1);
ROLLBACK TO a;
CREATE TABLE was_then_gone (i int);
COMMIT;
DROP TABLE was_then_gone;
DROP TABLE IF EXISTS not_logged;
CREATE UNLOGGED TABLE not_logged (id serial PRIMARY KEY, h int);
CREATE INDEX ON not_logged USING hash (h);
CREATE INDEX ON not_logged USING gist (point(h, h));
INSERT INTO not_logged (h) SELECT i FROM generate_series(1, 1000) i;
ALTER TABLE not_logged SET LOGGED;
ALTER TABLE not_logged SET UNLOGGED;
CREATE TEMP TABLE temporary AS SELECT * FROM generate_series(1, 2000) i;
DROP MATERIALIZED VIEW IF EXISTS view;
CREATE MATERIALIZED VIEW view AS SELECT h, count(*) FROM indexed GROUP BY h;
REFRESH MATERIALIZED VIEW view;
VACUUM FULL visible;
VACUUM FULL pg_class;
REINDEX TABLE pg_class;
VACUUM FULL pg_database;

-- More subtransactions than one page of pg_xact has, and some that abort.
SELECT count(*) > 0 AS stays FROM pg_prepared_xacts WHERE gid = 'stays' \gset
\if :stays
ROLLBACK PREPARED 'stays';
\endif
DROP TABLE IF EXISTS nested;
CREATE TABLE nested (i int);
DO $$
BEGIN
  FOR n IN 1..34000 LOOP
    BEGIN
      INSERT INTO nested VALUES (n);
      IF n % 100 = 0 THEN
        RAISE EXCEPTION 'no';
      END IF;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
END $$;

-- Two-phase commit; the last one stays prepared over restarts.
CREATE TABLE dropped_by_prepared AS SELECT 1 i;
BEGIN;
DROP TABLE dropped_by_prepared;
SAVEPOINT a;
CREATE TABLE created_by_prepared AS SELECT 2 i;
RELEASE a;
PREPARE TRANSACTION 'commits';
BEGIN;
CREATE TABLE created_by_aborted AS SELECT 2 i;
SAVEPOINT a;
INSERT INTO nested VALUES (-1);
PREPARE TRANSACTION 'aborts';
BEGIN;
INSERT INTO nested VALUES (-2);
SAVEPOINT a;
INSERT INTO nested VALUES (-3);
PREPARE TRANSACTION 'stays';
CHECKPOINT;
COMMIT PREPARED 'commits';
ROLLBACK PREPARED 'aborts';
DROP TABLE created_by_prepared;

-- Databases and tablespaces.
DROP DATABASE IF EXISTS other;
DROP DATABASE IF EXISTS moved;
DROP TABLESPACE IF EXISTS space;
CREATE TABLESPACE space LOCATION '';
CREATE DATABASE other;
CREATE DATABASE gone STRATEGY = wal_log;
CREATE DATABASE moved STRATEGY = file_copy;
ALTER DATABASE moved SET TABLESPACE space;
DROP DATABASE gone;
CREATE TABLE in_space (i int) TABLESPACE space;
INSERT INTO in_space SELECT generate_series(1, 1000);
CREATE INDEX ON in_space (i) TABLESPACE space;
ALTER TABLE in_space SET TABLESPACE pg_default;
ALTER TABLE in_space SET TABLESPACE space;
\c other
CREATE TABLE elsewhere AS SELECT * FROM generate_series(1, 3000) i;
CREATE TABLE elsewhere_in_space (i) TABLESPACE space AS SELECT * FROM generate_series(1, 3000) i;
DROP TABLE elsewhere_in_space;
\c postgres
DROP TABLE in_space;
CREATE TABLESPACE empty LOCATION '';
DROP TABLESPACE empty;

-- What leaves no trace in pages.
SELECT pg_logical_emit_message(true, 'prefix', repeat('m', 20000));
SELECT pg_create_restore_point('here');
SELECT pg_replication_origin_create('far') WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'far');
SELECT pg_replication_origin_advance('far', '0/123456');
SELECT pg_replication_origin_session_setup('far');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/234567', '2020-01-01');
INSERT INTO nested VALUES (-4);
COMMIT;
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_create('near');
SELECT pg_replication_origin_advance('near', '0/123456');
SELECT pg_replication_origin_drop('near');
SELECT pg_backup_start('backup', true);
SELECT count(*) FROM pg_backup_stop(false);
SELECT pg_switch_wal();
CHECKPOINT;
