"""Arrays in, numbers out: distances, two-sample tests, and evaluation beside fresh data."""
