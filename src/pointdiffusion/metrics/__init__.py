"""Arrays in, numbers out: distances, tests, and evaluation beside fresh data."""
