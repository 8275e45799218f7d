"""Tasks by the names their users know. Continuous actions in [-1, 1], 1-D float32 observations.

cartpole-balance, cup-catch, dog-run ...   DeepMind Control, two simulator steps an agent step
Humanoid-v5, Pendulum-v1 ...               any Gymnasium id with a Box of actions
toy-reach                                  a point to be moved, no simulator needed
module:factory                             a Gymnasium env of your own
mt4                                        a set of tasks, see SETS
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from prismatic.config import TaskSpec
from prismatic.envs import dmc, toy
from prismatic.envs.tasks import TaskEnvs
from rlcore.envs import make_env
from rlcore.errors import EnvironmentProblem, UsageError, why
from rlcore.vecenv import VecEnv, make_vec

SETS: dict[str, tuple[str, ...]] = {
    "mt4": ("cartpole-balance", "pendulum-swingup", "reacher-easy", "cup-catch"),
}


def expand(tasks: Sequence[str]) -> tuple[str, ...]:
    """Names of sets become their tasks. UsageError where a task comes twice."""
    names = tuple(name for task in tasks for name in SETS.get(task, (task,)))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"task: {', '.join(twice)} comes twice in {', '.join(names)}")
    return names


def env_id(task: str) -> str:
    """What rlcore opens for `task`. UsageError with suggestions where the name means nothing."""
    name = task.removesuffix("-v0")
    if name in dmc.TASKS:
        return f"prismatic.envs.dmc:{name}"
    if name in toy.TASKS:
        return f"prismatic.envs.toy:{name}"
    if ":" in task:
        return f"prismatic.envs.gym:{task}"
    if task in gymnasium.registry:
        return f"prismatic.envs.gym:{task}"
    known = [*dmc.TASKS, *toy.TASKS, *SETS, *gymnasium.registry]
    close = difflib.get_close_matches(task, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "`prismatic envs` lists what there is"
    raise UsageError(f"no task {task!r}: {hint}")


def describe(task: str) -> TaskSpec:
    """Sizes of `task`, from an env that is opened and closed. EnvironmentProblem where it does not suit."""
    with contextlib.closing(make_env(env_id(task))) as env:
        obs, action, spec = env.observation_space, env.action_space, env.spec
        if not (isinstance(obs, Box) and isinstance(action, Box) and len(obs.shape) == len(action.shape) == 1):
            raise EnvironmentProblem(f"{task} has observations {obs} and actions {action}: 1-D Boxes only")
        limit = getattr(env.unwrapped, "episode_length", None) or (spec.max_episode_steps if spec else None)
        with contextlib.suppress(AttributeError):
            limit = limit or env.get_wrapper_attr("_max_episode_steps")  # of a TimeLimit around an env without a spec
        if limit is None:
            raise EnvironmentProblem(f"{task} has no time limit: give the env max_episode_steps, or episode_length")
        ends = bool(getattr(env.unwrapped, "can_terminate", True))
        return TaskSpec(task, obs.shape[0], action.shape[0], int(limit), ends)


def open_drawn(task: TaskSpec) -> gymnasium.Env[Any, Any]:
    """One env with its time limit, that `draw` can draw. EnvironmentProblem where it has no such mode."""
    identity = env_id(task.name)
    asked = {"render_mode": "rgb_array"} if identity.startswith("prismatic.envs.gym:") else {}
    return make_env(identity, task.episode_length, **asked)


def draw(env: gymnasium.Env[Any, Any]) -> np.ndarray[Any, Any]:
    """The env as it is now, uint8 (H, W, 3). EnvironmentProblem with the fix where there is no renderer."""
    try:
        return np.asarray(env.render(), np.uint8)
    except Exception as error:  # of many kinds, as the drivers are
        fix = "for MuJoCo set MUJOCO_GL=egl or osmesa before starting; `prismatic doctor` tells which works here"
        raise EnvironmentProblem(f"the env cannot be drawn ({why(error)}): {fix}") from error


def action_repeat(task: str) -> int:
    """Simulator steps an agent step."""
    return dmc.ACTION_REPEAT if env_id(task).startswith("prismatic.envs.dmc:") else 1


def make(tasks: Sequence[TaskSpec], num_envs: int, *, seed: int, first_env: int = 0) -> TaskEnvs:
    """`num_envs` envs of each task behind one VecEnv; observations and actions padded to the largest."""
    parts: list[VecEnv] = []
    for index, task in enumerate(tasks):
        first = first_env + index * 100_000  # a range of episode seeds a task
        parts.append(make_vec(env_id(task.name), num_envs, seed=seed, first_env=first))
    return TaskEnvs(parts, tasks)
