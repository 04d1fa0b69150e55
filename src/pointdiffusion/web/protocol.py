"""What the page and the server say to each other over the WebSocket, as bytes and as checked requests.

Points travel as 16 bits a coordinate between the lowest and the highest value of each column:

    u8 kind (1), u8 version (1), u16 columns, u32 step, u32 count, u32 time, float32 lows, float32 highs, u16 values

and a model file as u8 kind (2), u8 version (1), u16 0, u32 step, and its bytes; all little-endian. The time is that of
the clock in milliseconds, modulo 2^32.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.web.export import quantised
from pointdiffusion.web.limits import LIMITS, Training, checked_training, is_number

POINTS, MODEL, VERSION = 1, 2, 1
HEAD = struct.Struct("<IB")
"""Before each message of a process that trains: its length, and what it is."""
TEXT, BINARY, KEPT = 0, 1, 2
"""A message for the page, a frame for the page, and the model that the server keeps until the page asks for it."""
LARGE = ("start", "walk")
"""What may be large, since it brings points."""
COMMANDS = ("start", "pause", "resume", "step", "stop", "save", "walk")
MOST_LISTS = 20_000
"""Opening brackets of a message: a start has eight, and up to 12,800 may stand in the names of its columns."""
MOST_VALUES = 2**18
"""Commas of a message: a start has one for each label."""


def points_frame(points: NDArray[Any], step: int) -> bytes:
    """Return points, shape `(N, D)`, as a frame; NaN is drawn at 0, what is infinite at the edge."""
    finite = np.nan_to_num(np.asarray(points, dtype=np.float64), nan=0.0, posinf=1e6, neginf=-1e6)
    low, high, values = quantised(finite)
    now = time.time_ns() // 10**6 % 2**32
    head = struct.pack("<BBHIII", POINTS, VERSION, finite.shape[1], step, len(finite), now)
    return head + np.array([low, high], dtype="<f4").tobytes() + values.astype("<u2").tobytes()


def model_frame(model: bytes, step: int) -> bytes:
    """Return a model file as a frame."""
    return struct.pack("<BBHI", MODEL, VERSION, 0, step) + model


@dataclass(frozen=True)
class Live:
    """Samples that are drawn while training: how many, in how many evaluations, from which noise."""

    count: int
    nfe: int
    seed: int


@dataclass(frozen=True)
class Start:
    """A training that the page asks for.

    Args:
        points: In the page's units, shape `(N, D)`, float32.
        labels: Class of each point, or None.
        columns: Names.
        mean: Of the user's units, shape `(D,)`: these are `mean + scale * points`.
        scale: Of the user's units, shape `(D,)`.
        training: What is trained.
        live: Samples on the way.
        seed: Seed of training.
    """

    points: NDArray[np.float32]
    labels: list[int] | None
    columns: list[str]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    training: Training
    live: Live
    seed: int


def parse(text: str) -> dict[str, Any]:
    """Return a message as a mapping with a known `type`.

    What it would be made into is counted first: a list is a character of the text and 56 bytes of memory, and the
    garbage collector looks through all of them while everybody waits.

    Raises:
        ValueError: If it is none, or holds more than any message needs.
    """
    if text.count("[") + text.count("{") > MOST_LISTS or text.count(",") > MOST_VALUES:
        raise ValueError("the message holds more lists or values than any message needs")
    try:
        message = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError("the message is not JSON") from error
    if not isinstance(message, dict) or message.get("type") not in COMMANDS:
        raise ValueError(f"a message must have a type, one of {', '.join(COMMANDS)}")
    if len(text) > LIMITS["command_bytes"] and message["type"] not in LARGE:
        raise ValueError(f"a message of type {message['type']} has at most {LIMITS['command_bytes']:,} characters")
    return message


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def to_json(message: Mapping[str, Any]) -> str:
    """Return a message as JSON, with null for a number that is not finite, which JSON has no word for."""
    try:
        return json.dumps(message, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(message), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def start_of(message: Mapping[str, Any]) -> Start:
    """Return what a message of type `start` asks for.

    Raises:
        ValueError: If something in it is missing, of the wrong type or out of range.
    """
    data, settings, live = (_mapping(message, name) for name in ("data", "settings", "live"))
    n_dims = whole_of(data, "dims", 1, LIMITS["columns"])
    points = points_of(data.get("points"), n_dims)
    mean, scale = numbers_of(data, "mean", n_dims, 0.0), numbers_of(data, "scale", n_dims, 1.0)
    if not (scale > 0).all():
        raise ValueError("every scale must be positive")
    columns = data.get("columns") or [f"x{place + 1}" for place in range(n_dims)]
    if not isinstance(columns, list) or len(columns) != n_dims or not all(isinstance(name, str) for name in columns):
        raise ValueError(f"columns must be {n_dims} names")
    if len(set(columns)) < n_dims or max(map(len, columns)) > 200:
        raise ValueError("columns must have names of their own, of at most 200 letters")
    if any("\ud800" <= letter <= "\udfff" for name in columns for letter in name):
        raise ValueError("the name of a column holds half a letter (a lone surrogate); rename the column")
    return Start(
        points, _labels(data.get("labels"), len(points)), columns, mean, scale, checked_training(settings),
        Live(whole_of(live, "count", 1, LIMITS["live_points"], 500), whole_of(live, "nfe", 1, 50, 10),
             whole_of(live, "seed", 0, 2**32 - 1, 0)),
        whole_of(message, "seed", 0, 2**32 - 1, 0),
    )  # fmt: skip


def _mapping(message: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = message.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a mapping of names to values")
    return value


def whole_of(message: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    """Return a whole number of a message.

    Raises:
        ValueError: If it is none, or out of range.
    """
    value = message.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}")
    return value


def numbers_of(message: Mapping[str, Any], name: str, count: int, default: float) -> NDArray[np.float64]:
    """Return as many finite numbers of a message, shape `(count,)`.

    Raises:
        ValueError: If they are not that.
    """
    values = message.get(name, [default] * count)
    if not isinstance(values, list) or len(values) != count or not all(map(is_number, values)):
        raise ValueError(f"{name} must be {count} finite numbers")
    return np.array(values, dtype=np.float64)


def points_of(text: Any, n_dims: int, least: int = 2) -> NDArray[np.float32]:
    """Return the points of a message, shape `(N, D)`.

    Raises:
        ValueError: If they are none, too few, too many, or beyond any use.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        points = np.frombuffer(raw, dtype="<f4").reshape(-1, n_dims).astype(np.float32)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"points must be rows of {n_dims} numbers, float32 in base64") from error
    if not least <= len(points) <= LIMITS["rows"]:
        raise ValueError(f"there must be from {least} to {LIMITS['rows']:,} points, and there are {len(points):,}")
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise ValueError("points must be finite, and not beyond a million")
    return points


def _labels(values: Any, count: int) -> list[int] | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"labels must be one class for each of {count} points")
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 100 for value in values):
        raise ValueError("labels must be whole numbers from 0 to 99")
    return values if len(set(values)) > 1 else None
