//! The kinds of load. Each takes its options and returns its result as JSON.

pub(crate) mod connect;
pub(crate) mod echo;
pub(crate) mod fanout;
pub(crate) mod hold;
pub(crate) mod probe;
pub(crate) mod storm;
