//! What is counted, by whom: plain integers where the event happens, merged once a tick.
//!
//! On the way in: a reactor's [`Ledger`] writes a [`Report`]; [`Totals`] adds reports up, and the
//! [`Registry`] keeps a row for each open connection. On the way out: [`Figures`] are all of it at one
//! moment, which `exposition` writes as text and [`Alerts`] look at; [`Daily`] keeps the figures of days,
//! and `original` answers as the system before did.

pub mod alert;
pub mod backend;
pub mod calendar;
pub mod counters;
pub mod daily;
pub mod exposition;
pub mod figures;
pub mod histogram;
pub mod hook;
pub mod interner;
pub mod names;
pub mod original;
pub mod registry;
pub mod report;
pub mod totals;

pub use alert::Alerts;
pub use backend::{ApiCounts, ApiMethod, ApiResult};
pub use counters::Counters;
pub use daily::Daily;
pub use figures::Figures;
pub use histogram::{Histogram, Histograms, Measure};
pub use hook::HookFigures;
pub use names::{Metric, metrics_markdown};
pub use registry::Registry;
pub use report::{Ledger, Report};
pub use totals::Totals;
