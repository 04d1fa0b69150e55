"""Whether a network uses its conditions: against exact denoisers, and what `fit` says of one that does not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pointdiffusion as ptd
from pointdiffusion.model.conditions import Conditions
from pointdiffusion.training.conditioning import ConditionUse, condition_use

MIXTURE = ptd.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], (0.1 * torch.eye(2)).expand(2, 2, 2))
COUNT = 2000


def use_of(denoiser: Any, conditions: Conditions, x_0: Tensor, known: dict[str, Tensor]) -> ConditionUse:
    rng = torch.Generator().manual_seed(1)
    sigma = torch.exp(4 * torch.rand(COUNT, generator=rng).double() - 3)
    eps, order = torch.randn(COUNT, 2, generator=rng).double(), torch.randperm(COUNT, generator=rng)
    return condition_use(denoiser, conditions, x_0, known, sigma, eps, order)


def deaf_denoiser(x: Tensor, sigma: Tensor, **_: Tensor) -> Tensor:
    return MIXTURE.denoise(x, sigma)


def test_an_exact_denoiser_gains_at_least_what_the_label_is_worth() -> None:
    """And one that takes no notice of labels gains nothing, which is seen, unless labels mean nothing."""
    x_0, labels = MIXTURE.sample_with_labels(COUNT, torch.Generator().manual_seed(0))
    conditions = Conditions.fit(x_0, labels)
    known = conditions.known(COUNT, labels)
    exact = use_of(lambda x, sigma, labels: MIXTURE.denoise(x, sigma, labels), conditions, x_0, known)
    assert exact.gain > exact.expected > 0.1
    assert not exact.ignored
    deaf = use_of(deaf_denoiser, conditions, x_0, known)
    assert deaf.gain == 0
    assert deaf.expected == exact.expected
    assert deaf.ignored
    chance = torch.arange(COUNT) % 2
    nothing = Conditions.fit(x_0, chance)
    plain = use_of(
        deaf_denoiser,
        nothing,
        x_0,
        nothing.known(COUNT, chance),
    )
    assert abs(plain.expected) < 0.01
    assert not plain.ignored


def test_values_are_conditions_like_any_other() -> None:
    x_0 = MIXTURE.sample(COUNT, torch.Generator().manual_seed(0))
    conditions = Conditions.fit(x_0, context=x_0[:, :1] + 0.01)
    known = conditions.known(COUNT, context=x_0[:, :1] + 0.01)
    deaf = use_of(deaf_denoiser, conditions, x_0, known)
    assert deaf.ignored


class Deaf(nn.Module):
    """A network that is told classes and does not listen."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ptd.default_network(1, 32)

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: ARG002
        answer: Tensor = self.network(x, c)
        return answer


def table() -> tuple[Any, list[str]]:
    """Two classes at -1 and 3 of standard deviation 0.5."""
    labels = ["a", "b"] * 500
    rng = np.random.default_rng(0)
    return np.where(np.array(labels) == "a", -1.0, 3.0)[:, None] + 0.5 * rng.normal(size=(1000, 1)), labels


def test_fit_warns_of_a_network_that_ignores_its_labels() -> None:
    points, labels = table()
    with pytest.warns(UserWarning, match=r"the network ignores its labels: .*Lower learning_rate \(0\.001, which"):
        ptd.fit(points, ptd.TrainingConfig(epochs=3, learning_rate=1e-3), labels=labels, backbone=Deaf())


def test_labels_are_learned_at_the_default_rate() -> None:
    """In 25 epochs all of a class are drawn beyond the middle, and nothing is said."""
    points, labels = table()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ptd.fit(points, ptd.TrainingConfig(epochs=25), labels=labels)
    assert float((model.sample(500, labels="b") > 1).mean()) > 0.98
    assert float((model.sample(500, labels="a") < 1).mean()) > 0.98
