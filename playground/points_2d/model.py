"""The network of the example: change `make_network`, and everything else follows.

Made of the library's parts, as here, a network can be read back from `model.pt` by anybody. A class of your own works
as well; its file then needs this `model.py` to be loaded, which the scripts see to.
"""

from __future__ import annotations

from torch import nn

import pointdiffusion as ptd


def make_network(n_dims: int = 2, hidden_dim: int = 256, num_layers: int = 2) -> nn.Module:
    """Return the network: noisy points and noise levels in, residual MLP, denoised points out.

    `KarrasDenoiser` wraps it, so it sees points scaled to variance 1 and ln(sigma) / 4 for the noise level, and what it
    returns is mixed with its input to give the denoised points.

    Args:
        n_dims: Dimensions of the points.
        hidden_dim: Width of the hidden layers.
        num_layers: Number of residual blocks.
    """
    points = ptd.FourierFeatures(n_dims, num_frequencies=32, std=1.0)  # (B, D) -> (B, D + 64)
    noise = ptd.NoiseEmbedding(64)  # positional embedding: (B,) -> (B, 64)
    blocks = [ptd.ResidualBlock(hidden_dim, noise.out_features) for _ in range(num_layers)]
    return ptd.ResidualMLP(points=points, noise=noise, blocks=blocks, n_dims=n_dims, hidden_dim=hidden_dim)
