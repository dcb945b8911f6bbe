//! Fuzzing: what reads bytes from outside, each with what must hold for any bytes.

pub mod targets;
