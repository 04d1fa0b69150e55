"""The published packages that we measure ourselves against, in their own code.

`tools/dev.py test` installs them, most without their dependencies: their samplers need none of those (image models,
experiment trackers, several gigabytes). What they import beyond PyTorch is put in as empty modules while they are
imported, and taken out again.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest.mock import MagicMock


class _Anything(types.ModuleType):
    """A module that holds whatever is asked for."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=f"{self.__name__}.{name}")


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Stand in for packages that are not installed, for as long as the block runs."""
    missing = [name for name in names if name.split(".")[0] not in sys.modules and not _installed(name)]
    for name in missing:
        sys.modules[name] = _Anything(name)
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name.split(".", maxsplit=1)[0]) is not None


def _bare_package(name: str) -> None:
    """Register a package without running its `__init__`, which imports all of it."""
    if name not in sys.modules:
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is None:
            raise ImportError(f"{name} is not installed; run python tools/dev.py test once, which installs it")
        package = types.ModuleType(name)
        package.__path__ = list(spec.submodule_search_locations or [])
        sys.modules[name] = package


def k_diffusion_sampling() -> types.ModuleType:
    """Return the module `k_diffusion.sampling`."""
    _bare_package("k_diffusion")
    with _absent("torchvision", "torchvision.transforms"):
        return importlib.import_module("k_diffusion.sampling")


def smalldiffusion_diffusion() -> types.ModuleType:
    """Return the module `smalldiffusion.diffusion`, which holds its sampler."""
    _bare_package("smalldiffusion")
    with _absent("accelerate"):
        return importlib.import_module("smalldiffusion.diffusion")


def version(package: str) -> str:
    """Return the installed version of a package."""
    return importlib.metadata.version(package)
