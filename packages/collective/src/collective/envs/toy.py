"""Three tasks around a puck, without a simulator, in Meta-World's observation layout.

toy-reach   bring the hand to the goal
toy-push    drag the puck along the table, to below the goal
toy-lift    grip the puck and carry it to the goal, in the air

All three have the same scene and the same 50 goals: an observation alone does not tell which of them is meant, the
reward and what an expert does tell.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from collective.config import OBS_DIM, TOY_TASKS
from rlcore.seeding import numpy_generator

Array = np.ndarray[Any, Any]
START = np.array([0.0, 0.6, 0.2])  # of the hand, m
LOW, HIGH = np.array([-0.3, 0.4, 0.02]), np.array([0.3, 0.9, 0.4])  # where the hand may be
STRIDE, FALL, SPEED = 0.02, 0.05, 0.25  # hand, m a step; a dropped puck, m a step; gripper, openings a step
TABLE = 0.02  # height of the puck at rest, m
GRIP = 0.03  # m from the hand to a puck that it can grip
CLOSED = 0.5  # opening below which the gripper holds
RADIUS = 0.03  # m from the goal: success


def draw_goals(count: int, goal_seed: int) -> Array:
    """(count, 6): the puck's place (xyz) and the goal (xyz), m; the same for all three tasks."""
    rng = numpy_generator(goal_seed, "toy goals")
    found: list[Array] = []
    while len(found) < count:
        puck = np.array([rng.uniform(-0.15, 0.15), rng.uniform(0.5, 0.75), TABLE])
        goal = rng.uniform([-0.2, 0.45, 0.12], [0.2, 0.85, 0.3])
        if math.dist(puck[:2], goal[:2]) > 0.1 and math.dist(goal, START) > 0.1:
            found.append(np.concatenate((puck, goal)))
    return np.array(found)


def near(distance: float, scale: float) -> float:
    """1 at distance 0, 1/2 at `scale`, with a long tail."""
    return 1.0 / (1.0 + (distance / scale) ** 2)


class Toy:
    """One task. goals (G, 6) as `draw_goals`."""

    def __init__(self, task: str, goals: Array, goal_hidden: bool = False) -> None:
        assert task in TOY_TASKS, task
        self.task, self.goals, self.goal_hidden, self.unstable = task, goals, goal_hidden, 0
        self.hand, self.puck, self.goal = START.copy(), np.zeros(3), np.zeros(3)
        self.opening, self.held = 1.0, False
        self.obs = np.zeros(OBS_DIM)

    def reset(self, goal: int) -> Array:
        """Begin an episode with goal number `goal`. Returns the observation (39,), to be copied by who keeps it."""
        self.hand[:], self.opening, self.held = START, 1.0, False
        self.puck[:], self.goal[:] = self.goals[goal, :3], self.goals[goal, 3:]
        self.obs[36:] = 0.0 if self.goal_hidden else self.goal
        self._frame()
        self.obs[18:36] = self.obs[:18]
        return self.obs

    def step(self, action: Array) -> tuple[Array, float, bool]:
        """Move by an action (4,), cut to [-1, 1]. Returns (observation (39,), reward in 0 .. 10, success)."""
        push = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        before = self.hand.copy()
        np.clip(self.hand + STRIDE * push[:3], LOW, HIGH, out=self.hand)
        wanted = (1.0 - float(push[3])) / 2
        self.opening += min(max(wanted - self.opening, -SPEED), SPEED)
        self.held = self.opening < CLOSED and (self.held or math.dist(before, self.puck) < GRIP)
        if self.held:
            self.puck += self.hand - before
            self.puck[2] = max(self.puck[2], TABLE)
        else:
            self.puck[2] = max(self.puck[2] - FALL, TABLE)
        self.obs[18:36] = self.obs[:18]
        self._frame()
        return self.obs, *self._judge()

    def _frame(self) -> None:
        self.obs[:3], self.obs[3], self.obs[4:7], self.obs[10] = self.hand, self.opening, self.puck, 1.0

    def _judge(self) -> tuple[float, bool]:
        if self.task == "toy-reach":
            left = math.dist(self.hand, self.goal)
            return (10.0, True) if left < RADIUS else (9.0 * near(left, 0.1), False)
        sizes = 2 if self.task == "toy-push" else 3  # a push does not look at heights, but lifted is not pushed
        left = math.dist(self.puck[:sizes], self.goal[:sizes])
        if left < RADIUS and (sizes == 3 or self.puck[2] < TABLE + 0.02):
            return 10.0, True
        reward = 2.0 * near(math.dist(self.hand, self.puck), 0.1)
        return (reward + 1.0 + 5.0 * near(left, 0.1) if self.held else reward), False

    def render(self) -> Array:
        """(240, 360, 3) uint8, from above: hand red (dark when closed), puck blue, goal green."""
        scale = 600  # pixels a metre
        rows, columns = np.mgrid[:240, :360]
        picture = np.full((240, 360, 3), 245, np.uint8)
        colours = ((120, 200, 120), (60, 90, 200), (200, 60, 60) if self.opening > CLOSED else (110, 20, 20))
        for (x, y, z), colour in zip((self.goal, self.puck, self.hand), colours):
            column, row = (x + 0.3) * scale, (0.87 - y) * scale * 0.5
            picture[np.hypot(columns - column, rows - row) < 7 + 30 * z] = colour
        return picture

    def close(self) -> None:
        """Nothing to do."""


def script(task: str, obs: Array) -> Array:
    """The expert's action (4,) float32 for an observation (39,): succeeds within about 50 steps."""
    hand, puck, goal = obs[:3], obs[4:7], obs[36:39]
    if task == "toy-reach":
        return _towards(hand, goal, -1.0)
    if math.dist(hand, puck) < 0.6 * GRIP:
        if obs[3] > CLOSED - 0.1:
            return _towards(hand, puck, 1.0)  # close, then go
        return _towards(hand, np.array([goal[0], goal[1], TABLE if task == "toy-push" else goal[2]]), 1.0)
    above = math.dist(hand[:2], puck[:2]) > 0.02
    return _towards(hand, puck + np.array([0.0, 0.0, 0.1 if above else 0.0]), -1.0)


def _towards(hand: Array, place: Array, grip: float) -> Array:
    action = np.empty(4, np.float32)
    action[:3], action[3] = np.clip(25.0 * (place - hand), -1.0, 1.0), grip
    return action
