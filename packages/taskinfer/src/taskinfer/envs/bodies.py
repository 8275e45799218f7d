"""What a body must offer, many bodies stepped as one vector, and sub-goals for them.

Any object with the methods of `Body` will do, returned by a factory `module:name`; a Gymnasium MuJoCo environment with
the joints rootx, rootz and rooty is a body already. `taskinfer body check ENV` says what is missing.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from gymnasium.spaces import Box

from rlcore.config import nearest
from rlcore.errors import EnvironmentProblem, UsageError, why
from rlcore.seeding import episode_seed
from taskinfer.tasks import GROUPS, State

Array = np.ndarray[Any, Any]
BODIES = {"cheetah": "taskinfer.envs.cheetah:cheetah"}
GROUP_NAMES = tuple(GROUPS)  # a sub-goal's group is an index into this


class Body(Protocol):
    """One simulated body."""

    observation_dim: int
    action_space: Box

    @property
    def dt(self) -> float: ...  # seconds a step
    def reset(self, seed: int) -> Array: ...  # (D,) float32; the seed decides the whole episode
    def step(self, action: Array) -> Array: ...  # (D,) float32, for an action (A,) of action_space
    def simple_state(self) -> State: ...  # () each, absolute; NaN where the simulation has broken down
    def healthy(self) -> bool: ...  # False where the body has fallen: a true end of the episode
    def render(self) -> Array: ...  # (H, W, 3) uint8; only where it was made with render=True
    def close(self) -> None: ...


@dataclass(frozen=True)
class SubGoal:
    """What n bodies shall do next.

    `group` (n,) int64 holds indices into `GROUP_NAMES`; `value` (n,) is metres for goal, m/s for velocity and jump, rad
    for stand. A goal is counted from where the body is (relative) or from x = 0 (absolute).
    """

    group: Array
    value: Array
    frame: Literal["relative", "absolute"] = "relative"

    @classmethod
    def of(cls, group: str, value: Any, frame: Literal["relative", "absolute"] = "relative") -> SubGoal:
        """The same group for all. UsageError for an unknown one."""
        if group not in GROUP_NAMES:
            raise UsageError(f"unknown group {group!r}{nearest(group, GROUP_NAMES)} (known: {', '.join(GROUP_NAMES)})")
        values = np.atleast_1d(np.asarray(value, np.float64))
        return cls(np.full(values.shape, GROUP_NAMES.index(group)), values, frame)

    def absolute(self, x: Array) -> SubGoal:
        """The same, with goals counted from x = 0, for bodies that are at x (n,)."""
        return self._moved(x, "absolute")

    def relative(self, x: Array) -> SubGoal:
        """The same, with goals counted from the bodies, which are at x (n,)."""
        return self._moved(-np.asarray(x), "relative")

    def _moved(self, by: Array, frame: Literal["relative", "absolute"]) -> SubGoal:
        if frame == self.frame:
            return self
        is_goal = self.group == GROUP_NAMES.index("goal")
        return SubGoal(self.group, self.value + np.where(is_goal, by, 0.0), frame)


class BodyStep(NamedTuple):
    """One step of n bodies."""

    obs: Array  # (n, D) float32; where an episode ended, the first observation of the next one
    final_obs: Array  # (n, D) what the action led to; where `broken`, the observation before it
    before: State  # (n,) each
    after: State  # (n,) each, before any reset; as before where `broken`
    terminated: Array  # (n,) bool: fell
    truncated: Array  # (n,) bool: the time limit, or broken
    broken: Array  # (n,) bool: the simulation gave numbers that are not finite
    where: dict[int, str]  # by body, for those that are broken: words by which the episode can be run again


class Bodies:
    """n bodies in a plain loop: next to gradient updates, simulation costs little.

    Episode k of body i under run seed s starts from `rlcore.seeding.episode_seed(s, i, k)`. Actions are in [-1, 1] and
    mapped to the body's range. A vector resumes by replaying the actions of its running episodes.

    Args:
        name: of `BODIES`, a Gymnasium id, or module:factory.
        horizon: steps of an episode; its end is a truncation.
        first: number of the first body in the seeding rule.
        tip: rad of pitch, either way, beyond which a body has fallen and its episode ends; 0: as the body says.
    """

    def __init__(
        self, name: str, num: int, *, seed: int, horizon: int, first: int = 0, tip: float = 0.0, render: bool = False
    ) -> None:
        self.name, self.num, self.seed, self.horizon, self.first, self.tip = name, num, seed, horizon, first, tip
        self.bodies = [make_body(name, render) for _ in range(num)]
        space = self.bodies[0].action_space
        self.low, self.half = space.low.reshape(-1), 0.5 * (space.high - space.low).reshape(-1)
        self.observation_dim, self.action_dim = self.bodies[0].observation_dim, len(self.low)
        self.episode = np.full(num, -1)
        self.age = np.zeros(num, np.int64)  # steps since the reset
        self.actions = np.zeros((num, horizon, self.action_dim), np.float32)  # of the running episodes
        self.obs = np.zeros((num, self.observation_dim), np.float32)
        self.state = State(*np.zeros((len(State._fields), num)))

    def reset(self) -> Array:
        """Begin the next episode of every body; (n, D)."""
        for i in range(self.num):
            self._begin(i)
        self.state = self._read()
        return self.obs

    def _begin(self, i: int) -> None:
        self.episode[i] += 1
        self.age[i] = 0
        self.obs[i] = self.bodies[i].reset(episode_seed(self.seed, self.first + i, int(self.episode[i])))

    def _read(self) -> State:
        return State(*np.array([body.simple_state() for body in self.bodies], np.float64).T)

    def step(self, action: Array) -> BodyStep:
        """One step of every body with actions (n, A) in [-1, 1]; bodies whose episode ends begin the next one."""
        before, final = self.state, self.obs.copy()
        self.actions[np.arange(self.num), self.age] = action
        for i, body in enumerate(self.bodies):
            self.obs[i] = body.step(self._scaled(action[i]))
        after, self.age = self._read(), self.age + 1
        broken: Array = ~(np.isfinite(np.stack(after)).all(0) & np.isfinite(self.obs).all(1))
        if broken.any():
            after = State(*np.where(broken, before, after))
        fallen = ~np.array([body.healthy() for body in self.bodies]) | (
            (np.abs(after.pitch) > self.tip) & (self.tip > 0)
        )
        terminated = fallen & ~broken
        truncated = ((self.age >= self.horizon) | broken) & ~terminated
        final = np.where(broken[:, None], final, self.obs)
        self.state, where = after, {int(i): self.where(int(i)) for i in np.flatnonzero(broken)}
        if (ended := np.flatnonzero(terminated | truncated)).size:
            for i in ended.tolist():
                self._begin(i)
            self.state = self._read()
        return BodyStep(self.obs.copy(), final, before, after, terminated, truncated, broken, where)

    def _scaled(self, action: Array) -> Array:
        return self.low + (np.clip(action, -1.0, 1.0) + 1.0) * self.half

    def where(self, i: int) -> str:
        """Words for the running episode of body i, by which it can be run again."""
        episode = int(self.episode[i])
        number = self.first + i
        return (
            f"body {number} ({self.name}, episode {episode}, reset seed {episode_seed(self.seed, number, episode)}, "
            f"step {self.age[i]})"
        )

    def render(self) -> list[Array]:
        """A picture of each body."""
        return [body.render() for body in self.bodies]

    def close(self) -> None:
        for body in self.bodies:
            body.close()

    def state_dict(self) -> dict[str, Any]:
        longest = int(self.age.max(initial=0))
        return {
            "episode": self.episode.tolist(),
            "age": self.age.tolist(),
            "actions": self.actions[:, :longest].copy(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Begin the saved episodes anew and replay their actions."""
        actions = np.asarray(saved["actions"], np.float32)
        self.episode[:] = np.asarray(saved["episode"]) - 1
        self.reset()
        self.age[:] = np.asarray(saved["age"])
        self.actions[:, : actions.shape[1]] = actions
        for i, body in enumerate(self.bodies):
            for action in actions[i, : self.age[i]]:
                self.obs[i] = body.step(self._scaled(action))
        self.state = self._read()


def make_body(name: str, render: bool = False) -> Body:
    """One body: a name of `BODIES`, module:factory (looked up in the current folder too), or a Gymnasium id.

    Raises: UsageError for an unknown name or one that is no body; EnvironmentProblem where it cannot be built.
    """
    home = BODIES.get(name, name)
    module, colon, factory = home.partition(":")
    try:
        if not colon:
            from taskinfer.envs.planar import PlanarBody

            return PlanarBody(name, render=render)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # `python -m` has it, console scripts do not
        make: Callable[..., Body] = getattr(import_module(module), factory)
        takes_render = "render" in inspect.signature(make).parameters
        return make(render=render) if takes_render else make()
    except (UsageError, EnvironmentProblem) as error:
        hint = "" if name in BODIES else nearest(name, BODIES)
        raise type(error)(f"{error}{hint}") from error
    except Exception as error:  # whatever a factory may raise
        raise EnvironmentProblem(f"body {name} cannot be built: {why(error)}") from error


def missing(body: object) -> list[str]:
    """Attributes and methods of `Body` that an object lacks."""
    wanted = (*Body.__annotations__, *(name for name in vars(Body) if not name.startswith("_")))
    return [name for name in wanted if not hasattr(body, name)]
