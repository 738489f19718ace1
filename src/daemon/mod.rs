//! The processes: keeper, runner, proxy; who starts, watches and stops whom. The only place that wires components.
