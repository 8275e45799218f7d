"""Three tasks that need a memory. In each, what is seen at the decision says nothing about the right answer.

An episode is a short film and a question at its last frame: right answer +1, wrong answer -1, then it terminates. The
film comes from a few independent uniform draws (`Film.draws`), so that all episodes can be listed and every claim about
chance checked by counting: given the last frame, both answers are equally likely, so that no policy without memory has
a decision reward above 0 in expectation, whatever it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete

from rlcore.errors import UsageError

Array = np.ndarray[Any, Any]


class Film(NamedTuple):
    """A family of equally likely episodes."""

    width: int  # numbers in an observation
    num_actions: int
    draws: tuple[int, ...]  # one uniform draw below each of these makes an episode
    longest: int  # steps
    show: Callable[..., tuple[Array, int]]  # the draws -> frames (steps, width), the right action at the last one
    fidget: float = 0.0  # reward of any action but 0 before the last step


def t_maze(length: int = 10) -> Film:
    """A cue, a corridor, a junction: turn to the side that the cue named `length` steps ago.

    Observations, one-hot: cue A, cue B, corridor, junction. Actions 0 and 1 answer A and B; they matter only at the
    junction. length + 1 steps (Bakker 2002, NeurIPS 14, without the walking).
    """
    _at_least("length", length, 1)

    def show(cue: int) -> tuple[Array, int]:
        frames = np.zeros((length + 1, 4), np.float32)
        frames[0, cue] = frames[1:length, 2] = frames[length, 3] = 1.0
        return frames, cue

    return Film(4, 2, (2,), length + 1, show)


def delayed_match(items: int = 4, delay: int = 6) -> Film:
    """A sample, a delay of ceil(delay / 2) to `delay` steps, a test item: is it the sample? (In half of the episodes.)

    Observations: the item one-hot, then a fixate flag (during the delay) and a test flag (with the test item). Actions:
    0 hold, 1 match, 2 non-match. Not holding before the test costs 0.1; holding at the test is wrong. At most
    delay + 2 steps.
    """
    _at_least("items", items, 2)
    _at_least("delay", delay, 1)
    shortest = (delay + 1) // 2

    def show(sample: int, extra: int, same: int, other: int) -> tuple[Array, int]:
        test = shortest + extra + 1
        frames = np.zeros((test + 1, items + 2), np.float32)
        frames[0, sample] = frames[1:test, items] = frames[test, items + 1] = 1.0
        frames[test, sample if same else (sample + 1 + other) % items] = 1.0
        return frames, 1 if same else 2

    return Film(items + 2, 3, (items, delay - shortest + 1, 2, items - 1), delay + 2, show, fidget=-0.1)


def temporal_order(window: int = 5) -> Film:
    """Two pulses on two channels at different random steps of `window`, a blank, a cue: which channel came first?

    Observations, one-hot or all 0: channel 1, channel 2, cue. Actions 0 and 1 answer channel 1 and channel 2; they
    matter only at the cue. window + 2 steps.
    """
    _at_least("window", window, 2)

    def show(first: int, gap: int) -> tuple[Array, int]:
        second = (first + 1 + gap) % window
        frames = np.zeros((window + 2, 3), np.float32)
        frames[first, 0] = frames[second, 1] = frames[window + 1, 2] = 1.0
        return frames, int(second < first)

    return Film(3, 2, (window, window - 1), window + 2, show)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} is {value}: it must be at least {least}")


class MemoryTask:
    """N films running at once. Success is the right answer."""

    has_success = True

    def __init__(self, num_envs: int, film: Film) -> None:
        self.film, self.max_episode_steps = film, film.longest
        self.action_space = Discrete(film.num_actions)
        self.observation_space = Box(0.0, 1.0, (film.width,), np.float32)
        self.frames = np.zeros((num_envs, film.longest + 1, film.width), np.float32)  # a blank after the end
        self.steps, self.answer = np.zeros((2, num_envs), np.int64)
        self.envs = np.arange(num_envs)
        self.arrays: dict[str, Array] = {}

    def begin(self, env: int, seed: int) -> None:
        draws = []
        for below in self.film.draws:  # the seed is a hash: its own digits are as random as a generator's output
            seed, draw = divmod(seed, below)
            draws.append(draw)
        frames, self.answer[env] = self.film.show(*draws)
        self.steps[env] = len(frames)
        self.frames[env, : len(frames)], self.frames[env, len(frames) :] = frames, 0.0

    def advance(self, action: Array, elapsed: Array, reward: Array, terminated: Array) -> None:
        np.equal(elapsed, self.steps, out=terminated)
        answered = np.where(action == self.answer, 1.0, -1.0)
        reward[:] = np.where(terminated, answered, self.film.fidget * (action != 0))

    def observe(self, elapsed: Array, out: Array) -> None:
        out[:] = self.frames[self.envs, elapsed]
