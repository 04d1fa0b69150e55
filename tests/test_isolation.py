"""Training leaves the global state of the process as it was, and threads that train do not disturb each other."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

import pointdiffusion as ptd
from pointdiffusion.exact.fits import fit_mixture
from pointdiffusion.networks import default_network
from pointdiffusion.runtime.isolation import TURN

POINTS = np.random.default_rng(0).normal(size=(60, 2))
TRAINING = ptd.TrainingConfig(epochs=2, batch_size=32)


class WithDropout(torch.nn.Module):
    """A network that draws from the global generator at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.dropout = default_network(2, hidden_dim=16), torch.nn.Dropout(0.3)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.network(x, noise))


def small(_metadata: Any) -> torch.nn.Module:
    return default_network(2, hidden_dim=16)


def fit(**changes: Any) -> ptd.DiffusionModel:
    return ptd.fit(POINTS, TRAINING, **{"backbone": small, "seed": 3, "device": "cpu", **changes})


def state() -> dict[str, Any]:
    """Return what a process has only once."""
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    umask = os.umask(0)
    os.umask(umask)
    return {
        "PyTorch's generator": torch.get_rng_state().tolist(),
        "NumPy's generator": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        "Python's generator": random.getstate(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "default type": torch.get_default_dtype(),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "hook of threads": threading.excepthook,
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "filters": list(warnings.filters),
        "loggers": {each.name: (each.level, each.disabled, each.filters[:], each.handlers[:]) for each in loggers},
        "environment": dict(os.environ),
        "umask": umask,
    }


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Check that the block leaves global state as it was."""
    before = state()
    yield
    after = state()
    before["loggers"] = {name: before["loggers"].get(name, after["loggers"][name]) for name in after["loggers"]}
    assert [name for name in before if before[name] != after[name]] == []


@pytest.fixture(scope="module")
def alone() -> ptd.DiffusionModel:
    """Return a model that was trained while nothing else was; what is imported once is imported by then."""
    return fit()


def same(a: ptd.DiffusionModel, b: ptd.DiffusionModel) -> bool:
    return all(torch.equal(a.raw_weights[name], b.raw_weights[name]) for name in a.raw_weights)


class Fails(Callback):
    """Ends training with an error."""

    def on_train_epoch_end(self, *_: Any) -> None:
        raise ArithmeticError


@pytest.mark.parametrize("backbone", [small, lambda _: WithDropout()], ids=["default", "dropout"])
def test_a_fit_leaves_global_state_as_it_was(
    backbone: Callable[[Any], Any], alone: ptd.DiffusionModel, tmp_path: Path
) -> None:
    with unchanged():
        fit(backbone=backbone, folder=tmp_path)
    with unchanged(), pytest.raises(ArithmeticError):
        fit(backbone=backbone, callbacks=[Fails()])
    with torch.no_grad(), unchanged():
        assert same(fit(), alone)


def test_a_fit_does_not_depend_on_global_state(alone: ptd.DiffusionModel) -> None:
    """Nor do the layers of a user's network that draw from the global generator."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(fit(backbone=lambda _: WithDropout()))
        assert same(fit(), alone)
    assert same(*models)


def test_a_network_with_dropout_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    def network(_: Any) -> torch.nn.Module:
        return WithDropout()

    with pytest.raises(ArithmeticError):
        fit(backbone=network, folder=tmp_path, callbacks=[StopsLater()])
    torch.manual_seed(17)
    assert same(fit(backbone=network, folder=tmp_path, resume=True), fit(backbone=network))


class StopsLater(Callback):
    """Ends training in its second epoch, with an error."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            raise ArithmeticError


def in_threads(*jobs: Callable[[], Any]) -> list[Any]:
    """Return what functions return that are called at once."""
    results: list[Any] = [None] * len(jobs)

    def run(place: int) -> None:
        results[place] = jobs[place]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


def test_fits_in_threads_are_those_of_one_thread(alone: ptd.DiffusionModel, tmp_path: Path) -> None:
    """A network that is made while another one is: each waits for the other, if that is let in, before it draws."""
    meeting = threading.Barrier(2)

    def met(_: Any) -> torch.nn.Module:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.3)
        return small(None)

    with unchanged():
        models = in_threads(lambda: fit(backbone=met), lambda: fit(backbone=met, folder=tmp_path))
    assert all(same(model, alone) for model in models)


def test_warnings_filters_survive_mixtures_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that ignore warnings for a while, each longer than the other began."""
    from sklearn.mixture import GaussianMixture

    meeting, original = threading.Barrier(2), GaussianMixture.fit

    def met(self: Any, *arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.2)
        return original(self, *arguments)

    monkeypatch.setattr(GaussianMixture, "fit", met)
    with unchanged():
        in_threads(*[lambda: fit_mixture(POINTS, 0)] * 2)


def test_faults_in_threads_of_others_are_told_while_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the thread of the logger, which hands a full disk on, is silent."""
    told = list[Any]()
    monkeypatch.setattr(threading, "excepthook", lambda problem: told.append(problem.exc_type))

    def fault() -> None:
        raise FileNotFoundError

    class Starts(Callback):
        def on_train_start(self, *_: Any) -> None:
            in_threads(fault)

    fit(callbacks=[Starts()])
    assert told == [FileNotFoundError]


def test_a_thread_waits_for_its_turn() -> None:
    """While one thread has it, `fit` in another has not begun; a thread may take it again."""
    begun = threading.Event()

    def network(_: Any) -> torch.nn.Module:
        begun.set()
        return small(None)

    with TURN:
        waiting = threading.Thread(target=lambda: fit(backbone=network))
        waiting.start()
        time.sleep(0.05)
        assert not begun.is_set()
        fit()
        assert not begun.is_set()
    waiting.join(120)
    assert begun.is_set()
