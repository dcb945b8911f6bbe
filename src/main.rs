//! entropy
fn main() {}
