"""Random streams: repeatable, independent, and a function of their counters alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointdiffusion.runtime.randomness import (
    CHUNK,
    INITIALISATION,
    SAMPLING,
    TRAINING,
    VALIDATION,
    chunks,
    generator_for,
)

STREAMS = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 2, 3), (12, 3), (1, 23), (123,)]


def _draw(*stream: int, n: int = 4000) -> torch.Tensor:
    return torch.randn(n, generator=generator_for(*stream), dtype=torch.float64)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_repeats(stream: tuple[int, ...]) -> None:
    """The same seed and counters give the same numbers, whatever was drawn in between."""
    first = _draw(*stream)
    torch.rand(17)
    _draw(*stream, 99)
    assert torch.equal(_draw(*stream), first)


def test_streams_are_independent() -> None:
    """No two streams are correlated, neither seeds nor counters next to each other, nor ones that read alike."""
    draws = torch.stack([_draw(*stream) for stream in STREAMS])
    correlation = torch.corrcoef(draws) - torch.eye(len(STREAMS), dtype=torch.float64)
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(4000)  # four and a half standard deviations of 66 pairs


def test_neighbouring_streams_look_like_one_long_one() -> None:
    """The first number of many streams is as normal as many numbers of one stream."""
    firsts = torch.tensor([float(_draw(0, TRAINING, step, n=1)) for step in range(2000)], dtype=torch.float64)
    uniform = ((1 + torch.erf(firsts / math.sqrt(2))) / 2).sort().values
    statistic = float((uniform - (torch.arange(2000) + 0.5) / 2000).abs().max()) * math.sqrt(2000)
    assert statistic < 1.95  # Kolmogorov's limit at p = 0.001; nothing here is random


def test_purposes_are_different_streams() -> None:
    """Training, validation, sampling and initialisation never share their numbers."""
    purposes = (TRAINING, VALIDATION, SAMPLING, INITIALISATION)
    assert len(set(purposes)) == 4
    for a, b in itertools.combinations(purposes, 2):
        assert not torch.equal(_draw(3, a), _draw(3, b))


def test_the_global_generator_is_left_alone() -> None:
    """Making and using a stream neither reads nor moves the global generator."""
    before = torch.get_rng_state()
    first = _draw(5, 6)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert torch.equal(_draw(5, 6), first)


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**64, 10**30])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    """A seed is an integer of 64 bits that is not negative."""
    with pytest.raises(ValueError, match="seed"):
        generator_for(seed)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_the_whole_range_of_seeds_works(seed: int) -> None:
    """The ends of the range are seeds like any other."""
    assert torch.isfinite(_draw(seed, 1, n=10)).all()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint64])
def test_a_seed_is_a_number_whatever_its_type(kind: type) -> None:
    """A seed that comes out of an array is the same seed, and so is a counter."""
    assert generator_for(kind(3), 1).initial_seed() == generator_for(3, 1).initial_seed()
    assert generator_for(3, kind(1)).initial_seed() == generator_for(3, 1).initial_seed()


@settings(deadline=None, max_examples=200, database=None, derandomize=True)
@given(st.integers(1, 10_000), st.integers(1, 3000))
def test_chunks_cover_every_row_once(num_samples: int, size: int) -> None:
    """Chunks are numbered from 0, all whole but the last, and together just what was asked for."""
    pieces = list(chunks(num_samples, size))
    assert [index for index, _ in pieces] == list(range(len(pieces)))
    assert all(rows == size for _, rows in pieces[:-1])
    assert 0 < pieces[-1][1] <= size
    assert sum(rows for _, rows in pieces) == num_samples


def test_chunks_by_hand() -> None:
    """2500 rows are two whole chunks and 452 rows of a third; no rows are no chunk."""
    assert list(chunks(2500)) == [(0, CHUNK), (1, CHUNK), (2, 2500 - 2 * CHUNK)]
    assert list(chunks(0)) == []
