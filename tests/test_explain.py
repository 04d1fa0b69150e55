"""One row in the eyes of a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pointdiffusion as ptd


@pytest.mark.parametrize("label", [None, 1])
def test_the_path_leads_from_the_row_to_its_latent_point(label: int | None) -> None:
    """At the lowest noise level it is the row; at the highest it is where `latent` says, by the Gaussian there."""
    points = ptd.DATASETS["moons"](300, random_state=0)
    labels = None if label is None else (points[:, 0] > 0).astype(int)
    model = ptd.fit(points, ptd.TrainingConfig(epochs=1, reference_points=0), labels=labels, seed=0)
    explained = ptd.explain(model, points[0], labels=label)
    (highest, start), (lowest, end) = explained.path[0], explained.path[-1]
    assert (highest, lowest) == pytest.approx((model.inference.sigma_max, model.inference.sigma_min))
    np.testing.assert_allclose(end, points[0], rtol=0, atol=1e-9)
    mean, factor = model.flow.far_end(highest, 1, model.flow.known(1, label))
    latent = torch.from_numpy(model.latent(points[:1], labels=label))
    far = model.standardiser.inverse(mean + (factor @ latent[..., None])[..., 0])[0]
    np.testing.assert_allclose(start, far, rtol=0, atol=1e-3)
