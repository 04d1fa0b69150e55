"""The file of a model: what it must hold, and how it is read without trusting it.

`model.pt` is a zip archive as `torch.save` writes it, sealed by a hash of all its bytes (see `files`). It holds tensors
and plain values only, so reading it executes nothing; networks are made from the parts in `networks.NETWORKS` alone.
The hash notices damage. It is no signature: whoever writes a file can write its hash, so every part is checked for
what it is, and no memory is claimed that the file itself does not have: the pickle in it is looked through before it
is read, for calls that would make something large of a number, and plain values are counted.
"""

from __future__ import annotations

import collections
import copy
import io
import itertools
import json
import os
import pickle
import pickletools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from pointdiffusion.config import require, unknown_name
from pointdiffusion.networks import build, has_own_parts_only, unregistered_parts
from pointdiffusion.runtime.files import read_sealed, seal, write_atomic
from pointdiffusion.sampling.plans import CANDIDATES
from pointdiffusion.version import __version__, is_newer

Backbone = nn.Module | Callable[[Mapping[str, Any]], nn.Module]
"""A network, or a function that makes one from the metadata of a model."""

FORMAT = 1

_KINDS: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "version": (str,),
    "architecture": (dict, type(None)),
    "backbone": (str,),
    "sigma_data": (float,),
    "weights": (dict,),
    "raw_weights": (dict,),
    "mean": (Tensor,),
    "scale": (Tensor,),
    "covariance": (Tensor,),
    "columns": (list,),
    "inference": (dict,),
    "training": (dict, type(None)),
    "metadata": (dict,),
    "grids": (dict,),
    "grid_solvers": (dict,),
    "conditions": (dict, type(None)),
    "bases": (list,),
    "companion": (dict, type(None)),
    "companion_share": (float,),
}

_TENSORS = ("weights", "raw_weights", "mean", "scale", "covariance", "conditions", "bases", "companion")
"""Parts that hold tensors; all others hold plain values alone."""

_PLAIN = (str, int, float, bool, type(None), dict, collections.OrderedDict, list, tuple)
_MOST_VALUES = 1_000_000
_DEEPEST = 100
_LEVELS = (1e-6, 1e6)
"""Noise levels above 0, and the standard deviation of the data: beyond them single precision has no digits left."""

_CALLS = frozenset({
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict",
    *(f"torch {kind}Storage" for kind in (
        "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat",
        "ComplexDouble",
    )),
})  # fmt: skip
"""What a pickle of ours calls. Of what else `torch.load` lets through, some makes as much memory as it is told."""

_LATER: dict[str, Any] = {
    "grids": {}, "grid_solvers": {}, "conditions": None, "bases": [], "companion": None, "companion_share": 0.0,
}  # fmt: skip
"""Parts that files of before they existed do not have."""


def class_name(network: nn.Module) -> str:
    """Return the full name of the class of `network`."""
    return f"{type(network).__module__}.{type(network).__qualname__}"


def make_backbone(backbone: Backbone, metadata: Mapping[str, Any]) -> nn.Module:
    """Return the network itself, made from the metadata where a function was given.

    Raises:
        ValueError: If it is no network.
    """
    network = backbone(metadata) if callable(backbone) and not isinstance(backbone, nn.Module) else backbone
    if not isinstance(network, nn.Module):
        raise ValueError(f"backbone must be a torch.nn.Module or a function that makes one, got {network!r}")
    return network


@contextmanager
def about(name: str, version: str = "") -> Iterator[None]:
    """Turn whatever goes wrong with the contents of a file into one sentence that names the file.

    Args:
        name: What to call the file.
        version: Version of pointdiffusion that wrote it: a later one may hold what this one cannot know.
    """
    try:
        yield
    except (
        ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError, NotImplementedError,
        EOFError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300]
        if is_newer(version):
            raise ValueError(
                f"{name} was written by a newer version, pointdiffusion {version[:40]}, and this is {__version__}: "
                f"update pointdiffusion to read it ({reason})"
            ) from error
        raise ValueError(f"{name} is not a whole model of pointdiffusion, do not trust it: {reason}") from error


def check_pickle(archive: IO[bytes], also: Collection[str] = ()) -> None:
    """Raise a ValueError if the pickle of an archive calls what none of ours does; nothing of it is made for that.

    Args:
        archive: An archive as `torch.save` writes it.
        also: What it may call beside what puts tensors together, as `"module name"`.
    """
    content = torch._C.PyTorchFileReader(archive).get_record("data.pkl")
    archive.seek(0)
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            name = " ".join(str(argument).split())[:80]
            require(argument in _CALLS or argument in also, f"it calls {name}, as no file of ours does")


def _check_plain(name: str, value: Any, left: int = _MOST_VALUES, depth: int = 0, *, tensors: bool = False) -> int:
    """Raise a ValueError unless `value` is of plain values, not too many and not nested too deeply.

    What stands in several places counts in each of them, as it would in any text that shows it.

    Returns:
        How many more values there may be.
    """
    if tensors and type(value) in (Tensor, nn.Parameter):
        return left - 1
    require(type(value) in _PLAIN, f"{name} holds a {type(value).__name__}, which is no plain value")
    left -= 1
    if isinstance(value, str):
        left -= len(value) // 64
    require(left >= 0, f"{name} holds more values than any model needs")
    require(depth <= _DEEPEST, f"{name} is nested too deeply")
    if isinstance(value, dict):
        for key, each in value.items():
            left = _check_plain(name, key, left, depth + 1)
            left = _check_plain(name, each, left, depth + 1, tensors=tensors)
    elif isinstance(value, (list, tuple)):
        for each in value:
            left = _check_plain(name, each, left, depth + 1, tensors=tensors)
    return left


def _check_tensor(name: str, value: Any) -> None:
    """Raise a ValueError unless `value` is an ordinary tensor of real numbers that are all in the file."""
    plain = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and value.device.type == "cpu"
    require(plain and not value.is_complex(), f"{name} is no ordinary tensor")
    whole = value.is_contiguous() and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    require(whole, f"{name} holds fewer numbers than it claims")


def _check_weights(name: str, weights: dict[Any, Any]) -> None:
    for key, value in weights.items():
        require(isinstance(key, str), f"{name} holds {key!r} for a name")
        _check_tensor(f"{name} {key}", value)
    kinds = {value.dtype for value in weights.values() if value.is_floating_point()}
    require(len(kinds) <= 1, f"{name} are of different types")


def _check(payload: Any) -> None:
    """Raise a ValueError unless every part is there and of its kind."""
    for name, nothing in _LATER.items():
        payload.setdefault(name, copy.copy(nothing))
    for name, kinds in _KINDS.items():
        require(name in payload, f"{name} is missing")
        require(type(payload[name]) in kinds, f"{name} is of the wrong kind")
    for name in _KINDS:
        _check_plain(name, payload[name], tensors=name in _TENSORS)
    low, high = _LEVELS
    require(low <= payload["sigma_data"] <= high, f"sigma_data must lie between {low:g} and {high:g}")
    if payload["training"] is not None:
        payload["training"].pop("noise_range", None)  # of older files; what it said is in the two levels
    _check_weights("weights", payload["weights"])
    _check_weights("raw_weights", payload["raw_weights"])
    shapes = {name: value.shape for name, value in payload["weights"].items()}
    raw = {name: value.shape for name, value in payload["raw_weights"].items()}
    require(not raw or raw == shapes, "raw_weights are of other shapes than weights")
    columns, covariance = payload["columns"], payload["covariance"]
    require(all(isinstance(column, str) for column in columns), "columns are no texts")
    for name, dims in (("mean", 1), ("scale", 1), ("covariance", 2)):
        _check_tensor(name, payload[name])
        require(payload[name].shape == (len(columns),) * dims, f"{name} does not fit {len(columns)} columns")
        require(bool(payload[name].isfinite().all()), f"{name} is not finite")
    for nfe, levels in payload["grids"].items():
        require(type(nfe) is int and type(levels) is list and len(levels) == nfe + 1, "a grid is of the wrong length")
        require(all(type(level) is float for level in levels), "a grid is not of numbers")
        levels_are_usable = all(level == 0 or low <= level <= high for level in levels)
        require(levels_are_usable, f"the levels of a grid must lie between {low:g} and {high:g}")
        falling = all(low < high for high, low in itertools.pairwise(levels))
        require(falling and levels[-1] == 0, "a grid does not fall to 0")
    for nfe, name in payload["grid_solvers"].items():
        require(nfe in payload["grids"] and type(name) is str, "a solver is named for a grid that is not there")
        if name not in CANDIDATES:
            raise unknown_name("solver of a grid", name, CANDIDATES)
    for name in ("means", "covariances") if payload["conditions"] is not None else ():
        _check_tensor(f"conditions.{name}", payload["conditions"][name])
    for mixture in [*payload["bases"], payload["companion"]]:
        for part, value in ({} if mixture is None else mixture).items():
            _check_tensor(f"{part} of a mixture", value)
    variances = torch.linalg.eigvalsh(covariance.double())
    require(bool(torch.allclose(covariance, covariance.T)), "covariance is not symmetric")
    require(bool(variances.min() >= -1e-6 * variances.abs().max()), "covariance has a negative variance")


def _canonical(value: Any) -> Any:
    """Return plain values such that equal ones give equal bytes: pickle writes one text once if it is one object."""
    if type(value) is str:
        return sys.intern(value)
    if type(value) is dict:
        return {_canonical(key): _canonical(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_canonical, value))
    return value


def write_payload(path: str | os.PathLike[str], payload: dict[str, Any]) -> None:
    """Write the parts of a model to a file, whole or not at all.

    Raises:
        ValueError: If the metadata hold more than plain values.
        OSError: If the disk is full or the folder cannot be written.
    """
    try:
        _check_plain("metadata", payload["metadata"])
        json.dumps(payload["metadata"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata must be numbers, texts, lists and dictionaries: {error}") from error
    archive = io.BytesIO()
    torch.save(_canonical({"format": FORMAT, **payload}), archive)
    write_atomic(path, seal(archive.getvalue()))


def read_payload(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the parts of a model, each checked for what it is.

    Raises:
        ValueError: If the file is missing, damaged, foreign, hostile, or of another version of the format.
    """
    archive = read_sealed(path)
    name = str(Path(path))
    with about(name):
        check_pickle(archive)
        try:
            payload = torch.load(archive, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # its own message advises to switch the protection off
            raise ValueError("it holds more than tensors and plain values") from error
        require(isinstance(payload, dict), "it holds something else")
    version = payload.get("version")
    version = version if isinstance(version, str) else ""
    found = payload.get("format")
    if type(found) is int and found > FORMAT:
        writer = f"version {version[:40]}" if is_newer(version) else "a newer version"
        raise ValueError(
            f"{name} was written by {writer} of pointdiffusion in format {found}, and this version, {__version__}, "
            f"reads format {FORMAT}: update pointdiffusion to read it"
        )
    with about(name, version):
        require(found == FORMAT, f"its format is {found!r:.40}, and there is none before {FORMAT}")
        _check(payload)
    return dict(payload)


def network_of(payload: dict[str, Any], backbone: Backbone | None, name: str) -> nn.Module:
    """Return the network of a file with its averaged weights.

    Raises:
        ValueError: If it is not made of parts in `NETWORKS` and no `backbone` is given, or does not fit the weights.
    """
    specification, version, missing = payload["architecture"], payload["version"], []
    if specification is not None:
        with about(name, version):
            missing = unregistered_parts(specification)
    if specification is not None and not missing:
        with about(name, version), torch.device("meta"):  # no memory before sizes are compared with the weights
            network: nn.Module = build(specification)
    elif backbone is not None:
        network = make_backbone(backbone, payload["metadata"])
    elif missing:
        update = f"update pointdiffusion, the file is of version {version[:40]}, " if is_newer(version) else ""
        raise ValueError(
            f"{name} holds a network with the part {missing[0]!r:.60}, which is not in pointdiffusion.NETWORKS; "
            f"{update}put its class there under that name before loading, or pass one as load(path, backbone=...)"
        )
    else:
        raise ValueError(
            f"{name} holds a network of the class {payload['backbone']}, which is not part of pointdiffusion; "
            "pass one as load(path, backbone=...)"
        )
    own = {key: (value.shape, value.is_floating_point()) for key, value in network.state_dict().items()}
    theirs = {key: (value.shape, value.is_floating_point()) for key, value in payload["weights"].items()}
    differing = sorted(key for key in own.keys() | theirs.keys() if own.get(key) != theirs.get(key))
    if differing:
        raise ValueError(
            f"the network {class_name(network)} does not fit the weights in {name}, which belong to a "
            f"{payload['backbone']}: {', '.join(differing[:3])}{' and more' if len(differing) > 3 else ''} differ"
        )
    if specification is not None and not missing and not has_own_parts_only(network):
        with torch.random.fork_rng(devices=[]):  # a user's part may hold numbers besides weights, which meta has not
            network = build(specification)
    network.load_state_dict(payload["weights"], assign=True)
    return network
