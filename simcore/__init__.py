"""The simulated world: workload, servers, engine, metrics and reports."""
