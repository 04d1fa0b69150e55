r"""What a model may be told about a point: its class, values that it comes with, or some of its own coordinates.

Points and values together are taken for a Gaussian, class by class, where only a Gaussian is needed: at the far end of
the flow. There what is known moves the mean and shrinks the covariance,

.. math:: \mu + C_{xz} C_{zz}^{-1} (z - \mu_z), \qquad C_{xx} - C_{xz} C_{zz}^{-1} C_{zx} ,

over the values z that are known. Unknown are a class of -1 and a value of NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.tabular.labels import as_labels, in_order
from pointdiffusion.tabular.points import as_points, column_names
from pointdiffusion.tabular.standardiser import Standardiser

Known = dict[str, Tensor]
"""Conditions as denoisers take them: `labels` of shape `(B,)`, `context` of shape `(B, C)`."""


@dataclass(frozen=True)
class Conditions:
    """The conditions that a model was trained for, and the moments of its data under them.

    Args:
        means: Mean of points and values together, over all rows and then class by class, shape `(K + 1, D + C)`, in
            standard units.
        covariances: Their covariances, shape `(K + 1, D + C, D + C)`.
        classes: The classes, as the user names them.
        shares: Share of each class among the training rows.
        context_names: Names of the columns of values.
        context_scale: Standardisation of these columns.
        masked: Whether the model can be told some of a row's own coordinates.
    """

    means: Tensor
    covariances: Tensor
    classes: list[Any] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    context_names: list[str] = field(default_factory=list)
    context_scale: Standardiser | None = None
    masked: bool = False

    @property
    def num_context(self) -> int:
        """Number of values that come with a point, its own coordinates not counted."""
        return len(self.context_names)

    @property
    def n_dims(self) -> int:
        """Number of dimensions D."""
        return self.means.shape[1] - self.num_context

    @property
    def num_inputs(self) -> int:
        """Number of values that the network is told: those that come with a point, then its own coordinates."""
        return self.num_context + (self.n_dims if self.masked else 0)

    @classmethod
    def fit(cls, points: Tensor, labels: Any = None, context: Any = None, *, masked: bool = False) -> Conditions:
        """Find classes and moments.

        Args:
            points: Points in standard units, shape `(N, D)`.
            labels: Class of each row: numbers or texts, shape `(N,)`.
            context: Values of each row, shape `(N, C)`.
            masked: Whether rows are trained with some of their own coordinates shown.

        Raises:
            ValueError: If the numbers of rows differ, or a class has but one row.
        """
        joint, names, scale = points.double(), [], None
        if context is not None:
            scale = Standardiser.fit(context)
            values = torch.from_numpy(scale.transform(context))
            _check_rows("context", len(values), len(points))
            names = column_names(context, values.shape[1])
            joint = torch.cat([joint, values], dim=1)
        groups, classes, shares = [joint], [], []
        if labels is not None:
            found = as_labels(labels)
            _check_rows("labels", len(found), len(points))
            classes = in_order(found)
            for value in classes:
                inside = torch.tensor([each == value for each in found])
                if int(inside.sum()) < 2:
                    raise ValueError(f"the class {value!r} has but one row; give it more, or leave it out")
                groups.append(joint[inside])
                shares.append(float(inside.double().mean()))
        means = torch.stack([group.mean(dim=0) for group in groups])
        covariances = torch.stack([torch.atleast_2d(torch.cov(group.T)) for group in groups])
        return cls(means, covariances, classes, shares, names, scale, masked)

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as tensors and plain values, for a file."""
        scale = self.context_scale
        return {
            "means": self.means,
            "covariances": self.covariances,
            "classes": self.classes,
            "shares": self.shares,
            "context_names": self.context_names,
            "context_mean": None if scale is None else torch.from_numpy(scale.mean),
            "context_scale": None if scale is None else torch.from_numpy(scale.scale),
            "masked": self.masked,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Conditions:
        """Make the conditions of what `to_plain` returned.

        Raises:
            ValueError: If the parts do not fit each other.
        """
        means, covariances = plain["means"].double(), plain["covariances"].double()
        count, width = means.shape
        names, classes = list(map(str, plain["context_names"])), list(plain["classes"])
        scale = None
        if names:
            scale = Standardiser(plain["context_mean"].double().numpy(), plain["context_scale"].double().numpy())
        fits = (
            count == 1 + len(classes) and covariances.shape == (count, width, width) and width > len(names)
            and len(plain["shares"]) == len(classes) and len(as_labels(classes)) == len(set(classes)) == len(classes)
            and (scale is None or len(scale.mean) == len(names))
            and bool(means.isfinite().all() and covariances.isfinite().all())
        )  # fmt: skip
        if not fits or type(plain["masked"]) is not bool:
            raise ValueError("its conditions do not fit each other")
        return cls(means, covariances, classes, list(map(float, plain["shares"])), names, scale, plain["masked"])

    def known(self, count: int, labels: Any = None, context: Any = None) -> Known:
        """Return conditions as tensors of one row a point.

        Args:
            count: Number of points B.
            labels: One of the classes for all, or one for each point, shape `(B,)`.
            context: Values for all, shape `(C,)`, or for each point, shape `(B, C)`; in the user's own units.

        Raises:
            ValueError: If the model was not trained for them, a class is unknown, or the number of rows is another.
        """
        found: Known = {}
        if labels is not None:
            if not self.classes:
                raise ValueError("this model was trained without labels; train one with fit(points, labels=...)")
            each = [labels] * count if isinstance(labels, (str, int, float, np.generic)) else as_labels(labels)
            _check_rows("labels", len(each), count)
            found["labels"] = torch.tensor([self._place(value) for value in each])
        if context is not None:
            if self.context_scale is None:
                raise ValueError("this model was trained without context; train one with fit(points, context=...)")
            table = np.asarray(context, dtype=np.float64) if np.ndim(context) == 1 else as_points(context)
            if table.shape[-1] != self.num_context:
                raise ValueError(f"context must have the columns {', '.join(self.context_names)}")
            rows = torch.from_numpy(self.context_scale.transform(np.atleast_2d(table)))
            if np.ndim(context) == 1:
                rows = rows.expand(count, -1)
            _check_rows("context", len(rows), count)
            found["context"] = self.padded(rows)
        return found

    def probe(self, count: int) -> Known:
        """Return conditions that a network must be able to take, for as many points."""
        found: Known = {}
        if self.classes:
            found["labels"] = torch.full((count,), len(self.classes) - 1)
        if self.num_inputs:
            found["context"] = torch.zeros(count, self.num_inputs)
        return found

    def padded(self, context: Tensor | None, own: Tensor | None = None) -> Tensor:
        """Return what the network is told, shape `(B, num_inputs)`: values, then own coordinates, NaN where unknown."""
        given = next(part for part in (context, own) if part is not None)
        parts = [given.new_full((len(given), self.num_context), torch.nan) if context is None else context]
        if self.masked:
            parts.append(given.new_full((len(given), self.n_dims), torch.nan) if own is None else own)
        return torch.cat(parts, dim=1)

    def moments(self, count: int, known: Known) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of points under conditions, shapes `(B, D)` and `(B, D, D)`, float64."""
        places = known["labels"] + 1 if "labels" in known else torch.zeros(count, dtype=torch.long)
        nothing = torch.full((count, self.num_inputs), torch.nan)
        told = known.get("context", nothing).double().cpu()
        # In the order of the joint Gaussian: own coordinates first.
        told = torch.cat([told[:, self.num_context :], told[:, : self.num_context]], dim=1)
        if not self.masked:
            told = torch.cat([told.new_full((count, self.n_dims), torch.nan), told], dim=1)
        seen = ~told.isnan()
        patterns, members = torch.unique(
            torch.cat([places[:, None].cpu(), seen.long()], dim=1), dim=0, return_inverse=True
        )  # fmt: skip
        mean, covariance = told.new_empty(count, self.n_dims), told.new_empty(count, self.n_dims, self.n_dims)
        for k, pattern in enumerate(patterns):
            rows, z = members == k, pattern[1:].bool()
            centre, spread = self.means[pattern[0]], self.covariances[pattern[0]]
            gain = spread[: self.n_dims, z] @ torch.linalg.pinv(spread[z][:, z], hermitian=True)  # (D, known)
            mean[rows] = centre[: self.n_dims] + (told[rows][:, z] - centre[z]) @ gain.T
            covariance[rows] = spread[: self.n_dims, : self.n_dims] - gain @ spread[z, : self.n_dims]
        return mean, covariance

    def _place(self, value: Any) -> int:
        if value not in self.classes:
            raise unknown_name("class", value, map(str, self.classes))
        return self.classes.index(value)


def _check_rows(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"{name} must have one row for each of {wanted} points, got {found}")


def rows_of(known: Known, rows: Sequence[int] | Tensor | slice) -> Known:
    """Return the conditions of some of the points."""
    return {name: value[rows] for name, value in known.items()}
