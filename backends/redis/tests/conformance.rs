//! The Redis engine against the executable specification.

mod support;

use support::fresh;

windlass_conformance::conformance!(fresh);
