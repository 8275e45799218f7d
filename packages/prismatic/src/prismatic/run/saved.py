"""Opening a run that was saved: read-only, with errors that name what is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prismatic import cpu
from prismatic.agent import Agent
from prismatic.config import SavedRun, TaskSpec, TrainConfig
from rlcore import checkpoint, device
from rlcore.config import from_dict
from rlcore.errors import DataError, UsageError
from rlcore.provenance import near

ALIASES: dict[str, tuple[str, ...]] = {
    "best": ("best_model.pt", "best.pt"),
    "final": ("final_model.pt", "final.pt"),
    "latest": ("latest.pt", "last.pt"),
}
ALIASES["auto"] = ALIASES["best"] + ALIASES["final"] + ALIASES["latest"]


@dataclass(frozen=True)
class Saved:
    """A trained agent and where it came from."""

    folder: Path
    cfg: TrainConfig
    agent: Agent
    tasks: tuple[TaskSpec, ...]
    checkpoint: Path
    step: int


def folder_of(cfg: SavedRun) -> Path:
    """The run's folder. UsageError with similar names where there is none: nothing is ever created."""
    folder = cfg.dir / cfg.name
    if not (folder / "config.json").is_file():
        raise UsageError(f"there is no run {folder}{near(folder)}")
    return folder


def open_run(cfg: SavedRun, which: str, where: str = "cpu", mpc: bool | None = None) -> Saved:
    """Load the agent of checkpoint `which`: best, final, latest, auto (the first of these there is), or a file.

    mpc: plan, or let the policy act; as in training where None.
    """
    folder = folder_of(cfg)
    cpu.reuse_memory()
    if which in ALIASES:
        path = checkpoint.Checkpoints(folder / "checkpoints").find(*ALIASES[which])
    elif (path := Path(which)).suffix != ".pt":
        raise UsageError(f"--checkpoint {which}: expected best, final, latest, auto or a .pt file")
    state, on = checkpoint.load(path), device.resolve(where)
    try:
        train = from_dict(TrainConfig, state["config"], where=f"config in {path}")
        train = train if mpc is None else replace(train, mpc=mpc)
        device.set_threads(train.threads)  # as in training: the same numbers, and no core taken from others
        tasks = tuple(TaskSpec(**task) for task in state["parts"]["agent"]["tasks"])
        agent = Agent(train, tasks, on)
        agent.load_state_dict(state["parts"]["agent"])
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError(f"checkpoint {path} is not one of a prismatic run: {str(error)[:200]}") from error
    return Saved(folder, train, agent, tasks, path, int(state["step"]))
