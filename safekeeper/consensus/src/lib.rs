//! Proposer and acceptor of a timeline's WAL as sans-I/O state machines.
