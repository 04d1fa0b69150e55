"""Which rows of a table are kept from training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 10_000
"""More rows than this are not kept from training: what is measured on them is exact enough."""


def split_rows(
    num_rows: int, share: float, *, seed: int, labels: NDArray[Any] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows at random, class by class where there are classes.

    Args:
        num_rows: Number of rows N.
        share: Share that is kept from training; at most `LARGEST` rows are.
        seed: Seed of the choice.
        labels: Class of each row, shape `(N,)`; of each class the same share is kept, rounded down.

    Returns:
        Places of the rows to train on and of those kept, both rising.

    Raises:
        ValueError: If the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of rows that is kept from training must lie in [0, 1), got {share}")
    share = min(share, LARGEST / max(num_rows, 1))
    order = np.random.default_rng([seed, num_rows]).permutation(num_rows)
    classes = np.zeros(num_rows, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    kept = np.zeros(num_rows, dtype=bool)
    for each in range(int(classes.max(initial=-1)) + 1):
        members = order[classes[order] == each]
        kept[members[: int(share * len(members))]] = True
    return np.flatnonzero(~kept), np.flatnonzero(kept)
