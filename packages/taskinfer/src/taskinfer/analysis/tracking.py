"""How well a low level follows sub-goals: always the same ones, on bodies and seeds that training never sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from taskinfer.envs.bodies import GROUP_NAMES, Bodies, SubGoal
from taskinfer.low import GOAL, LowLevel

Array = np.ndarray[Any, Any]
TARGETS = {
    "goal": (0.5, 1.0, 1.5, -0.5, -1.0, -1.5),
    "velocity": (1.0, 1.5, 2.0, -1.0, -1.5, -2.0),
    "stand": (0.6, 1.0, -0.6, -1.0),
    "jump": (1.5, 2.0),
}  # m from the start, m/s, rad, m/s
CHAIN = (5.0, -5.0)  # m: goals further away than any in training, set as a chain of nearer ones
GOAL_STEPS, STEPS, LAST = 100, 200, 50  # a goal is judged at one step, the others over the last ones
LIMIT = {"goal": 0.3, "velocity": 0.35, "stand": 0.2, "jump": 0.5}  # the largest error that counts as reached


@dataclass(frozen=True)
class Plan:
    """What each of n bodies is asked for."""

    subgoal: SubGoal  # absolute
    chained: Array  # (n,) bool

    @classmethod
    def of(cls, groups: tuple[str, ...], repeats: int) -> Plan:
        """Every target of the groups, `repeats` times over."""
        wanted = [(name, value, False) for name in groups for value in TARGETS[name]]
        wanted += [("goal", value, True) for value in CHAIN if "goal" in groups]
        names, values, chained = zip(*wanted * repeats)
        group = np.array([GROUP_NAMES.index(name) for name in names])
        return cls(SubGoal(group, np.array(values), "absolute"), np.array(chained))


class Track(NamedTuple):
    """What n bodies did."""

    x: Array  # (T + 1, n) m from where each began
    achieved: Array  # (T, n) what the target is about: x, vx, pitch, |vz|
    fell: Array  # (n,) bool: fell, or its simulation broke down; what is achieved from then on is another episode's


def follow(low: LowLevel, bodies: Bodies, plan: Plan, nearest: float) -> Track:
    """Roll the greedy policy for `STEPS` steps. A goal that is far off is approached by sub-goals `nearest` m ahead."""
    obs = bodies.reset()
    start = bodies.state.x.copy()
    target = SubGoal(
        plan.subgoal.group, plan.subgoal.value + np.where(plan.subgoal.group == GOAL, start, 0.0), "absolute"
    )
    xs, achieved, fell = [np.zeros(bodies.num)], [], np.zeros(bodies.num, bool)
    for _ in range(STEPS):
        now = target.relative(bodies.state.x)
        value = np.where(plan.chained, np.clip(now.value, -nearest, nearest), now.value)
        moved = bodies.step(low.act(obs, SubGoal(now.group, value), deterministic=True))
        obs, after = moved.obs, moved.after
        fell |= moved.terminated | moved.broken
        xs.append(after.x - start)
        kinds = np.stack([after.x - start, after.vx, after.pitch, np.abs(after.vz)])
        achieved.append(kinds[plan.subgoal.group, np.arange(bodies.num)])
    return Track(np.array(xs), np.array(achieved), fell)


def errors(plan: Plan, track: Track) -> Array:
    """(n,) error of each body.

    Goals: |x - target| after `GOAL_STEPS` steps, chained ones after all; others: the mean of |achieved - target| over
    the last `LAST` steps, which a mean speed that is right on average alone does not make small. Whoever fell has
    missed by all that was asked for at least, which no limit allows.
    """
    off = np.abs(track.achieved - plan.subgoal.value)
    goal = np.where(plan.chained, off[-1], off[GOAL_STEPS - 1])
    found: Array = np.where(plan.subgoal.group == GOAL, goal, off[-LAST:].mean(0))
    return np.where(track.fell, np.maximum(found, np.abs(plan.subgoal.value)), found)


def summary(groups: tuple[str, ...], plan: Plan, track: Track) -> dict[str, Any]:
    """Shares reached and mean errors by group, and `score`, by which checkpoints are compared."""
    miss, row = errors(plan, track), dict[str, Any]()
    for name in groups:
        own = (plan.subgoal.group == GROUP_NAMES.index(name)) & ~plan.chained
        row[f"{name}_reached"] = float((miss[own] <= LIMIT[name]).mean())
        row[f"{name}_error"] = float(miss[own].mean())
    # shares come in large steps: among equals the smaller relative error, less than any of them, decides
    relative = np.minimum(miss / np.abs(plan.subgoal.value), 1.0)[~plan.chained]
    shares = [row[f"{name}_reached"] for name in groups]
    row["score"] = float(np.mean(shares)) - 0.05 * float(relative.mean())
    if plan.chained.any():
        row["chain_reached"] = float((miss[plan.chained] <= LIMIT["goal"]).mean())
        row["chain_error"] = float(miss[plan.chained].mean())
    return row


def measure(
    low: LowLevel, body: str, nearest: float, repeats: int, seed: int, horizon: int = STEPS + 1
) -> tuple[Plan, Track, dict[str, Any]]:
    """Follow every target `repeats` times on fresh bodies, whose episodes `seed` decides."""
    plan = Plan.of(low.groups, repeats)
    bodies = Bodies(body, len(plan.chained), seed=seed, horizon=horizon)
    track = follow(low, bodies, plan, nearest)
    bodies.close()
    return plan, track, summary(low.groups, plan, track)
