//! The behaviour of the relay as its users meet it, one module each.

mod cli;
