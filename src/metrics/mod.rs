//! What is counted, by whom: plain integers where the event happens, merged once a tick.

pub mod counters;

pub use counters::Counters;
