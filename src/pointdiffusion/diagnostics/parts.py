"""The result of a diagnosis: the parts of a model's error, its main cause, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointdiffusion.exact.optimal import Estimate, Profile
from pointdiffusion.metrics.neighbours import Copies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ADVICE = {
    "sound": "The samples are indistinguishable from fresh data",
    "solver": "Take more steps, or a better solver",
    "start": "Raise sigma_max: at {sigma_max:g} noisy data are not yet Gaussian, and sampling starts from a Gaussian",
    "stop": "Lower sigma_min: stopping at {sigma_min:g} smooths the data",
    "fit": "Train longer, or a larger network: it underfits its training rows",
    "data": "More data would help most: the network is worse on fresh rows than on its training rows",
    "memorising": "The network memorises its training rows: use more of them, or stop earlier",
    "network": "The network is the cause, but whether training or data is lacking is unclear",
    "unclear": "The samples differ from fresh data, but no part is significant; raise num_points",
}

MEANINGS = {
    "total": "samples against fresh rows",
    "stop": "sampling stops at the lowest noise level",
    "fit": "the network underfits its training rows",
    "data": "the network is worse on rows that it was not trained on",
    "start": "sampling starts from a Gaussian",
    "solver": "the solver takes few steps",
    "rest": "interaction of start and solver",
}
"""What each part is, for plots and reports."""


@dataclass(frozen=True)
class Diagnosis:
    """The distance between generated and reference points, split into parts.

    Args:
        cause: Main cause of the error, a key of `ADVICE`.
        advice: What to do next, a sentence.
        distance: Mean W2 of samples to fresh rows, at most 512 each, in standard deviations of the columns.
        floor: The same for fresh rows in place of the samples.
        total: Squared energy distance of samples and population, in standard deviations of the columns, unbiased; the
            parts add up to it.
        parts: Its parts by name: stop, fit, data, start, solver and rest.
        p_values: p-values of the total (by permutation) and of stop, network (fit and data together), start, solver and
            rest (by the jackknife; network and start by permutation as well).
        copies: Samples that are nearer to training rows than fresh points are.
        profile: Losses of the network beside those of the optimal denoisers, by noise level.
        n_samples: Number of samples, and of fresh rows, that were compared.
        population_known: Whether the optimal denoiser is the population's, and not a kernel density's of the training
            rows.
    """

    cause: str
    advice: str
    distance: Estimate
    floor: Estimate
    total: Estimate
    parts: dict[str, Estimate]
    p_values: dict[str, float]
    copies: Copies
    profile: Profile
    n_samples: int
    population_known: bool

    def short(self) -> str:
        """Return the advice and, unless the samples are sound, the two largest parts, in two lines."""
        largest = sorted(self.parts, key=lambda name: -self.parts[name].value)[:2]
        p = self.p_values["total"]
        largest_parts = ", ".join(f"{name} {self.parts[name]}" for name in largest)
        split = "" if self.cause == "sound" else f"; largest parts: {largest_parts}"
        return f"{self.advice}\nSquared energy distance to the reference: {self.total} (p = {p:.2g}){split}."

    def __str__(self) -> str:
        position, copies = self.profile.position, self.copies
        optimum = "optimal denoiser" if self.population_known else "kernel density of the training rows"
        lines = [
            f"W2 to fresh rows | {self.distance}",
            f"  of fresh rows (floor) | {self.floor}",
            f"squared energy distance, {self.n_samples} rows | {self.total}, p = {self.p_values['total']:.2g}",
            *(f"  {name} | {value}" for name, value in self.parts.items()),
            f"excess loss over the {optimum}, training rows | {self.profile.fit}",
            f"  further excess on fresh rows | {self.profile.gap}",
            f"nearest to training rows | {copies.share:.1%} (fresh {copies.share_fresh:.1%}), p = {copies.p_value:.2g}",
            f"between optimal (0) and memorising (1) | {position.value:.2f} ± {position.error:.2f}",
        ]
        width = max(line.index(" |") for line in lines)
        table = "\n".join(f"{name:<{width}} |{value}" for name, value in (line.split(" |", 1) for line in lines))
        return f"{table}\n{self.advice}"

    def plot(self, figure: Figure | None = None) -> Figure:
        """Draw the parts, the losses and the distances to both optimal denoisers by noise level.

        Args:
            figure: A figure of matplotlib to draw on; a new one by default.

        Returns:
            The figure, with three axes.
        """
        from pointdiffusion.visuals.diagnosis import plot_distances, plot_losses, plot_parts

        if figure is None:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            figure = Figure(figsize=(16, 5.6), layout="constrained")
            FigureCanvasAgg(figure)
        axes = figure.subplots(1, 3)
        plot_parts(axes[0], {"total": self.total, **self.parts}, MEANINGS)
        plot_losses(axes[1], self.profile, exact=self.population_known)
        plot_distances(axes[2], self.profile, exact=self.population_known)
        figure.suptitle(self.advice, fontsize="large")
        return figure
