//! Screens and keys of `top` against a fake cluster.
