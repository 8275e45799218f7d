"""Walks through a maze: the shortest way from cell to cell, a PD controller, noise. For PointMaze and the toy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gasp.envs.grid import Array, Cell, Grid

LABELS = ("right", "up", "left", "down")
REACHED = 0.25  # m: so near to a cell's centre it turns to the next one


class Gains(NamedTuple):
    """Of the controller."""

    place: float  # action a m
    speed: float  # action a unit of the observed speed


GAINS = {"toy": Gains(4.0, 5.0), "maze": Gains(8.0, 2.5)}  # the toy counts speed in m a step, the maze in m/s


class Walk(NamedTuple):
    """One episode."""

    obs: Array  # (T+1, 4)
    action: Array  # (T, 2)
    label: Array  # (T+1,) direction of the cell ahead, index into LABELS


def walk(env: Any, length: int, noise: float, gains: Gains, rng: np.random.Generator) -> Walk:
    """`length` steps from a random cell to random cells, one after the other.

    env: has `grid` and `reset(options={"cell": ...})`; its goal means nothing here. rng: cells and noise.
    """
    cells = env.grid.cells()
    here = cells[rng.integers(len(cells))]
    obs, _ = env.reset(seed=int(rng.integers(2**31)), options={"cell": here})
    seen, done, labels = [obs], [], []
    way: list[Cell] = []
    for _ in range(length):
        way = _onward(env.grid, way, cells, obs, rng)
        offset = env.grid.xy(way[0]) - obs[:2]
        push = gains.place * offset - gains.speed * obs[2:4] + noise * rng.standard_normal(2)
        action = np.clip(push, -1.0, 1.0).astype(np.float32)
        labels.append(_direction(offset))
        obs = env.step(action)[0]
        seen.append(obs)
        done.append(action)
    return Walk(np.array(seen), np.array(done), np.array([*labels, labels[-1]], np.int8))


def _onward(grid: Grid, way: list[Cell], cells: list[Cell], obs: Array, rng: np.random.Generator) -> list[Cell]:
    """The cells still ahead; another destination when there are none."""
    if way and np.hypot(*(grid.xy(way[0]) - obs[:2])) < REACHED:
        way = way[1:]
    while not way:
        way = grid.path(grid.cell(obs[:2]), cells[rng.integers(len(cells))])[1:]
    return way


def _direction(offset: Array) -> int:
    """0 right, 1 up, 2 left, 3 down: of the larger part."""
    along = int(abs(offset[1]) > abs(offset[0]))
    return along if offset[along] > 0 else along + 2
