//! CRC-32C, the polynomial of Postgres's WAL and of every checksum of ours.

/// CRC-32C of `bytes`, as `pg_comp_crc32c` finalised gives it (src/include/port/pg_crc32c.h).
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// Continues a finished CRC-32C with more bytes: `crc32c_append(crc32c(a), b)` is the CRC of `a ‖ b`.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}
