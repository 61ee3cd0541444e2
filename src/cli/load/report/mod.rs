//! The result: `report` in `load/mod.rs` computes a summary, and these show it.

pub(crate) mod chart;
pub(crate) mod json;
pub(crate) mod summary;
pub(crate) mod text;
