//! The Postgres engine against the executable specification.

use crate::common::fresh;

windlass_conformance::conformance!(fresh);
windlass_conformance::transactional!(fresh);
