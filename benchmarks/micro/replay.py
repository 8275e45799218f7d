"""Drawing from replay, ours against stable-baselines3 (transitions) and torchrl (windows): CPU time a batch.

Numbers of a locomotion task: observations of 17, actions of 6, a full ring of a million steps. Both sides return torch
tensors on the CPU. The peers get the settings that were fastest here: no time-limit handling for stable-baselines3; for
torchrl flat keys, `cache_values`, no truncation or start marks written into the slices.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.micro.timing import Row, compare, per_call, run
from rlcore.buffer import Field, ReplayBuffer

STEPS, OBS, ACTION, EPISODE, BATCH, WINDOW = 1_000_000, 17, 6, 1_000, 256, 4


def main(argv: Sequence[str] | None = None) -> int:
    torch.set_num_threads(1)
    packages = ("torch", "numpy", "rlcore", "stable-baselines3", "torchrl", "tensordict")
    return run("replay", "Drawing a batch from a million replayed steps", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    yield compare(
        "256 transitions", ("rlcore ReplayBuffer.sample", per_call(our_transitions())),
        ("stable-baselines3 ReplayBuffer.sample", per_call(sb3_transitions())),
        bar=5, unit="CPU time a batch", repetitions=repetitions,
    )  # fmt: skip
    yield compare(
        "256 windows of 4 steps inside episodes, after adding one step",
        ("rlcore ReplayBuffer.add, .sample_windows", per_call(our_windows())),
        ("torchrl ReplayBuffer.extend, .sample (SliceSampler)", per_call(torchrl_windows())),
        bar=30, unit="CPU time a step and a batch", repetitions=repetitions,
    )  # fmt: skip


def our_transitions() -> Callable[[], Any]:
    fields = {"obs": Field((OBS,)), "action": Field((ACTION,)), "next_obs": Field((OBS,)), "reward": Field()}
    buffer = ReplayBuffer(fields | {"done": Field((), "bool")}, STEPS, rng=np.random.default_rng(0))
    step = {name: np.ones((1, *field.shape), field.dtype) for name, field in buffer.fields.items()}
    for _ in range(STEPS):
        buffer.add(**step)
    return lambda: buffer.sample(BATCH)


def sb3_transitions() -> Callable[[], Any]:
    from gymnasium.spaces import Box
    from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer

    obs_space, action_space = Box(-1, 1, (OBS,), np.float32), Box(-1, 1, (ACTION,), np.float32)
    buffer = SB3ReplayBuffer(STEPS, obs_space, action_space, device="cpu", handle_timeout_termination=False)
    for array in (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards, buffer.dones):
        array[:] = 1  # what a million calls of add would leave
    buffer.full = True
    return lambda: buffer.sample(BATCH)


def our_windows() -> Callable[[], Any]:
    fields = {"obs": Field((OBS,)), "action": Field((ACTION,)), "reward": Field()}
    fields |= {"terminated": Field((), "bool"), "truncated": Field((), "bool")}
    buffer = ReplayBuffer(fields, STEPS, window=WINDOW, within_episode=True, rng=np.random.default_rng(0))
    step = {name: np.ones((1, *field.shape), field.dtype) for name, field in fields.items()}
    step["terminated"] = np.array([False])
    ends = (np.array([False]), np.array([True]))

    def add() -> None:
        buffer.add(**{**step, "truncated": ends[buffer.total % EPISODE == EPISODE - 1]})

    def add_and_draw() -> None:
        add()
        buffer.sample_windows(BATCH, WINDOW)

    for _ in range(STEPS):
        add()
    return add_and_draw


def torchrl_windows() -> Callable[[], Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensordict import TensorDict
        from torchrl.data import LazyTensorStorage, SliceSampler
        from torchrl.data import ReplayBuffer as TorchRLReplayBuffer
    logging.getLogger("torchrl").setLevel(logging.WARNING)  # it announces every storage

    def steps(count: int) -> Any:
        done = torch.zeros(count, 1, dtype=torch.bool)
        done[EPISODE - 1 :: EPISODE] = True
        values = {"obs": torch.ones(count, OBS), "action": torch.ones(count, ACTION), "reward": torch.ones(count, 1)}
        return TensorDict({**values, "terminated": torch.zeros_like(done), "done": done}, [count])

    sampler = SliceSampler(slice_len=WINDOW, end_key="done", cache_values=True, truncated_key=None, init_key=None)
    buffer = TorchRLReplayBuffer(storage=LazyTensorStorage(STEPS), sampler=sampler, batch_size=BATCH * WINDOW)
    buffer.extend(steps(STEPS))
    going, ending, added = steps(1), steps(EPISODE)[-1:], 0

    def extend_and_draw() -> None:
        nonlocal added
        added += 1
        buffer.extend(ending if added % EPISODE == 0 else going)
        buffer.sample()

    return extend_and_draw


if __name__ == "__main__":
    raise SystemExit(main())
