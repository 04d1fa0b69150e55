"""Columns and files: schema, standardisation, reading, writing, splitting."""
