"""Events in, rows out: the projection of the topics that HTTP clients and analysts read."""
