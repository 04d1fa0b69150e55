#!/bin/bash
# diffusers 0.42.1, IPNDMScheduler: a fourth-order method that is of first order, as its first step ignores the network.
#
# Its grid starts at beta = 1, alpha = 0, where the output is weighted by alpha: eps = x * beta + output * alpha = x.
# The network knows the mean of the data there, and the step leaves it out, which costs an error of order 1 / steps.
#
# Data N(1, 0.5^2), exact network (v), start at 0, which the exact flow takes to the mean, 1. Seen: error of the end
# point in 25, 50, 100, 200 steps: 2.8e-02, 1.4e-02, 6.9e-03, 3.5e-03. With data N(0, 0.5^2) and start at 1, where
# nothing is left out: 3.5e-04, 1.1e-04, 3.4e-05, 1.0e-05.
# Exits with 1 if the first is no longer of first order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "diffusers==0.42.1" "numpy<3"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from diffusers import IPNDMScheduler

STD = 0.5


def end(mean, start, steps):
    scheduler = IPNDMScheduler()
    scheduler.set_timesteps(steps)
    x = torch.tensor([start], dtype=torch.float64)
    for index, t in enumerate(scheduler.timesteps):
        alpha, beta = scheduler.alphas[index].double(), scheduler.betas[index].double()
        denoised = mean + alpha * STD**2 / (alpha**2 * STD**2 + beta**2) * (x - alpha * mean)
        noise = (x - alpha * denoised) / beta
        x = scheduler.step(alpha * noise - beta * denoised, t, x).prev_sample
    return float(x)


steps = (25, 50, 100, 200)
with_mean = [abs(end(1.0, 0.0, n) - 1.0) for n in steps]
without = [abs(end(0.0, 1.0, n) - STD) for n in steps]
print("mean 1: error in 25, 50, 100, 200 steps:", " ".join(f"{error:.1e}" for error in with_mean))
print("mean 0: error in 25, 50, 100, 200 steps:", " ".join(f"{error:.1e}" for error in without))
sys.exit(not (1.7 < with_mean[-2] / with_mean[-1] < 2.3))
PYTHON
