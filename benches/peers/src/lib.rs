//! The same work through clusdb and through other embedded stores, in turn within one run.
//!
//! A store takes part by implementing [`peer::Peer`]; `peers/` has one file for each, which says how it is set up and
//! why. `raw/` has what a machine can do at best, written by hand. `workloads/` has what is measured, and `report/`
//! writes it down.

pub mod arguments;
pub mod child;
pub mod codec;
pub mod figures;
pub mod inputs;
pub mod machine;
pub mod number;
pub mod peer;
pub mod peers;
pub mod process;
pub mod raw;
pub mod report;
pub mod watchdog;
pub mod work;
pub mod workloads;
