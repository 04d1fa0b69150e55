r"""What a solver is.

It walks the probability-flow equation :math:`dx / d\sigma = (x - D(x; \sigma)) / \sigma` (Karras et al. 2022,
equation 1 for sigma(t) = t) down one interval at a time. A step is a pure function: what a solver remembers between
steps is handed in and out, and so is the noise of those that use any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from pointdiffusion.denoisers import DenoiserFunction


class Solver(ABC):
    """One step down the noise levels."""

    order: ClassVar[int]
    """Order of the global error in the step size."""

    @abstractmethod
    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next`, shape of `x`, and the state for the next step.

        Args:
            denoiser: Called as `denoiser(x, sigma)`; its first call is at `x` and `sigma`.
            x: Points at `sigma`, shape `(B, D)`.
            sigma: Noise level of `x`, a scalar tensor above 0.
            sigma_next: Noise level to go to, a scalar tensor in [0, sigma).
            state: What the previous step returned; None at the first.
            noise: Standard normal numbers of the shape of `x`, for solvers that ask for them.
        """
