//! The guides, as pages: the same texts as in `docs/guide` of the repository.
