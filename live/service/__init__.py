"""``simroute serve``: the router as a streaming reverse proxy."""
