"""Searching the parameters of a policy and of a controller in simulation, and an honest test of what was found."""
