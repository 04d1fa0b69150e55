"""Networks: what each part computes, and how it is made again from plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pointdiffusion as ptd
from pointdiffusion.networks import NETWORKS, build, default_network, specification_of

D, WIDTH, EMBEDDING = 3, 16, 8


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Networks are initialised from the global generator: give each test its own, and put the old one back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _mlp(**changes: Any) -> ptd.ResidualMLP:
    arguments: dict[str, Any] = {
        "points": ptd.FourierFeatures(D, 5, 1.3),
        "noise": ptd.NoiseEmbedding(EMBEDDING),
        "blocks": [ptd.ResidualBlock(WIDTH, EMBEDDING), ptd.PlainBlock(WIDTH, EMBEDDING)],
        "n_dims": D,
        "hidden_dim": WIDTH,
        "rate_multiplier": 11.0,
    }
    return ptd.ResidualMLP(**{**arguments, **changes})


# One example of each registered part, and inputs that it takes.
EXAMPLES: dict[str, Any] = {
    "average": (lambda: ptd.Average([_mlp(), _mlp()]), ((6, D), (6,))),
    "residual-mlp": (_mlp, ((6, D), (6,))),
    "fourier-features": (lambda: ptd.FourierFeatures(D, 5, 1.3), ((6, D),)),
    "noise-embedding": (lambda: ptd.NoiseEmbedding(EMBEDDING), ((6,),)),
    "condition-embedding": (lambda: ptd.ConditionEmbedding(EMBEDDING, 3, 2, 8, 4), ((6, EMBEDDING),)),
    "residual-block": (lambda: ptd.ResidualBlock(WIDTH, EMBEDDING), ((6, WIDTH), (6, EMBEDDING))),
    "plain-block": (lambda: ptd.PlainBlock(WIDTH, EMBEDDING), ((6, WIDTH), (6, EMBEDDING))),
}


def _randomise(network: nn.Module) -> nn.Module:
    """Fill every weight with numbers, so that no layer is silent."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def _affine(layer: Any, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


# ----------------------------------------------------------------------------------------------------------- arithmetic


def test_fourier_features_by_hand() -> None:
    """The features are the point itself and root two times cosine and sine of its projections."""
    features = ptd.FourierFeatures(2, 3).double()
    features.frequencies.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]))
    angles = [0.3, -0.7, 2 * 0.3 + 0.7]
    expected = [0.3, -0.7, *(math.sqrt(2) * math.cos(a) for a in angles), *(math.sqrt(2) * math.sin(a) for a in angles)]
    result = features(torch.tensor([[0.3, -0.7]], dtype=torch.float64))
    assert result[0].tolist() == pytest.approx(expected, abs=1e-14)
    assert features.out_features == result.shape[1] == 8


def test_fourier_frequencies_have_the_standard_deviation_asked_for() -> None:
    """Entries of B are normal of the given standard deviation, and a buffer that no optimiser moves."""
    features = ptd.FourierFeatures(4, 4096, std=1.5)
    assert float(features.frequencies.std()) == pytest.approx(1.5, rel=0.03)  # 16,384 draws: 4 standard errors are 2 %
    assert float(features.frequencies.mean()) == pytest.approx(0.0, abs=0.05)
    assert not list(features.parameters())
    assert "frequencies" in features.state_dict()


def test_noise_embedding_by_hand() -> None:
    """SiLU of a linear layer over cosines and sines, even in the logarithm, by default from 0.5 to 8 radians."""
    frequencies = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(ptd.NoiseEmbedding(6).double().frequencies, frequencies, rtol=1e-6, atol=0)
    embedding = ptd.NoiseEmbedding(6, lowest=2.0, highest=64.0).double()
    frequencies = torch.tensor([2.0, 2.0**3.5, 64.0], dtype=torch.float64)
    torch.testing.assert_close(embedding.frequencies, frequencies, rtol=1e-6, atol=0)  # stored in float32
    c = 0.37
    angles = c * embedding.frequencies
    affine = embedding.linear.weight @ torch.cat([angles.cos(), angles.sin()]) + embedding.linear.bias
    expected = affine / (1 + torch.exp(-affine))
    result = embedding(torch.tensor([c], dtype=torch.float64))
    torch.testing.assert_close(result[0], expected, rtol=1e-12, atol=1e-12)


def test_condition_embedding_by_hand() -> None:
    """What is known is a one for the class, each value, its flag and its waves; what is not is zeros, 0 being known."""
    part = _randomise(ptd.ConditionEmbedding(4, 3, 2, 5, 2).double())
    e = torch.randn(4, dtype=torch.float64)
    angles = 0.7 * part.frequencies[1]
    waves = math.sqrt(2) * torch.cat([angles.cos(), angles.sin()])
    known = torch.cat([e, torch.tensor([0.0, 0, 1, 0, 0.7, 0, 1], dtype=torch.float64), torch.zeros(4).double(), waves])
    inner = _affine(part.first, known)
    expected = e + _affine(part.second, inner / (1 + torch.exp(-inner)))
    context = torch.tensor([[math.nan, 0.7]], dtype=torch.float64)
    found = part(e[None], torch.tensor([2]), context)
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)
    unknown = part(e[None], torch.tensor([-1]), torch.full((1, 2), math.nan).double())
    torch.testing.assert_close(unknown, part(e[None]))
    assert not torch.allclose(part(e[None], None, torch.zeros(1, 2).double()), unknown)


@pytest.mark.parametrize(
    ("labels", "context", "message"),
    [
        (torch.tensor([3]), None, "labels must lie in -1..2"),
        (torch.tensor([0, 1]), None, "1 integers"),
        (torch.tensor([0.0]), None, "1 integers"),
        (None, torch.zeros(1, 3), "context must have shape"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(labels: Any, context: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ptd.ConditionEmbedding(4, 3, 2)(torch.zeros(1, 4), labels, context)


def test_residual_block_by_hand() -> None:
    """The block is h + W2 silu((1 + s) W1 (h / rms) + b) with s and b linear in the embedding."""
    block = _randomise(ptd.ResidualBlock(4, 2).double())
    h, e = torch.randn(4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)

    modulation = _affine(block.modulation, e)
    inner = (1 + modulation[:4]) * _affine(block.first, h / h.square().mean().sqrt()) + modulation[4:]
    expected = h + _affine(block.second, inner / (1 + torch.exp(-inner)))
    # 1e-9: the root mean square has a guard against division by 0 of the size of float64's rounding.
    torch.testing.assert_close(block(h[None], e[None])[0], expected, rtol=1e-9, atol=1e-9)


def test_plain_block_by_hand() -> None:
    """The classic block is h + W2 silu(W1 h + We e)."""
    block = _randomise(ptd.PlainBlock(4, 2).double())
    h, e = torch.randn(4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)

    inner = _affine(block.first, h) + _affine(block.shift, e)
    expected = h + _affine(block.second, inner / (1 + torch.exp(-inner)))
    torch.testing.assert_close(block(h[None], e[None])[0], expected, rtol=1e-12, atol=1e-12)


def test_residual_mlp_by_hand() -> None:
    """The network embeds, passes the blocks in their order, and maps silu of the result back to points."""
    network = _randomise(_mlp())
    x, c = torch.randn(6, D), torch.randn(6)
    embedding = network.noise(c)
    h = network.first(network.points(x))
    h = network.blocks[1](network.blocks[0](h, embedding), embedding)
    torch.testing.assert_close(network(x, c), network.last(nn.functional.silu(h)))


@pytest.mark.parametrize("n_dims", [1, 2, 5])
def test_default_network_starts_at_zero_and_takes_points_of_any_dimension(n_dims: int) -> None:
    """An untrained network adds nothing to the skip path, and its output has the shape of the points."""
    network = default_network(n_dims, hidden_dim=8, num_layers=3)
    result = network(torch.randn(7, n_dims), torch.randn(7))
    assert result.shape == (7, n_dims)
    assert not result.any()
    assert len(network.blocks) == 3


def test_rate_multiplier_is_positive_and_travels_with_the_specification() -> None:
    """What the trainer multiplies the rate by belongs to the network, and is made again with it."""
    network = _mlp(rate_multiplier=3)
    assert network.rate_multiplier == build(network.specification()).rate_multiplier == 3.0
    for wrong in (0, -1.0, math.nan, math.inf, "20"):
        with pytest.raises(ValueError, match="rate_multiplier"):
            _mlp(rate_multiplier=wrong)


def test_rows_do_not_influence_each_other() -> None:
    """A row's output depends on that row alone: nothing is normalised over the batch."""
    network = _randomise(_mlp()).double()
    x, c = torch.randn(6, D, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    alone = torch.cat([network(x[i : i + 1], c[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(network(x, c), alone, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------------- specifications


def test_every_registered_part_has_an_example_here() -> None:
    """A part that is registered is tested: give an example above."""
    assert set(EXAMPLES) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_specification_round_trip_gives_the_same_function(name: str) -> None:
    """`build(specification)` with the same weights is the same function, also after a trip through JSON."""
    make, shapes = EXAMPLES[name]
    network = _randomise(make())
    inputs = [torch.randn(shape) for shape in shapes]
    specification = json.loads(json.dumps(network.specification()))
    again = build(specification)
    assert type(again) is type(network)
    assert again.specification() == network.specification() == specification_of(network)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(*inputs), network(*inputs))


def test_build_does_not_change_what_it_is_given() -> None:
    """A specification can be used twice."""
    specification = _mlp().specification()
    copy = json.loads(json.dumps(specification))
    build(specification)
    assert specification == copy


_MLP: dict[str, Any] = {
    "part": "residual-mlp",
    "points": {"part": "fourier-features", "n_dims": 2, "num_frequencies": 4},
    "noise": {"part": "noise-embedding", "num_features": 4},
    "blocks": [{"part": "residual-block", "hidden_dim": 8, "embedding_dim": 4}],
    "n_dims": 2,
    "hidden_dim": 8,
}

HOSTILE: dict[str, Any] = {
    "empty": {},
    "no part": {"n_dims": 2},
    "unknown part": {"part": "os.system", "command": "true"},
    "part of torch": {"part": "Linear", "in_features": 2, "out_features": 2},
    "part is a list": {"part": ["residual-mlp"]},
    "part is nothing": {"part": None},
    "unknown argument": {"part": "fourier-features", "n_dims": 2, "device": "cpu"},
    "missing argument": {"part": "fourier-features"},
    "key is a number": {"part": "fourier-features", 3: 2},
    "huge count": {"part": "fourier-features", "n_dims": 2, "num_frequencies": 2**40},
    "huge width": {**_MLP, "hidden_dim": 10**18},
    "huge block": {**_MLP, "blocks": [{"part": "residual-block", "hidden_dim": 2**50, "embedding_dim": 4}]},
    "huge embedding": {**_MLP, "noise": {"part": "noise-embedding", "num_features": 2**62}},
    "huge list": {**_MLP, "blocks": [_MLP["blocks"][0]] * (2**16 + 1)},
    "negative count": {"part": "fourier-features", "n_dims": -1},
    "fractional count": {"part": "noise-embedding", "num_features": 4.0},
    "boolean count": {"part": "fourier-features", "n_dims": True},
    "boolean width": {"part": "plain-block", "hidden_dim": True, "embedding_dim": 4},
    "odd embedding": {"part": "noise-embedding", "num_features": 5},
    "count is text": {"part": "noise-embedding", "num_features": "64"},
    "frequency is zero": {"part": "noise-embedding", "lowest": 0},
    "frequency is NaN": {"part": "noise-embedding", "highest": math.nan},
    "frequency is huge": {"part": "noise-embedding", "highest": 10**400},
    "frequency is text": {"part": "noise-embedding", "highest": "8"},
    "frequencies the wrong way round": {"part": "noise-embedding", "lowest": 8.0, "highest": 0.5},
    "multiplier is text": {**_MLP, "rate_multiplier": "20"},
    "multiplier is nothing": {**_MLP, "rate_multiplier": None},
    "multiplier is zero": {**_MLP, "rate_multiplier": 0},
    "multiplier is negative": {**_MLP, "rate_multiplier": -20.0},
    "multiplier is NaN": {**_MLP, "rate_multiplier": math.nan},
    "multiplier is infinite": {**_MLP, "rate_multiplier": math.inf},
    "multiplier is huge": {**_MLP, "rate_multiplier": 10**400},
    "multiplier is a list": {**_MLP, "rate_multiplier": [1.0]},
    "std is huge": {"part": "fourier-features", "n_dims": 2, "std": 10**400},
    "std is text": {"part": "fourier-features", "n_dims": 2, "std": "1"},
    "points is text": {**_MLP, "points": "fourier-features"},
    "points is a number": {**_MLP, "points": 5},
    "points is no embedding": {**_MLP, "points": _MLP["blocks"][0]},
    "points is an unknown part": {**_MLP, "points": {"part": "identity"}},
    "points is an empty mapping": {**_MLP, "points": {}},
    "blocks is a number": {**_MLP, "blocks": 5},
    "blocks is text": {**_MLP, "blocks": "abc"},
    "blocks is one part": {**_MLP, "blocks": _MLP["blocks"][0]},
    "blocks hold numbers": {**_MLP, "blocks": [5]},
    "blocks hold nothing": {**_MLP, "blocks": [None]},
    "blocks hold text": {**_MLP, "blocks": ["residual-block"]},
    "blocks hold lists": {**_MLP, "blocks": [[[[_MLP["blocks"][0]]]]]},
    "blocks hold an unknown part": {**_MLP, "blocks": [{"part": "lambda"}]},
}


def _nested(depth: int) -> dict[str, Any]:
    specification: dict[str, Any] = _MLP
    for _ in range(depth):
        specification = {**_MLP, "points": specification}
    return specification


HOSTILE["nested without end"] = _nested(5000)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_specifications_are_value_errors(name: str) -> None:
    """Whatever stands in a file, making a network of it is refused in a sentence and claims no memory first."""
    with torch.device("meta"), pytest.raises(ValueError, match=r"\w"):
        build(HOSTILE[name])


@pytest.mark.parametrize("value", [None, 5, "residual-mlp", [1, 2]])
def test_a_specification_that_is_no_mapping_is_a_value_error(value: Any) -> None:
    """A specification is a mapping; anything else is refused in a sentence."""
    with pytest.raises(ValueError, match=r"\w"):
        build(value)


def test_an_unknown_part_is_answered_with_a_suggestion() -> None:
    """A misspelt part is answered with the nearest of the known ones."""
    with pytest.raises(ValueError, match=r"residual_mlp.*did you mean 'residual-mlp'"):
        build({"part": "residual_mlp"})


class _UserFeatures(ptd.FourierFeatures):
    """A user's variant of a part of ours: another class, so another function."""


class _UserBlock(nn.Module):
    """A user's own block."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return h + self.linear(h) * embedding.mean()


class _Wrapper(ptd.ResidualBlock):
    """A part of ours with something inside that is not ours."""


def test_a_class_of_the_user_has_no_specification() -> None:
    """What is not made of our own parts alone has no specification, however deep the foreign class sits."""
    assert specification_of(nn.Linear(2, 2)) is None
    assert specification_of(nn.Sequential(_mlp())) is None
    assert specification_of(_UserFeatures(D, 5)) is None
    assert specification_of(_mlp(points=_UserFeatures(D, 5))) is None
    assert specification_of(_mlp(blocks=[ptd.PlainBlock(WIDTH, EMBEDDING), _UserBlock()])) is None
    assert specification_of(_mlp(blocks=[_Wrapper(WIDTH, EMBEDDING)])) is None
    inner = _mlp()
    inner.points = nn.Sequential(inner.points)  # exchanged after it was made
    assert specification_of(inner) is None
    assert specification_of(_mlp()) is not None


def test_a_network_that_was_changed_after_it_was_made_is_not_described_wrongly() -> None:
    """A specification either makes the network as it is now, or is None: a stale one cannot be loaded from a file."""
    longer, wider = _mlp(), _mlp()
    longer.blocks.append(ptd.PlainBlock(WIDTH, EMBEDDING))
    wider.points, wider.first = ptd.FourierFeatures(D, 9), nn.Linear(D + 18, WIDTH)
    for network in (longer, wider):
        specification = specification_of(network)
        if specification is not None:
            again = build(specification)
            assert {name: value.shape for name, value in again.state_dict().items()} == {
                name: value.shape for name, value in network.state_dict().items()
            }


def test_a_part_of_the_user_says_that_it_has_no_specification() -> None:
    """Asking such a part itself is answered with the name of its class."""
    with pytest.raises(ValueError, match="_UserFeatures"):
        _UserFeatures(D, 5).specification()
