"""One thread a process, so that worker processes share the cores; fixtures that run the example."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch; subprocesses inherit it

pytest_plugins = ["example_fixtures"]
