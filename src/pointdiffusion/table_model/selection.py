"""What a search over folds chose, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pointdiffusion.config import TableConfig
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.runtime.deprecation import warn_of_attribute


@dataclass
class Selection:
    """A fitted model, and what was chosen on rows that were left out.

    Args:
        model: The model: average of the members, mixed with its companion.
        members: The members by themselves, without a companion.
        config: The settings with everything filled in; with them the fit is repeated.
        scores: Mean log-density of rows left out, nats in standard units, by what was tried, in words.
        weights: Weight of the flow, of the mixture and of the Student t in the density.
        seconds: Time that it took.
        folder: Where the first member keeps its logs, if a folder was given.
    """

    model: DiffusionModel
    members: list[DiffusionModel]
    config: TableConfig
    scores: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    folder: Path | None = None

    @property
    def verdict(self) -> str:
        """What the weights say, in a sentence."""
        if not self.config.num_members:
            return "one network on all rows: too few rows were kept from it to weigh it against simpler densities"
        if not self.weights:
            return "the network was not weighed against simpler densities"
        share = self.weights["diffusion"]
        if share < 0.05:
            return f"a mixture suffices here: of the density the network has {share:.0%}"
        return f"of the density the network has {share:.0%}, a mixture {self.weights['mixture']:.0%}"

    def __str__(self) -> str:
        lines = [f"{name}: {value:.3f} nats a row left out" for name, value in self.scores.items()]
        chosen = self.config
        lines.append(
            f"chosen: base {chosen.base}, {chosen.num_steps} steps, {max(chosen.num_members or 0, 1)} networks, "
            f"sigma_min {chosen.sigma_min:.3g} standard deviations"
        )
        return "\n".join([*lines, self.verdict])


class Chosen:
    """What `fit_table` chose, as attributes of the model that it returns."""

    if TYPE_CHECKING:
        points: DiffusionModel
        selection: Selection | None

    @property
    def model(self) -> DiffusionModel:
        """The model of points inside; `points` is its name now."""
        warn_of_attribute("TableModel", "model", "points")
        return self.points

    @property
    def _chosen(self) -> Selection:
        if self.selection is None:
            raise AttributeError("nothing was chosen for this model: it was loaded, or is of one network")
        return self.selection

    @property
    def members(self) -> list[DiffusionModel]:
        """The networks that the model is the average of, each by itself."""
        return self._chosen.members

    @property
    def config(self) -> TableConfig:
        """The settings with everything filled in; with them the fit is repeated."""
        return self._chosen.config

    @property
    def scores(self) -> dict[str, float]:
        """Mean log-density of held-out rows, nats in standard units, by what was tried."""
        return self._chosen.scores

    @property
    def weights(self) -> dict[str, float]:
        """Weight of the flow, of the mixture and of the Student t in the density."""
        return self._chosen.weights

    @property
    def verdict(self) -> str:
        """What the weights say, in a sentence."""
        return self._chosen.verdict

    @property
    def seconds(self) -> float:
        """Time that the fit took."""
        return self._chosen.seconds

    @property
    def folder(self) -> Path | None:
        """Where the first network keeps its logs, if a folder was given."""
        return self._chosen.folder
