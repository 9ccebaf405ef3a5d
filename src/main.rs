//! The binary `angzarr-relay`.

fn main() {}
