"""The low level: one policy a body that follows sub-goals, "be 1 m further on", "run at 2 m/s", whoever sets them.

Its input is the body's observation, without the absolute x, and a task vector [mask, value] for each group in use. A
goal's value is the way still to go, so that a policy that has learnt one place knows them all, and a goal that is
reached differs from no goal by its mask. Soft actor-critic, see rlblocks.sac.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlblocks.config import SACConfig
from rlblocks.sac import SAC
from rlcore.buffer import Field, ReplayBuffer
from rlcore.errors import UsageError
from rlcore.seeding import numpy_state, set_numpy_state
from taskinfer.envs.bodies import GROUP_NAMES, BodyStep, SubGoal
from taskinfer.tasks import GROUPS, SIGN, State, Tasks, normaliser, reward

Array = np.ndarray[Any, Any]
REACH = 3.0  # m: a goal further away than this looks this far
WORST = -3.0  # the smallest reward of a step: keeps values bounded
GOAL = GROUP_NAMES.index("goal")
_FRONTS, _BACKS = (np.array([GROUPS[name][end] for name in GROUP_NAMES], np.int64) for end in (0, -1))  # families


def task_vector(groups: Sequence[str], subgoal: SubGoal) -> Array:
    """[mask, value] for each of `groups`, (n, 2 G) float32. Goals must be relative; groups not in use are an error."""
    n, columns = len(subgoal.group), []
    known = np.zeros(n, bool)
    for name in groups:
        own = subgoal.group == GROUP_NAMES.index(name)
        value = np.clip(subgoal.value, -REACH, REACH) if name == "goal" else subgoal.value
        columns += [own, np.where(own, value, 0.0)]
        known |= own
    if not known.all():
        raise UsageError(f"this low level knows {', '.join(groups)}, not {GROUP_NAMES[int(subgoal.group[~known][0])]}")
    if subgoal.frame != "relative" and "goal" in groups and (subgoal.group == GOAL).any():
        raise UsageError("an absolute goal must be made relative first: subgoal.relative(x)")
    return np.stack(columns, 1).astype(np.float32)


def step_reward(tasks: Tasks, after: State) -> Array:
    """(n,) float32 reward of a step that led to `after`, at least `WORST`."""
    return np.maximum(reward(tasks, after), WORST).astype(np.float32)


def draw(
    rng: np.random.Generator, groups: Sequence[str], ranges: Mapping[str, tuple[float, float]], n: int,
    shares: Sequence[float] = (),
) -> SubGoal:  # fmt: skip
    """n sub-goals, relative: a group by its share, its size uniform in its range, the sign by a coin."""
    chance = np.array(shares or [1.0] * len(groups))
    pick = rng.choice(len(groups), size=n, p=chance / chance.sum())
    low, high = np.array([ranges[name] for name in groups]).T
    size = rng.uniform(low[pick], high[pick])
    signed = np.array([any(SIGN[family] < 0 for family in GROUPS[name]) for name in groups])
    sign = np.where(signed[pick] & (rng.random(n) < 0.5), -1.0, 1.0)
    return SubGoal(np.array([GROUP_NAMES.index(name) for name in groups])[pick], size * sign)


def as_tasks(subgoal: SubGoal, scale: Array | None = None) -> Tasks:
    """The sub-goals as tasks. Without a `scale` (n,) they are new ones, and goals are normalised by their distance."""
    family = np.where(subgoal.value < 0, _BACKS[subgoal.group], _FRONTS[subgoal.group])
    spec = _float(subgoal.value)
    return Tasks(family, spec, normaliser(family, spec) if scale is None else _float(scale))


class TaskStream:
    """What each of n training bodies is asked for: drawn anew every `hold` steps, in the middle of a trajectory.

    A switch is not the end of an episode: nothing that is stored knows of it.
    """

    def __init__(
        self, num: int, groups: Sequence[str], ranges: Mapping[str, tuple[float, float]],
        hold: tuple[int, int], rng: np.random.Generator, shares: Sequence[float] = (),
    ) -> None:  # fmt: skip
        self.groups, self.ranges, self.hold, self.rng, self.shares = tuple(groups), dict(ranges), hold, rng, shares
        self.goal = SubGoal(np.zeros(num, np.int64), np.zeros(num), "absolute")
        self.scale = np.ones(num, np.float32)  # the normaliser
        self.left = np.zeros(num, np.int64)  # steps until the next switch

    def advance(self, x: Array, ended: Array | None = None) -> None:
        """Before a step from x (n,): switch where the time is over or an episode has `ended`."""
        due = self.left <= 0 if ended is None else (self.left <= 0) | ended
        if due.any():
            new = draw(self.rng, self.groups, self.ranges, len(due), self.shares)
            steps = self.rng.integers(*self.hold, endpoint=True, size=len(due))
            made = as_tasks(new)
            value = np.where(due, new.absolute(x).value, self.goal.value)
            self.goal = SubGoal(np.where(due, new.group, self.goal.group), value, "absolute")
            self.scale = np.where(due, made.normaliser, self.scale)
            self.left = np.where(due, steps, self.left)
        self.left = self.left - 1

    def rewards(self, after: State) -> dict[str, float]:
        """Mean reward, by group, of the step that led to `after`."""
        got = step_reward(as_tasks(self.goal, self.scale), after)
        own = {name: self.goal.group == GROUP_NAMES.index(name) for name in self.groups}
        return {f"reward_{name}": float(got[mask].mean()) for name, mask in own.items() if mask.any()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "group": self.goal.group.copy(), "value": self.goal.value.copy(), "scale": self.scale.copy(),
            "left": self.left.copy(), "rng": numpy_state(self.rng),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        group, value = (np.asarray(state[name]) for name in ("group", "value"))
        self.goal = SubGoal(group.copy(), value.copy(), "absolute")
        self.scale, self.left = np.asarray(state["scale"]).copy(), np.asarray(state["left"]).copy()
        set_numpy_state(self.rng, state["rng"])


class Experience:
    """Replay of body steps, each with the sub-goal of the time, from which a batch is made for any sub-goal.

    What a body does is the same whatever it was asked for. So a share of each batch, `relabel`, is given sub-goals
    drawn afresh, and every step teaches every task (Kaelbling 1993; Andrychowicz et al. 2017, arXiv:1707.01495).

    `alive` is added to each reward. Where nothing ever falls this changes no policy, but values then begin near those
    of a body that stands still, 0, and need not first sink to -1 / (1 - gamma) everywhere.

    The step in which a body falls is paid -`fall_cost`, whatever was asked for. A cheetah that may lie down learns to
    creep forwards on its back and stays with that.
    """

    def __init__(
        self, capacity: int, num: int, obs_dim: int, action_dim: int, groups: Sequence[str],
        ranges: Mapping[str, tuple[float, float]], *, relabel: float, alive: float, rng: np.random.Generator,
        rows: np.random.Generator, fall_cost: float = 0.0, shares: Sequence[float] = (),
    ) -> None:  # fmt: skip
        self.fall_cost, self.shares = fall_cost, shares
        self.groups, self.ranges, self.relabel, self.alive, self.rng = tuple(groups), dict(ranges), relabel, alive, rng
        numbers = ("value", "scale", "moved", "vx", "vz", "pitch")
        fields = {
            "obs": Field((obs_dim,)), "action": Field((action_dim,)), "next_obs": Field((obs_dim,)),
            "group": Field((), "int64"), "terminated": Field((), "bool"), "broken": Field((), "bool"),
            **dict.fromkeys(numbers, Field()),
        }  # fmt: skip
        self.buffer = ReplayBuffer(fields, capacity, num, rng=rows)

    def add(self, obs: Array, action: Array, moved: BodyStep, tasks: TaskStream) -> None:
        """Store a step: the policy's own action in [-1, 1], the sub-goal as it was during the step.

        A body whose simulation broke down is stored as staying where it was at the worst reward.
        """
        before, after = moved.before, moved.after
        value = tasks.goal.relative(before.x).value
        self.buffer.add(
            obs=obs, action=action, next_obs=moved.final_obs, terminated=moved.terminated, broken=moved.broken,
            group=tasks.goal.group, value=value.astype(np.float32), scale=tasks.scale,
            moved=_float(after.x - before.x), vx=_float(after.vx), vz=_float(after.vz), pitch=_float(after.pitch),
        )  # fmt: skip

    def sample(self, batch: int, gamma: float, device: torch.device) -> dict[str, Tensor]:
        """A batch for `SAC.update`: (B, D + 2 G) observations with task vectors, the later one with the same task."""
        drawn = self.buffer.sample(batch)
        rows = {name: value.numpy() for name, value in drawn.items()}
        subgoal = SubGoal(rows["group"], rows["value"])
        scale = rows["scale"]
        if self.relabel > 0:
            subgoal, scale = self._relabelled(subgoal, scale, batch)
        obs, next_obs, got = told(rows, subgoal, scale, self.groups)
        discount = _float(gamma * ~rows["terminated"])
        paid = np.where(rows["terminated"], np.float32(-self.fall_cost), got + np.float32(self.alive))
        made = {"obs": obs, "next_obs": next_obs, "reward": paid, "discount": discount}
        made["task_id"] = obs[:, rows["obs"].shape[1] :: 2].argmax(1)  # which mask is set: it has a temperature
        return {"action": drawn["action"].to(device), **{k: torch.from_numpy(v).to(device) for k, v in made.items()}}

    def _relabelled(self, old: SubGoal, scale: Array, batch: int) -> tuple[SubGoal, Array]:
        """Other sub-goals for a share of the rows: a goal is met anywhere on the way, or a little behind it."""
        new = draw(self.rng, self.groups, self.ranges, batch, self.shares)
        made = as_tasks(new)
        passed = self.rng.uniform(-0.25, 1.0, batch)
        value = np.where(new.group == GOAL, new.value * passed, new.value)
        other = self.rng.random(batch) < self.relabel
        group, value = np.where(other, new.group, old.group), np.where(other, value, old.value)
        return SubGoal(group, value), np.where(other, made.normaliser, scale)

    def save(self, folder: Path) -> dict[str, Any]:
        """Append what is new to files in `folder`; returns the cursor for `load`."""
        return {"buffer": self.buffer.save(folder), "rng": numpy_state(self.rng)}

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        """Put back what `save` described. DataError where files are damaged or belong to another configuration."""
        self.buffer.load(folder, cursor["buffer"])
        set_numpy_state(self.rng, cursor["rng"])

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete the files that no cursor in `keep` needs."""
        self.buffer.prune(folder, [cursor["buffer"] for cursor in keep])


def _float(values: Array) -> Array:
    return np.asarray(values, np.float32)


def told(
    rows: Mapping[str, Array], subgoal: SubGoal, scale: Array, groups: Sequence[str]
) -> tuple[Array, Array, Array]:
    """(obs, next_obs, reward) of stored steps under relative sub-goals. Both observations carry the same task.

    Everything is counted from where the body was before the step, so that no absolute position enters.
    """
    none = np.zeros_like(rows["moved"])
    after = State(x=rows["moved"], vx=rows["vx"], z=none, vz=rows["vz"], pitch=rows["pitch"], omega=none)
    later = SubGoal(subgoal.group, subgoal.value, "absolute").relative(rows["moved"])
    obs = np.concatenate([rows["obs"], task_vector(groups, subgoal)], 1)
    next_obs = np.concatenate([rows["next_obs"], task_vector(groups, later)], 1)
    got = step_reward(as_tasks(subgoal, scale), after)
    return obs, next_obs, np.where(rows["broken"], np.float32(WORST), got)


class LowLevel:
    """A policy that follows sub-goals.

    Each group has a temperature of its own: to wait at a goal needs no entropy, to find a gait does, and one
    temperature for both froze the bodies that had been asked to run.

    Args:
        groups: what it can be asked for, in the order of its task vector.
    """

    def __init__(
        self, cfg: SACConfig, obs_dim: int, action_dim: int, groups: Sequence[str], seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        self.groups = tuple(groups)
        width = obs_dim + 2 * len(self.groups)
        self.sac = SAC(cfg, width, action_dim, seeds=[seed], num_tasks=len(self.groups), device=device)

    def act(self, obs: Array, subgoal: SubGoal, deterministic: bool = True) -> Array:
        """Actions (n, A) in [-1, 1] for observations (n, D) and relative sub-goals."""
        return self.sac.act(np.concatenate([obs, task_vector(self.groups, subgoal)], 1), deterministic)

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return self.sac.updates

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes its future, and what it takes to build it."""
        sizes = {"obs_dim": self.sac.obs_dim - 2 * len(self.groups), "action_dim": self.sac.action_dim}
        return {**self.sac.state_dict(), "groups": list(self.groups), **sizes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """UsageError where the groups or the sizes differ."""
        if tuple(state["groups"]) != self.groups:
            raise UsageError(f"the saved low level knows {', '.join(state['groups'])}, not {', '.join(self.groups)}")
        self.sac.load_state_dict(state)
