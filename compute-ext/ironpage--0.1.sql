\echo Use "CREATE EXTENSION ironpage" to load this file. \quit

CREATE FUNCTION ironpage_stats(OUT name text, OUT value bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME';

COMMENT ON FUNCTION ironpage_stats() IS 'counters and positions of the page cache, since this postmaster started';
