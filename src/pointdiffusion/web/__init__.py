"""The page in the browser: what it knows of the library, and runs written into it."""
