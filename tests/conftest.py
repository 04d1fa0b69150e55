"""One thread a process, so that worker processes share the cores; fixtures that run the example."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch; subprocesses inherit it

pytest_plugins = ["example_fixtures"]

BROWSER = ("test_play", "test_play_page", "test_playground")
"""Files whose tests open the page in a real browser."""

PROCESSES = (
    "test_cli", "test_ddp", "test_documents", "test_example", "test_faults", "test_gallery", "test_resume",
    "test_selection", "test_server", "test_web",
)  # fmt: skip
"""Files whose tests start processes, or whole trainings: not for the inner loop."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their file, so that `make fast` can leave them out."""
    for item in items:
        name = Path(item.path).stem
        if name in BROWSER:
            item.add_marker(pytest.mark.browser)
        if name in PROCESSES:
            item.add_marker(pytest.mark.processes)
