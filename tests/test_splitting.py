"""Which rows are kept from training."""

from __future__ import annotations

import numpy as np
import pytest

from pointdiffusion.tabular.splitting import LARGEST, split_rows


def test_every_row_is_on_one_side() -> None:
    """And the same seed gives the same sides, another one others."""
    training, kept = split_rows(103, 0.2, seed=0)
    assert sorted([*training, *kept]) == list(range(103))
    assert len(kept) == 20
    assert (np.diff(training) > 0).all()
    assert (np.diff(kept) > 0).all()
    assert kept.tolist() == split_rows(103, 0.2, seed=0)[1].tolist() != split_rows(103, 0.2, seed=1)[1].tolist()


def test_each_class_gives_its_share() -> None:
    """Rounded down, so that a class of few rows keeps them for training."""
    labels = np.array(["a"] * 50 + ["b"] * 9 + ["c"] * 4, dtype=object)
    _, kept = split_rows(63, 0.2, seed=3, labels=labels)
    assert {name: int((labels[kept] == name).sum()) for name in "abc"} == {"a": 10, "b": 1, "c": 0}


def test_rows_are_kept_evenly() -> None:
    """Each row is kept as often as another: 0.2 of 1000 times, with a standard error of 0.013."""
    shares = np.bincount(np.concatenate([split_rows(20, 0.2, seed=s)[1] for s in range(1000)]), minlength=20) / 1000
    assert np.abs(shares - 0.2).max() < 0.055


def test_large_tables_keep_a_bounded_number() -> None:
    assert len(split_rows(200_000, 0.2, seed=0)[1]) == LARGEST


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_other_shares_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        split_rows(10, share, seed=0)
