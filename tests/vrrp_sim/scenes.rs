//! Single faults, with what they may cost.
