//! The home of mio, of sockets, of threads and of the clock: everything above it is told what happens.

mod accept;
mod channels;
mod drain;
mod endings;
mod entry;
pub mod listener;
pub mod mailbox;
pub mod newcomers;
mod reports;
pub mod slots;
mod slow;
pub mod transport;
pub mod worker;

pub use worker::{Mail, Reactor};
