"""Options: what is refused, in which words, and that nothing writes to a configuration."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from prismatic.config import PRESETS, SIZES, TaskSpec, TrainConfig
from rlcore import cli
from rlcore.config import from_dict, to_dict
from rlcore.errors import UsageError


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", ""), ("task", "a,,b"), ("task", "a,a"), ("n_experts", 0), ("horizon", 0), ("lr", 0.0), ("rho", 1.5),
        ("moe_tau_init", 3.0), ("moe_tau_min", 0.0), ("min_std", 5.0), ("num_elites", 513), ("num_pi_trajs", 512),
        ("moe_top_k", 5), ("moe_top_k", 1), ("moe_expert_dim", 0), ("n_experts", 1_000), ("seed_steps", -1),
        ("buffer_size", 0), ("dropout", 1.0), ("discount_min", 0.999), ("utd", 0.0), ("moe_lb_alpha", -1.0),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(key: str, value: object):
    with pytest.raises(UsageError) as refused:
        TrainConfig(**{key: value})
    assert str(refused.value).startswith(f"{key}: ")
    assert "\n" not in str(refused.value)


def test_a_task_without_dimensions_is_refused():
    with pytest.raises(UsageError, match="task x: action_dim must be at least 1, got 0"):
        TaskSpec("x", 3, 0, 500)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_survive_json(preset: str):
    cfg = from_dict(TrainConfig, PRESETS[preset], preset)
    assert from_dict(TrainConfig, to_dict(cfg), "config.json") == cfg


@pytest.mark.parametrize("given", [["--model-size", "5"], ["model_size=5"], []])
def test_sizes_are_numbers_except_tiny(given: list[str]):
    assert cli.parse(TrainConfig, given, "prismatic train", "", PRESETS).size is SIZES[5]
    assert TrainConfig(model_size="tiny").size.latent_dim == 64


def test_variants_are_named_as_users_know_them():
    assert TrainConfig().variant == "4o"
    assert TrainConfig(use_orthogonal=False, n_experts=8).variant == "8"
    assert TrainConfig(use_moe=False).variant == "dense"


def test_defaults_that_depend_on_the_task():
    assert TrainConfig(task="a, b").tasks == ("a", "b")
    assert [TrainConfig().resolved_seed_steps(length) for length in (100, 500)] == [1_000, 2_500]
    assert TrainConfig(seed_steps=7).resolved_seed_steps(500) == 7


def test_a_configuration_cannot_be_changed():  # D6
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().iterations = 8  # type: ignore[misc]


def test_options_load_no_torch():
    code = "import sys, prismatic.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
