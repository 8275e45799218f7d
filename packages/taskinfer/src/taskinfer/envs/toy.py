"""The toy: points driven along a line (or in a plane), many at once, in closed form.

Each axis follows v' = clip(v + dt (f a - f/v_max v), +-v_max), x' = x + dt v'. With the default numbers
dt f / v_max = 1, so that v' = 5 a and x' = x + 0.5 a whatever v was: a policy for the toy is one for any body that can
be told where to be, or how fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rlcore.config import nearest
from rlcore.errors import UsageError
from rlcore.seeding import numpy_generator, numpy_state, set_numpy_state
from taskinfer import tasks as task_rules
from taskinfer.tasks import State, Tasks

Array = np.ndarray[Any, Any]
HORIZON = 200
# What is observed, by its name in the simple state; and how many actions there are.
OBSERVED: dict[str, tuple[str, ...]] = {
    "toy1d": ("x", "vx"),
    "toy1d-multi": ("x", "z", "pitch", "vx", "vz", "omega"),
    "toy2d": ("x", "y", "vx", "vy"),
}
ACTIONS = {"toy1d": 1, "toy1d-multi": 3, "toy2d": 2}  # multi: along x, pitch, up
GRAVITY, PUSH_BELOW, CEILING, V_UP, OMEGA_MAX = 9.81, 0.3, 4.0, 3.0, 4 * math.pi


class Dynamics(NamedTuple):
    """How an axis is driven."""

    dt: float = 0.1  # s
    f_max: float = 50.0  # m/s^2 at full action
    v_max: float = 5.0  # m/s, where drag f_max / v_max balances it


def check_kind(kind: str) -> None:
    """Raises: UsageError with the nearest name."""
    if kind not in OBSERVED:
        raise UsageError(f"no toy {kind!r}{nearest(kind, OBSERVED)} (known: {', '.join(OBSERVED)})")


def dims(kind: str) -> tuple[int, int]:
    """Sizes of observation and action."""
    check_kind(kind)
    return len(OBSERVED[kind]), ACTIONS[kind]


def clip(value: Array, limit: float) -> Array:
    """To [-limit, limit]; several times faster than np.clip on few numbers."""
    result: Array = np.minimum(np.maximum(value, np.float32(-limit)), np.float32(limit))
    return result


def drive(x: Array, v: Array, a: Array, how: Dynamics = Dynamics()) -> tuple[Array, Array]:  # noqa: B008
    """One step of an axis: position m, speed m/s and action in [-1, 1], each (...,), to the next two."""
    v = clip(v + how.dt * (how.f_max * a - how.f_max / how.v_max * v), how.v_max)
    return x + how.dt * v, v


def one_step(x: Array, action: Array, how: Dynamics = Dynamics()) -> tuple[Array, Array]:  # noqa: B008
    """Where action leads from x, whatever the speed was: (x + 0.5 a, 5 a) by default. What a body is told to reach.

    Raises: UsageError for dynamics in which the speed matters.
    """
    if not math.isclose(how.dt * how.f_max, how.v_max):
        raise UsageError(f"the toy's next state is no function of x and action alone with {how}")
    return drive(x, np.zeros_like(x), action, how)


def advance(kind: str, s: Array, a: Array, how: Dynamics = Dynamics()) -> Array:  # noqa: B008
    """One step of n points: states (ds, n), actions (da, n) in [-1, 1] to the next states (ds, n)."""
    new = np.empty_like(s)
    if kind == "toy1d":
        new[0], new[1] = drive(s[0], s[1], a[0], how)
    elif kind == "toy2d":
        new[:2], new[2:] = drive(s[:2], s[2:], a, how)
    else:
        new[0], new[3] = drive(s[0], s[3], a[0], how)
        new[2], new[5] = _turn(s[2], s[5], a[1], how)
        new[1], new[4] = _hop(s[1], s[4], a[2], how)
    return new


def _turn(pitch: Array, omega: Array, a: Array, how: Dynamics) -> tuple[Array, Array]:
    omega = clip(omega + how.dt * (how.f_max * a - how.f_max / OMEGA_MAX * omega), OMEGA_MAX)
    return clip(pitch + how.dt * omega, math.pi / 2), omega


def _hop(z: Array, vz: Array, a: Array, how: Dynamics) -> tuple[Array, Array]:
    """It can push off only near the ground and not while it rises."""
    force = (V_UP / how.dt + GRAVITY * how.dt) * np.abs(a)
    force = np.where((z > PUSH_BELOW) | (vz > 0), np.float32(0), force)
    vz = clip(vz + how.dt * (force - GRAVITY), V_UP)
    z = z + how.dt * vz
    vz = np.where((z < 0) & (vz < 0), np.float32(0), vz)
    return np.minimum(np.maximum(z, np.float32(0)), np.float32(CEILING)), vz


def state_of(kind: str, obs: Array) -> State:
    """Observations (..., ds) as the simple state; what the toy does not have is 0."""
    zero = np.zeros(obs.shape[:-1], obs.dtype)
    columns = {name: obs[..., i] for i, name in enumerate(OBSERVED[kind])}
    return State(**{name: columns.get(name, zero) for name in State._fields})


def obs_of(kind: str, state: State) -> Array:
    """The simple state of anything (n,) as this toy would observe it (n, ds): how a body is shown to the encoder."""
    return np.stack([np.asarray(getattr(state, name), np.float32) for name in OBSERVED[kind]], -1)


class VectorToy:
    """n points, each with a task of its own; all episodes begin and end together, after `horizon` steps.

    Episodes are cut off, never terminated: `done` is a time limit. Where the points of episode k start depends on
    (seed, k, point) alone, not on how many points there are.

    Args:
        kind: toy1d, toy1d-multi or toy2d.
        noise_std: of Gaussian noise on every observed number; the points and the rewards do not feel it.
    """

    def __init__(
        self, kind: str, tasks: Tasks, seed: int, *, horizon: int = HORIZON, noise_std: float = 0.0,
        dynamics: Dynamics = Dynamics(),  # noqa: B008
    ) -> None:  # fmt: skip
        self.obs_dim, self.action_dim = dims(kind)
        self.kind, self.seed, self.horizon, self.noise_std, self.how = kind, seed, horizon, noise_std, dynamics
        if horizon < 1 or not noise_std >= 0:
            raise UsageError(f"toy: need horizon >= 1 and noise_std >= 0, got {horizon}, {noise_std}")
        self.num_envs, self.episode, self.t = len(tasks), -1, horizon
        self.tasks = tasks
        self._state = np.zeros((self.obs_dim, self.num_envs), np.float32)
        self._rng = numpy_generator(seed, "toy", 0)
        self._done = {over: np.full(self.num_envs, over) for over in (False, True)}
        for flags in self._done.values():
            flags.flags.writeable = False
        self._zero = np.zeros(self.num_envs, np.float32)
        self.tasks = self._checked(tasks)

    def _checked(self, tasks: Tasks) -> Tasks:
        known = {*OBSERVED[self.kind]}
        for family in {task.family for task in tasks.single()}:
            needed = {name for name in task_rules.quantity(family) if name is not None}
            if not needed <= known:
                raise UsageError(
                    f"{self.kind} has no {', '.join(sorted(needed - known))}, which {family.name} is about"
                )
        if len(tasks) != self.num_envs:
            raise UsageError(f"toy: {self.num_envs} points need as many tasks, got {len(tasks)}")
        return tasks

    def set_tasks(self, tasks: Tasks) -> None:
        """Other tasks from the next step on; in the middle of an episode, too."""
        self.tasks = self._checked(tasks)

    def reset(self) -> Array:
        """Begin the next episode: x, pitch ~ U(-0.01, 0.01), speeds ~ N(0, 0.1^2), on the ground. obs (n, ds)."""
        self.episode, self.t = self.episode + 1, 0
        self._rng = numpy_generator(self.seed, "toy", self.episode)
        drawn = self._rng.random((self.num_envs, self.obs_dim)).T
        half = self.obs_dim // 2
        normal = numpy_generator(self.seed, "toy", self.episode, "speeds").standard_normal((self.num_envs, half)).T
        self._state[:half], self._state[half:] = 0.02 * drawn[:half] - 0.01, 0.1 * normal
        for row, name in enumerate(OBSERVED[self.kind]):
            if name in ("z", "vz"):
                self._state[row] = 0.0
        return self._observe()

    def step(self, action: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
        """Move by actions (n, da), cut to [-1, 1]: obs (n, ds), reward (n,), done (n,), info.

        info: "truncated" (n,), which is `done`. Arrays that are returned are never changed later.
        """
        if self.t >= self.horizon:
            raise UsageError("toy: the episode is over (or none has begun): call reset()")
        assert action.shape == (self.num_envs, self.action_dim), (action.shape, self.num_envs, self.action_dim)
        self.t += 1
        self._state = advance(self.kind, self._state, clip(action.T, 1.0), self.how)
        done = self._done[self.t == self.horizon]
        return self._observe(), task_rules.reward(self.tasks, self.simple_state()), done, {"truncated": done}

    def simple_state(self) -> State:
        """Where the points are, free of noise. Views: do not write."""
        columns = dict(zip(OBSERVED[self.kind], self._state))
        return State(**{name: columns.get(name, self._zero) for name in State._fields})

    def _observe(self) -> Array:
        obs = self._state.T.copy()
        if self.noise_std:
            obs += np.float32(self.noise_std) * self._rng.standard_normal(obs.shape, np.float32)
        return obs

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future, but for the tasks."""
        return {"episode": self.episode, "t": self.t, "state": self._state, "rng": numpy_state(self._rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave; the same tasks must be set."""
        self.episode, self.t = int(state["episode"]), int(state["t"])
        self._state = np.asarray(state["state"]).astype(np.float32)
        set_numpy_state(self._rng, state["rng"])
