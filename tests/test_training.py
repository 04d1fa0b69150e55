"""Training: a real LightningModule, bit for bit repeatable, with losses that mean something and no rows left behind."""

from __future__ import annotations

import itertools
import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pointdiffusion as ptd
from pointdiffusion.training.module import LightningDiffusion

POINTS = ptd.DATASETS["moons"](200, random_state=0) * [4.0, 0.25] + [10.0, -3.0]
FRESH = ptd.DATASETS["moons"](3000, random_state=1) * [4.0, 0.25] + [10.0, -3.0]
VALIDATION = ptd.DATASETS["moons"](60, random_state=2) * [4.0, 0.25] + [10.0, -3.0]
SHORT = ptd.TrainingConfig(epochs=3, batch_size=64, learning_rate=1e-3)  # 4 steps an epoch, the last one not full

# A user's own Trainer says what it likes; fit says nothing.
own_trainer = pytest.mark.filterwarnings("ignore:::lightning")


def network(_metadata: Any = None, **settings: Any) -> nn.Module:
    noise = ptd.NoiseEmbedding(16)
    parts = {"points": ptd.FourierFeatures(2, 8), "noise": noise, "blocks": [ptd.ResidualBlock(16, noise.out_features)]}
    return ptd.ResidualMLP(**parts, n_dims=2, hidden_dim=16, **settings)


class Plain(nn.Module):
    """A network that is nobody's part."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(torch.cat([x, c[:, None]], dim=1))


def fit(points: Any = POINTS, training: ptd.TrainingConfig = SHORT, **settings: Any) -> ptd.DiffusionModel:
    return ptd.fit(points, training, **{"backbone": network, **settings})


def weights(model: ptd.DiffusionModel) -> dict[str, Tensor]:
    averaged = {f"averaged.{name}": value for name, value in model.denoiser.state_dict().items()}
    return {**averaged, **{f"raw.{name}": value for name, value in model.raw_weights.items()}}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        callbacks=list(callbacks), accelerator="cpu", devices=1, enable_model_summary=False,
        **{"max_epochs": 3, **quiet, **settings},
    )  # fmt: skip


def module(training: ptd.TrainingConfig = SHORT, *, seed: int = 0, **settings: Any) -> LightningDiffusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = ptd.KarrasDenoiser(network())
    return LightningDiffusion(denoiser, training, seed=seed, **{"points": POINTS, **settings})


class Keeper(Callback):
    """Keeps a copy of the raw weights after every step of the optimiser, the first ones included."""

    def __init__(self) -> None:
        self.raw: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def keep(self, trainer: Trainer, pl_module: Any) -> None:
        if len(self.raw) <= trainer.global_step:
            self.raw.append({name: value.clone() for name, value in pl_module.denoiser.state_dict().items()})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.keep(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.keep(trainer, pl_module)


# ------------------------------------------------------------------------------------------------------- repeatability


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first = weights(fit(seed=5))
    torch.manual_seed(123)  # the state of the global generator does not matter
    second = weights(fit(seed=5))
    assert equal(first, second)
    other = weights(fit(seed=6))
    learned = [name for name in first if name.endswith("weight")]
    assert learned
    assert not any(torch.equal(first[name], other[name]) for name in learned)


def test_no_global_generator_is_touched() -> None:
    torch.manual_seed(1)
    np.random.seed(2)  # noqa: NPY002
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    fit(validation=VALIDATION, population=FRESH, seed=4).sample(5, num_steps=2)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_the_kind_of_table_does_not_matter() -> None:
    """Frame, array, tensor and lists of the same numbers are the same data; names of columns are kept."""
    short = ptd.TrainingConfig(epochs=1, batch_size=128)
    frame = pd.DataFrame(POINTS, columns=["width", "height"])
    models = [fit(table, short) for table in (POINTS, frame, torch.from_numpy(POINTS), POINTS.tolist())]
    assert all(equal(weights(models[0]), weights(model)) for model in models)
    assert models[1].columns == ["width", "height"]
    assert models[0].columns == ["x", "y"]


def test_the_units_of_the_data_do_not_matter() -> None:
    """Points are standardised, so a power of two, which rounds nothing, changes only the scale of the samples."""
    first, second = fit(POINTS), fit(POINTS * 1024)
    assert equal(weights(first), weights(second))
    np.testing.assert_array_equal(first.sample(9, num_steps=4) * 1024, second.sample(9, num_steps=4))


@own_trainer
def test_fit_is_nothing_but_a_trainer_and_the_module() -> None:
    """What fit does, a user's own Trainer does: the same loader, the same draws, the same weights."""
    with torch.random.fork_rng(devices=[]):
        from pointdiffusion.runtime.randomness import INITIALISATION, generator_for

        torch.manual_seed(generator_for(5, INITIALISATION).initial_seed())
        denoiser = ptd.KarrasDenoiser(network())
    own = LightningDiffusion(denoiser, SHORT, points=POINTS, seed=5)
    trainer().fit(own)
    assert equal(weights(own.model()), weights(fit(seed=5)))


def test_training_learns() -> None:
    """Samples of a model trained for a second lie nearer to the data than those of one that hardly was."""
    short, long = (ptd.TrainingConfig(epochs=epochs, batch_size=64, learning_rate=1e-3) for epochs in (1, 80))
    distances = [ptd.nearest_distances(fit(training=c).sample(200, num_steps=20), FRESH).mean() for c in (short, long)]
    assert distances[1] < 0.4 * distances[0]


# ------------------------------------------------------------------------------------------------ optimiser, averaging


@own_trainer
@pytest.mark.parametrize(("decay", "warmup"), [(0.999, 10), (0.5, 3), (0.0, 1)])
def test_averaged_weights_are_the_average_by_hand(decay: float, warmup: int) -> None:
    """The average begins with the weights of the first step, and follows with min(decay, (1 + k) / (warmup + k))."""
    own, keeper = module(ptd.TrainingConfig(epochs=3, batch_size=64, ema_decay=decay, ema_warmup=warmup)), Keeper()
    trainer(keeper).fit(own)
    assert len(keeper.raw) == 13
    average = {name: value.double() for name, value in keeper.raw[1].items()}
    for k, raw in enumerate(keeper.raw[2:], start=1):
        d = min(decay, (1 + k) / (warmup + k))
        average = {name: d * value + (1 - d) * raw[name].double() for name, value in average.items()}
    for name, value in own.averaged.module.state_dict().items():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-7)  # float32 against float64
    assert int(own.averaged.n_averaged) == 12
    model = own.model()
    assert all(
        torch.equal(value, own.denoiser.backbone.state_dict()[name]) for name, value in model.raw_weights.items()
    )
    moved = max(float((keeper.raw[-1][name].double() - average[name]).abs().max()) for name in average)
    assert (moved < 1e-6) == (decay == 0)


@own_trainer
@pytest.mark.parametrize("multiplier", [None, 1.0, 20.0])
def test_the_rate_follows_one_cosine_over_the_whole_run_and_ends_at_zero(multiplier: float | None) -> None:
    """A network may name a multiplier of its rate; without one it is 1."""
    own, keeper = module(), Keeper()
    if multiplier is None:
        own = LightningDiffusion(ptd.KarrasDenoiser(Plain()), SHORT, points=POINTS)
    else:
        own = LightningDiffusion(ptd.KarrasDenoiser(network(rate_multiplier=multiplier)), SHORT, points=POINTS)
    user = trainer(keeper)
    user.fit(own)
    assert own.peak_learning_rate == pytest.approx((multiplier or 1) * 1e-3, rel=1e-12)
    expected = (multiplier or 1) * 1e-3 * (1 + np.cos(np.pi * np.arange(12) / 12)) / 2
    np.testing.assert_allclose(keeper.rates, expected, rtol=1e-9)
    assert user.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert isinstance(user.optimizers[0], torch.optim.AdamW)
    assert user.optimizers[0].param_groups[0]["weight_decay"] == 0.01


@own_trainer
def test_accumulated_batches_are_one_step() -> None:
    """Gradients of two batches make one step: half the steps, half the averages, the cosine still ends at zero."""
    own, keeper = module(), Keeper()
    user = trainer(keeper, accumulate_grad_batches=2)
    user.fit(own)
    assert user.global_step == 6
    assert int(own.averaged.n_averaged) == 6
    assert user.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@own_trainer
def test_accumulated_gradients_are_the_mean_over_their_batches() -> None:
    still = ptd.TrainingConfig(epochs=1, batch_size=64, learning_rate=1e-30, weight_decay=0.0)

    def gradients(accumulated: int) -> list[Tensor]:
        found = []

        class Look(Callback):
            def on_before_optimizer_step(self, _trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
                learned = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
                found.append(torch.cat([gradient.flatten() for gradient in learned]))

        trainer(Look(), max_epochs=1, accumulate_grad_batches=accumulated).fit(module(still))
        return found

    single, double = gradients(1), gradients(2)
    assert len(single) == 4
    assert len(double) == 2
    assert not torch.equal(single[0], single[1])
    torch.testing.assert_close(double[0], (single[0] + single[1]) / 2)
    torch.testing.assert_close(double[1], (single[2] + single[3]) / 2)


# ------------------------------------------------------------------------------------------------- a user's own things


class Moons(LightningDataModule):
    """A user's own data: batches of tensors, or of tuples with labels."""

    def __init__(self, *, labels: bool, batch_size: int = 50) -> None:
        super().__init__()
        self.labels, self.batch_size = labels, batch_size

    def _loader(self, points: np.ndarray, **settings: Any) -> DataLoader:
        rows = torch.tensor(points, dtype=torch.float32)
        data: Any = TensorDataset(rows, torch.arange(len(rows))) if self.labels else rows
        return DataLoader(data, batch_size=self.batch_size, **settings)

    def train_dataloader(self) -> DataLoader:
        return self._loader(POINTS, shuffle=True, generator=torch.Generator().manual_seed(0))

    def val_dataloader(self) -> DataLoader:
        return self._loader(VALIDATION)


@own_trainer
@pytest.mark.parametrize("labels", [False, True], ids=["tensors", "tuples"])
def test_a_users_own_data_module_trainer_callbacks_and_logger(labels: bool, tmp_path: Path) -> None:
    own = module(points=None, standardiser=ptd.Standardiser.fit(POINTS))
    before = {name: value.clone() for name, value in own.denoiser.state_dict().items()}
    keeper, saver = Keeper(), ModelCheckpoint(tmp_path / "saved", monitor="val_loss", save_top_k=1)
    logger = CSVLogger(tmp_path, name="logs", version=0)
    user = trainer(keeper, saver, logger=logger, enable_checkpointing=True, log_every_n_steps=1)
    user.fit(own, datamodule=Moons(labels=labels))
    assert user.global_step == 12
    assert any(not torch.equal(value, before[name]) for name, value in own.denoiser.state_dict().items())
    losses = pd.read_csv(tmp_path / "logs" / "version_0" / "metrics.csv")["val_loss"].dropna()
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    assert Path(saver.best_model_path).exists()
    samples = own.model(columns=["a", "b"]).sample(20, num_steps=5)
    assert np.isfinite(samples).all()
    assert abs(samples.mean(axis=0) - POINTS.mean(axis=0)).max() < 3 * POINTS.std(axis=0).max()  # in the user's units


@own_trainer
def test_a_users_own_batches_are_standardised_and_each_gets_its_own_noise() -> None:
    """Also where gradients of several batches make one step, and the same noise whenever the run is repeated."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    class Spy(ptd.KarrasDenoiser):
        def forward(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
            if self.training and torch.is_grad_enabled():
                seen.append((x.detach(), sigma))
            return super().forward(x, sigma, **condition)

    def run() -> list[Tensor]:
        seen.clear()
        config = ptd.TrainingConfig(epochs=1, noise_draws=1)
        own = LightningDiffusion(Spy(network()), config, standardiser=ptd.Standardiser.fit(POINTS), seed=7)
        trainer(max_epochs=1, accumulate_grad_batches=2).fit(own, datamodule=Moons(labels=False))
        return [sigma for _, sigma in seen]

    first, second = run(), run()
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for a, b in itertools.combinations(first, 2):
        assert not torch.equal(a, b)
    x, sigma = (torch.cat(parts) for parts in zip(*seen, strict=True))
    clean = x[sigma < 0.1]
    assert len(clean) > 30
    assert clean.abs().max() < 4  # standard units, where the rows themselves lie at 10 and -3
    assert clean.std() == pytest.approx(1, abs=0.3)


@own_trainer
def test_without_rows_and_without_data_module_one_sentence_says_so() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        trainer().fit(module(points=None))
    with pytest.raises(ValueError, match="scale of the data"):
        module(points=None).model()


@own_trainer
def test_validation_through_a_users_own_trainer() -> None:
    own = module(validation=VALIDATION, population=FRESH)
    own.on_fit_start()
    [metrics] = trainer().validate(own, verbose=False)
    assert metrics["val_loss"] > metrics["optimal_val_loss"] > 0


# --------------------------------------------------------------------------------------------------- what is logged


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ptd.DiffusionModel]:
    """Return the folder of a short run with everything that can be logged, and its model."""
    folder = tmp_path_factory.mktemp("logged")
    return folder, fit(validation=VALIDATION, population=FRESH, folder=folder, seed=8)


COLUMNS = ["train_loss", "val_loss", "optimal_train_loss", "optimal_val_loss", "optimizer_lr"]


def test_losses_and_rate_are_in_the_csv(logged: tuple[Path, ptd.DiffusionModel]) -> None:
    [path] = logged[0].glob("lightning_logs/*/metrics.csv")
    table = pd.read_csv(path)
    assert set(COLUMNS) <= set(table.columns)
    assert len(table) == 3
    assert np.isfinite(table[COLUMNS].to_numpy()).all()
    cosine = (1 + np.cos(np.pi * np.array([4, 8, 12]) / 12)) / 2  # at the ends of three epochs of four steps
    np.testing.assert_allclose(table["optimizer_lr"], 20 * 1e-3 * cosine, rtol=1e-6, atol=1e-12)  # as AdamW gets it
    assert (table[["optimal_train_loss", "optimal_val_loss"]].std() == 0).all()  # constants
    assert (table["train_loss"] > table["optimal_train_loss"]).all()
    assert (table["val_loss"] > table["optimal_val_loss"]).all()
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0]
    assert table["val_loss"].iloc[-1] < table["val_loss"].iloc[0]


def test_losses_and_rate_are_in_the_event_files(logged: tuple[Path, ptd.DiffusionModel]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    [path] = logged[0].glob("lightning_logs/*/events.out.tfevents*")
    events = EventAccumulator(str(path))
    events.Reload()
    table = pd.read_csv(path.parent / "metrics.csv")
    for name in COLUMNS:
        np.testing.assert_allclose([event.value for event in events.Scalars(name)], table[name], rtol=1e-5)


def brute_force(points: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of a set, as its formula says, in float64."""
    squared = ((x[:, None] - points[None]) ** 2).sum(dim=2)
    return torch.softmax(-squared / (2 * sigma[:, None] ** 2), dim=1) @ points


@pytest.mark.parametrize("loss", ["karras", "noise-prediction"])
def test_the_constants_are_the_losses_of_exact_denoisers(loss: str) -> None:
    """The exact optimum of the training rows on the training draws, that of the population on the validation draws."""
    config = ptd.TrainingConfig(epochs=1, batch_size=64, loss=loss)
    own = module(config, validation=VALIDATION, population=FRESH).double()
    own.setup("fit")
    constants = own.optimal_losses()
    standardiser = ptd.Standardiser.fit(POINTS)
    for name, known, reference in (("train", POINTS, POINTS), ("val", VALIDATION, FRESH)):
        draws = own._fixed_draws({"train": "points", "val": "validation"}[name], int(name == "val"))
        assert draws is not None
        x_0, sigma, x = draws
        rows = torch.from_numpy(standardiser.transform(known))
        assert (
            torch.cdist(x_0, rows, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1).max() < 1e-12
        )  # the draws are of the rows they belong to
        noise = (x - x_0) / sigma[:, None]
        assert noise.std() == pytest.approx(1, abs=0.06)  # 2048 normal numbers
        assert 0.01 <= sigma.min() < sigma.max() <= 10
        optimum = brute_force(torch.from_numpy(standardiser.transform(reference)), x, sigma)
        weight = (1 + sigma**2) / sigma**2 if loss == "karras" else 1 / sigma**2
        expected = (weight * ((optimum - x_0) ** 2).mean(dim=1)).mean()
        assert constants[f"optimal_{name}_loss"] == pytest.approx(float(expected), rel=1e-9)


def test_nothing_that_was_trained_gets_below_the_optimum_of_its_rows() -> None:
    """The optimum of the rows is the least loss of all denoisers in expectation, and on 1024 draws nearly so."""
    own = module(validation=VALIDATION, population=FRESH)
    own.setup("fit")
    constants = own.optimal_losses()
    draws = own._fixed_draws("points", 0)
    assert draws is not None
    for denoiser in (ptd.EmpiricalDenoiser(own._rows["population"]), ptd.EmpiricalDenoiser(own._rows["points"][:100])):
        assert float(own._fixed_loss(denoiser, draws)) > constants["optimal_train_loss"]


def test_the_logged_losses_do_not_depend_on_the_run() -> None:
    """Fixed draws: the same numbers of rows, levels and noises at every epoch and for every batch size."""
    own, other = module(), module(ptd.TrainingConfig(epochs=9, batch_size=16))
    for one in (own, other):
        one.setup("fit")
    for a, b in zip(own._fixed_draws("points", 0) or (), other._fixed_draws("points", 0) or (), strict=True):
        assert torch.equal(a, b)


# ---------------------------------------------------------------------------------------------------- what is left


def encodings(row: np.ndarray) -> list[bytes]:
    """Return how a file could hold a row: in either precision and either byte order, as a whole or as its parts."""
    found = [row.astype(kind).tobytes() for kind in ("<f4", "<f8", ">f8")]
    found += [np.array([value], "<f8").tobytes() for value in row]
    return [*found, *(repr(float(value)).encode() for value in row)]


def test_no_training_row_is_left_in_any_file(logged: tuple[Path, ptd.DiffusionModel], tmp_path: Path) -> None:
    folder, model = logged
    model.save(tmp_path / "model.pt")
    standardiser = ptd.Standardiser.fit(POINTS)
    secrets = [
        code
        for table in (POINTS, VALIDATION)
        for row in np.concatenate([table, standardiser.transform(table)])
        for code in encodings(row)
    ]
    files = [path for path in [*folder.rglob("*"), tmp_path / "model.pt"] if path.is_file()]
    assert {"last.ckpt", "model.pt"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert not any(code in content for code in secrets), path
    # The search does find what is there.
    assert standardiser.mean.astype("<f8").tobytes() in (tmp_path / "model.pt").read_bytes()


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit()
    assert list(tmp_path.iterdir()) == []


def test_fit_says_nothing_and_warns_of_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(validation=VALIDATION, folder=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    fit(show_progress=True)
    assert "training: 3/3" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["finished", "interrupted", "failed"])
def test_the_handler_of_ctrl_c_is_the_users_own_again(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning ignores Ctrl-C for good once it was pressed."""
    error = {"finished": None, "interrupted": KeyboardInterrupt, "failed": ZeroDivisionError}[how]

    def training_step(self: LightningDiffusion, *_: Any) -> Tensor:
        raise error  # type: ignore[misc]

    def own(*_: Any) -> None:
        pass

    before = signal.signal(signal.SIGINT, own)
    try:
        if error is None:
            fit()
        else:
            monkeypatch.setattr(LightningDiffusion, "training_step", training_step)
            with pytest.raises(error):
                fit()
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_fit_works_in_a_thread() -> None:
    """Signals belong to the main thread; an application may train in another one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert equal(weights(pool.submit(fit).result()), weights(fit()))


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: fit(training=ptd.TrainingConfig(loss="karas")), "karras"),
        (lambda: fit(training=ptd.TrainingConfig(weighting="min-snl")), "min-snr"),
        (lambda: fit(training=ptd.TrainingConfig(noise_sampler="lognormal")), "log-normal"),
        (lambda: fit(validation=VALIDATION[:, :1]), "column"),
        (lambda: fit(backbone=lambda _metadata: "a network"), "backbone"),
        (lambda: fit(seed=-1), "seed"),
        (lambda: fit(device="gpu"), "device"),
        (lambda: fit(inference=ptd.InferenceConfig(solver="hoin")), "heun"),
        (lambda: fit(inference=ptd.InferenceConfig(schedule="caras")), "karras"),
    ],
    ids=["loss", "weighting", "sampler", "validation", "backbone", "seed", "device", "solver", "schedule"],
)
def test_wrong_settings_are_refused_before_training(
    make: Callable[[], Any], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(LightningDiffusion, "training_step")
    with pytest.raises(ValueError, match=match):
        make()
