"""The data of the example: change `NAME` and `make_swiss_roll_dataframe`, and everything else follows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch.utils.data import Dataset

import pointdiffusion as ptd

NAME = "a Swiss roll"
"""What the data are called in titles, in the log and, as `swiss-roll`, in `model.pt`."""


def make_swiss_roll_dataframe(
    n_samples: int,
    n_dims: int = 2,
    noise: float = 0.0,
    scaling_factor: float = 10.0,
    random_state: int | None = None,
) -> pd.DataFrame:
    """Return points of scikit-learn's Swiss roll as a frame with the columns x, y and, in three dimensions, z.

    Args:
        n_samples: Number of points.
        n_dims: 2 for the spiral that one sees from the side of the roll, 3 for the roll (y is then its height).
        noise: Standard deviation of Gaussian noise, in units before scaling.
        scaling_factor: What the coordinates are divided by.
        random_state: Seed; None draws other points each time.
    """
    roll = ptd.DATASETS["swiss-roll"]
    points = roll(n_samples, n_dims=n_dims, noise=noise, scaling_factor=scaling_factor, random_state=random_state)
    return pd.DataFrame(points, columns=["x", "y", "z"][:n_dims])


class SwissRollDataset(Dataset):
    """The points as a frame, as a PyTorch data set, and as the few settings from which they can be drawn again.

    Args:
        n_samples: Number of points.
        settings: The other arguments of `make_swiss_roll_dataframe`.
    """

    title = NAME
    name = NAME.removeprefix("a ").lower().replace(" ", "-")

    def __init__(self, n_samples: int, **settings: Any) -> None:
        self.settings = {"n_samples": n_samples, **settings}
        self.frame = make_swiss_roll_dataframe(n_samples, **settings)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.frame)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one point, shape `(D,)`."""
        return torch.tensor(self.frame.iloc[index].to_numpy(), dtype=torch.float32)
