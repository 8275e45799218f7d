"""Bodies that take microseconds: a point whose action is its speed. Tests open them by name, as users do."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box

from taskinfer.tasks import State


class Slider:
    """On a line, 0.1 s a step. Its first position depends on the seed; it falls where |x| exceeds `edge`."""

    observation_dim, dt, action_space = 1, 0.1, Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, sick: range = range(0), edge: float = np.inf) -> None:
        self.sick, self.edge, self.total = sick, edge, 0

    def reset(self, seed):
        self.x, self.v = 0.0, np.random.default_rng(seed).normal()
        return np.array([self.v], np.float32)

    def step(self, action):
        self.v, self.total = float(action[0]), self.total + 1
        self.x += float("nan") if self.total in self.sick else 0.1 * self.v
        return np.array([self.v], np.float32)

    def simple_state(self):
        zero = np.zeros(())
        return State(np.asarray(self.x), np.asarray(self.v), zero, zero, zero, zero)

    def healthy(self):
        return abs(self.x) <= self.edge

    def render(self):
        return np.full((48, 64, 3), 200, np.uint8)

    def close(self):
        pass


def slider():
    return Slider()


def sick():
    return Slider(sick=range(60, 10**9))


def sick_once():
    return Slider(sick=range(60, 61))


def on_a_ledge():
    return Slider(edge=0.35)
