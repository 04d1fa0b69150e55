"""scikit-learn's `array_api_dispatch`, in a fresh process: its environment variable is read as SciPy is imported."""

from __future__ import annotations

from pathlib import Path

from example_fixtures import run_python

SCRIPT = """
import numpy as np
import sklearn
import torch
from sklearn.utils.estimator_checks import check_array_api_input
import pointdiffusion as ptd

quick = {"n_members": 0, "n_steps": 5, "random_state": 0, "nfe": 4}
rng = np.random.default_rng(0)
rows, classes = rng.normal(size=(60, 2)) + 3 * (np.arange(60) % 2)[:, None], np.arange(60) % 2
plain = ptd.DiffusionEstimator(**quick, base="mixture").fit(rows, classes)
methods = ("score_samples", "predict_proba", "predict")
whole = ptd.DiffusionEstimator(**quick).fit(np.round(10 * rows).astype(np.int64))
check_array_api_input("DiffusionEstimator", ptd.DiffusionEstimator(**quick), array_namespace="numpy")
for dispatch in (True, False):
    sklearn.set_config(array_api_dispatch=dispatch)
    expected, drawn = {name: getattr(plain, name)(rows) for name in methods}, plain.sample(4, classes[:4])
    for given in (rows, torch.from_numpy(rows), torch.from_numpy(rows).requires_grad_()):
        target = classes if isinstance(given, np.ndarray) else torch.from_numpy(classes)
        found = ptd.DiffusionEstimator(**quick, base="mixture").fit(given, target)
        for name in methods:
            out = getattr(found, name)(given)
            assert type(out) is np.ndarray
            np.testing.assert_array_equal(out, expected[name])
        np.testing.assert_array_equal(found.sample(4, target[:4]), drawn)
    again = ptd.DiffusionEstimator(**quick).fit(torch.from_numpy(np.round(10 * rows).astype(np.int64)))
    np.testing.assert_array_equal(again.sample(9), whole.sample(9))  # integers are dequantised and rounded
    assert (again.sample(9) == again.sample(9).round()).all()
    ptd.DiffusionEstimator(**quick).fit(torch.from_numpy(rows).bfloat16())
    ptd.fit_table(rows, config=ptd.TableConfig(base="mixture", num_members=0, num_steps=5))
print("done")
"""


def test_numpy_arrays_and_tensors_under_array_api_dispatch(tmp_path: Path) -> None:
    """The same results with and without dispatch, of arrays and tensors; and the check that is skipped without it."""
    result = run_python("-c", SCRIPT, cwd=tmp_path, SCIPY_ARRAY_API="1")
    assert result.out.strip() == "done", result.err[-3000:]
