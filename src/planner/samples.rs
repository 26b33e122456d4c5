//! Generated projects and states for the property tests.
