"""The scikit-learn face: `fit`, `sample`, `score_samples`, and by class `predict_proba`."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pointdiffusion.config import TableConfig
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.table_model.fitting import fit_array
from pointdiffusion.tabular.standardiser import MIN_TRAINING_ROWS

CONTAINERS = ("default", "pandas", "polars")
"""What `set_output` may ask for."""


def _knows_classes(estimator: DiffusionEstimator) -> bool:
    return hasattr(estimator, "classes_")


class DiffusionEstimator(DensityMixin, BaseEstimator):
    """A diffusion model of a table, to draw rows like it and to score how likely a row is.

    What is None or "auto" is chosen on rows left out, see `pointdiffusion.fit_table`. Columns of one value are
    reproduced in samples and left out of the density. Columns of an integer type are dequantised: noise in [-1/2, 1/2)
    is added to fit them, and their density is that of the dequantised value; in samples they are rounded.

    Rows may be a PyTorch tensor on any device, and scikit-learn's `array_api_dispatch` may be on; what comes back is an
    array of NumPy in any case.

    Args:
        base: "auto", "isotropic", "gaussian" or "mixture": the exact denoiser that the networks add to.
        n_members: Networks whose average the model is; each is trained without a part of the rows of its own. With 0
            one network is trained on all rows, and nothing is weighed against it.
        n_steps: Training steps of each network.
        sigma_min: Blur of the density, in standard deviations of the columns.
        companion: Whether the density is mixed with a mixture and a broad Student t, as rows left out ask for.
        max_time: Seconds after which `fit` tries nothing further.
        nfe: Network evaluations for a sample.
        random_state: Seed, or a generator, of all that is random.

    Attributes:
        table_model_: The fitted `TableModel`.
        model_: The `DiffusionModel` inside, of the columns that vary.
        selection_: What was chosen, and why: a `Selection`.
        weights_: Weights of the network, of the mixture and of the Student t in the density; empty without.
        classes_: The classes, where `y` was given.
        n_features_in_: Number of columns.
        feature_names_in_: Their names, where the table has names.

    Examples:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(200, 2))
        >>> estimator = DiffusionEstimator(n_members=0, n_steps=50, random_state=0).fit(X)
        >>> estimator.sample(3).shape, estimator.score_samples(X).shape
        ((3, 2), (200,))
    """

    def __init__(
        self, *, base: str = "auto", n_members: int | None = None, n_steps: int | None = None,
        sigma_min: float | None = None, companion: bool = True, max_time: float = 120.0, nfe: int = 50,
        random_state: Any = None,
    ) -> None:  # fmt: skip
        self.base = base
        self.n_members = n_members
        self.n_steps = n_steps
        self.sigma_min = sigma_min
        self.companion = companion
        self.max_time = max_time
        self.nfe = nfe
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Fit the model.

        Args:
            X: Rows, shape `(n_samples, n_features)`; numbers without gaps.
            y: Class of each row, shape `(n_samples,)`; the model is then one of each class.

        Raises:
            ValueError: If the table or a parameter is unusable.
        """
        config = TableConfig(
            base=self.base, num_members=self.n_members, num_steps=self.n_steps, sigma_min=self.sigma_min,
            companion=self.companion,
        )  # fmt: skip
        if not (isinstance(self.nfe, (int, np.integer)) and self.nfe >= 1):
            raise ValueError(f"nfe must be a whole number of at least 1, got {self.nfe!r}")
        rows = _as_array(X)
        whole = _integer_columns(rows)
        table = self._validated(rows, ensure_min_samples=MIN_TRAINING_ROWS)
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(2**31 - 1))
        self.__dict__.pop("classes_", None)
        labels = None
        if y is not None:
            target = np.asarray(_as_array(y))
            if target.shape != (len(table),):
                raise ValueError(f"y must have one class for each of {len(table)} rows, got shape {target.shape}")
            with config_context(array_api_dispatch=False):
                check_classification_targets(target)
            self.classes_, labels = np.unique(target, return_inverse=True)
            if len(self.classes_) < 2:
                labels = None
        if (table == table[0]).all():
            raise ValueError("all rows are the same, so there is nothing to learn; give rows that differ")
        self.table_model_ = fit_array(
            table, integers=np.broadcast_to(whole, table.shape[1]), labels=None if labels is None else labels.tolist(),
            config=config, max_time=self.max_time, seed=seed,
        )  # fmt: skip
        self.selection_ = self.table_model_.selection
        self.model_ = self.table_model_.points
        self.weights_ = self.table_model_.weights
        return self

    def sample(self, n_samples: int = 1, y: Any = None, *, random_state: Any = None) -> Any:
        """Draw rows, shape `(n_samples, n_features)`.

        Args:
            n_samples: How many.
            y: A class for all of them, or one for each; None draws of the whole.
            random_state: Seed or generator; by default the estimator's own.

        Raises:
            ValueError: If the class is unknown.
        """
        check_is_fitted(self)
        rng = check_random_state(self.random_state if random_state is None else random_state)
        settings = {} if y is None else {"labels": self._labels(y, n_samples)}
        drawn = self.model_.sample(n_samples, seed=int(rng.randint(2**31 - 1)), nfe=self.nfe, **settings)
        return self._contained(self.table_model_.schema.decode_array(drawn))

    def score_samples(self, X: Any) -> Array:  # noqa: N803
        """Return the log-density of rows in nats, shape `(n_samples,)`; of columns that vary in the training rows.

        Worked out in float64, so that a row's figure does not depend on the rows beside it.
        """
        model, rows = self._scorer_of(X)
        return np.asarray(model.log_prob(rows))

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803, ARG002
        """Return the mean log-density of rows, in nats."""
        return float(self.score_samples(X).mean())

    @available_if(_knows_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """Return the probability of each class by Bayes' rule, shape `(n_samples, n_classes)`."""
        from scipy.special import softmax

        model, rows = self._scorer_of(X)
        if model.conditions is None:
            return np.ones((len(rows), 1))
        shares = model.conditions.shares
        joint = [model.log_prob(rows, labels=k) + math.log(share) for k, share in enumerate(shares)]
        return np.asarray(softmax(np.stack(joint, axis=1), axis=1))

    @available_if(_knows_classes)  # type: ignore[untyped-decorator]
    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each row, shape `(n_samples,)`."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose what `sample` returns: "default" for an array, "pandas" or "polars" for a frame; None leaves it.

        Raises:
            ValueError: If the container is unknown.
        """
        if transform is not None:
            if transform not in CONTAINERS:
                raise ValueError(f"set_output knows {', '.join(CONTAINERS)}, got {transform!r}")
            self._container = transform
        return self

    def _validated(self, rows: Any, **settings: Any) -> Array:
        """Return rows as scikit-learn checks them: as an array of NumPy, since what follows computes with such."""
        with config_context(array_api_dispatch=False):
            return np.asarray(validate_data(self, rows, dtype=np.float64, **settings))

    def _scorer_of(self, X: Any) -> tuple[DiffusionModel, Array]:  # noqa: N803
        """Return the model in float64, and the columns of a table that it is of."""
        check_is_fitted(self)
        rows = self._validated(_as_array(X), reset=False)
        model = replace(self.model_, denoiser=copy.deepcopy(self.model_.denoiser).double())
        return model, self.table_model_.schema.varying(rows)

    def _labels(self, y: Any, count: int) -> Any:
        """Return classes as their places.

        Raises:
            ValueError: If the estimator was fitted without classes, or one is unknown.
        """
        if not _knows_classes(self) or self.model_.conditions is None:
            raise ValueError("this estimator was fitted without classes; give y to fit")
        y = _as_array(y)
        wanted = np.full(count, y) if np.ndim(y) == 0 else np.asarray(y)
        if wanted.shape != (count,):
            raise ValueError(f"y must be one class, or one for each of {count} rows, got shape {wanted.shape}")
        unknown = [value for value in np.unique(wanted).tolist() if value not in self.classes_]
        if unknown:
            raise ValueError(f"unknown class {unknown[0]!r} (known: {', '.join(map(str, self.classes_))})")
        return np.searchsorted(self.classes_, wanted).tolist()

    def _contained(self, rows: Array) -> Any:
        import sklearn

        kind = getattr(self, "_container", None) or sklearn.get_config()["transform_output"]
        if kind == "default":
            return rows
        names = list(getattr(self, "feature_names_in_", [f"x{k}" for k in range(rows.shape[1])]))
        if kind == "polars":
            import polars

            return polars.DataFrame(rows, schema=names)
        import pandas as pd

        return pd.DataFrame(rows, columns=names)


def _as_array(data: Any) -> Any:
    """Return a tensor as an array, on whatever device and with whatever gradient it is; anything else as it is."""
    if not isinstance(data, Tensor):
        return data
    data = data.detach().cpu()
    return (data.double() if data.is_floating_point() else data).numpy()  # NumPy has no bfloat16


def _integer_columns(X: Any) -> NDArray[np.bool_]:  # noqa: N803
    """Return which columns are of an integer type, shape `(n_features,)`, or one answer for all."""
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        import narwhals as nw

        frame = nw.from_native(X, eager_only=True, pass_through=True)
        if isinstance(frame, nw.DataFrame):
            return np.array([kind.is_integer() for kind in frame.schema.dtypes()])
    dtype = getattr(X, "dtype", None)
    return np.array(getattr(dtype, "kind", "f") in "iu")
