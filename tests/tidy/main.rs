//! The house rules that a compiler does not check: what stands in `src/lib.rs`, `deny.toml` and the
//! documents is read from there, so that a rule stands in one place.
//!
//! ```text
//! layers        imports point down
//! circles       files use each other in one direction
//! borders       what only some places may do or name
//! shape         what each file has to be
//! dependencies  which crates, and under which licences
//! metrics       each family of metrics is driven by a test
//! promises      what the documents promise stands beside the tests that hold it
//! unused        what only `pub` keeps the compiler from finding
//! ```

mod borders;
mod circles;
mod dependencies;
mod layers;
mod metrics;
mod paths;
mod promises;
mod shape;
mod sources;
mod unused;
