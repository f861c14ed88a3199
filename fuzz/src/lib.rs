//! What the fuzzers do with their bytes: each target is a function that panics when a law does not hold, so that the
//! corpora can be replayed without a fuzzer (`tests/corpora.rs`).

pub mod targets;

mod batches;
mod plans;
mod stores;

// The simulated environment of the tests, and the model that it is judged by.
#[allow(dead_code)]
#[path = "../../tests/support/harness.rs"]
mod harness;
#[allow(dead_code)]
#[path = "../../tests/support/naive.rs"]
mod naive;
#[allow(dead_code)]
#[path = "../../tests/support/sim.rs"]
mod sim;
#[allow(dead_code)]
#[path = "../../tests/support/steps.rs"]
mod steps;
#[allow(dead_code)]
#[path = "../../tests/support/workload.rs"]
mod workload;
#[allow(dead_code)]
#[path = "../../tests/support/world.rs"]
mod world;

// The readers of the command line, as they are.
#[allow(dead_code)]
#[path = "../../src/cli/args.rs"]
mod args;
#[allow(dead_code)]
#[path = "../../src/cli/failure.rs"]
mod failure;
#[allow(dead_code)]
#[path = "../../src/cli/json.rs"]
mod json;
#[allow(dead_code)]
#[path = "../../src/cli/output.rs"]
mod output;
#[allow(dead_code)]
#[path = "../../src/cli/reg/mod.rs"]
mod reg;

pub use stores::{Patch, backup, encode_patches, fields, killed, trimmed};
