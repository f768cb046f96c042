//! The Redis engine on a cluster of three masters against the executable specification.

mod support;

use support::fresh_on_cluster;

windlass_conformance::conformance!(fresh_on_cluster);
