"""A small replay buffer with all kinds of fields, and what it must hold, by looking at every row."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rlcore.buffer import Field, ReplayBuffer
from rlcore.errors import UsageError

FIELDS = {
    "obs": Field((3,)),
    "image": Field((2, 2), "uint8"),
    "mask": Field((2,), "uint8"),
    "action": Field((), "int64"),
    "grid": Field((2, 3), "float32"),
    "reward": Field(),
    "terminated": Field((), "bool"),
    "truncated": Field((), "bool"),
    "is_init": Field((), "bool"),
}
DTYPES = {"float32": torch.float32, "bool": torch.bool, "int64": torch.int64, "uint8": torch.uint8}


class Every:
    """Stands in for the generator: draws each number below `count` once, so that a draw shows every valid start."""

    def integers(self, count, size):
        return np.arange(count)


def rows(seed, num_envs, steps, p_end=0.2, p_init=0.1):
    """Random vector steps: every number is different from its neighbours."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        terminated = rng.random(num_envs) < p_end / 2
        yield {
            "obs": rng.normal(size=(num_envs, 3)).astype(np.float32),
            "image": rng.integers(0, 256, (num_envs, 2, 2), dtype=np.uint8),
            "mask": rng.integers(0, 256, (num_envs, 2), dtype=np.uint8),
            "action": rng.integers(-(2**24), 2**24 + 1, num_envs),
            "grid": rng.normal(size=(num_envs, 2, 3)).astype(np.float32),
            "reward": rng.normal(size=num_envs).astype(np.float32),
            "terminated": terminated,
            "truncated": ~terminated & (rng.random(num_envs) < p_end / 2),
            "is_init": rng.random(num_envs) < p_init,
        }


def make(slots=7, num_envs=2, window=3, seed=0, fields=FIELDS, **options):
    return ReplayBuffer(fields, slots * num_envs, num_envs, window=window, rng=np.random.default_rng(seed), **options)


def fill(buffer, steps, **options):
    history = [copy.deepcopy(row) for row in rows(buffer.total, buffer.num_envs, steps, **options)]
    for row in history:
        buffer.add(**row)
    return history


def model_starts(history, buffer, length, stride=1, by_episode=False):
    """[(absolute step, env)] of all valid windows, by looking at every row of each."""
    found = []
    for start in range(max(0, len(history) - buffer.slots), len(history) - length + 1):
        for env in range(buffer.num_envs):
            window = [{key: value[env] for key, value in history[start + k].items()} for k in range(length)]
            broken = any(row["terminated"] or row["truncated"] for row in window[:-1])
            broken |= any(row["is_init"] for row in window[1:])
            if start % buffer.slots % stride == 0 and not (by_episode and broken):
                found.append((start, env))
    return found


def every_start(buffer, length, stride=1):
    rng, buffer.rng = buffer.rng, Every()
    try:
        return buffer.starts(1, length, stride)
    finally:
        buffer.rng = rng


def check_against(history, buffer, length, stride=1):
    """The valid starts are exactly the model's, each once (so a uniform draw is uniform), and so is what they hold."""
    wanted = model_starts(history, buffer, length, stride, buffer.within_episode)
    if not wanted:
        with pytest.raises(UsageError, match="no window"):
            buffer.starts(1, length, stride)
        return
    slot, env = every_start(buffer, length, stride)
    assert sorted(zip(slot, env)) == sorted((start % buffer.slots, k) for start, k in wanted)
    slot, env = np.array([start % buffer.slots for start, _ in wanted]), np.array([k for _, k in wanted])
    batch = buffer.windows(slot, env, length)
    assert batch.keys() == history[0].keys()
    for name, tensor in batch.items():
        field = buffer.fields[name]
        assert tensor.dtype == DTYPES[field.dtype]
        assert tensor.shape == (length, len(wanted), *field.shape)
        values = np.array([[history[start + t][name][k] for start, k in wanted] for t in range(length)])
        np.testing.assert_array_equal(tensor.numpy(), values)
