"""The one name for the type of arrays of numbers; without torch, so that the command line starts at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Floating-point numbers in double precision, of any shape."""
