//! The world of simulators: environments with Gymnasium's semantics, copies of them stepped together, and a bridge to
//! environments written in Python. Floor 2: may import `polo-nn` and `polo-run`. Methods live above.

pub mod bridge;
pub mod classic;
pub mod collect;
pub mod dataset;
pub mod dynamics;
pub mod environment;
pub mod film;
#[cfg(feature = "hdf5")]
mod hdf5;
#[cfg(feature = "mujoco")]
pub mod mujoco;
pub mod random;
pub mod replay;
pub mod scores;
pub mod space;
pub mod vector;
mod ziggurat;

pub use bridge::{Bridge, BridgeOptions};
pub use dynamics::{Dynamics, Simulated};
pub use environment::{Environment, Step, TimeLimit, make, make_with};
pub use random::NumpyRandom;
pub use space::{Action, Space};
pub use vector::{Autoreset, VectorEnvironment, VectorStep};
