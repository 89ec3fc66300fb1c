"""Several runs in one call: what is checked first, how they run side by side, what counts as failed."""
