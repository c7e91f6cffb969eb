//! Whole-system tests: real processes, through public surfaces only.
