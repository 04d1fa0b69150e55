"""The workbench for diffusion models on low-dimensional data.

A noise schedule says how noisy, a denoiser says what is clean, a solver walks from noise to data. Names are loaded
when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

from pointdiffusion.version import __version__

# Type checkers read the same names in __init__.pyi.
_HOMES = {
    "config": ["DivergedError", "InferenceConfig", "QualityWarning", "TableConfig", "TrainingConfig"],
    "data.datasets": ["DATASETS"],
    "denoisers.adapters": [
        "AdaptedDenoiser", "from_eps", "from_score", "from_v", "from_velocity", "from_x0", "to_eps", "to_model",
        "to_score", "to_v", "to_velocity", "to_x0",
    ],
    "denoisers.guidance": [
        "Guided", "autoguidance", "bind", "classifier_free", "classifier_guidance", "guided_gaussian",
    ],
    "denoisers.observation": ["OBSERVATIONS", "Observed"],
    "denoisers.preconditioned": ["Denoiser", "KarrasDenoiser"],
    "diagnostics.anomaly": ["Anomaly", "anomalies"],
    "diagnostics.certificate": ["Certificate"],
    "diagnostics.certification": ["certify"],
    "diagnostics.diagnosis": ["diagnose"],
    "diagnostics.explanation": ["Explanation", "Neighbour", "explain"],
    "diagnostics.parts": ["Diagnosis"],
    "estimator": ["DiffusionEstimator"],
    "exact.empirical": ["EmpiricalDenoiser", "posterior_mean"],
    "exact.fits": ["fit_gaussian", "fit_mixture", "stacking_weights", "student_t"],
    "exact.mixtures": ["GaussianMixture"],
    "exact.optimal": ["OptimumProbe", "known_optimum", "sampled_optimum"],
    "likelihood.density": ["Bandwidth", "LogProb", "choose_sigma_min", "log_prob", "log_prob_with_errors"],
    "likelihood.variational": ["Bound", "variational_bound"],
    "metrics.comparison": ["Difference", "compare"],
    "metrics.distances": ["compare_wasserstein2", "energy_distance", "mmd", "sliced_wasserstein2", "wasserstein2"],
    "metrics.evaluation": ["evaluate"],
    "metrics.marginals": ["MarginalErrors", "PairwiseErrors", "marginal_errors", "pairwise_errors"],
    "metrics.neighbours": ["Copies", "Manifold", "copies_test", "copy_share", "nearest_distances", "precision_recall"],
    "metrics.registry": ["METRICS", "Metric"],
    "metrics.results": ["Evaluation", "MetricResult"],
    "metrics.two_sample": ["ClassifierTest", "classifier_test", "energy_test", "holm", "mmd_test"],
    "model.conditions": ["Conditions"],
    "model.diffusion_model": ["DiffusionModel", "Imputed", "load", "pick_device"],
    "model.ensembles": ["ensemble"],
    "model.flow": ["Companion"],
    "networks": [
        "Average", "ConditionEmbedding", "FourierFeatures", "NETWORKS", "NoiseEmbedding", "Part", "PlainBlock",
        "ResidualBlock", "ResidualMLP", "default_network",
    ],
    "noise": [
        "CosineSchedule", "FamilySchedule", "KarrasSchedule", "LinearBetaSchedule", "LogLinearSchedule",
        "NoiseSchedule", "RectifiedFlowSchedule", "SCHEDULES",
    ],
    "reporting.report": ["report"],
    "runtime.files": ["write_atomic"],
    "runtime.progress": ["show_progress"],
    "sampling.loop": ["FlowSolution", "exact_flow", "make_solver", "sample", "trajectory"],
    "sampling.plans": ["Plan"],
    "sampling.smc": ["Particles", "effective_sample_size", "feynman_kac", "systematic_resample", "tilted_gaussian"],
    "sampling.tuning": ["optimise_plan", "optimise_sigmas"],
    "sampling.twisted": ["Imputation", "Posterior", "impute", "twisted_diffusion"],
    "solvers": [
        "AdaptiveRungeKutta", "ChurnSDE", "DDIM", "EulerODE", "HeunODE", "ItoSDE", "LangevinCorrector", "Multistep",
        "RungeKutta", "SOLVERS", "Singlestep", "Solver",
    ],
    "table_model.fitting": ["fit_table"],
    "table_model.selection": ["Selection"],
    "table_model.table_model": ["AnomalousRow", "TableModel", "load_run"],
    "tabular.collecting": ["Table"],
    "tabular.columns": ["Column", "LabelColumn"],
    "tabular.reading": ["read_table", "table_of"],
    "tabular.schema": ["Schema"],
    "tabular.splitting": ["split_rows"],
    "tabular.standardiser": ["Standardiser"],
    "tabular.writing": ["check_target", "write_table"],
    "training.checkpoints": ["AtomicCheckpointIO"],
    "training.fitting": ["fit"],
    "training.losses": ["LOSSES", "WEIGHTINGS", "loss_weight"],
    "training.module": ["LightningDiffusion"],
    "training.noise_levels": [
        "LikelihoodSampler", "LogNormalSampler", "LogUniformSampler", "NOISE_SAMPLERS", "NoiseSampler",
    ],
    "training.noise_range": ["NoiseRange", "choose_noise_range"],
    "visuals.animation": ["animate_samples"],
    "visuals.plotting": ["plot_comparison", "plot_points", "png_bytes"],
    "web.export": ["export_page"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

# Old name: new name. The old one still works, with a DeprecationWarning.
_RENAMED = {
    "Figure": "MetricResult",
    "Judgement": "Evaluation",
    "Surprise": "Anomaly",
    "judge": "evaluate",
    "unusual": "anomalies",
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        _warn_of_name(name, _RENAMED[name])
        name = _RENAMED[name]
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pointdiffusion' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pointdiffusion.{_MODULE_OF[name]}"), name)


def _warn_of_name(old: str, new: str) -> None:
    """Warn at the line that uses an old name."""
    if sys._getframe(2).f_code.co_name == "_handle_fromlist":
        return  # `from pointdiffusion import ...` looks a name up twice: here, and where it is bound
    message = f"pointdiffusion.{old} is deprecated and will be removed in version 0.3; use pointdiffusion.{new}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def __dir__() -> list[str]:
    return sorted(__all__)
