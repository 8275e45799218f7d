"""A scripted demonstrator for the kitchen: subtask after subtask, from whatever state the last one left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gasp.config import KITCHEN_SETS, CollectKitchenConfig
from gasp.demos.arm import Arm, Array, pose
from gasp.demos.scripts import Script
from gasp.envs.kitchen import Kitchen
from gasp.kitchen_obs import SUBTASKS, done
from rlcore.seeding import numpy_generator

FRONT_STEPS, CONTACT_STEPS, GRIP_STEPS, RETREAT_STEPS = 35, 25, 6, 10
HOLD = 4  # steps that a script goes on once its subtask is done, so that it is not done by a hair
NEAR, CLOSE = 0.03, 0.02  # m: so near to the point in front, and to the others, it goes on
LAST = "hinge cabinet"  # its open door stands before the handle of the slide cabinet, and is hit by whoever steps back
RETREAT = np.array([0.0, -0.15, 0.0])


class Part(NamedTuple):
    """What one subtask's script did: steps [begin, end) of an episode."""

    subtask: str
    begin: int
    end: int
    success: bool


class Snapshot(NamedTuple):
    """A kitchen at one moment."""

    state: Array  # all of MuJoCo's integration state
    measured: Array  # (9,) the joints as they were last observed


def perform(arm: Arm, script: Script, shift: Array) -> Iterator[Array]:
    """Actions (9,) of a script, each for the state at which it is asked for. shift: (3,) m, added to all points."""
    origin = arm.position(script.site) + shift
    rotation = pose(*script.pose) if script.pose else None
    contact = origin + script.contact
    held = not script.grasp
    yield from reach(arm, contact + script.front, held, FRONT_STEPS, NEAR, rotation)
    yield from reach(arm, contact, held, CONTACT_STEPS, CLOSE, rotation)
    if script.grasp:
        yield from reach(arm, contact, True, GRIP_STEPS, 0.0, rotation)
    for end in script.ends:
        yield from reach(arm, origin + end, True, script.end_steps, CLOSE, rotation)


def retreat(arm: Arm) -> Iterator[Array]:
    """Actions that bring the hand away from what it touched, fingers open."""
    yield from reach(arm, arm.position() + RETREAT, False, RETREAT_STEPS, CLOSE)


def reach(
    arm: Arm, target: Array, closed: bool, steps: int, near: float, rotation: Array | None = None
) -> Iterator[Array]:
    """Actions toward a point until the hand is `near` (m) it, `steps` at most."""
    for _ in range(steps):
        yield arm.toward(target, closed, rotation)
        if np.linalg.norm(arm.position() - target) < near:
            return


class Demonstrator:
    """Drives one kitchen and keeps what happened.

    Args:
        scripts: by subtask. noise: of the actions, standard deviation. jitter: m, of each script's shift, uniform.
    """

    def __init__(self, env: Kitchen, scripts: Mapping[str, Script], noise: float = 0.0, jitter: float = 0.0) -> None:
        self.env, self.arm, self.scripts, self.noise, self.jitter = env, Arm(env.raw), scripts, noise, jitter
        self.rng = np.random.default_rng(0)
        self.obs: list[Array] = []
        self.action: list[Array] = []
        self.label: list[int] = []

    def begin(self, seed: int, rng: np.random.Generator) -> None:
        """Reset the kitchen, forget the last episode. rng: noise and jitter."""
        self.rng = rng
        self.obs, self.action, self.label = [self.env.reset(seed=seed)[0]], [], []

    def attempt(self, subtask: str, limit: int) -> Part:
        """Do a subtask, then step back; at most until step `limit` of the episode."""
        begin, index = len(self.action), SUBTASKS.index(subtask)
        shift = self.rng.uniform(-self.jitter, self.jitter, 3) if self.jitter else np.zeros(3)
        reached = self._play(perform(self.arm, self.scripts[subtask], shift), subtask, limit)
        self._play(retreat(self.arm), None, limit)
        success = reached and bool(done(self.env.raw.data.qpos, (subtask,))[0])  # what springs back is not done
        self.label[begin:] = [index] * (len(self.action) - begin)
        return Part(subtask, begin, len(self.action), success)

    def chain(self, subtasks: Sequence[str], limit: int) -> list[Part]:
        """Subtasks in a row."""
        return [self.attempt(subtask, limit) for subtask in subtasks]

    def snapshot(self) -> Snapshot:
        """The kitchen as it is; the recording is no part of it."""
        kind = self.arm.mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.zeros(self.arm.mujoco.mj_stateSize(self.arm.model, kind))
        self.arm.mujoco.mj_getState(self.arm.model, self.arm.data, state, kind)
        return Snapshot(state, self.env.raw.robot_env._last_robot_qpos.copy())

    def restore(self, snapshot: Snapshot, rng: np.random.Generator) -> None:
        """Put a kitchen back, with an empty recording."""
        kind = self.arm.mujoco.mjtState.mjSTATE_INTEGRATION
        self.arm.mujoco.mj_setState(self.arm.model, self.arm.data, snapshot.state, kind)
        self.arm.mujoco.mj_forward(self.arm.model, self.arm.data)
        self.env.raw.robot_env._last_robot_qpos = snapshot.measured.copy()  # what velocities are counted from
        self.env.raw.robot_env.np_random = np.random.default_rng(int(rng.integers(2**31)))  # noise on what is observed
        self.rng = rng
        self.obs, self.action, self.label = [], [], []

    def _play(self, actions: Iterator[Array], until: str | None, limit: int) -> bool:
        """Take actions until there are none, or for `HOLD` steps after the subtask `until` is done."""
        reached = False
        for wanted in actions:
            if len(self.action) >= limit:
                break
            noisy = wanted + self.noise * self.rng.standard_normal(9) if self.noise else wanted
            action = np.clip(noisy, -1.0, 1.0).astype(np.float32)
            self.obs.append(self.env.step(action)[0])
            self.action.append(action)
            self.label.append(-1)
            if until and not reached and done(self.env.raw.data.qpos, (until,))[0]:
                reached, limit = True, min(limit, len(self.action) + HOLD)
        return reached

    def segments(self, parts: Sequence[Part]) -> list[tuple[Array, Array, Array]]:
        """What was done without a failure in between: (T+1, S) states, (T, A) actions, (T+1,) labels, one a stretch."""
        found: list[tuple[Array, Array, Array]] = []
        begin = None
        for part, following in zip(parts, [*parts[1:], None]):
            begin = (part.begin if begin is None else begin) if part.success else None
            if begin is not None and (following is None or not following.success):
                label = self.label[begin : part.end]
                obs, action = np.array(self.obs[begin : part.end + 1]), np.array(self.action[begin : part.end])
                found.append((obs, action, np.array([*label, label[-1]], np.int8)))
                begin = None
        return found


def play(player: Demonstrator, cfg: CollectKitchenConfig, episode: int) -> list[Part]:
    """Episode `episode` of a collection, decided by it and the seed: some subtasks of the set."""
    rng = numpy_generator(cfg.seed, "kitchen", episode)
    player.begin(int(rng.integers(2**31)), rng)
    names = list(KITCHEN_SETS[cfg.set])
    chosen = [str(name) for name in rng.permutation(names)] if cfg.order == "random" else names
    chosen = sorted(chosen[: cfg.drawn], key=lambda name: name == LAST)
    return player.chain(chosen, cfg.episode_length)
