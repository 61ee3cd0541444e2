//! Who cannot go, and what becomes of them.
