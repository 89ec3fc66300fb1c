"""The requests of a run that was, under other policies, caps or fleets."""
