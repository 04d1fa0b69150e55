"""Which rows of a table are held out from training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 10_000
"""Largest number of held-out rows: what is measured on them is exact enough."""


def split_rows(
    num_rows: int, share: float, *, seed: int, labels: NDArray[Any] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows at random into training and held-out rows, stratified by class where there are classes.

    Args:
        num_rows: Number of rows N.
        share: Share of the rows that is held out, in [0, 1); at most `LARGEST` rows are.
        seed: Seed of the split.
        labels: Class of each row, shape `(N,)`; the same share of each class is held out, rounded down.

    Returns:
        Indices of the training rows and of the held-out rows, both increasing.

    Raises:
        ValueError: If the share is not in [0, 1).

    Examples:
        >>> training, held_out = split_rows(10, 0.2, seed=0)
        >>> len(training), len(held_out)
        (8, 2)
        >>> sorted([*training.tolist(), *held_out.tolist()]) == list(range(10))
        True
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of held-out rows must lie in [0, 1), got {share}")
    share = min(share, LARGEST / max(num_rows, 1))
    order = np.random.default_rng([seed, num_rows]).permutation(num_rows)
    classes = np.zeros(num_rows, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    held_out = np.zeros(num_rows, dtype=bool)
    for each in range(int(classes.max(initial=-1)) + 1):
        members = order[classes[order] == each]
        held_out[members[: int(share * len(members))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
