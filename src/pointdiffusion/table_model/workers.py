"""Processes that networks are trained in at once: how many, when they are worth their start, and how they end."""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from pointdiffusion.model.diffusion_model import pick_device

WORTH = 1000
"""Training steps in all from which on processes are started."""

MOST_COPIED = 2**28
"""Bytes of rows up to which each process gets a copy of them."""


def workers(count: int) -> int:
    """Return how many of as many members are trained at once."""
    from joblib import cpu_count

    return min(count, int(cpu_count()))


def at_once(run: Callable[[Any], Any], jobs: Sequence[Any], *, steps: int, size: int, device: str) -> Iterator[Any]:
    """Yield the result of each job, in order; from processes of their own where that is worth their start.

    Args:
        run: What to do for a job; picklable.
        jobs: What it is called with.
        steps: Training steps of all of them.
        size: Bytes of the rows, of which each process gets a copy.
        device: Where networks are trained; on a GPU one after the other.
    """
    alone = multiprocessing.parent_process() is None and not multiprocessing.current_process().daemon
    small = steps < WORTH or size > MOST_COPIED
    if len(jobs) < 2 or small or not alone or pick_device(device) != "cpu":
        yield from map(run, jobs)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(workers(len(jobs)), backend="loky", max_nbytes=None, return_as="generator")
    yield from parallel(delayed(_in_a_process)(os.getpid(), run, job) for job in jobs)


def _in_a_process(parent: int, run: Callable[[Any], Any], job: Any) -> Any:
    """Do a job where nothing else is done."""
    _settle(parent)
    return run(job)


@functools.cache
def _settle(parent: int) -> None:
    """Leave Ctrl-C to the process that asked for the work, and end with it, however it ends; once in a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class StepClock(Callback):
    """Notes when each step of training ended, and ends training at a time.

    Args:
        deadline: Time of `time.monotonic` after which no step is begun; one is trained in any case.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.times: list[float] = []
        self.deadline = deadline

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ARG002
        """Note the time."""
        self.times.append(time.monotonic())
        trainer.should_stop = trainer.should_stop or self.times[-1] >= self.deadline

    @property
    def pace(self) -> float:
        """Seconds of a step, the median; 0 where there was none, as of a member that was read from its folder."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0
