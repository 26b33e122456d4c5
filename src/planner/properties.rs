//! The promises of the planner, over generated projects and arbitrary observed states.
