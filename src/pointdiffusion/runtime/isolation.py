"""Global state of a process that training changes for a while.

Networks, and layers such as dropout, draw from PyTorch's global generator; Lightning prints through global loggers and
warnings filters; the number of threads is one for the process. None of that can belong to a thread, so those who need
it take turns, and leave all of it as it was.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")

TURN = threading.RLock()
"""Held by whoever changes global state: one thread at a time, which may take it again."""


def one_at_a_time(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function so that calls from several threads wait for each other.

    Args:
        function: The function.

    Returns:
        The function under the lock `TURN`.
    """

    @functools.wraps(function)
    def call(*arguments: _P.args, **settings: _P.kwargs) -> _R:
        with TURN:
            return function(*arguments, **settings)

    return call


@contextmanager
def ignored_warnings(category: type[Warning], message: str = "") -> Iterator[None]:
    """Ignore warnings; filters are global, so two threads could restore them in the wrong order.

    Args:
        category: Class of the warnings.
        message: Regular expression that the beginning of their text matches.

    Yields:
        Nothing; warnings are ignored within the block.
    """
    with TURN, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield


def seed_global(seed: int, device: str) -> None:
    """Seed the global generators that a network on a device draws from, and no others.

    Args:
        seed: The seed.
        device: "cpu", "cuda" or "mps".
    """
    if device.startswith("cuda"):
        torch.manual_seed(seed)
    else:  # manual_seed would seed every device
        torch.default_generator.manual_seed(seed)


@contextmanager
def kept_generators(device: str) -> Iterator[None]:
    """Restore the global generators that a network on a device draws from at the end of the block.

    Args:
        device: "cpu", "cuda" or "mps".

    Yields:
        Nothing; generators may be seeded within the block.
    """
    devices = range(torch.cuda.device_count()) if device.startswith("cuda") else []
    with TURN, torch.random.fork_rng(devices=devices):
        yield
