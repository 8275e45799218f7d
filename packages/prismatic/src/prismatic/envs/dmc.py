"""DeepMind Control tasks. Needs the extra `dmc`: dm-control 1.0.28 with mujoco 3.3.0."""

from __future__ import annotations

import functools
import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from rlcore.errors import EnvironmentProblem, renderer_fix, why

Array = np.ndarray[Any, Any]
ACTION_REPEAT = 2  # simulator steps an agent step, as in TD-MPC2

# Of dm_control's suite; listed here because loading the suite takes a second. A test compares.
TASKS = tuple(
    """
acrobot-swingup acrobot-swingup_sparse cartpole-balance cartpole-balance_sparse cartpole-swingup
cartpole-swingup_sparse cartpole-three_poles cartpole-two_poles cheetah-run cup-catch dog-fetch dog-run dog-stand
dog-trot dog-walk finger-spin finger-turn_easy finger-turn_hard fish-swim fish-upright hopper-hop hopper-stand
humanoid-run humanoid-run_pure_state humanoid-stand humanoid-walk humanoid_CMU-run humanoid_CMU-stand
humanoid_CMU-walk manipulator-bring_ball manipulator-bring_peg manipulator-insert_ball manipulator-insert_peg
pendulum-swingup point_mass-easy point_mass-hard quadruped-escape quadruped-fetch quadruped-run quadruped-walk
reacher-easy reacher-hard stacker-stack_2 stacker-stack_4 swimmer-swimmer15 swimmer-swimmer6 walker-run
walker-stand walker-walk
""".split()
)


class Control(gymnasium.Env[Array, Array]):
    """One task: the observations in their own order as one float32 vector, actions in [-1, 1].

    Never terminates; 500 agent steps of two simulator steps each, whose rewards are summed.
    """

    can_terminate = False

    def __init__(self, task: str) -> None:
        suite = load_suite()
        domain, _, name = task.partition("-")
        domain = {"cup": "ball_in_cup"}.get(domain, domain)
        self.task = task
        self.env = suite.load(domain, name)
        spec, shapes = self.env.action_spec(), self.env.observation_spec().values()
        self.low, self.half = spec.minimum, 0.5 * (spec.maximum - spec.minimum)
        size = sum(int(np.prod(part.shape)) for part in shapes)
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = Box(-1.0, 1.0, spec.shape, np.float32)
        self.metadata = {"render_fps": round(1 / (self.env.control_timestep() * ACTION_REPEAT))}
        self.episode_length = int(np.ceil(self.env._step_limit / ACTION_REPEAT))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:  # the suite seeds a task once, when it is loaded
            self.env.task._random = np.random.RandomState(seed % 2**32)
        return observed(self.env.reset()), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        action = self.low + (np.clip(action, -1, 1) + 1.0) * self.half
        reward = 0.0
        for _ in range(ACTION_REPEAT):
            moved = self.env.step(action)
            reward += moved.reward or 0.0
            if moved.last():
                break
        failed = moved.last() and moved.discount == 0.0
        return observed(moved), reward, failed, moved.last() and not failed, {}

    def render(self) -> Any:
        """(240, 320, 3) uint8 from camera 0. Needs MUJOCO_GL=egl or osmesa."""
        return self.env.physics.render(240, 320, camera_id=0)


def observed(moved: Any) -> Array:
    """The parts of an observation in a row."""
    return np.concatenate([np.ravel(part) for part in moved.observation.values()]).astype(np.float32)


def load_suite() -> Any:
    """dm_control's suite. EnvironmentProblem with the fix where it is missing or does not fit its mujoco."""
    os.environ.setdefault("MUJOCO_GL", "disable")  # state runs must not touch a graphics driver; set it to render
    try:
        from dm_control import suite
    except ImportError as error:
        fix = "pip install 'prismatic[dmc]' (dm-control 1.0.28 with mujoco 3.3.0)"
        raise EnvironmentProblem(f"DeepMind Control tasks need {fix}: {error}") from error
    except (AttributeError, RuntimeError) as error:  # of PyOpenGL, or of dm-control on another mujoco
        needs = "" if renderer_fix(what := why(error)) else "; it needs mujoco 3.3.0"
        raise EnvironmentProblem(f"dm-control does not load: {what}{needs}") from error
    return suite


def __getattr__(name: str) -> Any:
    """Factories by task name, as rlcore looks them up: `prismatic.envs.dmc:cartpole-balance`."""
    if name in TASKS:
        return functools.partial(Control, name)
    raise AttributeError(name)
