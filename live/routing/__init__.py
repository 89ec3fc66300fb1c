"""The router in the real world: its driver, its servers' health, and the log that proves what it decided."""
