"""CartPole-v1 for N carts at once, bit-equal to Gymnasium's, and a version that hides the speeds.

Barto, Sutton & Anderson 1983, IEEE SMC-13; constants, Euler step and start states as in Gymnasium's CartPole-v1, every
operation in the same order, so that the same seed and actions give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

Array = np.ndarray[Any, Any]

GRAVITY = 9.8  # m / s^2
POLE_MASS = 0.1  # kg
TOTAL_MASS = POLE_MASS + 1.0
HALF_LENGTH = 0.5  # m
POLE_MOMENT = POLE_MASS * HALF_LENGTH
FORCE = np.array([-10.0, 10.0])  # N, by action
TAU = 0.02  # s per step
LIMITS = np.array([[2.4], [12 * 2 * np.pi / 360]])  # m, radians: beyond them the episode terminates


class CartPole:
    """Observations x, speed, angle, angular speed; hide_speeds: x and 5 * angle (both about 1 at their limits).

    Two actions: push left, push right. Reward 1 a step. At most 500 steps.
    """

    action_space = Discrete(2)
    max_episode_steps = 500
    has_success = False

    def __init__(self, num_envs: int, hide_speeds: bool = False) -> None:
        self.state = np.zeros((4, num_envs))  # float64: x, speed, angle, angular speed
        self.arrays = {"state": self.state}
        self.position, self.speed = self.state[0::2], self.state[1::2]  # views (2, N): of the cart, of the pole
        self.shown = (self.position if hide_speeds else self.state).T  # a view (N, O)
        self.scale = np.array([1.0, 5.0] if hide_speeds else [1.0, 1.0, 1.0, 1.0])
        x, angle = 2.0 * LIMITS[:, 0]
        high = np.array([x, 5.0 * angle] if hide_speeds else [x, np.inf, angle, np.inf], np.float32)
        self.observation_space = Box(-high, high, dtype=np.float32)

    def begin(self, env: int, seed: int) -> None:
        self.state[:, env] = np.random.Generator(np.random.PCG64(seed)).uniform(-0.05, 0.05, 4)

    def advance(self, action: Array, elapsed: Array, reward: Array, terminated: Array) -> None:
        _, _, angle, angular_speed = self.state
        cos, sin = np.cos(angle), np.sin(angle)
        push = (FORCE[action] + POLE_MOMENT * np.square(angular_speed) * sin) / TOTAL_MASS
        effective_length = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * np.square(cos) / TOTAL_MASS)
        angular_acceleration = (GRAVITY * sin - cos * push) / effective_length
        acceleration = push - POLE_MOMENT * angular_acceleration * cos / TOTAL_MASS
        self.position += TAU * self.speed  # explicit Euler: with the old speed
        self.speed[0] += TAU * acceleration
        self.speed[1] += TAU * angular_acceleration
        reward.fill(1.0)
        outside = np.abs(self.position) > LIMITS
        np.logical_or(outside[0], outside[1], out=terminated)

    def observe(self, elapsed: Array, out: Array) -> None:
        np.multiply(self.shown, self.scale, out=out)
