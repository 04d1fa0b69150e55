"""Trajectories of many visitors on one machine: in portions, in turns, and ended when nobody waits for them.

A trajectory asks its network about some rows at a time, so that the memory of a call is bounded, and queues up anew for
each call, so that a small trajectory waits for one call of each other and not for their ends. Between two calls it
looks whether its points are still wanted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.denoisers.preconditioned import KarrasDenoiser
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.web.limits import LIMITS
from pointdiffusion.web.walks import WalkRequest, walk

PORTION = 2**31
"""Rows times numbers of a network in one call, at most: about a fifth of a second on two cores."""
SMALL = 200_000
"""Numbers of a trajectory below which it needs little memory; of larger ones two are computed at a time."""


class UnwantedError(Exception):
    """Raised inside a trajectory that nobody waits for any more."""


class Turns:
    """A lock that is had in the order in which it was asked for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = self._now = 0

    def __enter__(self) -> None:
        with self._changed:
            ticket, self._next = self._next, self._next + 1
            self._changed.wait_for(lambda: self._now == ticket)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        with self._changed:
            self._now += 1
            self._changed.notify_all()


class Portions:
    """A denoiser that is asked about some rows at a time, each time in its turn.

    Args:
        denoiser: The denoiser.
        rows: Rows of a call.
        turns: Shared by all trajectories.
        wanted: Returns whether somebody still waits.
    """

    def __init__(self, denoiser: DenoiserFunction, rows: int, turns: Turns, wanted: Callable[[], bool]) -> None:
        self.denoiser, self.rows, self.turns, self.wanted = denoiser, rows, turns, wanted

    @property
    def cost(self) -> int:
        """Number of evaluations that the last call made of each row."""
        return int(getattr(self.denoiser, "cost", 1))

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the denoised points, of the shape of `x`; a condition holds one value for each row.

        Raises:
            UnwantedError: If nobody waits for them.
        """
        parts = []
        for start in range(0, len(x), self.rows):
            rows = slice(start, start + self.rows)
            with self.turns:
                if not self.wanted():
                    raise UnwantedError
                each = {name: value[rows] for name, value in condition.items()}
                parts.append(self.denoiser(x[rows], sigma[rows] if sigma.ndim else sigma, **each))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def rows_at_once(denoiser: KarrasDenoiser) -> int:
    """Return how many rows a network is asked about in one call."""
    numbers = sum(parameter.numel() for parameter in denoiser.parameters())
    numbers += sum(base.covariances.numel() for base in denoiser.bases)
    return max(256, min(2**16, PORTION // max(numbers, 1)))


class Machine:
    """What all visitors share for their trajectories."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.large = asyncio.Semaphore(2)
        self.threads = ThreadPoolExecutor(LIMITS["connections"], "trajectory")

    def close(self) -> None:
        """Let the threads end."""
        self.threads.shutdown(wait=False, cancel_futures=True)


class Walker:
    """The trajectories of one visitor, one at a time: of each panel the one that was asked for last.

    Args:
        machine: Shared by all visitors.
        model: Returns the model of a request; None where there is none.
        answer: Is handed a request, and its frame or the sentence that says why there is none.
    """

    def __init__(
        self, machine: Machine, model: Callable[[WalkRequest], DiffusionModel | None],
        answer: Callable[[WalkRequest, bytes | str], None],
    ) -> None:  # fmt: skip
        self.machine, self.model, self.answer = machine, model, answer
        self._waiting: dict[int, WalkRequest] = {}
        self._latest: Mapping[int, WalkRequest] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, request: WalkRequest) -> None:
        """Queue up a request in place of the one of its panel."""
        self._waiting[request.panel] = request
        self._latest = {**self._latest, request.panel: request}
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def leave(self) -> None:
        """End all of them: nobody listens any more."""
        self._waiting, self._latest = {}, {}
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        while self._waiting:
            request = self._waiting.pop(next(iter(self._waiting)))
            if request.x.size * len(request.sigmas) <= SMALL:
                await self._answer(request)
                continue
            async with self.machine.large:
                await self._answer(request)

    async def _answer(self, request: WalkRequest) -> None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self.machine.threads, self._walk, request)
        except UnwantedError:
            return
        except ValueError as error:
            found = str(error)
        except Exception as error:
            found = f"it cannot be computed ({type(error).__name__}); change the noise levels or the solver"
        if self._wanted(request):
            self.answer(request, found)

    def _wanted(self, request: WalkRequest) -> bool:
        return self._latest.get(request.panel) is request

    def _walk(self, request: WalkRequest) -> bytes | str:
        if not self._wanted(request):
            raise UnwantedError
        model = self.model(request)
        if model is None:
            raise ValueError("there is no network here; train one")
        rows, wanted = rows_at_once(model.denoiser), lambda: self._wanted(request)
        return walk(model, request, lambda denoiser: Portions(denoiser, rows, self.machine.turns, wanted))
