"""What was lived and what was believed meanwhile: one layout for the toy and for bodies, kept as .npz."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from rlcore.errors import DataError
from rlcore.files import write_atomic
from taskinfer.context import Episodes
from taskinfer.inference import Belief
from taskinfer.tasks import BODY, TOY, Family, Tasks, kind, threshold

Array = np.ndarray[Any, Any]
TasksAt = Callable[[int], Tasks]  # step -> what n points or bodies are asked for then


@dataclass(frozen=True)
class Record:
    """n episodes of T decisions. Beliefs at t are those that decision t was made with; the last came after all."""

    obs: Array  # (n, T + 1, ds) in the toy's terms
    action: Array  # (n, T, da) of the toy; for a body (n, T, 1), the value of its sub-goal
    reward: Array  # (n, T) of the true task
    error: Array  # (n, T) of the true task, in its unit: m, m/s, rad
    true_family: Array  # (n, T) ids
    spec: Array  # (n, T)
    belief_mean: Array  # (n, T + 1, L)
    belief_std: Array  # (n, T + 1, L)
    family_prob: Array  # (n, T + 1, C)
    families: Array  # (C,) names
    alive: Array  # (n, T) bool, at the beginning of the decision
    switches: Array  # (S,) decisions at which any task was another one than before
    dt: Array  # () s a decision
    toy: Array  # () name of the toy
    body: Array  # () name of the body; empty for the toy
    subgoal_group: Array  # (n, T) indices into taskinfer.envs.bodies.GROUP_NAMES; -1 on the toy

    def save(self, path: Path) -> None:
        """Write it whole or not at all. No pickles."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: np.savez_compressed(file, **vars(self)))

    @classmethod
    def load(cls, path: Path) -> Record:
        """DataError where it is no such file."""
        try:
            with np.load(path, allow_pickle=False) as held:
                return cls(**{name: held[name] for name in cls.__annotations__})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} holds no recorded episodes: {error}") from error

    @property
    def family_ids(self) -> Array:
        """(C,) ids of the families that beliefs tell apart."""
        return np.array([int(Family[str(name)]) for name in self.families])

    def believed(self) -> Array:
        """(n, T + 1) ids of the likeliest families."""
        ids: Array = self.family_ids[self.family_prob.argmax(-1)]
        return ids

    def known(self) -> tuple[Array, Array]:
        """(n, T) bool: was the likeliest family the true one, after each decision; and was its group."""
        guess = self.believed()[:, 1:]
        groups = np.array([kind(family) for family in Family])
        return guess == self.true_family, groups[guess] == groups[self.true_family]

    def episodes(self, device: str | torch.device = "cpu", length: Array | None = None) -> Episodes:
        """As the encoder takes them, by the first of their tasks; `length` (n,) to cut them off early."""
        n, steps = self.reward.shape
        size = np.full(n, steps) if length is None else length
        columns = (self.obs, self.action, self.reward, size, self.true_family[:, 0], self.spec[:, 0], np.arange(n))
        return Episodes(*(torch.as_tensor(value, device=device) for value in columns))

    def thresholds(self) -> Array:
        """(n, T) the largest error that is a success."""
        tasks = Tasks.of(family=self.true_family.ravel(), spec=self.spec.ravel())
        return threshold(tasks, BODY if str(self.body) else TOY).reshape(self.spec.shape)


class Recorder:
    """Fills a `Record`, step by step. Args: num (n), steps (T), obs_dim (ds), action_dim (da), dt: s a decision."""

    def __init__(
        self, families: Sequence[Family], latent: int, num: int, steps: int, obs_dim: int, action_dim: int,
        *, dt: float, toy: str, body: str = "",
    ) -> None:  # fmt: skip
        def floats(*shape: int) -> Array:
            return np.zeros((num, *shape), np.float32)

        self.tasks: Tasks | None = None
        self.switches: list[int] = []
        self._facts = {
            "families": np.array([f.name for f in families]), "dt": np.array(dt), "toy": np.array(toy),
            "body": np.array(body),
        }  # fmt: skip
        self.columns = {
            "obs": floats(steps + 1, obs_dim), "action": floats(steps, action_dim), "reward": floats(steps),
            "error": floats(steps), "true_family": np.zeros((num, steps), np.int64), "spec": floats(steps),
            "belief_mean": floats(steps + 1, latent), "belief_std": floats(steps + 1, latent),
            "family_prob": floats(steps + 1, len(families)), "alive": np.ones((num, steps), bool),
            "subgoal_group": np.full((num, steps), -1),
        }  # fmt: skip

    def saw(self, t: int, obs: Array, belief: Belief) -> None:
        """Where everything is at time t = 0..T and what is believed there."""
        put = {
            "obs": obs, "belief_mean": belief.mean, "belief_std": belief.std,
            "family_prob": torch.softmax(belief.family_logits, -1),
        }  # fmt: skip
        for name, value in put.items():
            self.columns[name][:, t] = torch.as_tensor(value).cpu().numpy()

    def did(self, t: int, tasks: Tasks, **columns: Array) -> None:
        """Decision t: the tasks it was paid by; action, reward, error and, for bodies, alive and subgoal_group."""
        if self.tasks is not None and tasks is not self.tasks and _differ(tasks, self.tasks):
            self.switches.append(t)
        self.tasks = tasks
        for name, value in {**columns, "true_family": tasks.family, "spec": tasks.spec}.items():
            self.columns[name][:, t] = value

    def done(self) -> Record:
        return Record(**self.columns, **self._facts, switches=np.array(self.switches, np.int64))


def _differ(a: Tasks, b: Tasks) -> bool:
    return bool((a.family != b.family).any() or (a.spec != b.spec).any())


def episode_scores(record: Record) -> Mapping[str, Array]:
    """(n,) each: return, error over the last tenth, success, and how often the family and the group were known.

    Whoever fell has no success.
    """
    last = max(1, round(record.error.shape[1] / 10))
    error = record.error[:, -last:].mean(1)
    family, group = record.known()
    fell = ~record.alive[:, -1]
    return {
        "return": record.reward.sum(1), "error": error, "success": (error < record.thresholds()[:, -1]) & ~fell,
        "family_accuracy": family.mean(1), "group_accuracy": group.mean(1), "fell": fell,
    }  # fmt: skip
