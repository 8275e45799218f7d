"""Options of `gasp data`, `gasp doctor` and `gasp presets`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro.conf

from rlcore.errors import UsageError

SEEDS = 2**63
KITCHEN_SETS: dict[str, tuple[str, ...]] = {
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "partial": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
    "all": (
        "microwave", "kettle", "bottom burner", "top burner", "light switch", "slide cabinet", "hinge cabinet",
    ),
}  # fmt: skip


def check_range(config: object, *keys: str, low: float = 1, high: float = 2**40) -> None:
    """UsageError for the first of the options `keys` outside [low, high); None passes."""
    for key in keys:
        if (value := getattr(config, key)) is not None and not low <= value < high:
            last = high - 1 if isinstance(value, int) else high
            raise UsageError(f"{key}: must be in {low:,} .. {last:,}, got {value}")


def check_name(out: Path | None) -> None:
    """UsageError where a file of demonstrations shall be called something else."""
    if isinstance(out, Path) and out.suffix not in (".h5", ".hdf5"):  # tyro tries it with a mark for "not given yet"
        raise UsageError(f"out: expected a name that ends in .h5 or .hdf5, got {out}")


@dataclass(frozen=True)
class EnvSpec:
    """What the learners need to know of a task."""

    name: str
    obs_dim: int
    action_dim: int
    episode_length: int  # steps; a longer episode is truncated
    subtasks: tuple[str, ...]  # of the kitchen, in order; empty elsewhere
    obs_mode: str  # what is observed; data of another mode do not fit


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What every collection has."""

    out: Path | None = None  # File to write; None: data/TASK.h5. The same command continues an unfinished one.
    seed: int = 100  # Decides every draw; episode e depends on it and on e alone.
    overwrite: bool = False  # Replace an existing file or an unfinished collection of other options.
    quiet: bool = False  # Show no progress.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "seed", low=0, high=SEEDS)
        check_name(self.out)


@dataclass(frozen=True, kw_only=True)
class CollectWalksConfig(CollectConfig):
    """What the collections of walks have."""

    transitions: int = 20_000  # Steps to collect, rounded up to whole episodes.
    episode_length: int = 300  # Steps of an episode; it goes on to another cell whenever one is reached.
    noise: float = 0.3  # Standard deviation of the noise on actions, which lie in [-1, 1].

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "transitions", "episode_length", high=2**31)
        check_range(self, "noise", low=0, high=10)


@dataclass(frozen=True, kw_only=True)
class CollectMazeConfig(CollectWalksConfig):
    """Walk through a maze from random cells to random cells: shortest paths, a PD controller, noise."""

    maze: Literal["umaze", "medium", "large"] = "medium"  # PointMaze_*-v3 of gymnasium-robotics.

    @property
    def task(self) -> str:
        """Name of the environment."""
        return f"maze-{self.maze}"


@dataclass(frozen=True, kw_only=True)
class CollectToyConfig(CollectWalksConfig):
    """The same on the toy, a point among walls without a simulator."""

    transitions: int = 4_000  # Steps to collect, rounded up to whole episodes.
    episode_length: int = 100  # Steps of an episode; it goes on to another cell whenever one is reached.

    @property
    def task(self) -> str:
        """Name of the environment."""
        return "toy"


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Check a file of demonstrations, whatever its format, and say what is in it."""

    path: tyro.conf.Positional[Path]  # Our own .h5, D4RL's .hdf5, a Minari folder, or maze rollouts.
    horizon: int = 10  # Steps of a skill: says how many windows there are.
    task: str | None = None  # An environment that they are meant for: refused if they do not fit it.
    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "horizon", high=2**20)


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Write demonstrations of any format as one of our files, if asked with other observations of the kitchen."""

    path: tyro.conf.Positional[Path]  # Our own .h5, D4RL's .hdf5, a Minari folder, or maze rollouts.
    out: Path  # File to write, .h5.
    obs_mode: Literal["keep", "full59", "state30", "legacy60"] = "keep"  # full59 holds the others, legacy60 state30.
    overwrite: bool = False  # Replace an existing file.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_name(self.out)


@dataclass(frozen=True, kw_only=True)
class CollectKitchenConfig(CollectConfig):
    """Record a scripted robot that does subtasks of the kitchen in random order; keep what it did well."""

    set: Literal["complete", "partial", "mixed", "all"] = "complete"  # Subtasks to draw from.
    episodes: int = 600  # Episodes to play.
    subtasks: int | None = None  # Of the set in an episode, in random order; None: 4, of mixed 3, as in D4RL.
    order: Literal["random", "listed"] = "random"  # listed: the first ones of the set, in its order.
    noise: float = 0.05  # Standard deviation of the noise on actions, which lie in [-1, 1].
    jitter: float = 0.01  # Metres by which a script's points are shifted, at most, in each axis.
    episode_length: int = 280  # Steps after which an episode is cut.
    obs_mode: Literal["full59", "state30", "legacy60"] = "state30"  # What is recorded; full59 has velocities, too.
    scripts: Path | None = None  # What `gasp data tune` wrote; None: the scripts that come with gasp.
    save_every: int = 20  # Episodes between savings: what a crash costs at most.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "episodes", "episode_length", "save_every", high=2**31)
        check_range(self, "noise", low=0, high=10)
        check_range(self, "jitter", low=0, high=1)
        check_range(self, "subtasks", high=len(KITCHEN_SETS[self.set]) + 1)

    @property
    def task(self) -> str:
        """Name of the environment."""
        return f"kitchen-{self.set}"

    @property
    def drawn(self) -> int:
        """Subtasks of an episode."""
        return self.subtasks or (3 if self.set == "mixed" else 4)


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Search at random for better scripts of the kitchen's subtasks; each must work from many states, with noise."""

    subtask: tuple[str, ...] = ("hinge cabinet",)  # Which to search for, in this order; _ works for a space.
    others: tuple[str, ...] = ("microwave", "kettle", "light switch", "slide cabinet")  # May have been done before.
    seconds: float = 60.0  # For each subtask.
    starts: int = 10  # States that a script is tried from.
    keep: float = 0.8  # Write a script only if it works from this share of them.
    noise: float = 0.05  # Standard deviation of the noise on actions, which lie in [-1, 1].
    jitter: float = 0.01  # Metres by which a script's points are shifted, at most, in each axis.
    scripts: Path | None = None  # Scripts to begin with; None: those that come with gasp.
    out: Path = Path("data/scripts.json")  # Where to write them, the unchanged ones too.
    seed: int = 100  # Decides states, noise and candidates.
    overwrite: bool = False  # Replace an existing file.
    quiet: bool = False  # Show no progress.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "seed", low=0, high=SEEDS)
        check_range(self, "starts", high=10_000)
        check_range(self, "seconds", "noise", low=0, high=10**6)
        check_range(self, "jitter", low=0, high=1)
        check_range(self, "keep", low=0, high=1.0001)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation, and how fast environments step."""

    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class PresetsConfig:
    """List the presets, or print one: what it sets is a file for --config."""

    name: tyro.conf.Positional[str | None] = None  # Print this one.
    json: bool = False  # Print JSON.
    debug: bool = False  # Show full tracebacks.
