"""The exact denoiser of a finite set against brute force, calculus, and a bound on its memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.exact import empirical


def _draws(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _brute_force(x: Tensor, sigma: Tensor, points: Tensor) -> Tensor:
    """Return the weighted mean in float64 by another formula, query by query.

    Squares are completed around the mean of the points, so the part of the distance that all points share, which is
    what loses digits far away, never enters.
    """
    x, points = x.double(), points.double()
    centre = points.mean(dim=0)
    around = points - centre
    rows = []
    for query, level in zip(x, sigma.double().expand(len(x)), strict=True):
        logits = (around @ (query - centre) - around.square().sum(dim=1) / 2) / level**2
        weights = (logits - logits.max()).exp()
        rows.append(centre + (weights[:, None] * around).sum(dim=0) / weights.sum())
    return torch.stack(rows)


@pytest.mark.parametrize("n_dims", [1, 2, 3, 7])
@pytest.mark.parametrize("num_points", [1, 2, 257, 5000])
def test_agrees_with_brute_force(num_points: int, n_dims: int) -> None:
    """The mean weighted by the Gaussian kernel, for any number of points and dimensions and a level a row."""
    points, x = _draws((num_points, n_dims), (37, n_dims))
    sigma = torch.logspace(-2, 1.5, 37, dtype=torch.float64)
    x = x * (1 + sigma[:, None])
    result = ptd.EmpiricalDenoiser(points)(x, sigma)
    # Logits reach (30 / 0.01)^2 = 1e7 at most and are good to 1e-15 of that, hence 1e-8; most are far better.
    torch.testing.assert_close(result, _brute_force(x, sigma, points), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("block", [64, 100, 128, 4096])
def test_blocks_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the work is cut, in rows and in columns that divide nothing evenly, the result is the same."""
    points, x = _draws((301, 2), (53, 2))
    sigma = torch.logspace(-2, 1, 53, dtype=torch.float64)
    whole = ptd.EmpiricalDenoiser(points)(x, sigma)
    monkeypatch.setattr(empirical, "_BLOCK", block)
    torch.testing.assert_close(ptd.EmpiricalDenoiser(points)(x, sigma), whole, rtol=1e-12, atol=1e-13)


def test_more_points_than_a_block_has_columns() -> None:
    """At the block's real size too: 70,000 points need three passes, the last of them not full."""
    points, x = _draws((70_000, 2), (9, 2))
    sigma = torch.logspace(-1, 1, 9, dtype=torch.float64)
    result = ptd.EmpiricalDenoiser(points)(x, sigma)
    torch.testing.assert_close(result, _brute_force(x, sigma, points), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma", [1e-3, 1e-6, 1e-12])
def test_at_vanishing_noise_the_nearest_point_is_returned(sigma: float) -> None:
    """With next to no noise all weight is on the nearest point: no underflow, no NaN, an exact copy."""
    points, x = _draws((500, 2), (40, 2))
    result = ptd.EmpiricalDenoiser(points)(x, torch.tensor(sigma, dtype=torch.float64))
    nearest = points[torch.cdist(x, points).argmin(dim=1)]
    # At 1e-3 the second nearest still weighs a little where it is hardly farther.
    expected = _brute_force(x, torch.tensor(sigma), points) if sigma == 1e-3 else nearest
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


def test_at_overwhelming_noise_the_mean_is_returned() -> None:
    """With noise far above the spread all points weigh alike."""
    points, x = _draws((500, 3), (10, 3))
    result = ptd.EmpiricalDenoiser(points)(x, torch.tensor(1e6, dtype=torch.float64))
    torch.testing.assert_close(result, points.mean(dim=0).expand(10, 3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e6])
def test_far_queries_are_answered_finitely_and_rightly(distance: float) -> None:
    """A query far beyond the data, where every kernel underflows, still gets the weighted mean."""
    points, x = _draws((500, 2), (20, 2))
    x = distance * torch.nn.functional.normalize(x, dim=1)
    result = ptd.EmpiricalDenoiser(points)(x, torch.tensor(1.0, dtype=torch.float64))
    # A squared distance of d^2 is good to 1e-16 d^2, and so is its logit at sigma 1: at most 1e-3 at a million.
    tolerance = max(1e-12, 1e-14 * distance**2) * 10
    torch.testing.assert_close(result, _brute_force(x, torch.tensor(1.0), points), rtol=0, atol=tolerance)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_an_offset_of_the_data_moves_the_result_and_nothing_else(offset: float) -> None:
    """Distances are taken by differences, so data far from the origin lose no more than their own digits."""
    points, x = _draws((300, 2), (25, 2))
    sigma = torch.logspace(-2, 0.5, 25, dtype=torch.float64)
    moved = ptd.EmpiricalDenoiser(points + offset)(x + offset, sigma) - offset
    # Coordinates are good to 1e-16 offset; relative to sigma = 0.01 that is 1e4 times as much, in units of the spread.
    tolerance = 1e-16 * offset * 1e5
    torch.testing.assert_close(moved, ptd.EmpiricalDenoiser(points)(x, sigma), rtol=0, atol=tolerance)


def test_symmetric_pair_is_a_hyperbolic_tangent() -> None:
    """Between points at -1 and 1 the denoiser is tanh(x / sigma^2), in closed form."""
    x = torch.linspace(-3, 3, 31, dtype=torch.float64)[:, None]
    for sigma in (0.3, 1.0, 4.0):
        result = ptd.EmpiricalDenoiser(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))(x, torch.tensor(sigma))
        torch.testing.assert_close(result, torch.tanh(x / sigma**2), rtol=1e-6, atol=1e-12)  # sigma came in float32


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_single_precision_is_nearly_as_good(offset: float) -> None:
    """In float32, from 0.002 to 80 standard deviations, noisy points of the set get their mean to 1e-4.

    By |x|^2 + |y|^2 - 2xy the logits at sigma 0.002 would be wrong by 1e-7 / 0.002^2 = 0.03 at the origin, and by 250
    at an offset of 100.
    """
    points, eps = _draws((3000, 2), (400, 2))
    points = points.float().double() + offset  # the same numbers in both types
    sigma = torch.logspace(-2.7, 1.9, 400, dtype=torch.float64).float()
    x = (points[:400] + sigma.double()[:, None] * eps).float()
    result = ptd.EmpiricalDenoiser(points.float())(x, sigma)
    assert result.dtype == torch.float32
    truth = _brute_force(x, sigma, points.float())
    # 1e-4 standard deviations: float32's 6e-8 in logits of up to about 1e3 that matter; plus the offset's own digits.
    assert float((result.double() - truth).abs().max()) < 1e-4 + 2e-6 * offset


def test_jacobian_is_the_posterior_covariance() -> None:
    """The derivative of D in x is Cov[x_0 | x] / sigma^2 (second-order Tweedie), also at a point of the set."""
    points, x = _draws((50, 2), (4, 2))
    x[0] = points[3]
    sigma = torch.tensor(0.6, dtype=torch.float64)
    truth = ptd.EmpiricalDenoiser(points)
    for query in x:
        jacobian = torch.autograd.functional.jacobian(lambda q: truth(q[None], sigma)[0], query)
        weights = torch.softmax(-(query - points).square().sum(dim=1) / (2 * sigma**2), dim=0)
        centred = points - weights @ points
        torch.testing.assert_close(jacobian, centred.T @ (weights[:, None] * centred) / sigma**2, rtol=1e-9, atol=1e-11)


def test_it_is_the_optimum_of_the_denoising_loss() -> None:
    """No denoiser has a smaller expected loss on the set: neither scaled, nor shifted, nor blurred ones do."""
    points, eps = _draws((40, 2), (40, 2000, 2))
    sigma = torch.tensor(0.5, dtype=torch.float64)
    x_0 = points[:, None].expand(40, 2000, 2).reshape(-1, 2)
    x = x_0 + sigma * eps.reshape(-1, 2)
    truth = ptd.EmpiricalDenoiser(points)
    best = (truth(x, sigma) - x_0).square().mean()
    for rival in (
        1.05 * truth(x, sigma),
        truth(x, sigma) + 0.05,
        truth(x, 1.1 * sigma),
        truth(x, 0.9 * sigma),
        ptd.EmpiricalDenoiser(points[:30])(x, sigma),
    ):
        assert (rival - x_0).square().mean() > best


def test_posterior_mean_over_the_whole_set_is_the_exact_denoiser() -> None:
    """The target of the loss, taken over all rows, is the optimum itself."""
    points, x = _draws((600, 3), (50, 3))
    sigma = torch.logspace(-2, 1, 50, dtype=torch.float64)
    expected = ptd.EmpiricalDenoiser(points)(x, sigma)
    torch.testing.assert_close(ptd.posterior_mean(x, sigma, points), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ptd.posterior_mean(x, sigma, points), _brute_force(x, sigma, points), rtol=0, atol=1e-8)


def test_posterior_mean_over_one_row_is_that_row() -> None:
    """With the clean row alone as reference the target is the clean row."""
    points, x = _draws((1, 2), (5, 2))
    assert torch.equal(ptd.posterior_mean(x, torch.ones(5, dtype=torch.float64), points), points.expand(5, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_has_the_type_of_the_query(dtype: torch.dtype) -> None:
    """The set is brought to the type of the query, whatever its own."""
    for other in (torch.float32, torch.float64):
        truth = ptd.EmpiricalDenoiser(torch.ones(3, 2, dtype=other))
        assert truth(torch.zeros(4, 2, dtype=dtype), torch.tensor(1.0, dtype=other)).dtype == dtype


def test_queries_and_points_are_left_as_they_were() -> None:
    """Nothing is computed in place on what belongs to the caller."""
    points, x = _draws((100, 2), (10, 2))
    sigma = torch.ones(10, dtype=torch.float64)
    copies = [value.clone() for value in (points, x, sigma)]
    ptd.EmpiricalDenoiser(points)(x, sigma)
    ptd.posterior_mean(x, sigma, points)
    assert all(torch.equal(value, copy) for value, copy in zip((points, x, sigma), copies, strict=True))


def test_no_query_gives_no_result() -> None:
    """An empty batch is answered with an empty batch."""
    assert ptd.EmpiricalDenoiser(torch.ones(3, 2))(torch.zeros(0, 2), torch.tensor(1.0)).shape == (0, 2)


@pytest.mark.parametrize(
    "points",
    [
        torch.zeros(0, 2),
        torch.zeros(3, 0),
        torch.zeros(3),
        torch.zeros(2, 3, 4),
        torch.tensor([[0.0], [torch.nan]]),
        torch.tensor([[0.0], [torch.inf]]),
        torch.tensor([[0], [1]]),
    ],
)
def test_points_that_are_no_table_of_finite_numbers_are_refused(points: Tensor) -> None:
    """Empty, flat, stacked, infinite, NaN or integer points are no set to denoise with."""
    with pytest.raises(ValueError, match="points"):
        ptd.EmpiricalDenoiser(points)


def test_noise_levels_that_fit_no_row_are_refused() -> None:
    """Five queries take one level or five."""
    with pytest.raises(ValueError, match="sigma"):
        ptd.EmpiricalDenoiser(torch.ones(3, 2))(torch.zeros(5, 2), torch.ones(4))


def test_memory_stays_bounded() -> None:
    """2,000 queries of 200,000 points grow the process by at most 200 MiB; all distances at once are 1.5 GiB.

    Measured in a process of its own by the highest resident size, since torch's memory is not Python's. There, glibc
    hands every large array back at once: what it would keep for later scatters by 200 MiB from run to run.
    """
    program = """
        import resource, sys, torch
        from pointdiffusion import EmpiricalDenoiser

        def highest():  # MiB; Linux tells it for the program alone, elsewhere the system's count must do
            try:
                with open("/proc/self/status") as status:
                    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
            except FileNotFoundError:
                unit = 2**20 if sys.platform == "darwin" else 2**10
                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

        points, x = torch.randn(200_000, 2), torch.randn(2_000, 2)
        truth = EmpiricalDenoiser(points)
        truth(x[:10], torch.tensor(0.5))  # what torch claims once and for all
        before = highest()
        result = truth(x, torch.tensor(0.5))
        assert result.isfinite().all()
        print(highest() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200


def _large(n_dims: int) -> Tensor:
    """A set large enough for the tree, in clumps, with duplicates."""
    generator = torch.Generator().manual_seed(n_dims)
    centres = torch.randn(30, n_dims, generator=generator, dtype=torch.float64)
    points = centres.repeat(1000, 1) + 0.1 * torch.randn(30_000, n_dims, generator=generator, dtype=torch.float64)
    return torch.cat([points, points[:50]])


def _brute(points: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    logits = -((x[:, None] - points) ** 2).sum(dim=2) / (2 * sigma**2)
    constant = math.log(len(points)) + points.shape[1] * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
    return logits.softmax(dim=1) @ points, logits.logsumexp(dim=1) - constant


@pytest.mark.parametrize("sigma", [1e-4, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("n_dims", [1, 2, 6])
def test_neighbours_are_all_that_matters(n_dims: int, sigma: float) -> None:
    """Tree or brute force, near or far: the mean to 1e-8 of the extent, the log-density to 1e-8."""
    points = _large(n_dims)
    generator = torch.Generator().manual_seed(0)
    x = points[:40] + sigma * torch.randn(40, n_dims, generator=generator, dtype=torch.float64)
    x = torch.cat([x, torch.full((1, n_dims), 7.0, dtype=torch.float64)])
    truth = ptd.EmpiricalDenoiser(points)
    mean, log_prob = _brute(points, x, sigma)
    torch.testing.assert_close(truth(x, torch.tensor(sigma)), mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(truth.log_prob(x, sigma), log_prob, rtol=1e-11, atol=1e-8)


def test_the_tree_is_used_where_noise_is_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """At low noise no row is compared with all points; at high noise all are."""
    truth = ptd.EmpiricalDenoiser(_large(2))
    blocks = []
    original = ptd.EmpiricalDenoiser._block
    monkeypatch.setattr(
        ptd.EmpiricalDenoiser, "_block", staticmethod(lambda *args: blocks.append(1) or original(*args))
    )
    truth(truth.points[:10], torch.tensor(0.003))
    assert not blocks
    truth(truth.points[:10], torch.tensor(3.0))
    assert blocks


def test_log_density_of_a_small_set_is_that_of_scikit_learn() -> None:
    from sklearn.neighbors import KernelDensity

    points = _large(2)[:200]
    x = points[:20] + 0.2
    expected = KernelDensity(bandwidth=0.3, rtol=1e-12).fit(points.numpy()).score_samples(x.numpy())
    found = ptd.EmpiricalDenoiser(points).log_prob(x, 0.3)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_least_loss_of_two_points() -> None:
    """For -1 and 1 the optimum is tanh(x / sigma^2): the loss by quadrature, within four standard errors."""
    truth = ptd.EmpiricalDenoiser(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    sigmas = torch.tensor([0.3, 1.0, 3.0], dtype=torch.float64)
    mean, error = truth.optimal_loss(sigmas, 20_000, torch.Generator().manual_seed(0))
    z = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    for level, found, wrong in zip(sigmas.tolist(), mean, error, strict=True):
        exact = torch.trapezoid((torch.tanh((1 + level * z) / level**2) - 1) ** 2 * density, z)
        assert abs(float(found - exact)) < 4 * float(wrong)
        assert float(wrong) < 0.02
    with pytest.raises(ValueError, match="at least 2"):
        truth.optimal_loss(sigmas, 1, torch.Generator())
