"""The robot's hand moved along straight lines: damped differential inverse kinematics for FrankaKitchen.

dq = J^T (J J^T + 1e-3 I)^-1 dx + (I - J^+ J) g (home - q), for the 7 joints of the arm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
HOME = np.array([0.148, -1.768, 1.844, -2.477, 0.26, 0.7125, 1.595])  # rad: the arm at the beginning of an episode
DAMPING, HOMING, GAIN = 1e-3, 0.15, 2.0
LONGEST, WIDEST = 0.05, 0.3  # m and rad that a step aims at, at most, before the gain
PER_ACTION = 0.16  # rad a step at full action: 2 rad/s for 0.08 s


class Arm:
    """Drives the hand of one kitchen. `raw`: the unwrapped FrankaKitchen-v1."""

    def __init__(self, raw: Any) -> None:
        import mujoco

        self.mujoco, self.model, self.data = mujoco, raw.model, raw.data
        self.hand = self.model.site("end_effector").id
        self.jacobian = np.zeros((2, 3, self.model.nv))

    def position(self, site: str | None = None) -> Array:
        """(3,) m, of a site or the hand; a copy."""
        return np.array(self.data.site_xpos[self.hand if site is None else self.model.site(site).id])

    def toward(self, target: Array, closed: bool, rotation: Array | None = None) -> Array:
        """Action (9,) that brings the hand to `target` (3,) m, and to `rotation` (3, 3) if one is asked for."""
        self.mujoco.mj_jacSite(self.model, self.data, self.jacobian[0], self.jacobian[1], self.hand)
        delta = _short(target - self.data.site_xpos[self.hand], LONGEST)
        jacobian = self.jacobian[0, :, :7]
        if rotation is not None:
            now = self.data.site_xmat[self.hand].reshape(3, 3)
            turn = 0.5 * np.cross(now, rotation, axis=0).sum(1)
            delta = np.concatenate((delta, _short(turn, WIDEST)))
            jacobian = self.jacobian[:, :, :7].reshape(6, 7)
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING * np.eye(len(jacobian)))
        home = HOMING * (HOME - self.data.qpos[:7])
        dq = inverse @ (GAIN * delta) + home - inverse @ (jacobian @ home)
        fingers = -1.0 if closed else 1.0
        return np.clip(np.concatenate((dq / PER_ACTION, [fingers, fingers])), -1.0, 1.0)


def pose(yaw: float, roll: float) -> Array:
    """(3, 3) a hand that points along +y turned by `yaw` about the vertical, rolled about its own axis; rad."""
    axis = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    side = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    up = np.cross(axis, side)
    first = np.cos(roll) * side + np.sin(roll) * up
    return np.stack((first, np.cross(axis, first), axis), 1)


def _short(vector: Array, longest: float) -> Array:
    size = float(np.linalg.norm(vector))
    return vector if size <= longest else vector * (longest / size)
