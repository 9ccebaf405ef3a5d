//! The fleet at one look: who reads what, how far each handler is, what is wrong and what mends it.
//!
//! Reads only, from the tables; where nobody reads a shard, from the stream, how old the first record is that waits
//! there. So it answers when no relay runs, too. `look` asks, `view` and `problems` make of it what is to be known. How it is
//! laid out for people is left to `cli`.

mod look;
mod view;
mod problems;

pub(crate) use self::look::{Place, look};
#[cfg(test)]
pub(crate) use self::problems::Problem;
pub(crate) use self::problems::Standard;
pub(crate) use self::view::{HandlerShown, LeaseShown, MemberShown, Status};
