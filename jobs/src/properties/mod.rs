//! What must hold for any input, tried with random ones.

mod addresses;
mod lifecycle;
mod limits;
mod texts;
