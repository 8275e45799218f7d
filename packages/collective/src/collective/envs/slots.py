"""Envs of one process and the board, in its own or in shared memory, on which they show what happened.

Episode k of env i under run seed s depends on (s, i, k) alone, so an episode is its number and the actions since its
start: `replay` returns to the middle of one, whether after a checkpoint or in a process that takes a dead one's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from collective.config import ACTION_DIM, OBS_DIM
from collective.envs.single import GOALS, Array, Plan, open_env
from rlcore.envs import failure
from rlcore.seeding import episode_seed


def layout(num_envs: int, horizon: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of every array on the board."""
    return {
        "history": ((num_envs, horizon, ACTION_DIM), np.float32),  # the running episode's actions; t of them count
        "t": ((num_envs,), np.int64),
        "episode": ((num_envs,), np.int64),  # -1 before the first reset
        "goal_id": ((num_envs,), np.int64),
        "unstable": ((num_envs,), np.int64),
        "obs": ((2, num_envs, OBS_DIM), np.float32),  # in turns: the one before stays whole for one more step
        "final_obs": ((num_envs, OBS_DIM), np.float32),
        "action": ((num_envs, ACTION_DIM), np.float32),
        "reward": ((num_envs,), np.float32),
        "truncated": ((num_envs,), np.bool_),
        "success": ((num_envs,), np.bool_),
        "stop": ((num_envs,), np.bool_),  # end the episode with this step
        "busy": ((num_envs,), np.bool_),  # being stepped: where a process died
    }


class Board:
    """The arrays of `layout`, in one piece of memory."""

    history: Array
    t: Array
    episode: Array
    goal_id: Array
    unstable: Array
    obs: Array
    final_obs: Array
    action: Array
    reward: Array
    truncated: Array
    success: Array
    stop: Array
    busy: Array

    def __init__(self, memory: Any, num_envs: int, horizon: int) -> None:
        start = 0
        for name, (shape, dtype) in layout(num_envs, horizon).items():
            count = int(np.prod(shape))
            setattr(self, name, np.frombuffer(memory, dtype, count, start).reshape(shape))
            start += count * np.dtype(dtype).itemsize

    @staticmethod
    def size(num_envs: int, horizon: int) -> int:
        """Bytes of all arrays."""
        return sum(
            int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in layout(num_envs, horizon).values()
        )


def goal_of(plan: Plan, env: int, episode: int) -> int:
    """The goal, 0 .. 49, of an episode of global env `env`."""
    if plan.goals == "fixed":
        return 0
    if plan.goals == "cycle":  # the copies of a task share its goals out: 10 of them see all 50 in 5 episodes
        copy = (env - plan.first_env) % plan.copies
        return (plan.first_env + copy * (GOALS // plan.copies) + episode) % GOALS
    return int(np.random.Generator(np.random.PCG64(episode_seed(plan.seed, env, episode))).integers(GOALS))


class Slots:
    """The envs `members` of a vector, stepped in this process."""

    restarts = 0  # of processes: there are none

    def __init__(self, plan: Plan, board: Board, members: Iterable[int]) -> None:
        self.plan, self.board = plan, board
        self.envs = {i: open_env(plan.tasks[i // plan.copies], plan) for i in members}

    def reset(self, side: int) -> None:
        """Begin the next episode of every env; first observations go to obs[side]."""
        for i in self.envs:
            self._begin(i, int(self.board.episode[i]) + 1, side)

    def step(self, side: int) -> None:
        """Do the board's actions. Where an episode ends, obs[side] shows the next one's beginning."""
        board = self.board
        for i, env in self.envs.items():
            action, t = board.action[i], int(board.t[i])
            board.history[i, t] = action
            board.busy[i] = True
            try:
                obs, board.reward[i], board.success[i] = env.step(action)
            except Exception as error:
                raise self._failure(i, error) from error
            board.busy[i] = False
            board.unstable[i] = env.unstable
            board.t[i] = t + 1
            ended = t + 1 == self.plan.horizon or bool(board.stop[i])
            board.truncated[i] = ended
            if ended:
                board.final_obs[i] = obs
                self._begin(i, int(board.episode[i]) + 1, side)
            else:
                board.obs[side, i] = obs

    def replay(self, side: int) -> None:
        """Return to step t of the board's episodes."""
        board = self.board
        for i, env in self.envs.items():
            if board.episode[i] < 0:
                continue
            actions = board.history[i, : board.t[i]].copy()
            self._begin(i, int(board.episode[i]), side)
            try:
                for action in actions:
                    board.obs[side, i] = env.step(action)[0]
            except Exception as error:
                raise self._failure(i, error) from error
            board.t[i] = len(actions)
            env.unstable = int(board.unstable[i])  # what was replayed has been counted

    def _begin(self, i: int, episode: int, side: int) -> None:
        board, env = self.board, self.plan.first_env + i
        board.episode[i], board.t[i], board.goal_id[i] = episode, 0, goal_of(self.plan, env, episode)
        try:
            board.obs[side, i] = self.envs[i].reset(int(board.goal_id[i]))
        except Exception as error:
            raise self._failure(i, error) from error

    def _failure(self, i: int, error: Exception) -> Exception:
        return failure(self.plan.seed, self.plan.first_env + i, int(self.board.episode[i]), error)

    def render(self, i: int) -> Array:
        """(H, W, 3) uint8 of env i."""
        return self.envs[i].render()

    def close(self) -> None:
        for env in self.envs.values():
            env.close()


def alone(plan: Plan) -> Slots:
    """All envs of `plan` in this process."""
    board = Board(bytearray(Board.size(plan.num_envs, plan.horizon)), plan.num_envs, plan.horizon)
    board.episode[:] = -1
    return Slots(plan, board, range(plan.num_envs))
