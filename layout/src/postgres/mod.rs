//! What Postgres writes: pages, WAL records, pg_control.
