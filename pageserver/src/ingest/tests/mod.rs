//! Tests of ingest as a whole.
