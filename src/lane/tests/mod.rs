//! The lanes held to the contract (design section 2), by hand: pages, answers and time are given in, effects are
//! looked at.
//!
//! [`rig`] drives one handler's lanes over tables in memory; everything that passes through it is held to clauses 1,
//! 3, 4 and 5 by [`contract`], in every test. The rest is one file a concern.

mod rig;
mod held;
mod spec;
mod contract;
mod marking;
mod marks;
mod operator;
mod order;
mod bases;
mod holes;
mod rows;
mod filters;
mod answers;
mod outages;
mod isolation;
mod positions;
mod checkpoints;
mod draining;
mod closing;
mod task;
mod taken;
mod parting;
mod fading;
mod purge;
mod random;
mod pair;
mod replicas;
mod rewind;
