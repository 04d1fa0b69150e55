r"""Networks for points: embeddings, residual blocks, and the MLP that is composed of them.

Nothing here depends on diffusion: a network is a function of points and of one number for each point.

**Specifications.** Every part remembers its arguments, so a network made of these parts has a plain specification
(`network.specification()`), from which `build` makes it again. That is what a model file stores. Your own class can be
registered in `NETWORKS`, in every process before it loads such a file: a subclass of `Part` that passes its arguments
to `super().__init__`, or any module that takes no arguments.

**Learning rates.** Adam moves every weight by about the learning rate a step, whatever its gradient. The rate 1e-4
that is customary for large networks is too slow for small ones, which should learn in a thousand steps. A network may
therefore have an attribute `rate_multiplier`: `fit` gives AdamW `learning_rate * rate_multiplier`, at the default
settings 1e-4 * 20 = 2e-3 for `ResidualMLP`. A network without the attribute is trained at `learning_rate` itself.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pointdiffusion.config import unknown_name

_LARGEST = 2**16
"""No number in a specification is larger: a file must not make us ask for all the memory there is."""


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
            raise ValueError(f"{name} must be an integer in 0..{_LARGEST}, got {value!r}")


_MOST_PARTS = 1000


class Part(nn.Module):
    """A module that remembers its constructor arguments, so that it can be made again from a file.

    Args:
        arguments: The arguments of the subclass, by name: numbers, parts, or lists of parts.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._arguments = {name: _plain(value) for name, value in arguments.items()}

    def specification(self) -> dict[str, Any]:
        """Return the registered name and the arguments of this part.

        Returns:
            Numbers, strings, lists and dicts, under "part" the name in `NETWORKS`.

        Raises:
            ValueError: If the class is not in `NETWORKS`.
        """
        names = {kind: name for name, kind in NETWORKS.items()}
        if type(self) not in names:
            raise ValueError(f"{type(self).__name__} is not a registered part, so it has no specification")
        return {"part": names[type(self)], **self._arguments}


def _plain(value: Any) -> Any:
    """Return an argument as it is stored: parts as their specifications, modules that are not registered as None."""
    if isinstance(value, nn.Module):
        name = next((name for name, kind in NETWORKS.items() if kind is type(value)), None)
        return None if name is None else {"part": name, **getattr(value, "_arguments", {})}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def specification_of(network: nn.Module) -> dict[str, Any] | None:
    """Return the specification of a network if it makes the same modules, with weights of the same shapes.

    Args:
        network: The network.

    Returns:
        The specification; None for a class that is not in `NETWORKS`, and for a network that was changed after it was
        made.
    """
    specification = _plain(network)
    try:
        json.dumps(specification)
        with torch.device("meta"):
            again = build(specification)
    except (TypeError, ValueError):
        return None
    made = [[(name, type(module)) for name, module in net.named_modules()] for net in (network, again)]
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (network, again)]
    return dict(specification) if made[0] == made[1] and shapes[0] == shapes[1] else None


def check_forward(network: nn.Module, *conditions: str) -> None:
    """Raise a ValueError unless a network takes points, one number for each, and conditions by name.

    Args:
        network: The network.
        conditions: Names of the conditions that it will get.

    Raises:
        ValueError: If its `forward` cannot be called so.
    """
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):  # it has none that can be read
        return
    try:
        signature.bind(None, None, **dict.fromkeys(conditions))
    except TypeError as error:
        wanted = ", ".join(["x", "c", *conditions])
        raise ValueError(
            f"the backbone {type(network).__name__} cannot be called with points x (B, D) and noise conditioning c (B,)"
            f"{''.join(f' and {name}' for name in conditions)}: {error}; give it a forward(self, {wanted})"
        ) from error


def has_own_parts_only(network: nn.Module) -> bool:
    """Return whether all modules of a network are of this file's classes, or PyTorch's `Linear` and `ModuleList`.

    Args:
        network: The network.

    Returns:
        False as soon as one module is of another class, subclasses included.
    """
    return all(type(module) in (*_OWN, nn.Linear, nn.ModuleList) for module in network.modules())


def unregistered_parts(specification: Any) -> list[str]:
    """Return the names of parts in a specification that are not in `NETWORKS`.

    Args:
        specification: What a file holds; anything.

    Returns:
        The unknown names, empty if `build` knows all.

    Raises:
        ValueError: If it is no specification, or too large for one.
    """
    if not isinstance(specification, Mapping):
        raise ValueError("the specification of a network must be a dict of names and values")
    _check_size(specification)
    waiting: list[Any] = [specification]
    missing = []
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            name = item.get("part")
            if isinstance(name, str) and name not in NETWORKS:
                missing.append(name)
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return missing


def _normal(*shape: int, std: float = 1.0) -> Tensor:
    """Return normal numbers; on the meta device nothing is drawn, since that would import the compiler for seconds."""
    if not math.isfinite(std):
        raise ValueError(f"std must be finite, got {std}")
    numbers = torch.empty(*shape)
    return numbers if numbers.is_meta else numbers.normal_() * std


def _zeroed(layer: nn.Linear) -> nn.Linear:
    """Return the layer with all its weights at zero, so that what it adds begins as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FourierFeatures(Part):
    r"""Points, and cosines and sines of random projections of them: :math:`[x, \sqrt 2 \cos Bx, \sqrt 2 \sin Bx]`.

    Entries of B are normal. For points of unit variance a standard deviation of about 1 radian is right: at 0 a small
    network learns only the smooth part of a density, at 2 some samples lie off the data.

    Args:
        n_dims: Number of dimensions D of the points.
        num_frequencies: Number of projections.
        std: Standard deviation of the entries of B, in radians per unit of x.

    Raises:
        ValueError: If a number is no integer, negative or too large.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020),
        https://arxiv.org/abs/2006.10739
    """

    frequencies: Tensor

    def __init__(self, n_dims: int, num_frequencies: int = 32, std: float = 1.0) -> None:
        super().__init__(n_dims=n_dims, num_frequencies=num_frequencies, std=std)
        _check_counts(n_dims=n_dims, num_frequencies=num_frequencies)
        self.out_features = n_dims + 2 * num_frequencies
        self.register_buffer("frequencies", _normal(n_dims, num_frequencies, std=std))

    def forward(self, x: Tensor) -> Tensor:
        """Embed points.

        Args:
            x: Points, shape `(B, D)`.

        Returns:
            Features, shape `(B, D + 2 * num_frequencies)`.
        """
        angles = x @ self.frequencies
        return torch.cat([x, math.sqrt(2) * angles.cos(), math.sqrt(2) * angles.sin()], dim=-1)


class NoiseEmbedding(Part):
    """Positional embedding of one number for each point, then a linear layer and SiLU.

    Cosines and sines at frequencies spaced evenly in their logarithm. The highest decides how rough a network is in the
    noise level, and so how few steps a solver of high order may take through it. For the noise conditioning
    ln(sigma) / 4 of Karras et al. (2022), 8 radians are one radian for a factor of 1.6 in sigma: networks of the plane
    learn as well with them as with 64, and are solved several times more exactly.

    Args:
        num_features: Number of features; even.
        lowest: Lowest frequency, in radians per unit.
        highest: Highest frequency, in radians per unit.

    Raises:
        ValueError: If `num_features` is odd or below 2, or the frequencies are not positive and in order.
    """

    frequencies: Tensor

    def __init__(self, num_features: int = 64, lowest: float = 0.5, highest: float = 8.0) -> None:
        super().__init__(num_features=num_features, lowest=lowest, highest=highest)
        _check_counts(num_features=num_features)
        if num_features < 2 or num_features % 2:
            raise ValueError(f"num_features must be even and at least 2, got {num_features}")
        if not 0 < lowest <= highest <= _LARGEST:
            raise ValueError(f"frequencies must be above 0, from lowest to highest, got {lowest} and {highest}")
        self.out_features = num_features
        octaves = math.log2(lowest), math.log2(highest)
        self.register_buffer("frequencies", torch.logspace(*octaves, num_features // 2, base=2.0))
        self.linear = nn.Linear(num_features, num_features)

    def forward(self, c: Tensor) -> Tensor:
        """Embed one number for each point.

        Args:
            c: Numbers, shape `(B,)`.

        Returns:
            Features, shape `(B, num_features)`.
        """
        angles = c[:, None] * self.frequencies  # (B, num_features / 2)
        return functional.silu(self.linear(torch.cat([angles.cos(), angles.sin()], dim=-1)))


class ConditionEmbedding(Part):
    r"""Adds the conditions of a point to the embedding of its noise level: a class, and context values.

    Any of them may be missing: a class of -1, a value of NaN. Each value comes with a flag that is 1 where it is
    observed, and passes through its own random Fourier features of 1 radian; features of missing values are zeros. (One
    projection of all values would give a value of 0 and a missing one the same features, but for the flag.)

    Args:
        num_features: Width of the embedding.
        num_classes: Number of classes; 0 for none.
        num_context: Number of context values; 0 for none.
        hidden_dim: Width of the hidden layer.
        num_frequencies: Number of frequencies of each value.

    Raises:
        ValueError: If a number is no integer, negative or too large.
    """

    frequencies: Tensor

    def __init__(
        self, num_features: int = 64, num_classes: int = 0, num_context: int = 0, hidden_dim: int = 128,
        num_frequencies: int = 8,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features=num_features, num_classes=num_classes, num_context=num_context, hidden_dim=hidden_dim,
            num_frequencies=num_frequencies,
        )  # fmt: skip
        _check_counts(
            num_features=num_features, num_classes=num_classes, num_context=num_context, hidden_dim=hidden_dim,
            num_frequencies=num_frequencies,
        )  # fmt: skip
        self.num_classes, self.num_context = num_classes, num_context
        width = num_features + num_classes + 2 * num_context * (1 + num_frequencies)
        self.register_buffer("frequencies", _normal(num_context, num_frequencies))
        self.first = nn.Linear(width, hidden_dim)
        self.second = _zeroed(nn.Linear(hidden_dim, num_features))

    def forward(self, embedding: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Add the conditions to an embedding.

        Args:
            embedding: Embedding of the noise level, shape `(B, num_features)`.
            labels: Classes, integers, shape `(B,)`; -1 for unknown; None if all are.
            context: Context values, shape `(B, num_context)`; NaN where missing; None if all are.

        Returns:
            The embedding with the conditions added, shape `(B, num_features)`.

        Raises:
            ValueError: If shapes, types or the range of the classes do not fit.
        """
        parts = [embedding]
        if self.num_classes:
            parts.append(self._classes(labels, embedding))
        if self.num_context:
            observed = torch.zeros(len(embedding), self.num_context).to(embedding)
            values = observed
            if context is not None:
                if context.shape != values.shape:
                    raise ValueError(f"context must have shape {tuple(values.shape)}, got {tuple(context.shape)}")
                observed = (~context.isnan()).to(embedding)
                values = context.nan_to_num(0.0).to(embedding)
            angles = values[:, :, None] * self.frequencies  # (B, num_context, num_frequencies)
            waves = torch.cat([angles.cos(), angles.sin()], dim=-1) * observed[:, :, None]
            parts += [values, observed, math.sqrt(2) * waves.flatten(1)]
        return embedding + self.second(functional.silu(self.first(torch.cat(parts, dim=-1))))

    def _classes(self, labels: Tensor | None, embedding: Tensor) -> Tensor:
        """Return one-hot classes, shape `(B, num_classes)`; a row of zeros where the class is unknown."""
        if labels is None:
            return embedding.new_zeros(len(embedding), self.num_classes)
        if labels.shape != embedding.shape[:1] or labels.is_floating_point():
            raise ValueError(f"labels must be {len(embedding)} integers, one for each point, got {labels.dtype}")
        if labels.device.type == "cpu" and not -1 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(f"labels must lie in -1..{self.num_classes - 1}, -1 for unknown; check their range")
        return (labels[:, None] == torch.arange(self.num_classes, device=labels.device)).to(embedding)


class ResidualBlock(Part):
    r"""A residual block, :math:`h + W_2\,\phi((1 + s) W_1 \bar h + b)`, that the embedding scales and shifts.

    :math:`\bar h` is h divided by its root mean square, :math:`\phi` SiLU, and s and b are linear in the embedding. The
    scale is what lets the output grow as 1/sigma at low noise levels.

    Args:
        hidden_dim: Width.
        embedding_dim: Width of the embedding.

    References:
        FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018), https://arxiv.org/abs/1709.07871
    """

    def __init__(self, hidden_dim: int = 256, embedding_dim: int = 64) -> None:
        super().__init__(hidden_dim=hidden_dim, embedding_dim=embedding_dim)
        _check_counts(hidden_dim=hidden_dim, embedding_dim=embedding_dim)
        self.first = nn.Linear(hidden_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.modulation = _zeroed(nn.Linear(embedding_dim, 2 * hidden_dim))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block.

        Args:
            h: Hidden state, shape `(B, hidden_dim)`.
            embedding: Embedding, shape `(B, embedding_dim)` or `(1, embedding_dim)`.

        Returns:
            The next hidden state, shape `(B, hidden_dim)`.
        """
        scale, shift = self.modulation(embedding).chunk(2, dim=-1)
        inner = self.first(functional.rms_norm(h, h.shape[-1:]))
        return h + self.second(functional.silu(torch.addcmul(shift, inner, 1 + scale)))


class PlainBlock(Part):
    r"""The classic residual block, :math:`h + W_2\,\phi(W_1 h + W_e e)`, for comparison.

    Args:
        hidden_dim: Width.
        embedding_dim: Width of the embedding.
    """

    def __init__(self, hidden_dim: int = 256, embedding_dim: int = 64) -> None:
        super().__init__(hidden_dim=hidden_dim, embedding_dim=embedding_dim)
        _check_counts(hidden_dim=hidden_dim, embedding_dim=embedding_dim)
        self.first = nn.Linear(hidden_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.shift = nn.Linear(embedding_dim, hidden_dim)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block.

        Args:
            h: Hidden state, shape `(B, hidden_dim)`.
            embedding: Embedding, shape `(B, embedding_dim)` or `(1, embedding_dim)`.

        Returns:
            The next hidden state, shape `(B, hidden_dim)`.
        """
        return h + self.second(functional.silu(self.first(h) + self.shift(embedding)))


class ResidualMLP(Part):
    """Embeds the points and the number, passes them through residual blocks, and maps back to points.

    Args:
        points: Embedding of the points, `(B, D)` to `(B, points.out_features)`.
        noise: Embedding of the number, `(B,)` to `(B, noise.out_features)`.
        blocks: Blocks that map `(B, hidden_dim)` and the embedding of the number to `(B, hidden_dim)`.
        n_dims: Number of dimensions D of the points.
        hidden_dim: Width.
        rate_multiplier: Factor of the learning rate, positive: AdamW gets `learning_rate * rate_multiplier`.
        condition: Part that adds conditions to the embedding of the number, as `ConditionEmbedding` does; None for a
            network without conditions.

    Raises:
        ValueError: If a size is no integer or out of range, or `rate_multiplier` is not positive.

    Examples:
        >>> points, noise = FourierFeatures(2), NoiseEmbedding(16)
        >>> blocks = [ResidualBlock(32, noise.out_features)]
        >>> network = ResidualMLP(points=points, noise=noise, blocks=blocks, n_dims=2, hidden_dim=32)
        >>> network(torch.zeros(5, 2), torch.zeros(5)).shape
        torch.Size([5, 2])
        >>> network.rate_multiplier  # AdamW gets 20 times the learning rate of the settings
        20.0
    """

    def __init__(
        self, *, points: nn.Module, noise: nn.Module, blocks: Sequence[nn.Module], n_dims: int, hidden_dim: int,
        rate_multiplier: float = 20.0, condition: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            points=points,
            noise=noise,
            blocks=list(blocks),
            n_dims=n_dims,
            hidden_dim=hidden_dim,
            rate_multiplier=rate_multiplier,
            condition=condition,
        )
        _check_counts(n_dims=n_dims, hidden_dim=hidden_dim)
        if not (isinstance(rate_multiplier, (int, float)) and 0 < rate_multiplier < math.inf):
            raise ValueError(f"rate_multiplier must be positive, got {rate_multiplier!r}")
        self.rate_multiplier = float(rate_multiplier)
        self.points = points
        self.noise = noise
        self.condition = condition
        self._broadcasts = all(type(block) in (ResidualBlock, PlainBlock) for block in blocks)
        width: Any = points.out_features
        self.first = nn.Linear(width, hidden_dim)
        self.blocks = nn.ModuleList(blocks)
        self.last = _zeroed(nn.Linear(hidden_dim, n_dims))

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: Points, shape `(B, D)`.
            c: One number for each point, such as its noise conditioning, shape `(B,)`.
            labels: Classes, integers, shape `(B,)`; -1 for unknown; None if all are.
            context: Context values, shape `(B, C)`; NaN where missing; None if all are.

        Returns:
            Outputs, shape `(B, D)`.

        Raises:
            ValueError: If conditions are given to a network without them, or do not fit.
        """
        # One number for all, as an expanded tensor: embedded once, a sixth of the work spared.
        once = len(c) > 1 and c.stride(0) == 0 and self._broadcasts
        embedding = self.noise(c[:1] if once else c)
        if self.condition is not None:
            embedding = self.condition(embedding.expand(len(x), -1), labels, context)
        elif labels is not None or context is not None:
            raise ValueError("this network was made without conditions; train one with labels=... or context=...")
        h = self.first(self.points(x))
        for block in self.blocks:
            h = block(h, embedding)
        return self.last(functional.silu(h))


class Average(Part):
    """Mean of the outputs of several networks: an ensemble that is itself a network.

    Args:
        members: The networks, at least one; all of the same inputs and outputs.

    Raises:
        ValueError: If there are none.

    Examples:
        >>> network = Average([default_network(2, 16, 1), default_network(2, 16, 1)])
        >>> network(torch.zeros(5, 2), torch.zeros(5)).shape
        torch.Size([5, 2])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__(members=list(members))
        if not members:
            raise ValueError("an average needs at least one network")
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Apply all members and average.

        Args:
            x: Points, shape `(B, D)`.
            c: One number for each point, shape `(B,)`.
            labels: Classes, shape `(B,)`, if the members take them.
            context: Context values, shape `(B, C)`, if the members take them.

        Returns:
            Outputs, shape `(B, D)`.
        """
        condition = {name: value for name, value in (("labels", labels), ("context", context)) if value is not None}
        return torch.stack([member(x, c, **condition) for member in self.members]).mean(dim=0)


NETWORKS: dict[str, type[nn.Module]] = {
    "average": Average,
    "residual-mlp": ResidualMLP,
    "fourier-features": FourierFeatures,
    "noise-embedding": NoiseEmbedding,
    "condition-embedding": ConditionEmbedding,
    "residual-block": ResidualBlock,
    "plain-block": PlainBlock,
}
"""Parts by name, as model files name them; your own classes can be registered here, see the module."""

_OWN = frozenset(NETWORKS.values())


def build(specification: Mapping[str, Any]) -> nn.Module:
    """Make the network that a specification describes, with freshly initialised weights.

    Args:
        specification: As `Part.specification` returns it.

    Returns:
        The network.

    Raises:
        ValueError: If a name is unknown or an argument does not fit; nothing but the classes of `NETWORKS` is made.
    """
    _check_size(specification)
    return _build(specification)


def _check_size(specification: Mapping[str, Any]) -> None:
    """Raise a ValueError if there are more parts than any network of ours has, or parts in parts without end."""
    waiting: list[tuple[Any, int]] = [(specification, 0)]
    seen = 0
    while waiting:
        item, depth = waiting.pop()
        seen += 1
        if seen > _MOST_PARTS or depth > 16:
            raise ValueError(f"a network has at most {_MOST_PARTS} parts, 16 deep; this specification has more")
        children = item.values() if isinstance(item, Mapping) else item if isinstance(item, list) else []
        waiting += [(child, depth + 1) for child in children if isinstance(child, (Mapping, list))]


def _build(specification: Any) -> nn.Module:
    if not isinstance(specification, Mapping):
        raise ValueError(f"the specification of a part must be a dict of names and values, got {specification!r}")
    arguments = dict(specification)
    name = arguments.pop("part", None)
    if not isinstance(name, str) or name not in NETWORKS:
        raise unknown_name("part of a network", name, NETWORKS)
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            arguments[key] = _build(value)
        elif isinstance(value, list):
            arguments[key] = [_build(item) for item in value]
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"the specification of {name} does not fit: {error}") from error


def default_network(
    n_dims: int, hidden_dim: int = 256, num_layers: int = 2, *, num_classes: int = 0, num_context: int = 0
) -> ResidualMLP:
    """Return the network that `fit` trains by default.

    Args:
        n_dims: Number of dimensions D of the points.
        hidden_dim: Width.
        num_layers: Number of residual blocks.
        num_classes: Number of classes that it can be conditioned on.
        num_context: Number of context values that it can be conditioned on.

    Returns:
        A `ResidualMLP` with Fourier features of the points; its `rate_multiplier` is 20.

    Raises:
        ValueError: If a size is no integer or out of range.

    Examples:
        >>> network = default_network(3)
        >>> sum(weight.numel() for weight in network.parameters())
        352067
        >>> network(torch.zeros(5, 3), torch.zeros(5)).shape
        torch.Size([5, 3])
    """
    points, noise = FourierFeatures(n_dims), NoiseEmbedding()
    blocks = [ResidualBlock(hidden_dim, noise.out_features) for _ in range(num_layers)]
    condition = None
    if num_classes or num_context:
        condition = ConditionEmbedding(noise.out_features, num_classes, num_context)
    return ResidualMLP(
        points=points, noise=noise, blocks=blocks, n_dims=n_dims, hidden_dim=hidden_dim, condition=condition
    )
