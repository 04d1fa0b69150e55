"""What every room may use: files written whole or not at all, random streams, progress."""
