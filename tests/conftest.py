"""One thread a process, so that worker processes share the cores; fixtures that run the example."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch; subprocesses inherit it

pytest_plugins = ["example_fixtures"]

BROWSER = ("test_play", "test_play_page", "test_playground")
"""Files whose tests open the page in a real browser."""

PROCESSES = (
    "test_cli", "test_ddp", "test_documents", "test_example", "test_faults", "test_gallery", "test_resume",
    "test_selection", "test_server", "test_server_ends", "test_server_limits", "test_web",
)  # fmt: skip
"""Files whose tests start processes, or whole trainings: not for the inner loop."""

LONG = (
    "test_play_page", "test_playground", "test_cli", "test_server", "test_server_ends", "test_play",
    "test_server_limits", "test_example", "test_resume", "test_diagnose", "test_conditions", "test_estimator",
    "test_auto", "test_documents", "test_gallery", "test_selection", "test_faults", "test_array_api",
)  # fmt: skip
"""Files that take longest, first: begun at the end, one of them would keep one worker busy and the other waiting."""

SLOW = {
    "test_adapters": ("test_any_target_can_be_trained",),
    "test_array_api": ("test_numpy_arrays_and_tensors_under_array_api_dispatch",),
    "test_auto": (
        "test_a_model_learns_its_own_grid_and_keeps_it",
        "test_a_model_takes_the_plan_that_is_best_on_it",
        "test_any_solver_and_any_denoiser_profits",
    ),
    "test_certify": (
        "test_determinism_is_judged_on_the_finest_grid",
        "test_what_is_right_passes",
    ),
    "test_comparing": (
        "test_of_two_equals_neither_is_better",
        "test_the_better_one_is_called_better",
    ),
    "test_conditioning": ("test_labels_are_learned_at_the_default_rate",),
    "test_conditions": (
        "test_a_class_draws_itself",
        "test_a_guided_model_draws_what_the_guided_flow_draws",
        "test_densities_of_classes_are_densities",
        "test_gaps_are_filled_as_the_data_are",
        "test_guidance_of_strength_0_knows_nothing_of_the_label",
    ),
    "test_data": (
        "test_entropy_is_the_mean_of_minus_log_density",
        "test_points_follow_their_density",
    ),
    "test_diagnose": (
        "test_a_table_of_ones_own_will_do",
        "test_parts_add_up",
        "test_the_planted_fault_is_named",
    ),
    "test_divergence": (
        "test_a_diverged_run_that_is_resumed_says_the_same",
        "test_ordinary_short_runs_are_not_said_to_diverge",
        "test_the_command_keeps_the_model_apart",
        "test_too_high_a_rate_is_a_sentence",
    ),
    "test_empirical": ("test_memory_stays_bounded",),
    "test_estimator": (
        "test_classes_follow_from_densities",
        "test_scores_are_log_densities",
        "test_the_checks_of_scikit_learn",
        "test_the_same_seed_draws_the_same",
    ),
    "test_guidance": (
        "test_guided_gaussians_end_where_they_should_from_any_start",
        "test_guided_mixtures_end_near_where_they_should_from_any_start",
    ),
    "test_judging": (
        "test_columns_keep_their_level_together",
        "test_each_figure_keeps_its_level",
        "test_fresh_data_are_called_fresh",
        "test_the_shift_that_is_said_to_be_visible_is_seen",
        "test_what_is_off_is_found_by_what_can_see_it",
    ),
    "test_likelihood": (
        "test_a_models_density_integrates_to_one",
        "test_errors_above_a_hundredth_are_told",
        "test_mixtures_have_their_own_density",
        "test_the_budget_covers_the_error",
    ),
    "test_model_file": ("test_a_file_that_asks_for_too_much_gets_neither_memory_nor_time",),
    "test_report": (
        "test_one_column_and_many",
        "test_the_page_opens_in_a_browser",
        "test_the_same_seed_gives_the_same_bytes",
    ),
    "test_runs": ("test_killed_at_every_step_nothing_is_lost",),
    "test_schedulers": (
        "test_flow_noise_levels_have_the_scale_of_a_flow",
        "test_the_global_generator_is_left_alone",
        "test_what_is_euler_agrees_with_euler",
        "test_what_is_of_higher_order_is_more_exact_than_euler",
        "test_what_is_stochastic_has_the_right_moments",
    ),
    "test_solvers": (
        "test_moments_of_a_gaussian_converge_at_the_declared_order",
        "test_order_on_the_exact_flow_of_a_mixture",
    ),
    "test_twisted": ("test_what_is_missing_follows_the_exact_conditional",),
    "test_uploads": ("test_the_largest_table_is_still_read",),
}
"""Tests by file that take more than about two seconds of one core, over all their parameters."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests, so that `make fast` can leave them out, and begin with the files that take longest."""
    for item in items:
        name = Path(item.path).stem
        if name in BROWSER:
            item.add_marker(pytest.mark.browser)
        if name in PROCESSES:
            item.add_marker(pytest.mark.processes)
        if getattr(item, "originalname", item.name) in SLOW.get(name, ()):
            item.add_marker(pytest.mark.slow)
    ranks = {name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(Path(item.path).stem, len(LONG)))
