"""Many copies of one environment behind one contract: same-step autoreset, true final observation, (s, i, k) seeds.

Discrete actions reach an env as int, others in their space's dtype. Observations keep their shape, as float32 (uint8
stays); Dict, Tuple and Discrete ones go through gymnasium's flatten.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector.utils import batch_space

from rlcore.envs import MAX_REPLAY, Array, Episodes, Snapshot
from rlcore.errors import EnvironmentProblem, QuintetWarning, UsageError
from rlcore.seeding import derive, numpy_state, set_numpy_state


class VecStep(NamedTuple):
    """What `step` returns. The arrays are reused: obs lives for one more step, the others do not."""

    obs: Array  # (N, ...) float32 or uint8; where an episode ended, the first observation of the next one
    reward: Array  # (N,) float32
    terminated: Array  # (N,) bool
    truncated: Array  # (N,) bool, never together with terminated
    final_obs: Array  # (N, ...) like obs, valid where terminated | truncated
    info: dict[str, Any]  # "success": (N,) bool, where the env reports "success" or "is_success"


class VecEnv(Protocol):
    """N envs stepped together."""

    num_envs: int
    single_observation_space: Box
    single_action_space: gymnasium.Space[Any]
    current_obs: Array  # (N, ...) what the next action answers

    def reset(self) -> Array: ...  # begins the next episode of every env
    def step(self, action: Array) -> VecStep: ...
    def sample(self) -> Array: ...  # (N, ...) random actions from the vector env's own generator
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...  # leaves the observation in current_obs
    def close(self) -> None: ...


def make_vec(
    env_id: str,
    num_envs: int,
    *,
    seed: int,
    first_env: int = 0,
    backend: str = "sync",
    max_episode_steps: int | None = None,
) -> VecEnv:
    """Open `num_envs` copies of a Gymnasium id or `module:factory`, numbered from `first_env` in the seeding rule.

    "sync" steps in this process, the best choice below about 1 ms a step; "async" gives each env a process;
    "envpool" is C++ threads for the ids that package has (`rlcore.vecworkers.EnvPoolVec` says what seeds mean there).
    """
    from rlcore import vecworkers

    backends: dict[str, Any] = {"sync": SyncVec, "async": vecworkers.AsyncVec, "envpool": vecworkers.EnvPoolVec}
    if backend not in backends or num_envs < 1:
        raise UsageError(f"backend {backend!r}, {num_envs} envs: expected one of {', '.join(backends)} and >= 1 env")
    try:
        vec: VecEnv = backends[backend](env_id, num_envs, seed, first_env, max_episode_steps)
    except ImportError as error:
        needed = "rlcore[fast-envs]" if backend == "envpool" else "gymnasium>=1.1"
        raise EnvironmentProblem(f"the {backend} backend needs pip install '{needed}' ({error})") from error
    return vec


class Batch:
    """What the backends share: spaces, output arrays and random actions."""

    def __init__(self, num_envs: int, obs_space: Any, action_space: Any, seed: int, first_env: int) -> None:
        if not isinstance(obs_space, Box) or not isinstance(action_space, (Box, Discrete, MultiDiscrete, MultiBinary)):
            raise UsageError(f"cannot batch observations {obs_space} with actions {action_space}: wrap the env")
        dtype: Any = np.uint8 if obs_space.dtype == np.uint8 else np.float32
        self.single_observation_space = Box(obs_space.low.astype(dtype), obs_space.high.astype(dtype), dtype=dtype)
        self.num_envs, self.single_action_space, self.seed, self.first_env = num_envs, action_space, seed, first_env
        self._pair = [np.zeros((num_envs, *obs_space.shape), dtype) for _ in range(2)]
        self.current_obs, self.final_obs = self._pair[0], np.zeros_like(self._pair[0])
        self.reward = np.zeros(num_envs, np.float32)
        self.terminated, self.truncated, self.success = np.zeros((3, num_envs), bool)
        self.random = batch_space(action_space, num_envs)
        self.random.seed(derive(seed, "random actions", first_env))

    def flip(self) -> Array:
        """The buffer for the coming observation; the one before it stays whole for one more step."""
        self._pair.reverse()
        self.current_obs = self._pair[0]
        return self.current_obs

    def outputs(self, reported: bool) -> VecStep:
        info = {"success": self.success} if reported else {}
        return VecStep(self.current_obs, self.reward, self.terminated, self.truncated, self.final_obs, info)

    def sample(self) -> Array:
        return np.asarray(self.random.sample())

    def pack(self, snapshots: list[Snapshot]) -> dict[str, Any]:
        """Snapshots, beside the observation they must lead to."""
        return {"snapshots": snapshots, "obs": self.current_obs.copy(), "random": numpy_state(self.random.np_random)}

    def unpack(self, state: dict[str, Any]) -> list[Snapshot]:
        """What each env's next reset begins: its episode, or the one after an episode that was too long to keep."""
        set_numpy_state(self.random.np_random, state["random"])
        return [(k + (a is None), np.zeros(0) if a is None else np.asarray(a)) for k, a in state["snapshots"]]

    def check_replay(self, state: dict[str, Any]) -> None:
        """Warn where the continued episode is not the one that was saved."""
        lost = np.array([actions is None for _, actions in state["snapshots"]])
        other = (self.current_obs != np.asarray(state["obs"])).reshape(self.num_envs, -1).any(1) & ~lost
        far = f"{lost.sum()} envs were past step {MAX_REPLAY:,} of an episode, too far to replay: they begin anew"
        odd = f"env {self.first_env + other.argmax()} does not replay: its reset(seed) does not decide everything"
        for which, text in ((lost, far), (other, odd)):
            if which.any():
                warnings.warn(text, QuintetWarning, stacklevel=3)


class SyncVec(Batch):
    """A plain loop over the envs, in this process."""

    def __init__(self, env_id: str, num_envs: int, seed: int, first_env: int, max_episode_steps: int | None) -> None:
        self.envs = [Episodes(env_id, max_episode_steps, seed, first_env + i) for i in range(num_envs)]
        super().__init__(num_envs, self.envs[0].observation_space, self.envs[0].action_space, seed, first_env)

    def reset(self) -> Array:
        out = self.flip()
        for i, env in enumerate(self.envs):
            out[i] = env.reset()[0]
        return out

    def step(self, action: Array) -> VecStep:
        out, reported = self.flip(), False
        self.success.fill(False)
        actions = np.array(action, self.single_action_space.dtype)  # a copy: its rows are kept
        for i, env in enumerate(self.envs):
            obs, self.reward[i], terminated, truncated, info = env.step(actions[i])
            if info:
                self.success[i], reported = info["success"], True
            if terminated or truncated:
                self.final_obs[i] = obs
                obs = env.reset()[0]
            self.terminated[i], self.truncated[i], out[i] = terminated, truncated, obs
        return self.outputs(reported)

    def state_dict(self) -> dict[str, Any]:
        return self.pack([env.snapshot() for env in self.envs])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for env, snapshot in zip(self.envs, self.unpack(state)):
            env.pending = snapshot
        self.reset()
        self.check_replay(state)

    def close(self) -> None:
        for env in self.envs:
            env.close()


class EpisodeStats:
    """Return and length of each env's running episode."""

    def __init__(self, num_envs: int) -> None:
        self.running = np.zeros((2, num_envs))  # return, length

    def update(self, reward: Array, done: Array) -> list[tuple[float, int]]:
        """Count one step: reward (N,), done (N,) bool. Returns (return, length) of the episodes that just ended."""
        self.running += [reward, np.ones_like(reward)]
        if not done.any():
            return []
        ended = [(total, int(length)) for total, length in self.running[:, done].T.tolist()]
        self.running[:, done] = 0
        return ended

    def state_dict(self) -> dict[str, Any]:
        return {"running": self.running.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.running[:] = np.asarray(state["running"])
