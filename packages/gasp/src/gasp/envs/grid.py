"""Mazes as grids: which cells are free, where they lie, the shortest way between them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlcore.errors import UsageError

Array = np.ndarray[Any, Any]
Cell = tuple[int, int]  # row from the top, column from the left
GOAL_RADIUS = 0.45  # m: who is that near has reached a goal, as in PointMaze


@dataclass(frozen=True)
class Grid:
    """Square cells of 1 m; the origin is the middle of the map, y points up, rows count from the top."""

    free: Array  # (R, C) bool

    @classmethod
    def of(cls, rows: list[Any]) -> Grid:
        """From rows of symbols, among which 1 and "1" are walls."""
        return cls(np.array([[str(symbol) != "1" for symbol in row] for row in rows]))

    def xy(self, cell: Cell) -> Array:
        """(2,) centre of a cell, m."""
        rows, columns = self.free.shape
        return np.array([cell[1] + 0.5 - columns / 2, rows / 2 - cell[0] - 0.5])

    def cell(self, xy: Array) -> Cell:
        """The cell that a point (2,) lies in."""
        rows, columns = self.free.shape
        return int(np.floor(rows / 2 - xy[1])), int(np.floor(xy[0] + columns / 2))

    def cells(self) -> list[Cell]:
        """The free ones, in reading order."""
        return [(int(r), int(c)) for r, c in np.argwhere(self.free)]

    def path(self, start: Cell, goal: Cell) -> list[Cell]:
        """A shortest way through free cells, both ends included. UsageError where there is none."""
        came: dict[Cell, Cell] = {goal: goal}
        queue = deque([goal])
        while queue and start not in came:
            r, c = queue.popleft()
            for near in ((r, c + 1), (r - 1, c), (r, c - 1), (r + 1, c)):
                inside = 0 <= near[0] < self.free.shape[0] and 0 <= near[1] < self.free.shape[1]
                if inside and self.free[near] and near not in came:
                    came[near] = (r, c)
                    queue.append(near)
        if start not in came:
            raise UsageError(f"there is no way from cell {start} to cell {goal}")
        way = [start]
        while way[-1] != goal:
            way.append(came[way[-1]])
        return way

    def checked(self, text: str, what: str) -> Cell:
        """A free cell from "row,column". UsageError naming `what` otherwise."""
        try:
            r, c = (int(part) for part in text.split(","))
        except ValueError:
            raise UsageError(f"{what}: expected ROW,COLUMN, got {text!r}") from None
        if (r, c) not in self.cells():
            raise UsageError(f"{what}: {r},{c} is no free cell of this maze (free: {self.cells()})")
        return r, c
