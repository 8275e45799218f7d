"""Experts for tests: experience that somebody made up, runs of the toy, and SIGTERM at a chosen moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collective.experience import Experience
from rlcore.vecenv import VecStep

Array = np.ndarray[Any, Any]


def moved(rng: np.random.Generator, n: int, cut: Array | None = None, **given: Array) -> VecStep:
    """What n envs might give back; those in `cut` (n,) bool end their episodes."""
    over = np.zeros(n, bool) if cut is None else cut
    drawn = {"obs": rng.normal(size=(n, 39)), "final_obs": rng.normal(size=(n, 39)), "reward": rng.uniform(0, 10, n)}
    values = {name: np.asarray(given.get(name, value), np.float32) for name, value in drawn.items()}
    success = given.get("success", np.zeros(n, bool))
    return VecStep(
        values["obs"], values["reward"], np.zeros(n, bool), over, values["final_obs"], {"success": success}
    )  # fmt: skip


def fill(
    experience: Experience, steps: int, seed: int = 0, horizon: int = 20, numbered: bool = False, alike: bool = False
) -> None:
    """Steps of all envs at random, episodes cut at the horizon.

    numbered: the reward is the step's number. alike: the same happens in every env, however many there are.
    """
    rng, n = np.random.default_rng(seed), experience.tasks * experience.copies
    drawn = 1 if alike else n
    for t in range(experience.steps, experience.steps + steps):
        cut = experience.age + 1 >= horizon
        step = moved(rng, drawn, cut[:drawn])
        obs, action = rng.normal(size=(drawn, 39)).astype(np.float32), rng.uniform(-1, 1, (drawn, 4)).astype(np.float32)
        if alike:
            step = VecStep(*(np.repeat(value, n, 0) for value in step[:5]), {"success": np.zeros(n, bool)})
            obs, action = obs.repeat(n, 0), action.repeat(n, 0)
        if numbered:
            step = step._replace(reward=np.full(n, float(t), np.float32))
        experience.add(obs, action, step, np.full(n, t // horizon))


def stops_at(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, count: int) -> Callable[[], int]:
    """Have this process send itself SIGTERM at the `count`-th call of a method; gives the number of calls so far."""
    original, calls = getattr(owner, method), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, method, counted)
    return lambda: len(calls)
