"""From a real server, or published measurements, to a ServiceProfile."""
