//! The `rune` binary: everything is in the library.

fn main() {}
