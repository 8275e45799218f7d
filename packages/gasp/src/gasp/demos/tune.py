"""Random search for a subtask's script: a candidate must work from many states, with noise, before it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gasp.demos.arm import Array
from gasp.demos.kitchen import Demonstrator, Snapshot
from gasp.demos.scripts import Point, Script
from gasp.kitchen_obs import SUBTASKS, done

LIMIT = 130  # steps that a candidate has
BOXES = ((-0.12, 0.12), (-0.1, 0.1), (-0.08, 0.08)), ((-0.35, 0.35), (-0.45, 0.3), (-0.2, 0.2))  # contact; ends, m


@dataclass(frozen=True)
class Score:
    """How a script fares over start states; the larger, the better."""

    rate: float  # share of the states from which it works
    steps: float  # mean steps where it does

    def better(self, other: Score) -> bool:
        """Steps count among equals: 20 of them are worth one percent."""
        return self.rate - 5e-4 * self.steps > other.rate - 5e-4 * other.steps


def starts(player: Demonstrator, subtask: str, others: Sequence[str], count: int, seed: int) -> list[Snapshot]:
    """States from which `subtask` may have to be done: after up to three random `others`; the first after none."""
    found: list[Snapshot] = []
    for index in range(20 * count):
        rng = np.random.default_rng([seed, index])
        player.begin(int(rng.integers(2**31)), rng)
        pool = [other for other in others if other != subtask]
        number = int(rng.integers(0, 1 + min(3, len(pool)))) if found else 0
        for other in rng.permutation(pool)[:number]:
            player.attempt(str(other), 10**6)
        if not done(player.env.raw.data.qpos, (subtask,))[0]:
            found.append(player.snapshot())
        if len(found) == count:
            break
    return found


def score(
    player: Demonstrator, subtask: str, script: Script, states: Sequence[Snapshot], seed: int, beat: float = 0.0
) -> Score:
    """Try a script from each state; gives up after three failures, or once its rate cannot reach `beat`."""
    player.scripts = {**player.scripts, subtask: script}
    steps: list[int] = []
    for index, state in enumerate(states):
        player.restore(state, np.random.default_rng([seed, index]))
        before = others_done(player, subtask)
        part = player.attempt(subtask, LIMIT)
        if part.success and (others_done(player, subtask) == before).all():
            steps.append(part.end)
        hopeless = len(steps) + len(states) - index - 1 < beat * len(states)
        if hopeless or (index == 2 and not steps):
            break
    return Score(len(steps) / len(states), float(np.mean(steps)) if steps else LIMIT)


def others_done(player: Demonstrator, subtask: str) -> Array:
    """Which of the other subtasks are done: a script shall leave them alone."""
    return done(player.env.raw.data.qpos, [name for name in SUBTASKS if name != subtask])


def search(
    player: Demonstrator, subtask: str, states: Sequence[Snapshot], seconds: float, seed: int,
    say: Callable[[str], None], clock: Callable[[], float] = time.monotonic,
) -> tuple[Script, Score, int]:  # fmt: skip
    """The best script found in some seconds, its score, and the number of candidates."""
    rng = np.random.default_rng([seed, 1])
    best = player.scripts[subtask]
    found = score(player, subtask, best, states, seed)
    say(f"{subtask}: begins with {found.rate:.0%} in {found.steps:.0f} steps")
    begin, count = clock(), 0
    while clock() - begin < seconds:
        count += 1
        wide = found.rate == 0 and rng.random() < 0.7
        candidate = anywhere(best, rng) if wide else near(best, rng)
        reached = score(player, subtask, candidate, states, seed, max(found.rate, 0.5 / len(states)))
        if reached.better(found):
            best, found = candidate, reached
            say(f"{subtask}: {found.rate:.0%} in {found.steps:.0f} steps after {count} candidates")
    player.scripts = {**player.scripts, subtask: best}
    return best, found, count


def near(script: Script, rng: np.random.Generator) -> Script:
    """A script with some of its points moved, by up to a few centimetres."""
    size = rng.choice([0.01, 0.03, 0.06])

    def moved(point: Point) -> Point:
        return rounded(np.asarray(point) + size * rng.standard_normal(3) * (rng.random(3) < 0.6))

    pose = script.pose
    if pose is not None:
        pose = tuple(round(float(angle + 5 * size * rng.standard_normal()), 2) for angle in pose)  # type: ignore[assignment]
    steps = max(5, script.end_steps + int(rng.integers(-4, 5)) * int(rng.random() < 0.3))
    return replace(
        script, contact=moved(script.contact), ends=tuple(map(moved, script.ends)), front=moved(script.front),
        pose=pose, end_steps=steps,
    )  # fmt: skip


def anywhere(script: Script, rng: np.random.Generator) -> Script:
    """A script that shares only its site with `script`."""

    def drawn(box: Sequence[tuple[float, float]]) -> Point:
        return rounded(np.array([rng.uniform(*side) for side in box]))

    contact = drawn(BOXES[0])
    ends = tuple(drawn(BOXES[1]) for _ in range(rng.integers(1, 4)))
    pose = (round(rng.uniform(-0.8, 0.8), 2), round(rng.uniform(-3.14, 3.14), 2)) if rng.random() < 0.3 else None
    aside = rng.random() < 0.5
    front = rounded(np.array([rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.0), rng.uniform(-0.1, 0.1)]))
    return replace(
        script, contact=contact, ends=ends, pose=pose, grasp=bool(rng.random() < 0.4),
        front=front if aside else (0.0, -0.12, 0.0),
    )  # fmt: skip


def rounded(point: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Point:
    """To millimetres: what is written is what was tried."""
    x, y, z = (round(float(value), 3) for value in point)
    return x, y, z
