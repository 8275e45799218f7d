"""Opening an rl run that was saved: read-only, with errors that name what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gasp.agent import Agent
from gasp.config_rl import RLConfig
from gasp.run.saved import find, read_skills
from gasp.run.setting import COPY, Setting, fitted
from rlcore import checkpoint
from rlcore.config import from_dict
from rlcore.errors import DataError


@dataclass(frozen=True)
class SavedRL:
    """A trained high-level agent, its skills and its task."""

    folder: Path
    setting: Setting
    agent: Agent
    checkpoint: Path
    step: int  # env steps


def open_rl(folder: Path, which: str = "auto") -> SavedRL:
    """The agent of checkpoint `which`: best, final, last, auto (the first of these there is), or a .pt file.

    Raises: UsageError where there is no such run; DataError where a file of it is damaged.
    """
    path = find(folder, which, "rl")
    state = checkpoint.load(path)
    try:
        cfg = from_dict(RLConfig, state["config"], where=f"config in {path}")
        setting = fitted(cfg, read_skills(folder / COPY))
        agent = setting.agent(0, "cpu")
        agent.load_nets(state["parts"]["agent"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"checkpoint {path} is not one of an rl run: {' '.join(str(error).split())[:200]}") from error
    return SavedRL(folder, setting, agent, path, int(state["step"]))
