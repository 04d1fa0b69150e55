"""Schedules and noise-level samplers: monotone, invertible, distributed as said."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.noise import SCHEDULES, KarrasSchedule, NoiseSchedule
from pointdiffusion.training.noise_levels import NOISE_SAMPLERS, LogNormalSampler

RANGES = [(0.002, 80.0), (0.01, 10.0), (0.5, 0.6), (1e-4, 1e4)]


class _Bisected(NoiseSchedule):
    """A schedule without a formula for its inverse."""

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t


def _standard_normal_cdf(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / math.sqrt(2))) / 2


def _log_uniform_cdf(sigma: Tensor, low: float, high: float) -> Tensor:
    return (sigma / low).log() / math.log(high / low)


def _log_normal_cdf(sigma: Tensor, low: float, high: float) -> Tensor:
    ends = _standard_normal_cdf((torch.tensor([low, high], dtype=torch.float64).log() + 1.2) / 1.2)
    return (_standard_normal_cdf((sigma.log() + 1.2) / 1.2) - ends[0]) / (ends[1] - ends[0])


def _likelihood_cdf(sigma: Tensor, low: float, high: float) -> Tensor:
    """Of the density 1 / (1 + sigma^2) over log sigma, whose integral is log(sigma^2 / (1 + sigma^2)) / 2."""
    place = lambda s: (s**2 / (1 + s**2)).log()  # noqa: E731
    ends = place(torch.tensor([low, high], dtype=torch.float64))
    return (place(sigma) - ends[0]) / (ends[1] - ends[0])


CDFS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "log-uniform": _log_uniform_cdf,
    "log-normal": _log_normal_cdf,
    "likelihood": _likelihood_cdf,
}


# ------------------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("limits", RANGES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_sigma_increases_strictly_from_sigma_min_to_sigma_max(name: str, limits: tuple[float, float]) -> None:
    """A schedule is continuous and strictly increasing, and its ends are those asked for."""
    sigma = SCHEDULES[name](*limits).sigma(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert (sigma.diff() > 0).all()
    # Ends to 1e-12: one power and its inverse, each good to a few units of float64's last place (times rho).
    assert [float(sigma[0]), float(sigma[-1])] == pytest.approx(limits, rel=1e-12)


@pytest.mark.parametrize("limits", RANGES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_time_inverts_sigma(name: str, limits: tuple[float, float]) -> None:
    """Whatever is registered must be invertible, in both directions: adapters rest on it."""
    schedule = SCHEDULES[name](*limits)
    t = torch.linspace(0, 1, 257, dtype=torch.float64)
    sigma = schedule.sigma(t)
    torch.testing.assert_close(schedule.time(sigma), t, rtol=0, atol=1e-10)
    torch.testing.assert_close(schedule.sigma(schedule.time(sigma)), sigma, rtol=1e-10, atol=0)


def test_bisection_inverts_a_schedule_that_has_no_formula() -> None:
    """A new schedule needs only `sigma`: the base class inverts it to the last digits of float64."""
    schedule = _Bisected(0.01, 10.0)
    t = torch.linspace(0, 1, 257, dtype=torch.float64)
    torch.testing.assert_close(schedule.time(schedule.sigma(t)), t, rtol=0, atol=1e-14)
    grid = torch.linspace(0, 1, 6).reshape(2, 3)  # float32, another shape
    assert schedule.time(schedule.sigma(grid)).dtype == torch.float32
    torch.testing.assert_close(schedule.time(schedule.sigma(grid)), grid, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_bisection_agrees_with_the_formula(name: str) -> None:
    """The inverse of a registered schedule is the one that bisection finds, whichever way it is computed."""
    schedule = SCHEDULES[name]()
    sigma = schedule.sigma(torch.linspace(0, 1, 65, dtype=torch.float64))
    torch.testing.assert_close(schedule.time(sigma), NoiseSchedule.time(schedule, sigma), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_is_a_factor_in_zero_to_one_of_the_shape_of_sigma(name: str) -> None:
    """The data's factor never grows and begins at 1 without noise; for Karras it is 1 throughout."""
    sigma = torch.tensor([[0.0, 1e-3, 0.1], [1.0, 10.0, 80.0]], dtype=torch.float64)
    alpha = SCHEDULES[name]().alpha(sigma)
    assert alpha.shape == sigma.shape
    assert alpha[0, 0] == 1
    assert ((alpha > 0) & (alpha <= 1)).all()
    if name == "karras":
        assert (alpha == 1).all()


@pytest.mark.parametrize("final_zero", [True, False])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 18, 50])
@pytest.mark.parametrize("name", SCHEDULES)
def test_grid_has_the_intervals_asked_for_and_the_right_ends(name: str, num_steps: int, final_zero: bool) -> None:
    """A grid of n steps holds n + 1 strictly decreasing levels from sigma_max, ending in 0 or in sigma_min."""
    sigmas = SCHEDULES[name](0.05, 20.0).sigmas(num_steps, final_zero=final_zero)
    assert sigmas.shape == (num_steps + 1,)
    assert sigmas.dtype == torch.float64
    assert (sigmas.diff() < 0).all()
    assert float(sigmas[0]) == pytest.approx(20.0, rel=1e-12)
    if final_zero:
        assert sigmas[-1] == 0
        if num_steps > 1:
            assert float(sigmas[-2]) == pytest.approx(0.05, rel=1e-12)
    else:
        assert float(sigmas[-1]) == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_grid_comes_in_the_type_asked_for(name: str) -> None:
    """A float32 grid is the float64 grid rounded once, not one computed in float32."""
    schedule = SCHEDULES[name]()
    single = schedule.sigmas(50, dtype=torch.float32)
    assert single.dtype == torch.float32
    assert torch.equal(single, schedule.sigmas(50).to(torch.float32))


@pytest.mark.parametrize(
    ("sigma_min", "sigma_max", "rho", "n"), [(0.002, 80.0, 7.0, 18), (0.01, 10.0, 3.0, 50), (0.1, 2.0, 1.0, 5)]
)
def test_karras_grid_is_equation_5(sigma_min: float, sigma_max: float, rho: float, n: int) -> None:
    """The grid is that of Karras et al. (2022), equation 5, written out here with plain floats."""
    by_hand = [
        (sigma_max ** (1 / rho) + i / (n - 1) * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
        for i in range(n)
    ] + [0.0]
    sigmas = ptd.KarrasSchedule(sigma_min=sigma_min, sigma_max=sigma_max, rho=rho).sigmas(n)
    # 1e-12: both evaluate the same formula in float64, in another order.
    torch.testing.assert_close(sigmas, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-12, atol=0)


def test_karras_defaults_are_those_of_the_paper() -> None:
    """Without arguments the schedule is that of table 1: 0.002 to 80, rho 7."""
    schedule = KarrasSchedule()
    assert (schedule.sigma_min, schedule.sigma_max, schedule.rho) == (0.002, 80.0, 7.0)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
@pytest.mark.parametrize("kind", [*SCHEDULES.values(), *NOISE_SAMPLERS.values()])
def test_a_range_that_is_none_is_refused(kind: type, limits: tuple[float, float]) -> None:
    """No schedule and no sampler is made on an empty, negative or infinite range."""
    with pytest.raises(ValueError, match="sigma_min"):
        kind(*limits)


@pytest.mark.parametrize("rho", [0.0, -7.0, math.nan, math.inf])
def test_a_curvature_that_is_not_positive_is_refused(rho: float) -> None:
    """Karras' grid exists for positive finite rho only."""
    with pytest.raises(ValueError, match="rho"):
        KarrasSchedule(rho=rho)


@pytest.mark.parametrize("num_steps", [0, -3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_grid_without_steps_is_refused(name: str, num_steps: int) -> None:
    """A grid has at least one interval."""
    with pytest.raises(ValueError, match="num_steps"):
        SCHEDULES[name]().sigmas(num_steps)


# ------------------------------------------------------------------------------------------------------------- samplers


def test_every_sampler_has_its_distribution_here() -> None:
    """A sampler that is registered is tested against its closed form: write the form down above."""
    assert set(CDFS) == set(NOISE_SAMPLERS)


@pytest.mark.parametrize("limits", [(0.01, 10.0), (0.002, 80.0), (0.2, 0.5)])
@pytest.mark.parametrize("name", NOISE_SAMPLERS)
def test_levels_follow_the_distribution_one_in_each_slice(name: str, limits: tuple[float, float]) -> None:
    """Sorted, the k-th of n levels has a closed-form cumulative probability between k/n and (k + 1)/n.

    That is both promises at once: exactly one level a slice, and an empirical distribution within 1/n of the closed
    form everywhere (plain draws are off by about 1/sqrt(n)).
    """
    n = 1000
    levels = NOISE_SAMPLERS[name](*limits).sample(n, torch.Generator().manual_seed(0), torch.float64)
    assert levels.shape == (n,)
    place = CDFS[name](levels.sort().values, *limits) * n
    # 1e-8 of a slice: the closed form and the quantile function are both good to about 1e-12 here.
    assert ((place - torch.arange(n)) > -1e-8).all()
    assert ((place - torch.arange(n)) < 1 + 1e-8).all()
    inside = place - torch.arange(n)  # uniform within the slice, else the slices' middles would always be drawn
    statistic = float((inside.sort().values - (torch.arange(n) + 0.5) / n).abs().max()) * math.sqrt(n)
    assert statistic < 1.95  # Kolmogorov's limit at p = 0.001; the seed is fixed


@pytest.mark.parametrize("name", NOISE_SAMPLERS)
def test_each_single_level_follows_the_whole_distribution(name: str) -> None:
    """The first of a few stratified levels is not from the first slice: the order is random."""
    sampler, generator = NOISE_SAMPLERS[name](), torch.Generator().manual_seed(1)
    firsts = torch.stack([sampler.sample(8, generator, torch.float64)[0] for _ in range(1500)]).sort().values
    place = CDFS[name](firsts, sampler.sigma_min, sampler.sigma_max)
    statistic = float((place - (torch.arange(1500) + 0.5) / 1500).abs().max()) * math.sqrt(1500)
    assert statistic < 1.95  # Kolmogorov's limit at p = 0.001; the seed is fixed


@pytest.mark.parametrize("name", NOISE_SAMPLERS)
def test_order_of_levels_is_independent_of_the_rows(name: str) -> None:
    """Neighbouring rows get unrelated levels: their rank correlation is that of a random order."""
    levels = NOISE_SAMPLERS[name]().sample(4000, torch.Generator().manual_seed(2), torch.float64)
    ranks = levels.argsort().argsort().double()
    correlation = torch.corrcoef(torch.stack([ranks[:-1], ranks[1:]]))[0, 1]
    assert abs(float(correlation)) < 4 / math.sqrt(4000)  # four standard deviations


@pytest.mark.parametrize("name", NOISE_SAMPLERS)
def test_the_generator_alone_decides(name: str) -> None:
    """The same seed gives the same levels, another seed others, and the global generator is left alone."""
    sampler = NOISE_SAMPLERS[name]()
    before = torch.get_rng_state()
    draws = [sampler.sample(64, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("limits", [(0.01, 10.0), (3.0, 80.0), (1e-3, 2e-3)])
@pytest.mark.parametrize("name", NOISE_SAMPLERS)
def test_levels_stay_in_the_range(name: str, limits: tuple[float, float], dtype: torch.dtype) -> None:
    """No level leaves the range, and the quantile function ends where the range ends."""
    sampler = NOISE_SAMPLERS[name](*limits)
    levels = sampler.sample(2000, torch.Generator().manual_seed(5), dtype)
    assert levels.dtype == dtype
    slack = torch.finfo(dtype).eps  # the limits themselves are rounded to the type
    assert (levels >= limits[0] * (1 - slack)).all()
    assert (levels <= limits[1] * (1 + slack)).all()
    ends = sampler.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx(limits, rel=1e-9)  # 1e-9: the normal quantile loses digits in its tail


def test_log_normal_moments_are_those_asked_for() -> None:
    """Where the range cuts nothing off, ln sigma has the mean and standard deviation of the arguments."""
    sampler = LogNormalSampler(1e-9, 1e9, mean=0.5, std=0.7)
    logs = sampler.sample(20000, torch.Generator().manual_seed(0), torch.float64).log()
    # Stratified, so the moments are good to about 1/n where plain draws would err by 1/sqrt(n) = 7e-3.
    assert float(logs.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(logs.std()) == pytest.approx(0.7, abs=1e-3)


def test_log_normal_defaults_are_those_of_the_paper() -> None:
    """Table 1 of Karras et al. (2022): mean -1.2, standard deviation 1.2."""
    defaults = inspect.signature(LogNormalSampler).parameters
    assert (defaults["mean"].default, defaults["std"].default) == (-1.2, 1.2)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_a_spread_that_is_not_positive_is_refused(std: float) -> None:
    """The log-normal sampler needs a positive finite standard deviation."""
    with pytest.raises(ValueError, match="std"):
        LogNormalSampler(std=std)
