"""Task families and their rewards: one vocabulary for the toy, the bodies, the low-level controller and checkpoints.

A task is a family and one signed number, the spec: reach x = -5, run at 2 m/s, lean by 0.8 rad. The families' ids are
fixed for ever, whatever subset of them a run uses and in whatever order it names them. Loads no torch.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from rlcore.config import nearest
from rlcore.errors import UsageError

Array = np.ndarray[Any, Any]
PI = math.pi


class Family(enum.IntEnum):
    """What a task asks for. Saved by id: new families go to the end."""

    velocity_forward = 0
    velocity_backward = 1
    goal_forward = 2
    goal_backward = 3
    stand_front = 4
    stand_back = 5
    jump = 6
    flip_forward = 7
    direction_forward = 8
    direction_backward = 9
    velocity = 10  # one family for [0, 3] m/s, its reward not divided by the target
    velocity_left = 11  # in the plane from here on; the spec is the coordinate on the family's axis
    velocity_right = 12
    velocity_up = 13
    velocity_down = 14
    goal_left = 15
    goal_right = 16
    goal_up = 17
    goal_down = 18


F = Family
PLAIN = "velocity_plain"  # what Family.velocity is asked for by
# What the low-level controller can be told. The sign of the spec chooses within a group.
GROUPS: dict[str, tuple[Family, ...]] = {
    "goal": (F.goal_forward, F.goal_backward),
    "velocity": (F.velocity_forward, F.velocity_backward),
    "stand": (F.stand_front, F.stand_back),
    "jump": (F.jump,),
}
PLANAR_GROUPS: dict[str, tuple[Family, ...]] = {
    "goal": (F.goal_right, F.goal_left, F.goal_up, F.goal_down),
    "velocity": (F.velocity_right, F.velocity_left, F.velocity_up, F.velocity_down),
}
# Sign of the spec: +1, -1, or 0 where any will do.
SIGN: dict[Family, int] = {
    family: -1 if family.name.rpartition("_")[2] in ("backward", "back", "left", "down") else 1 for family in Family
} | {F.velocity: 0}
Ranges = Mapping[Family, tuple[float, float]]


def _mirrored(forward: Mapping[Family, tuple[float, float]], pairs: Mapping[Family, Family]) -> dict[Family, Any]:
    return {**forward, **{back: (-forward[front][1], -forward[front][0]) for front, back in pairs.items()}}


_PAIRS = {F.velocity_forward: F.velocity_backward, F.goal_forward: F.goal_backward, F.stand_front: F.stand_back}
TOY_RANGES: dict[Family, tuple[float, float]] = _mirrored(
    {
        F.velocity_forward: (0.5, 3.0), F.goal_forward: (1.0, 25.0), F.stand_front: (PI / 5, PI / 2),
        F.jump: (1.5, 3.0), F.flip_forward: (2 * PI, 4 * PI), F.direction_forward: (1.0, 1.0), F.velocity: (0.0, 3.0),
        F.velocity_right: (0.5, 3.0), F.velocity_up: (0.5, 3.0), F.goal_right: (1.0, 25.0), F.goal_up: (1.0, 25.0),
    },
    _PAIRS | {
        F.direction_forward: F.direction_backward, F.velocity_right: F.velocity_left, F.velocity_up: F.velocity_down,
        F.goal_right: F.goal_left, F.goal_up: F.goal_down,
    },
)  # fmt: skip


class State(NamedTuple):
    """The simple state that every toy and body can tell, arrays (n,) of one shape: m, m/s, rad, rad/s."""

    x: Array
    vx: Array
    z: Array
    vz: Array
    pitch: Array
    omega: Array
    y: Array = np.zeros(())
    vy: Array = np.zeros(())


# The entry of a State that a family is about, and in the plane the one that should be 0.
_QUANTITY: dict[str, tuple[str, str | None]] = {
    "goal": ("x", None), "velocity": ("vx", None), "stand": ("pitch", None), "jump": ("vz", None),
    "flip": ("omega", None), "direction": ("vx", None),
}  # fmt: skip
_PLANE = {"left": ("x", "y"), "right": ("x", "y"), "up": ("y", "x"), "down": ("y", "x")}


def kind(family: int) -> str:
    """goal, velocity, stand, jump, flip or direction. Those in GROUPS are what a low-level controller knows."""
    return Family(family).name.partition("_")[0]


def quantity(family: int) -> tuple[str, str | None]:
    """Names of the State's entries: what the spec is the target of, and what the plane's families want at 0."""
    stem, _, way = Family(family).name.partition("_")
    if way not in _PLANE:
        return _QUANTITY[stem]
    first, second = _PLANE[way]
    return (first, second) if stem == "goal" else (f"v{first}", f"v{second}")


@dataclass(frozen=True)
class Task:
    """One task: a family and its target, in m, m/s, rad or rad/s, with the sign that the family has."""

    family: Family
    spec: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "family", Family(self.family))
        sign = SIGN[self.family]
        if not math.isfinite(self.spec) or (sign and not self.spec * sign > 0):
            wanted = {1: "a positive number", -1: "a negative number", 0: "a number"}[sign]
            raise UsageError(f"task {self.family.name}: its spec must be {wanted}, got {self.spec}")

    def __str__(self) -> str:
        return f"{PLAIN if self.family == F.velocity else self.family.name}:{self.spec:g}"


SMALLEST_NORMALISER = 0.05  # no task is so near that its reward would explode


def normaliser(family: Any, spec: Any, start: Any = 0.0) -> Array:
    """What a task's error is divided by: |spec|, from `start` for goals, 1 for direction and plain velocity.

    The only place that knows: whoever changes a spec makes new tasks. All arguments (n,); start is x, m.
    """
    families, specs = np.asarray(family), np.asarray(spec, np.float32)
    goals = np.isin(families, _ids("goal"))
    size = np.where(goals, np.abs(specs - start), np.abs(specs))
    plain = np.isin(families, [*_ids("direction"), F.velocity])
    return np.where(plain, 1.0, np.maximum(size, SMALLEST_NORMALISER)).astype(np.float32)


@cache
def _ids(stem: str) -> list[int]:
    return [int(family) for family in Family if kind(family) == stem]


@dataclass(frozen=True)
class Tasks:
    """n tasks as arrays, never changed in place. `Tasks.of` makes them."""

    family: Array  # (n,) int64
    spec: Array  # (n,) float32
    normaliser: Array  # (n,) float32

    @classmethod
    def of(cls, tasks: Sequence[Task] | None = None, *, family: Any = (), spec: Any = (), start: Any = 0.0) -> Tasks:
        """From `Task`s, or from arrays of families and specs. start: x where goals are set from, m."""
        if tasks is not None:
            family, spec = [t.family for t in tasks], [t.spec for t in tasks]
        families, specs = np.asarray(family, np.int64), np.asarray(spec, np.float32)
        return cls(families, specs, normaliser(families, specs, start))

    def __len__(self) -> int:
        return len(self.family)

    def __getitem__(self, rows: Any) -> Tasks:
        """The tasks in `rows`: indices, a slice or a mask."""
        return Tasks(self.family[rows], self.spec[rows], self.normaliser[rows])

    def single(self) -> list[Task]:
        """As single tasks."""
        return [Task(Family(int(f)), float(s)) for f, s in zip(self.family, self.spec)]

    @cached_property
    def _by_quantity(self) -> list[tuple[str, str | None, Array]]:
        """(entry of the State, the one wanted at 0, mask (n,)) of the families that are present."""
        masks: dict[tuple[str, str | None], Array] = {}
        for family in np.unique(self.family):
            own, key = self.family == family, quantity(family)
            masks[key] = masks[key] | own if key in masks else own
        return [(*key, mask) for key, mask in masks.items()]

    @cached_property
    def special(self) -> dict[str, Array]:
        """Masks (n,) of the tasks whose reward is not -error / normaliser; only those that are present."""
        masks = {
            "direction": np.isin(self.family, _ids("direction")),
            "jump": self.family == F.jump,
            "plane": self.family >= F.velocity_left,
        }
        return {name: mask for name, mask in masks.items() if mask.any()}


def achieved(tasks: Tasks, state: State) -> Array:
    """(..., n) what the spec is the target of: x, vx, pitch, |vz|, omega, or the family's axis in the plane.

    The state's entries are (..., n), here and below: of one moment (n,), or of many.
    """
    value = np.empty(np.broadcast_shapes(np.shape(state.x), (len(tasks),)), np.float32)
    for entry, _, mask in tasks._by_quantity:
        np.copyto(value, getattr(state, entry), where=mask, casting="same_kind")
    if "jump" in tasks.special:
        np.abs(value, out=value, where=tasks.special["jump"])
    return value


def error(tasks: Tasks, state: State) -> Array:
    """(..., n) how far each state is from its task, in the spec's unit, >= 0.

    |achieved - spec|; in the plane the distance to the target; for a direction what is missing to 1 m/s that way.
    """
    value = achieved(tasks, state)
    miss: Array = np.abs(value - tasks.spec)
    if "direction" in tasks.special:
        np.copyto(miss, np.maximum(1.0 - tasks.spec * value, 0.0), where=tasks.special["direction"])
    if "plane" in tasks.special:
        across = np.zeros_like(miss)
        for _, other, mask in tasks._by_quantity:
            if other is not None:
                np.copyto(across, getattr(state, other), where=mask, casting="same_kind")
        np.copyto(miss, np.hypot(miss, across), where=tasks.special["plane"])
    return miss


def reward(tasks: Tasks, state: State) -> Array:
    """(..., n) reward of the state after a step: -error / normaliser; squared in the plane; a direction pays its speed.

    A cost of control is the world's, not the task's.
    """
    value: Array = -error(tasks, state) / tasks.normaliser
    if "plane" in tasks.special:
        np.copyto(value, -np.square(value), where=tasks.special["plane"])
    if "direction" in tasks.special:
        np.copyto(value, tasks.spec * achieved(tasks, state), where=tasks.special["direction"])
    return value


class Tolerance(NamedTuple):
    """An error below relative |spec| + absolute is a success."""

    relative: float
    absolute: float


TOY = Tolerance(0.1, 0.1)
BODY = Tolerance(0.2, 0.1)


def threshold(tasks: Tasks, tolerance: Tolerance = TOY) -> Array:
    """(n,) the largest mean error that is still a success."""
    return tolerance.relative * np.abs(tasks.spec) + tolerance.absolute


def success(tasks: Tasks, errors: Array, tolerance: Tolerance = TOY) -> Array:
    """(n,) bool: is the error, averaged over the last tenth of the episode, below `threshold`. errors (T, n)."""
    assert errors.ndim == 2, errors.shape
    assert errors.shape[1] == len(tasks), (errors.shape, len(tasks))
    last = max(1, round(len(errors) / 10))
    result: Array = errors[-last:].mean(0) < threshold(tasks, tolerance)
    return result


def make_task_sets(
    families: Sequence[Family], num_train: int, num_eval: int, seed: int, ranges: Ranges = TOY_RANGES
) -> tuple[Tasks, Tasks]:
    """Training and held-out tasks: evenly spaced specs of each family, shuffled, split; no spec is in both.

    The counts are shared out evenly, the first families by id taking what is left over. Families with one spec alone
    (directions) cannot be held out: they have it in both. The order in which `families` come does not matter.
    """
    from rlcore.seeding import numpy_generator

    chosen = sorted(set(families))
    if not chosen or num_train < len(chosen) or num_eval < 0:
        raise UsageError(f"tasks: {num_train} training tasks cannot cover {len(chosen)} families")
    train: list[Task] = []
    held: list[Task] = []
    for i, family in enumerate(chosen):
        if family not in ranges:
            raise UsageError(f"tasks: no range is known for {Family(family).name} here")
        low, high = ranges[family]
        a, b = (count // len(chosen) + (i < count % len(chosen)) for count in (num_train, num_eval))
        specs = np.linspace(low, high, a + b)
        rng = numpy_generator(seed, "tasks", int(family))
        order = rng.permutation(a + b)
        train += [Task(family, float(w)) for w in specs[order[:a]]]
        held += [Task(family, float(w)) for w in specs[order[a:]]]
    return Tasks.of(train), Tasks.of(held)


def parse_families(text: str, planar: bool = False) -> tuple[Family, ...]:
    """Families, by id, from names of groups and families: `goal,velocity,flip_forward`.

    `velocity` is the group, `velocity_plain` the family. planar: groups mean the plane's families.
    Raises: UsageError with the nearest name.
    """
    groups = PLANAR_GROUPS if planar else GROUPS
    found: set[Family] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name in groups:
            found |= set(groups[name])
        else:
            found.add(_family(name, groups))
    if not found:
        raise UsageError(f"tasks: expected names such as goal,velocity, got {text!r}")
    return tuple(sorted(found))


def families_of(text: str, toy: str) -> tuple[Family, ...]:
    """`parse_families` with what the groups mean on that toy."""
    return parse_families(text, planar=toy == "toy2d")


def _family(name: str, groups: Iterable[str]) -> Family:
    """The family of that name; `velocity_plain` is `Family.velocity`, whose own name is the group's."""
    known = {**Family.__members__, PLAIN: F.velocity}
    if name not in known:
        hint = nearest(name, [*groups, *known])
        raise UsageError(f"tasks: unknown family {name!r}{hint} (groups: {', '.join(groups)})")
    return known[name]


def parse_tasks(text: str) -> Tasks:
    """Tasks from `goal:5,-5;velocity:2` (the sign chooses the family) or `stand_front:0.8`.

    Raises: UsageError naming the part that cannot be read.
    """
    tasks: list[Task] = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, _, numbers = part.partition(":")
        try:
            specs = [float(number) for number in numbers.split(",")]
        except ValueError:
            raise UsageError(f"tasks: expected e.g. goal:5,-5, got {part!r}") from None
        tasks += [Task(family_of(name.strip(), spec), spec) for spec in specs]
    if not tasks:
        raise UsageError(f"tasks: expected e.g. goal:5,-5;velocity:2, got {text!r}")
    return Tasks.of(tasks)


def family_of(name: str, spec: float) -> Family:
    """The family called `name`, or the one in that group whose specs have the sign of `spec`."""
    if name in GROUPS:
        for family in GROUPS[name]:
            if spec * SIGN[family] > 0:
                return family
        raise UsageError(f"tasks: {name}:{spec:g} is no task of the group {name}")
    return _family(name, GROUPS)


def task_dict(train: Tasks, held_out: Tasks) -> dict[str, Any]:
    """Both sets as plain types, for task_dict.json: split -> [{id, family, family_id, spec}]."""
    return {
        split: [
            {"id": i, "family": t.family.name, "family_id": int(t.family), "spec": t.spec}
            for i, t in enumerate(tasks.single())
        ]
        for split, tasks in (("train", train), ("eval", held_out))
    }
