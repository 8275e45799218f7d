"""MuJoCo bodies that move in the x-z plane, through Gymnasium. Needs the extra `mujoco`."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from rlcore.errors import EnvironmentProblem, UsageError
from taskinfer.tasks import State

Array = np.ndarray[Any, Any]
INSTALL = "pip install 'taskinfer[mujoco]' (gymnasium[mujoco] with mujoco 3.3.0)"
ROOTS = {"x": "rootx", "z": "rootz", "pitch": "rooty"}  # Gymnasium's names in its planar bodies


class PlanarBody:
    """A Gymnasium MuJoCo environment whose root is three joints: two slides (x, z) and a hinge (pitch).

    Position and velocity are read by the joints' names, never by an index into an observation, which differs from
    body to body. Observations are the environment's own; its reward and its time limit are left out.

    Args:
        env_id: a Gymnasium id.
        roots: the joints' names under "x", "z" and "pitch".
        render: keep a renderer ready; without it none is ever loaded.
    Raises: EnvironmentProblem where MuJoCo is missing; UsageError where a joint or a Box of actions is.
    """

    def __init__(self, env_id: str, roots: dict[str, str] = ROOTS, *, render: bool = False, **options: Any) -> None:
        self.env_id = env_id
        mode = "rgb_array" if render else None
        try:
            made = gymnasium.make(env_id, render_mode=mode, disable_env_checker=True, **options)
        except gymnasium.error.DependencyNotInstalled as error:
            raise EnvironmentProblem(f"{env_id} needs {INSTALL}: {error}") from error
        except gymnasium.error.Error as error:
            raise UsageError(f"no body {env_id!r}: {error}") from error
        except Exception as error:
            if not render:
                raise
            raise _undrawable(env_id, error) from error
        self.env = cast(Any, made.unwrapped)
        for space in ("observation_space", "action_space"):
            if not isinstance(getattr(self.env, space), Box):
                raise UsageError(f"{env_id}: its {space} is {getattr(self.env, space)}, a body needs a Box")
        self.action_space: Box = self.env.action_space
        self.observation_dim = int(np.prod(self.env.observation_space.shape))
        self._joints = [self._joint(axis, name) for axis, name in roots.items()]
        self._terminated = False

    def _joint(self, axis: str, name: str) -> Any:
        """A live view of the joint's position and velocity."""
        model: Any = getattr(self.env, "model", None)
        if not hasattr(model, "njnt"):
            raise UsageError(f"{self.env_id} is no MuJoCo environment: write a Body for it, see taskinfer.envs.bodies")
        known = [model.joint(i).name for i in range(model.njnt)]
        if name not in known:
            raise UsageError(f"{self.env_id} has no joint {name!r} to read {axis} from (it has {', '.join(known)})")
        if model.joint(name).type[0] not in (2, 3):  # mjJNT_SLIDE, mjJNT_HINGE
            raise UsageError(f"{self.env_id}: joint {name!r} for {axis} is neither a slide nor a hinge")
        return self.env.data.joint(name)

    @property
    def dt(self) -> float:
        """Seconds a step."""
        return float(self.env.dt)

    def reset(self, seed: int) -> Array:
        """Begin an episode that `seed` alone decides; (D,) float32."""
        self._terminated = False
        return np.asarray(self.env.reset(seed=seed)[0], np.float32).reshape(-1)

    def step(self, action: Array) -> Array:
        """One step with an action (A,) of `action_space`; (D,) float32."""
        obs, _, self._terminated, _, _ = self.env.step(action)
        return np.asarray(obs, np.float32).reshape(-1)

    def simple_state(self) -> State:
        """Six numbers; NaN where MuJoCo gave up: it then silently puts the body back to its start."""
        (x, z, pitch), bad = self._joints, self._gave_up()
        values = (x.qpos[0], x.qvel[0], z.qpos[0], z.qvel[0], pitch.qpos[0], pitch.qvel[0])
        return State(*(np.asarray(np.nan if bad else value) for value in values))

    def _gave_up(self) -> bool:
        warnings = self.env.data.warning  # counted since the reset
        return any(warnings[i].number > 0 for i in (4, 5, 6, 7))  # mjWARN_BADQPOS, _BADQVEL, _BADQACC, _BADCTRL

    def healthy(self) -> bool:
        """Whether the environment lets the episode go on."""
        return not self._terminated

    def render(self) -> Array:
        """(H, W, 3) uint8. EnvironmentProblem where there is no graphics driver."""
        try:
            return np.asarray(self.env.render())
        except Exception as error:  # of glfw, EGL or OSMesa
            raise _undrawable(self.env_id, error) from error

    def side_view(self) -> Array:
        """(G, 5) x, z of both ends and the radius of each capsule and sphere, m: a picture that needs no driver."""
        model, data = self.env.model, self.env.data
        sizes = {2: 0.0, 3: 1.0}  # mjGEOM_SPHERE, mjGEOM_CAPSULE: half-lengths, as shares of size[1]
        rows = []
        for i, kind in enumerate(model.geom_type.tolist()):
            if kind in sizes:
                (x, _, z), along = data.geom_xpos[i], data.geom_xmat[i].reshape(3, 3)[:, 2] * model.geom_size[i, 1]
                reach_x, reach_z = sizes[kind] * along[0], sizes[kind] * along[2]
                rows.append((x - reach_x, z - reach_z, x + reach_x, z + reach_z, model.geom_size[i, 0]))
        return np.array(rows).reshape(-1, 5)

    def close(self) -> None:
        self.env.close()


def _undrawable(env_id: str, error: Exception) -> EnvironmentProblem:
    fix = "set MUJOCO_GL=egl (or osmesa) before starting, and see `taskinfer doctor`"
    return EnvironmentProblem(f"{env_id} cannot be drawn ({type(error).__name__}: {error}): {fix}")
