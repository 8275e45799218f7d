"""One run seed, many independent named streams. Nothing here touches a global generator.

A stream is named by words and integers, so that adding one never shifts another: evaluation draws from its own streams,
and turning it on or off leaves training bit-identical.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np


def _key(part: str | int) -> int:
    if isinstance(part, int):
        return part
    return int.from_bytes(hashlib.sha256(part.encode()).digest()[:4], "little")


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream `path` under `seed` (numpy's SeedSequence hash; all parts >= 0)."""
    state = np.random.SeedSequence([seed, *map(_key, path)]).generate_state(2, np.uint32)
    return (int(state[0]) | int(state[1]) << 32) & (2**63 - 1)


def episode_seed(seed: int, env: int, episode: int) -> int:
    """The 31-bit seed of episode `episode` in env `env` under run seed `seed`: it decides everything in the episode.

    31 bits, because some simulators keep seeds in a signed C int.
    """
    return int(np.random.SeedSequence([seed, env, episode]).generate_state(1, np.uint32)[0]) & 0x7FFFFFFF


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """A numpy generator for the stream `path`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *path)))


def torch_generator(seed: int, *path: str | int, device: str = "cpu") -> Any:
    """A torch.Generator for the stream `path` on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *path))


def numpy_state(rng: np.random.Generator) -> dict[str, Any]:
    """The generator's state as plain types that a checkpoint can hold (128-bit integers become strings)."""
    state: dict[str, Any] = dict(rng.bit_generator.state)
    return {**state, "state": {k: str(v) for k, v in state["state"].items()}}


def set_numpy_state(rng: np.random.Generator, state: dict[str, Any]) -> None:
    """Put back what `numpy_state` gave."""
    rng.bit_generator.state = {**state, "state": {k: int(v) for k, v in state["state"].items()}}


def set_torch_state(generator: Any, state: Any) -> None:
    """Put back what `generator.get_state()` gave; of another kind of device it does not fit, and nothing changes."""
    generator.set_state(state.cpu() if len(state) == len(generator.get_state()) else generator.get_state())


def seed_globals(seed: int) -> None:
    """Seed the global generators, for environments that draw from them; ours never do."""
    import torch

    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy") % 2**32)  # noqa: NPY002
    torch.manual_seed(derive(seed, "torch"))


def global_state() -> dict[str, Any]:
    """The states of the global generators of python, numpy and torch."""
    import torch

    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys, np.int64), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_global_state(state: dict[str, Any]) -> None:
    """Put back what `global_state` gave. GPU generators only where there are as many GPUs as then."""
    import torch

    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
