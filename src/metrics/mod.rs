//! What is counted, by whom: plain integers where the event happens, merged once a tick.
//!
//! On the way in: a reactor's [`Ledger`] writes a [`Report`]; [`Totals`] adds reports up, and the
//! [`Registry`] keeps a row for each open connection.

pub mod counters;
pub mod histogram;
pub mod interner;
pub mod registry;
pub mod report;

pub use counters::Counters;
pub use histogram::{Histogram, Histograms, Measure};
pub use registry::Registry;
pub use report::{Ledger, Report};
