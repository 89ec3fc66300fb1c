"""``simroute live``: a scenario's requests, sent in real time to real servers or emulated ones."""
