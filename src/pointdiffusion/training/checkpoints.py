"""Checkpoints of training: written atomically, read without executing anything, checked before they are used.

The hash in a checkpoint reveals damage, not intent: anybody can compute it again. Lightning trusts the content of a
checkpoint, and initialises what it lacks, so that a run would silently end with other weights. Nearly everything in a
checkpoint but the weights follows from the number of steps taken, and is compared with that.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from pointdiffusion.model.file import check_pickle
from pointdiffusion.runtime.files import read_sealed, seal, write_atomic

_CALLS = (
    "torch Size", "torch device", "__builtin__ set", "__builtin__ complex", "collections Counter", "_codecs encode",
    *(f"torch {name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
)  # fmt: skip
"""What the pickle of a custom module's checkpoint may also call; none of it allocates more than the file has."""

_KINDS: dict[str, type] = {
    "epoch": int, "global_step": int, "pytorch-lightning_version": str, "state_dict": dict, "loops": dict,
    "callbacks": dict, "optimizer_states": list, "lr_schedulers": list, "settings": dict,
}  # fmt: skip
"""Types of the entries of a checkpoint, by name."""


def check_settings(saved: dict[str, Any], requested: dict[str, Any]) -> None:
    """Refuse to resume a run with other settings.

    Args:
        saved: Settings in the checkpoint, by name.
        requested: Settings of the run that would resume it, by name.

    Raises:
        ValueError: If they differ, with the names and both values.
    """
    differing = [name for name in requested if saved.get(name) != requested[name]]
    if differing:
        changes = ", ".join(
            f"the {name}"
            if name in ("network", "base", "rows")
            else f"{name} {saved.get(name)} (now {requested[name]})"
            for name in differing
        )
        raise ValueError(
            f"the saved run cannot be resumed with other settings; it differs in {changes}: "
            "pass the same settings, or start afresh without resuming"
        )


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints atomically, and reads them without executing anything.

    Lightning's default writes through the system's temporary folder, which is not atomic across file systems.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     AtomicCheckpointIO().save_checkpoint({"settings": {}, "epoch": 3}, f"{folder}/last.ckpt")
        ...     AtomicCheckpointIO().load_checkpoint(f"{folder}/last.ckpt")["epoch"]
        3
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write a checkpoint, sealed by a hash.

        Args:
            checkpoint: Content of the checkpoint.
            path: The file.
            storage_options: Ignored; here because Lightning's interface has it.

        Raises:
            OSError: If the disk is full or the folder cannot be written; an earlier file is then untouched.
        """
        archive = io.BytesIO()
        torch.save(checkpoint, archive)
        write_atomic(path, seal(archive.getvalue()))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:  # noqa: ARG002
        """Read a checkpoint, to the CPU.

        Args:
            path: The file.
            map_location: Ignored; here because Lightning's interface has it.
            weights_only: Ignored: nothing in the file is ever executed.

        Returns:
            Content of the checkpoint.

        Raises:
            ValueError: If the file is missing, damaged or foreign.
        """
        archive = read_sealed(path)
        try:
            check_pickle(archive, _CALLS)
            checkpoint = torch.load(archive, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a forged archive makes torch raise
            raise ValueError(f"{path} is not a checkpoint of pointdiffusion; do not trust it") from error
        settings = checkpoint.get("settings") if isinstance(checkpoint, dict) else None
        if not isinstance(settings, dict) or not _is_plain(settings):
            raise ValueError(f"{path} is not a checkpoint of pointdiffusion; start afresh without resuming")
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint.

        Args:
            path: The file, which may be missing.
        """
        Path(path).unlink(missing_ok=True)


def check_state(
    checkpoint: Mapping[str, Any], name: str, weights: Mapping[str, Tensor], schedule: CosineAnnealingLR,
    fit_loop: Mapping[str, Any], epoch_steps: int,
) -> None:  # fmt: skip
    """Check that a checkpoint holds everything that a run needs to resume, and only what a run leaves.

    Args:
        checkpoint: Content of the checkpoint.
        name: Name of the file in messages.
        weights: Parameters and buffers of the module, by name; parameters as such.
        schedule: A fresh schedule of a fresh optimiser of the module's weights.
        fit_loop: State of the loop of a fresh trainer.
        epoch_steps: Steps of an epoch.

    Raises:
        ValueError: With the name of the part that is missing or makes no sense.
    """
    wrong = next(_wrong_parts(checkpoint, weights, schedule, fit_loop, epoch_steps), None)
    if wrong is not None:
        raise ValueError(
            f"{name} cannot be resumed: its entry {wrong} is missing or invalid; start afresh without resuming"
        )


def _wrong_parts(
    checkpoint: Mapping[str, Any], weights: Mapping[str, Tensor], schedule: CosineAnnealingLR,
    fit_loop: Mapping[str, Any], epoch_steps: int,
) -> Iterator[str]:  # fmt: skip
    """Yield the names of parts that are wrong; the later ones rest on the earlier ones."""
    yield from (name for name, kind in _KINDS.items() if not isinstance(checkpoint.get(name), kind))
    version = checkpoint["pytorch-lightning_version"]
    if not re.fullmatch(r"2\.\d{1,4}\.\d{1,4}(\.?(a|b|rc|dev|post)\d{1,8})?", version):
        yield "pytorch-lightning_version"
    step, epoch, state = checkpoint["global_step"], checkpoint["epoch"], checkpoint["state_dict"]
    if not (0 <= epoch * epoch_steps < step <= min((epoch + 1) * epoch_steps, schedule.T_max)):
        yield "global_step"
    if state.keys() != weights.keys() or not all(_is_like(state[name], weights[name]) for name in weights):
        yield "state_dict"
    if int(state["averaged.n_averaged"]) != step:
        yield "averaged.n_averaged"
    loop = checkpoint["loops"].get("fit_loop")
    if not _has_counters_of(loop, fit_loop) or not _is_at(loop, step, epoch, epoch_steps):
        yield "loops"
    if not _fits_optimizer(checkpoint["optimizer_states"], state, weights, schedule.optimizer, step):
        yield "optimizer_states"
    rate = checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]
    expected = {**schedule.state_dict(), "last_epoch": step, "_step_count": step + 1, "_last_lr": [rate]}
    if not _is_plain(checkpoint["lr_schedulers"]) or checkpoint["lr_schedulers"] != [expected]:
        yield "lr_schedulers"
    cosine = schedule.base_lrs[0] * (1 + math.cos(math.pi * step / schedule.T_max)) / 2
    if not math.isclose(rate, cosine, rel_tol=1e-6, abs_tol=1e-9 * schedule.base_lrs[0]):
        yield "lr"


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value is made of numbers, strings and the like, which can be compared with anything."""
    if depth < 10 and isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each, depth + 1) for key, each in value.items())
    if depth < 10 and isinstance(value, (list, tuple)):
        return all(_is_plain(each, depth + 1) for each in value)
    return value is None or type(value) in (bool, int, float, str)


def _is_like(value: Any, expected: Tensor, *, squares: bool = False) -> bool:
    """Return whether a value is a tensor of finite numbers, of the shape and the type of another.

    Squares must not be negative, and may be infinite: those of gradients overflow where training diverges.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    right = value >= 0 if squares else value.isfinite()
    return value.shape == expected.shape and value.dtype == expected.dtype and bool(right.all())


def _has_counters_of(value: Any, fresh: Any) -> bool:
    """Return whether the state of a loop has the parts of a fresh one, and counts where that counts."""
    if isinstance(fresh, Mapping):
        same = isinstance(value, dict) and value.keys() == fresh.keys()
        return same and all(_has_counters_of(value[name], each) for name, each in fresh.items())
    return type(value) is type(fresh) and 0 <= value < 2**53


def _is_at(loop: Mapping[str, Any], step: int, epoch: int, epoch_steps: int) -> bool:
    """Return whether the counters of a loop are those after a number of steps."""
    batches, optimizer = loop["epoch_loop.batch_progress"], loop["epoch_loop.automatic_optimization.optim_progress"]
    each_step = [batches, loop["epoch_loop.scheduler_progress"], *optimizer["optimizer"].values()]
    for name, count in (("total", step), ("current", step - epoch * epoch_steps)):
        saved = (count - 1, count)  # a callback saves before its batch counts as completed
        if not all(
            n in (saved if key == "completed" else (count,)) for each in each_step for key, n in each[name].items()
        ):
            return False
        if not all(n in (epoch, epoch + 1) for n in loop["epoch_progress"][name].values()):
            return False
    return (
        optimizer["optimizer"]["step"]["total"]["completed"] == step
        and loop["epoch_progress"]["current"]["completed"] == epoch
        and loop["epoch_loop.state_dict"]["_batches_that_stepped"] <= step  # a run that went on within an epoch lags
        and batches["is_last_batch"] == (step == (epoch + 1) * epoch_steps)
    )


def _fits_optimizer(
    saved: list[Any], state: Mapping[str, Tensor], weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer,
    step: int,
) -> bool:  # fmt: skip
    """Return whether the state of one optimiser was saved, with the settings of a fresh one and moments of weights."""
    if len(saved) != 1 or not isinstance(saved[0], dict) or saved[0].keys() != {"state", "param_groups"}:
        return False
    groups, moments, fresh = saved[0]["param_groups"], saved[0]["state"], optimizer.state_dict()["param_groups"]
    if not _is_plain(groups) or not isinstance(groups, list) or not isinstance(moments, dict):
        return False
    rates = [group["lr"] for group in groups if isinstance(group, dict) and isinstance(group.get("lr"), float)]
    if groups != [{**fresh[0], "lr": rate} for rate in rates] or len(rates) != 1:
        return False
    if not moments.keys() <= set(fresh[0]["params"]):
        return False
    names = {id(weight): name for name, weight in weights.items()}
    for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
        moment, name = moments.get(index), names[id(parameter)]
        if moment is None:  # right where there was no gradient, so that the weight never moved
            if not torch.equal(state[name], state[f"averaged.module.{name.removeprefix('denoiser.')}"]):
                return False
            continue
        if not isinstance(moment, dict) or moment.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            return False
        if not _is_like(moment["exp_avg"], parameter) or not _is_like(moment["exp_avg_sq"], parameter, squares=True):
            return False
        if not _is_like(moment["step"], torch.zeros(())) or not 1 <= float(moment["step"]) <= step:
            return False
    return True
