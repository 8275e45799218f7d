"""Meta-World's tasks with the same numbers in less time: what all of them share, rewritten. Imports Meta-World.

A task's class stays its own, with its reward and its success; between it and Meta-World's base class a layer finds
things by number instead of by name and fills arrays instead of stacking them. Differences: the observation and the
state of an episode depend on the goal alone, as upstream's do; nothing ends an episode; a step on which the simulator
broke down (mujoco then returns to the start of the scene) is counted, with reward 0 and the observation before it,
which upstream means to do but does not (3.1.1).
"""

from __future__ import annotations

import functools
from math import sqrt
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils.reward_utils import hamacher_product

from collective.envs.rebind import rebound
from collective.envs.scenes import scene
from collective.envs.standins import GLOBALS, Shown, norm, tolerance

Array = np.ndarray[Any, Any]
float32, maximum, minimum = np.float32, np.maximum, np.minimum
STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # all that the simulator's future depends on
UPRIGHT = np.array([1.0, 0.0, 1.0, 0.0])  # of the hand
QUIET = {
    "success": False, "near_object": 0.0, "grasp_success": False, "grasp_reward": 0.0, "in_place_reward": 0.0,
    "obj_to_target": 0.0, "unscaled_reward": 0.0,
}  # fmt: skip


class Lean(SawyerXYZEnv):  # type: ignore[misc]
    """The layer. `begin` and `advance` replace Meta-World's reset and step."""

    pictures: bool
    data: Any
    model: Any
    obj_init_pos: Any
    _prev_obs: Any
    _last_stable_obs: Any
    hand_init_pos: Any
    rested: dict[bytes, Array]  # of each class: simulator states in which the hand is about to have come to rest

    def prepare(self, goal_hidden: bool) -> None:
        """To be called once, after the constructor."""
        self._set_task_called, self._partially_observable = True, goal_hidden
        self.__dict__.pop("sawyer_observation_space", None)
        space = self.sawyer_observation_space
        self._low, self._high = space.low, space.high
        self.unstable = 0
        data = self.data
        self._raw, self.data = data, Shown(data)
        self._mocap, self._mocap_quat, self._ctrl = data.mocap_pos[0], data.mocap_quat[0], data.ctrl
        # A float32 action times the scale is rounded to float32, as numpy does.
        self._reach = float(float32(self.action_scale)), self.mocap_low.tolist(), self.mocap_high.tolist()
        self._tick = self.dt / 2
        self._hand = data.body("hand").xpos
        self._claws = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._tips = data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos
        self._pads = data.geom("leftpad_geom").id, data.geom("rightpad_geom").id
        self._scene = self.model.body_pos.copy(), self.model.site_pos.copy()
        # Views into the simulator show what it does; they are left alone, as what the constructor made of them.
        own = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray | float | int)}
        self._fresh: dict[str, Any] = {k: value for k, value in own.items() if getattr(value, "base", None) is None}
        self._fresh.pop("unstable")

    def _initialize_simulation(self) -> tuple[Any, Any]:
        model = scene(self.fullpath, self.pictures)
        return model, mujoco.MjData(model)

    def begin(self, goal: Array) -> Array:
        """Start an episode towards `goal`, a vector as Meta-World draws it. Returns the observation (39,)."""
        for name, value in self._fresh.items():
            setattr(self, name, value.copy() if isinstance(value, np.ndarray) else value)
        self.model.body_pos[:], self.model.site_pos[:] = self._scene
        self._last_rand_vec = goal.copy()
        for _ in range(2):  # upstream does so, and the first time moves bodies that the second starts with
            mujoco.mj_resetData(self.model, self._raw)
            obs = self.reset_model()
        self._prev_obs = obs[:18].copy()
        obs[18:36] = self._prev_obs
        self._last_stable_obs, self._clock = obs, self._raw.time
        return obs  # type: ignore[no-any-return]

    def advance(self, action: Array) -> tuple[Array, float, dict[str, Any]]:
        """One step by an action (4,) float32 in [-1, 1]. Returns (observation (39,), reward, info)."""
        data, mocap, ctrl = self._raw, self._mocap, self._ctrl
        x, y, z, effort = action.tolist()
        scale, (left, near, down), (right, far, up) = self._reach  # numbers are faster than arrays of three
        was_x, was_y, was_z = mocap.tolist()
        mocap[0] = min(max(was_x + float(float32(x * scale)), left), right)
        mocap[1] = min(max(was_y + float(float32(y * scale)), near), far)
        mocap[2] = min(max(was_z + float(float32(z * scale)), down), up)
        ctrl[0], ctrl[1] = effort, -effort
        mujoco.mj_step(self.model, data, nstep=self.frame_skip)
        mujoco.mj_forward(self.model, data)
        before, self._clock = self._clock, data.time
        if self._clock - before < self._tick:  # the simulator broke down and began anew
            self.unstable += 1
            self._mocap_quat[:] = UPRIGHT
            return self._last_stable_obs.copy(), 0.0, dict(QUIET)
        self._last_stable_obs = obs = minimum(maximum(self._get_obs(), self._low), self._high)
        reward, info = self.evaluate_state(obs, action)
        return obs, reward, info

    def _get_obs(self) -> Array:
        """(39,), not yet cut to its bounds."""
        obs = np.zeros(39)
        obs[18:36] = self._prev_obs
        self._prev_obs = frame = obs[:18]
        self._fill(frame)
        if not self._partially_observable:
            obs[36:] = self._get_pos_goal()
        return obs

    def _get_curr_obs_combined_no_goal(self) -> Array:
        """(18,): hand, gripper, objects."""
        frame = np.zeros(18)
        if isinstance(self.data, Shown):  # else in the constructor, which throws it away
            self._fill(frame)
        return frame

    def _fill(self, frame: Array) -> None:
        frame[:3] = self._hand
        apart = self._claws[0] - self._claws[1]
        frame[3] = min(max(sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        position, quaternion = self._get_pos_objects(), self._get_quat_objects()
        if len(position) == 3:
            frame[4:7], frame[7:11] = position, quaternion
        else:
            frame[4:7], frame[7:11], frame[11:14] = position[:3], quaternion[:4], position[3:]
            frame[14:18] = quaternion[4:]

    @property
    def tcp_center(self) -> Array:
        """(3,): between the fingers' tips."""
        return (self._tips[0] + self._tips[1]) / 2.0  # type: ignore[no-any-return]

    def get_endeff_pos(self) -> Array:
        return self.get_body_com("hand")

    def get_body_com(self, body_name: str) -> Array:
        return self.data.body(body_name).xpos  # type: ignore[no-any-return]

    def _get_site_pos(self, site_name: str) -> Array:
        return self.data.site(site_name).xpos.copy()  # type: ignore[no-any-return]

    def _set_pos_site(self, name: str, pos: Array) -> None:
        self.data.site(name).xpos[:] = pos[:3]

    def set_state(self, qpos: Array, qvel: Array) -> None:
        self._raw.qpos[:], self._raw.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self._raw)

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both pads press on a geom: the sums of their contacts' normal forces are positive."""
        data, force = self._raw, [0, 0]
        if not data.ncon:
            return False
        for k, pair in enumerate(data.contact.geom.tolist()):
            if object_geom_id in pair:
                for side, pad in enumerate(self._pads):
                    if pad in pair:
                        force[side] += data.efc_force[data.contact.efc_address[k]]
        return bool(force[0] > 0 and force[1] > 0)

    def _reset_hand(self, steps: int = 50) -> None:
        """Let the hand come to rest above the table.

        It does so alike wherever bodies and simulator begin alike: the state one substep before the end is kept, and
        the last substep, done again, leaves every derived number as if all had been done.
        """
        model, data = self.model, self._raw
        state = np.empty(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(model, data, state, STATE)
        key = b"".join((bytes([steps]), self.hand_init_pos.tobytes(), model.body_pos.tobytes(), state.tobytes()))
        if key in self.rested:
            mujoco.mj_setState(model, data, self.rested[key], STATE)
        else:
            self._mocap[:], self._mocap_quat[:], self._ctrl[:] = self.hand_init_pos, UPRIGHT, (-1, 1)
            mujoco.mj_step(model, data, nstep=steps * self.frame_skip - 1)
            mujoco.mj_getState(model, data, state, STATE)
            self.rested[key] = state
        mujoco.mj_step(model, data)
        self.init_tcp = self.tcp_center

    def _gripper_caging_reward(
        self, action: Array, obj_pos: Array, obj_radius: float, pad_success_thresh: float, object_reach_radius: float,
        xz_thresh: float, desired_gripper_effort: float = 1.0, high_density: bool = False, medium_density: bool = False,
    ) -> Any:  # fmt: skip
        """How well the gripper holds an object; the original's operations, without its small arrays."""
        if high_density and medium_density:
            raise ValueError("Can only be either high_density or medium_density")
        pads, start, caged = ("leftpad", "rightpad"), self.obj_init_pos, []
        for pad in pads:
            y = self.get_body_com(pad)[1]
            margin = abs(abs(y - start[1]) - pad_success_thresh)
            caged.append(tolerance(abs(y - obj_pos[1]), (obj_radius, pad_success_thresh), margin, "long_tail"))
        tcp = self.tcp_center
        margin = norm(start[::2] - self.init_tcp[::2]) - xz_thresh
        caged_xz = tolerance(norm(tcp[::2] - obj_pos[::2]), (0, xz_thresh), margin, "long_tail")
        closed = min(max(0, action[-1]), desired_gripper_effort) / desired_gripper_effort
        caging = hamacher_product(hamacher_product(*caged), float(caged_xz))
        both = hamacher_product(caging, closed if caging > 0.97 else 0.0)
        if high_density:
            both = (both + caging) / 2
        if medium_density:
            margin = abs(norm(start - self.init_tcp) - object_reach_radius)
            reach = tolerance(norm(obj_pos - tcp), (0, object_reach_radius), margin, "long_tail")
            both = (both + float(reach)) / 2
        return both


@functools.cache
def lean_class(task: str) -> type[Lean]:
    """The lean class of a task."""
    original = ALL_V3_ENVIRONMENTS[task]
    functions, names = rebound(original, GLOBALS, skip=("__init__", "model_name"))
    cls = type(f"Lean{original.__name__}", (original, Lean), {**functions, "rested": {}})
    names[original.__name__] = cls  # some call their own static methods by the class
    return cls


def lean_env(task: str, reward_version: str = "v2", goal_hidden: bool = False, pictures: bool = False) -> Any:
    """One env of a task, ready to `begin`; `pictures`: with all that a picture shows."""
    cls = lean_class(task)
    env = cls.__new__(cls)
    env.pictures = pictures  # the constructor reads the scene
    env.__init__(reward_function_version=reward_version)  # type: ignore[misc]
    env.prepare(goal_hidden)
    return env
