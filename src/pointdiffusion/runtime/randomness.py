"""Random streams as a function of a seed and of counters.

A stream belongs to what it is for (training step 17 of seed 3, chunk 2 of the samples of seed 3), not to how far some
global generator has run. So a resumed run draws what the uninterrupted one would have drawn, and the first hundred
samples are the same whether a hundred or a million are asked for. All streams are drawn on the CPU: a seed means the
same on every device.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator

import torch

CHUNK = 1024
"""Rows of one chunk of samples; chunks are always computed whole, so that a row never depends on how many there are."""

TRAINING, VALIDATION, SAMPLING, INITIALISATION, GRIDS, LIKELIHOOD, BOUND, IMPUTATION, DIAGNOSIS, SELECTION = range(10)
LAYERS = 10
"""What a stream is for, the first counter."""


def generator_for(seed: int, *counters: int) -> torch.Generator:
    """Return the generator of the stream (seed, counters).

    Args:
        seed: A non-negative integer of at most 64 bits.
        counters: Integers that name what the stream is for; each tuple gives an independent stream.

    Returns:
        A generator on the CPU.

    Raises:
        ValueError: If the seed is negative or does not fit 64 bits.
        TypeError: If the seed or a counter is no integer.

    Examples:
        >>> a, b = (torch.rand(3, generator=generator_for(0, 7)) for _ in range(2))
        >>> torch.equal(a, b)
        True
    """
    stream = tuple(map(operator.index, (seed, *counters)))  # NumPy's integers are the same stream as Python's
    if not 0 <= stream[0] < 2**64:
        raise ValueError(f"the seed must lie in 0..2**64 - 1, got {seed}")
    digest = hashlib.blake2b(repr(stream).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def chunks(num_samples: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Divide samples into chunks.

    Args:
        num_samples: Number of rows.
        size: Rows of a chunk.

    Yields:
        Index of the chunk, and how many of its rows are used: `size` of all but the last.

    Examples:
        >>> list(chunks(2500))
        [(0, 1024), (1, 1024), (2, 452)]
    """
    for index in range(-(-num_samples // size)):
        yield index, min(size, num_samples - index * size)
