"""Students' runs for tests, and teachers that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collective.agent import Collective, network
from collective.cli import main
from collective.config_encoder import ModelConfig
from collective.encoder import Encoder
from collective.model import TrajectoryModel
from collective.windows import Rolling
from rlblocks.config import SACConfig
from rlblocks.sac import SAC
from rlcore import checkpoint
from rlcore.vecenv import VecStep

Array = np.ndarray[Any, Any]


class Counting:
    """A teacher with one opinion, who counts what he is asked."""

    fingerprint = "counting"

    def __init__(self, mean: Array, log_std: Array, values: Sequence[float] = ()) -> None:
        self.mean, self.log_std, self.values = mean, log_std, list(values)
        self.calls: list[str] = []
        self.seen: list[tuple[str, Array]] = []  # observations, by what was said of them

    def begin(self, obs: Array, where: Array | None = None) -> None:
        self.calls.append("begin")
        self.seen.append(("begin", obs.copy()))

    def advance(self, action: Array, reward: Array, obs: Array) -> None:
        self.calls.append("advance")
        self.seen.append(("advance", obs.copy()))

    def advise(self) -> tuple[Array, Array]:
        self.calls.append("advise")
        return self.mean, self.log_std

    def value(self) -> Array:
        """Of the newest observation, by its first number."""
        self.calls.append("value")
        return np.array([self.values[int(row[0])] for row in self.seen[-1][1]])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Network:
    """What a collective network is to a student: codes are sums over the window, and forwards are counted."""

    code, encoder = "cls", None

    def __init__(self, tasks: tuple[str, ...] = ("toy-push",), hidden: tuple[int, ...] = (8, 8)) -> None:
        self.tasks, self.forwards = tasks, 0
        cfg = SACConfig(hidden=hidden, init="xavier", log_std_map="tanh", log_std_min=-5.0)
        self.sac = SAC(cfg, 27, 4, seeds=[5])
        self.shift, self.scale = np.zeros(27, np.float32), np.ones(27, np.float32)

    def numbers(self, tasks: Sequence[str]) -> Array:
        return np.array([self.tasks.index(task) if task in self.tasks else -1 for task in tasks])

    def inputs(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        self.forwards += 1
        return np.concatenate((plain_code(rolling), rolling.states[:, -1]), 1)

    def proposal(self, inputs: Array) -> tuple[Array, Array]:
        return self.sac.act(inputs, deterministic=True), np.full((len(inputs), 4), -1.0, np.float32)

    def value(self, inputs: Array) -> Array:
        return inputs.sum(1)


def plain_code(rolling: Rolling) -> Array:
    """(N, 6): lengths, summed rewards and actions."""
    columns = (rolling.lengths[:, None], rolling.rewards.sum(1, keepdims=True), rolling.actions.sum(1))
    return np.concatenate(columns, 1).astype(np.float32) / 10.0


def collective(root: Path, name: str = "collective", seed: int = 0, hidden: tuple[int, ...] = (8, 8)) -> Path:
    """The folder of a collective network of toy-push and toy-lift that nobody has trained: tiny, and told codes."""
    torch.manual_seed(seed)
    sizes = ModelConfig(width=8, layers=1, heads=2, hidden=8)
    encoder = Encoder(TrajectoryModel(sizes, "transformer", 21, 4), ("toy-push", "toy-lift"))
    shift, scale = np.linspace(-0.1, 0.1, 27, dtype=np.float32), np.full(27, 0.5, np.float32)
    made = Collective(encoder.tasks, "cls", encoder, cfg=network(hidden), seed=seed, shift=shift, scale=scale)
    state = {"step": 0, "parts": {"policies": {"cls": made.state_dict()}}}
    (root / name / "checkpoints").mkdir(parents=True)
    checkpoint.save(root / name / "checkpoints" / "final.pt", state)
    return root / name


def step_of(obs: Array, reward: Sequence[float], truncated: Sequence[bool], final_obs: Array | None = None) -> VecStep:
    """What N envs gave back."""
    n = len(reward)
    final = np.zeros_like(obs) if final_obs is None else final_obs
    return VecStep(
        obs, np.array(reward, np.float32), np.zeros(n, bool), np.array(truncated), final, {"success": np.zeros(n, bool)}
    )


# --- runs -------------------------------------------------------------------------------------------------------------
def run(verb: str, root: Path, name: str, *options: str, code: int = 0) -> Path:
    """`collective VERB --preset debug OPTIONS` as a run of that name."""
    assert main([verb, "--preset", "debug", *options, "--quiet", "--dir", str(root), "--name", name]) == code
    return root / name


def plain_names(parts: dict[str, Any]) -> dict[str, Any]:
    """Less what a run without a teacher has otherwise."""
    return {name: part for name, part in parts.items() if name != "guide"}
