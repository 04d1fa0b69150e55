#!/usr/bin/env bash
# scikit-learn 1.9.1: with array_api_dispatch on, GaussianMixture no longer fits a plain NumPy array.
#
# The switch is meant for arrays of other libraries and is often set for a whole program. GaussianMixture's default start,
# init_params="kmeans", is then refused for NumPy arrays too, although nothing has to be dispatched:
#   off: fitted
#   on:  NotImplementedError: Allowed `init_params` are ['random', 'random_from_data'] if 'array_api_dispatch' is enabled.
# Whoever fits a mixture inside a library has to switch dispatch off around it (sklearn.config_context).
# Exits with 1 if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "scikit-learn==1.9.1" "scipy==1.17.1" "numpy==2.4.6"
SCIPY_ARRAY_API=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import sklearn
from sklearn.mixture import GaussianMixture

rows = np.random.default_rng(0).normal(size=(100, 2))
GaussianMixture(2, random_state=0).fit(rows)
print("off: fitted")
try:
    with sklearn.config_context(array_api_dispatch=True):
        GaussianMixture(2, random_state=0).fit(rows)
except NotImplementedError as error:
    print("on:  NotImplementedError:", str(error).split(" You passed")[0])
else:
    sys.exit("changed: it fits a NumPy array with array_api_dispatch on as well")
PYTHON
