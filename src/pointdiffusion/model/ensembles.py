r"""An ensemble of models is one model: the average of their denoisers.

On one scale and with one skip path that is the denoiser of the mean of the networks,

.. math:: \frac{1}{K} \sum_k \bigl(c_{skip} x + c_{out} F_k\bigr) = c_{skip} x + c_{out} \frac{1}{K} \sum_k F_k ,

and with a base for each member the sum over members is written out. So the average samples, scores and is stored as
any model. Its squared error is that of a member less the members' variance about their mean.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from pointdiffusion.denoisers.preconditioned import KarrasDenoiser
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.networks import Average


def ensemble(models: Sequence[DiffusionModel]) -> DiffusionModel:
    """Return the average of models that were trained on the same scale.

    Settings, names and conditions are those of the first; grids that were learned for a member are left out.

    Args:
        models: At least one.

    Raises:
        ValueError: If there is none, or they do not belong together.
    """
    if not models or len(models[0].denoiser.bases) > 1:
        raise ValueError("an ensemble needs at least one model, and no member that is an ensemble")
    first = models[0]
    count = len(first.denoiser.bases)
    for other in models[1:]:
        if not other.standardiser.equals(first.standardiser) or other.columns != first.columns:
            raise ValueError("the models of an ensemble must be of one scale: train them with the same standardiser=")
        if other.denoiser.sigma_data != first.denoiser.sigma_data or len(other.denoiser.bases) != count:
            raise ValueError("the models of an ensemble must have the same sigma_data, and each a base or none")
        if (other.conditions is None) != (first.conditions is None):
            raise ValueError("the models of an ensemble must know the same conditions")
    if len(models) == 1:
        return first
    network = Average([copy.deepcopy(each.denoiser.backbone) for each in models])
    raw: dict[str, torch.Tensor] = {}
    if all(each.raw_weights for each in models):
        raw = {
            f"members.{k}.{name}": value for k, each in enumerate(models) for name, value in each.raw_weights.items()
        }
    bases = [base for each in models for base in each.denoiser.bases]
    denoiser = KarrasDenoiser(network, first.denoiser.sigma_data, bases).eval()
    covariance = torch.stack([each.covariance for each in models]).mean(dim=0)
    return replace(first, denoiser=denoiser, raw_weights=raw, covariance=covariance, grids={}, grid_solvers={})
