"""The vector envs that do not step in this process: gymnasium's worker processes and envpool's C++ threads."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from rlcore.envs import Array, Episodes, failure, nearest
from rlcore.errors import QuintetWarning, UsageError
from rlcore.seeding import episode_seed, numpy_state, set_numpy_state
from rlcore.vecenv import Batch, VecStep

HANG_SECONDS = 120.0  # a worker process silent for longer is given up


def _worker_env(owner: int, *args: Any) -> Episodes:
    """An env in a worker, which leaves the terminal's and the scheduler's signals to the trainer: that saves first."""
    if os.getpid() != owner:  # gymnasium also builds one in the parent, to see its spaces
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(name, signal.SIG_IGN)
    return Episodes(*args)


class AsyncVec(Batch):
    """A process an env (gymnasium's AsyncVectorEnv). A worker that dies or hangs is named, and all are killed."""

    def __init__(self, env_id: str, num_envs: int, seed: int, first_env: int, max_episode_steps: int | None) -> None:
        from gymnasium.vector import AsyncVectorEnv, AutoresetMode

        build = partial(_worker_env, os.getpid(), env_id, max_episode_steps, seed)
        make = [partial(build, first_env + i) for i in range(num_envs)]
        self.vec = AsyncVectorEnv(make, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        atexit.register(self._kill)  # workers ignore SIGTERM: multiprocessing's own exit would wait for ever
        super().__init__(num_envs, self.vec.single_observation_space, self.vec.single_action_space, seed, first_env)
        self.episode = np.full(num_envs, -1)  # known here too, for the error when a worker cannot tell

    def reset(self) -> Array:
        self.episode += 1
        with self._watch():
            self.vec.reset_async()
            obs, _ = self.vec.reset_wait(HANG_SECONDS)
        np.copyto(self.flip(), obs, casting="unsafe")
        return self.current_obs

    def step(self, action: Array) -> VecStep:
        with self._watch():
            self.vec.step_async(np.asarray(action, self.single_action_space.dtype))
            obs, self.reward[:], self.terminated[:], self.truncated[:], info = self.vec.step_wait(HANG_SECONDS)
        np.copyto(self.flip(), obs, casting="unsafe")
        for i in np.flatnonzero(self.terminated | self.truncated):
            self.episode[i] += 1
            self.final_obs[i] = info["final_obs"][i]
        success = [part["success"] for part in (info, info.get("final_info", {})) if "success" in part]
        self.success[:] = np.any(success, axis=0)
        return self.outputs(bool(success))

    def state_dict(self) -> dict[str, Any]:
        with self._watch():
            return self.pack(list(self.vec.call("snapshot")))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        snapshots = self.unpack(state)
        self.episode[:] = [episode - 1 for episode, _ in snapshots]  # the reset adds 1
        with self._watch():
            self.vec.set_attr("pending", snapshots)
        self.reset()
        self.check_replay(state)

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError, multiprocessing.TimeoutError) as error:
            for worker in self.vec.processes:
                worker.join(0.2)  # a killed one takes a moment to be seen as dead
            what, lost = "its worker process died", [worker.exitcode is not None for worker in self.vec.processes]
            if not any(lost):
                what = f"no answer from its worker process in {HANG_SECONDS:g} s"
                lost = [not pipe.poll() for pipe in self.vec.parent_pipes]
            i = int(np.argmax(lost))
            self._kill()
            raise failure(self.seed, self.first_env + i, int(self.episode[i]), what) from error

    def _kill(self) -> None:
        atexit.unregister(self._kill)
        self.vec.closed = True
        for worker in self.vec.processes:
            worker.kill()
            worker.join()

    def close(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            self.vec.close()
        self._kill()


class EnvPoolVec(Batch):
    """envpool's C++ envs, reset in the step that ends their episode (envpool by itself resets in the next one).

    envpool seeds an env once, when it is built: env i starts from `episode_seed(s, i, 0)` and its later episodes go on
    drawing from that stream, so episode k > 0 depends on what came before it. A simulator's state cannot be saved
    either: a resumed run begins fresh episodes, from `episode_seed(s, i, k + 1)`, with a QuintetWarning. An episode
    that terminates in the very step of its time limit is reported as truncated only.
    """

    def __init__(self, env_id: str, num_envs: int, seed: int, first_env: int, max_episode_steps: int | None) -> None:
        import envpool

        if env_id not in (known := envpool.list_all_envs()):
            raise UsageError(f"envpool has no {env_id!r}: {nearest(env_id, known)} Or use the sync backend")
        limit = {"max_episode_steps": max_episode_steps} if max_episode_steps else {}
        self._make = partial(envpool.make, env_id, env_type="gymnasium", num_envs=num_envs, **limit)
        self._open(seed, first_env, np.full(num_envs, -1))
        super().__init__(num_envs, self.pool.observation_space, self.pool.action_space, seed, first_env)

    def _open(self, seed: int, first_env: int, episode: Array) -> None:
        """Build the pool so that the next reset begins the episodes after `episode`."""
        self.episode = episode
        self.pool = self._make(seed=[episode_seed(seed, first_env + i, int(k) + 1) for i, k in enumerate(episode)])

    def reset(self) -> Array:
        self.episode += 1
        np.copyto(self.flip(), self.pool.reset()[0], casting="unsafe")
        return self.current_obs

    def step(self, action: Array) -> VecStep:
        action = np.asarray(action, self.single_action_space.dtype)
        obs, self.reward[:], self.terminated[:], truncated, info = self.pool.step(action)
        np.copyto(out := self.flip(), obs, casting="unsafe")
        np.greater(truncated, self.terminated, out=self.truncated)
        ended = np.flatnonzero(self.terminated | self.truncated).astype(np.int32)
        if ended.size:
            self.episode[ended] += 1
            self.final_obs[ended] = out[ended]
            first, begun = self.pool.reset(ended)
            out[begun["env_id"]] = first
        self.success[:] = info.get("success", False)
        return self.outputs("success" in info)

    def state_dict(self) -> dict[str, Any]:
        return {"episode": self.episode.copy(), "random": numpy_state(self.random.np_random)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        set_numpy_state(self.random.np_random, state["random"])
        self._open(self.seed, self.first_env, np.asarray(state["episode"]).copy())
        warnings.warn("envpool cannot save simulators: every env begins a fresh episode", QuintetWarning, stacklevel=2)
        self.reset()

    def close(self) -> None:
        self.pool.close()
