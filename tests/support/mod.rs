//! What tests over real processes share: nodes and clusters, an HTTP client, the command line, a
//! peer that misbehaves, and waiting.
//!
//! All of it uses the product from outside. The tests state the promises.

pub mod client;
pub mod cluster;
pub mod command;
pub mod faults;
pub mod impostor;
pub mod linear;
pub mod netns;
pub mod node;
pub mod peer;
pub mod power;
pub mod preload;
pub mod proxy;
pub mod raw;
pub mod relay;
pub mod skew;
pub mod wait;

pub use client::{Answer, Client};
pub use cluster::{Cluster, Site};
pub use node::Node;
pub use wait::{SOON, ensure, eventually, scale};
