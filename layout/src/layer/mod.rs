//! The layer file format.
