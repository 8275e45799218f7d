"""Experts: soft actor-critics of one task each, trained in a stack, used one by one.

A stack of N experts lies in the run folder of `collective train-worker`. Observations are Meta-World's 39 numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collective.config import ACTION_DIM, OBS_DIM
from collective.config_worker import WorkerConfig
from collective.data import Dataset
from collective.losses import critic_label
from rlblocks.config import SACConfig
from rlblocks.sac import SAC
from rlcore import checkpoint
from rlcore.config import from_dict
from rlcore.errors import DataError
from rlcore.files import read_json
from rlcore.seeding import derive, numpy_generator

Array = np.ndarray[Any, Any]
ORDER = {"auto": ("best.pt", "final.pt", "last.pt")} | {name: (f"{name}.pt",) for name in ("best", "final", "last")}
DRAWS = 8  # actions that a soft value is the mean over
CHUNK = 2_048  # states at once


def stack(cfg: SACConfig, tasks: Sequence[str], seed: int, device: str | torch.device = "cpu") -> SAC:
    """A learner a task, each with streams that its name decides, whatever it is stacked with."""
    return SAC(cfg, OBS_DIM, ACTION_DIM, seeds=[derive(seed, task) for task in tasks], device=device)


def unstack(batch: dict[str, Tensor], agents: int) -> dict[str, Tensor]:
    """A batch (N, B, ...) as a stack of N wants it: one alone goes without the leading axis."""
    return batch if agents > 1 else {name: value[0] for name, value in batch.items()}


class Expert:
    """One task's policy and critics, which no longer change.

    Args:
        sac: with one agent.
        gamma: the discount it learnt with.
        scale: what its rewards were multiplied by. Values and q are given back in the env's own rewards.
    """

    def __init__(self, task: str, sac: SAC, gamma: float, scale: float = 1.0) -> None:
        assert sac.agents == 1, sac.agents
        self.task, self.sac, self.gamma, self.scale = task, sac, gamma, scale
        # The same draws in every state, in pairs of opposite signs: a value does not depend on who else is asked about.
        half = numpy_generator(0, "soft value").standard_normal((DRAWS // 2, 1, ACTION_DIM), np.float32)
        self._draws = torch.as_tensor(np.concatenate((half, -half)), device=sac.device)  # (K, 1, A)

    @classmethod
    def of(
        cls, task: str, cfg: SACConfig, tensors: Mapping[str, Tensor], index: int, agents: int, gamma: float,
        scale: float, device: str | torch.device,
    ) -> Expert:  # fmt: skip
        """Copy expert `index` out of what a stack of `agents` has learnt (`SAC.tensors()`)."""
        sac = SAC(replace(cfg, cuda_graph=False), OBS_DIM, ACTION_DIM, seeds=[0], device=device)
        for name, tensor in sac.tensors().items():
            each = len(tensors[name]) // agents
            tensor.detach().copy_(tensors[name][index * each : (index + 1) * each])
        return cls(task, sac, gamma, scale)

    def act(self, obs: Array, deterministic: bool = True) -> Array:
        """(B, 39) -> actions (B, 4) in [-1, 1]."""
        return self.sac.act(obs, deterministic)

    @torch.inference_mode()
    def proposal(self, obs: Array) -> tuple[Array, Array]:
        """(B, 39) -> mean (B, 4), squashed, in [-1, 1], and log standard deviation (B, 4) before squashing."""
        states = self._states(obs)
        sample = self.sac.policy(states, torch.zeros(*states.shape[:2], ACTION_DIM, device=states.device))
        return sample.mean.tanh()[0].cpu().numpy(), sample.log_std[0].cpu().numpy()

    @torch.inference_mode()
    def value(self, obs: Array) -> Array:
        """Soft values (B,) of states (B, 39): the mean over actions of the policy of min_e Q_e(s, a) - alpha log pi."""
        parts = [self._value(self._states(obs[i : i + CHUNK])) for i in range(0, len(obs), CHUNK)]
        return np.concatenate([part.cpu().numpy() for part in parts]) / np.float32(self.scale)

    def _value(self, states: Tensor) -> Tensor:
        count = states.shape[1]
        many = states.expand(DRAWS, -1, -1).reshape(1, DRAWS * count, OBS_DIM)
        noise = self._draws.expand(-1, count, -1).reshape(1, DRAWS * count, ACTION_DIM)
        sample = self.sac.policy(many, noise)
        q = self.sac.q(self.sac.critic, many, sample.action).min(1).values  # (1, K B)
        soft = q - self.sac.log_alpha.detach().exp() * sample.log_prob
        return soft.view(DRAWS, count).mean(0)

    @torch.inference_mode()
    def q(self, obs: Array, action: Array) -> Array:
        """The smaller of both critics' values (B,) of actions (B, 4) in states (B, 39)."""
        states, actions = self._states(obs), torch.as_tensor(action, device=self.sac.device).unsqueeze(0)
        q = self.sac.q(self.sac.critic, states, actions).min(1).values[0].cpu().numpy()
        return np.asarray(q) / np.float32(self.scale)

    def label(self, reward: Array, next_obs: Array) -> Array:
        """q* (B,) = r + gamma V(s') of steps that ended nothing; Meta-World's episodes are only ever cut."""
        value = torch.from_numpy(self.value(next_obs))
        return critic_label(torch.from_numpy(reward), torch.full_like(value, self.gamma), value).numpy()

    def _states(self, obs: Array) -> Tensor:
        assert obs.ndim == 2, obs.shape
        assert obs.shape[1] == OBS_DIM, obs.shape
        return torch.as_tensor(obs, device=self.sac.device).unsqueeze(0)

    def state_dict(self) -> dict[str, Any]:
        """What it takes to make it again."""
        tensors = {name: tensor.detach() for name, tensor in self.sac.tensors().items()}
        return {"task": self.task, "gamma": self.gamma, "scale": self.scale, "tensors": tensors}

    @classmethod
    def from_state(cls, cfg: SACConfig, state: Mapping[str, Any], device: str | torch.device = "cpu") -> Expert:
        """Make it again."""
        return cls.of(state["task"], cfg, state["tensors"], 0, 1, state["gamma"], state["scale"], device)


def relabel(data: Dataset, experts: Sequence[Expert | None], q_only: bool = False) -> Dataset:
    """Label every row with its task's expert: mean, log_std (unless `q_only`) and q* = r + gamma V(s').

    None is an expert without values: its tasks' rows stay as they are.
    """
    labels = {name: getattr(data, name).copy() for name in ("expert_mean", "expert_log_std", "q_target")}
    following = data.next_obs()
    for expert, rows in zip(experts, data.rows_of_task(), strict=True):
        if expert is None or not len(rows):
            continue
        labels["q_target"][rows] = expert.label(data.reward[rows], following[rows])
        if not q_only:
            labels["expert_mean"][rows], labels["expert_log_std"][rows] = expert.proposal(data.obs[rows])
    return replace(data, **labels)


def find(folder: Path, task: str) -> Path:
    """The run of `collective train-worker` that holds an expert for `task`: `folder` itself, or one in it.

    DataError where there is none, naming the command that makes one, or where there are several.
    """
    runs = [folder] if (folder / "config.json").is_file() else sorted(p.parent for p in folder.glob("*/config.json"))
    holding = [run for run in runs if task in tasks_of(run)]
    if len(holding) > 1:
        names = ", ".join(run.name for run in holding)
        raise DataError(f"{folder} holds several experts for {task} ({names}): name one of these runs")
    if not holding:
        held = sorted({name for run in runs for name in tasks_of(run)})
        what = f"experts for {', '.join(held)}, none for {task}" if held else f"no expert for {task}"
        raise DataError(f"{folder} holds {what}: `collective train-worker --task {task}` makes one")
    return holding[0]


def tasks_of(run: Path) -> tuple[str, ...]:
    """The tasks that the experts of a run are for; none where it is no run of experts, or has no checkpoint yet."""
    facts = read_json(run / "env.json") if (run / "env.json").is_file() else None
    if not isinstance(facts, dict) or facts.get("stage") != "experts" or not any((run / "checkpoints").glob("*.pt")):
        return ()
    return tuple(map(str, facts["tasks"]))


def load(folder: Path, task: str, which: str = "auto", device: str | torch.device = "cpu") -> Expert:
    """The expert for `task`; see `load_all`."""
    return load_all(folder, [task], which, device)[0]


def load_all(
    folder: Path, tasks: Sequence[str], which: str = "auto", device: str | torch.device = "cpu"
) -> list[Expert]:
    """The experts for `tasks` in `folder`: a run of `collective train-worker`, or a folder of such runs.

    Args:
        which: checkpoint: best, final, last, a .pt file; auto takes the first of these there is.

    Raises: DataError where there is no such expert, naming the command that makes one, or where a file is damaged.
    """
    found: list[Expert] = []
    read: tuple[Path, dict[str, Any]] | None = None  # a checkpoint holds a whole stack
    for task in tasks:
        run = find(Path(folder), task)
        path = checkpoint.Checkpoints(run / "checkpoints").find(*ORDER[which]) if which in ORDER else Path(which)
        if read is None or read[0] != path:
            read = path, checkpoint.load(path)
        found.append(_taken(path, read[1], task, device))
    return found


def _taken(path: Path, state: Mapping[str, Any], task: str, device: str | torch.device) -> Expert:
    """The expert for `task` out of the checkpoint `state`, which was read from `path`."""
    try:
        cfg, parts = from_dict(WorkerConfig, state["config"], where=f"config in {path}"), state["parts"]
        tasks = parts["tally"]["tasks"]
        index = tasks.index(task)
        scale = float(parts["tally"]["norm"]["scale"][index])
        return Expert.of(task, cfg.sac, parts["agent"], index, len(tasks), cfg.gamma, scale, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"checkpoint {path} is not one of experts: {' '.join(str(error).split())[:200]}") from error


class RewardNorm:
    """Running mean and variance of each task's rewards, m <- (1 - c) m + c r, v <- (1 - c) v + c (r - m)^2.

    One update an env step, m before v. A reward is learnt from as r / (sqrt(v) + 1e-8), with v as it is when a batch is
    drawn, so that all of a batch is measured alike; `scale` (N,) is that factor, 1 when off.
    """

    def __init__(self, tasks: int, on: bool, rate: float = 1e-3) -> None:
        self.on, self.rate = on, rate
        self.mean, self.var, self.scale = np.zeros(tasks), np.ones(tasks), np.ones(tasks)

    def update(self, reward: Array) -> None:
        """reward (N, C): C steps of each task."""
        if not self.on:
            return
        for r in reward.T.astype(np.float64):
            self.mean += self.rate * (r - self.mean)
            self.var += self.rate * (np.square(r - self.mean) - self.var)
        self.scale = 1.0 / (np.sqrt(self.var) + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("mean", "var", "scale")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean, self.var, self.scale = (np.array(state[name], np.float64) for name in ("mean", "var", "scale"))
