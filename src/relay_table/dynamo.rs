//! (being written)
/// x
#[derive(Debug)]
pub struct RelayTable;
