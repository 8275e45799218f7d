"""Opening a run that was saved: read-only, with errors that name what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcore import checkpoint, device
from rlcore.config import from_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import read_json
from rlcore.provenance import near
from rlcore.seeding import numpy_generator
from taskinfer.agent import Agent
from taskinfer.config import LowConfig, ToyConfig
from taskinfer.context import Episodes
from taskinfer.data import EpisodeRing
from taskinfer.envs.toy import dims
from taskinfer.low import LowLevel
from taskinfer.relabel import relabelling
from taskinfer.tasks import Family, Task, Tasks, families_of

ORDER = {"auto": ("best.pt", "final.pt", "last.pt")} | {name: (f"{name}.pt",) for name in ("best", "final", "last")}
# What a run of another stage is called, and the verb that makes one.
STAGES = {
    "toy": ("toy run", "toy train"), "low": ("low-level run", "low train"), "transfer": ("transfer", "transfer reuse"),
}  # fmt: skip


@dataclass(frozen=True)
class SavedToy:
    """A trained toy agent and where it came from."""

    folder: Path
    cfg: ToyConfig
    agent: Agent
    checkpoint: Path
    step: int


@dataclass(frozen=True)
class SavedLow:
    """A trained low level and where it came from."""

    folder: Path
    cfg: LowConfig
    low: LowLevel
    checkpoint: Path
    step: int
    dt: float  # s a step of the body


def open_toy(folder: Path, which: str = "auto", where: str = "cpu") -> SavedToy:
    """Load the agent of checkpoint `which`: best, final, last, auto (the first of these there is), or a .pt file.

    Raises: UsageError where there is no such run or it is another stage's; DataError where the file is damaged.
    """
    path = find(folder, "toy", which)
    state = checkpoint.load(path)
    with _belongs(path, "a toy agent"):
        cfg = from_dict(ToyConfig, state["config"], where=f"config in {path}")
        families = families_of(cfg.tasks, cfg.toy)
        agent = Agent(cfg, *dims(cfg.toy), families, 0, device.resolve(where))
        agent.load_state_dict(state["parts"]["agent"])
    return SavedToy(folder, cfg, agent, path, int(state["step"]))


def open_low(folder: Path, which: str = "auto", where: str = "cpu") -> SavedLow:
    """Load the low level of checkpoint `which`; see `open_toy`."""
    path = find(folder, "low", which)
    state = checkpoint.load(path)
    with _belongs(path, "a low level"):
        cfg = from_dict(LowConfig, state["config"], where=f"config in {path}")
        agent = state["parts"]["agent"]
        sizes = int(agent["obs_dim"]), int(agent["action_dim"])
        low = LowLevel(cfg.sac, *sizes, cfg.groups, device=device.resolve(where))
        low.load_state_dict(agent)
        dt = float(read_json(folder / "env.json")["dt"])
    return SavedLow(folder, cfg, low, path, int(state["step"]), dt)


def stage_of(folder: Path) -> str:
    """The stage of a run: toy, low or transfer. UsageError, with similar names, where there is no run of this program.

    Nothing is ever created.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"there is no run {folder}{near(folder)}")
    environment: Any = read_json(folder / "env.json")
    return str(environment.get("stage")) if isinstance(environment, dict) else "None"


def find(folder: Path, stage: str, which: str) -> Path:
    """The checkpoint of a run of that stage."""
    if (other := stage_of(folder)) != stage:
        called, verb = STAGES[stage]
        raise UsageError(f"{folder} is no {called} (its stage is {other}): see `taskinfer {verb}`")
    if which in ORDER:
        return checkpoint.Checkpoints(folder / "checkpoints").find(*ORDER[which])
    if Path(which).suffix != ".pt":
        raise UsageError(f"--checkpoint {which}: expected best, final, last, auto or a .pt file")
    return Path(which)


@contextmanager
def _belongs(path: Path, what: str) -> Iterator[None]:
    """Turn what a foreign checkpoint raises into one clear line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"checkpoint {path} is not one of {what}: {' '.join(str(error).split())[:200]}") from error


def training_episodes(saved: SavedToy, num: int = 500) -> Episodes | None:
    """`num` random episodes as the toy run drew them, some with other targets; None where its replay files are gone.

    An older checkpoint's may have been deleted: then those of the last one.
    """
    cfg, size = saved.cfg, dims(saved.cfg.toy)
    for path in (saved.checkpoint, saved.folder / "checkpoints" / "last.pt"):
        rng, where = numpy_generator(0, "gauge"), saved.agent.device
        ring = EpisodeRing(cfg.ring, cfg.horizon, *size, rng, where, relabelling(cfg), noisy=cfg.noise_std > 0)
        try:
            ring.load(saved.folder / "replay", checkpoint.load(path)["parts"]["ring"])
        except (DataError, KeyError):
            continue
        return ring.sample(num)
    return None


def held_out_tasks(saved: SavedToy) -> Tasks:
    """The tasks that the toy run did not train on."""
    return _tasks(saved, "eval")


def training_tasks(saved: SavedToy) -> Tasks:
    """Those that it trained on."""
    return _tasks(saved, "train")


def _tasks(saved: SavedToy, split: str) -> Tasks:
    path = saved.folder / "task_dict.json"
    with _belongs(path, "a toy run's tasks"):
        return Tasks.of([Task(Family(row["family_id"]), row["spec"]) for row in read_json(path)[split]])
