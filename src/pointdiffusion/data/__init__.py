"""Data: named point sets and tables."""
