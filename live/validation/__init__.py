"""``simroute validate``: the same runs on servers and simulated, and how far the one is from the other."""
