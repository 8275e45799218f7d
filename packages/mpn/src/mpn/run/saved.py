"""Opening a run that was saved: read-only, with errors that name what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpn.agent import GreedyPolicy
from mpn.config import SavedRun, TrainConfig
from mpn.model import MPNDQN
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
    """A trained policy and where it came from."""

    folder: Path
    cfg: TrainConfig
    net: MPNDQN
    policy: GreedyPolicy
    checkpoint: Path
    step: int


def folder_of(cfg: SavedRun) -> Path:
    """The run's folder. UsageError with similar names where there is none: nothing is ever created."""
    folder = cfg.dir / cfg.name
    if not (folder / "config.json").is_file():
        raise UsageError(f"there is no run {folder}{near(folder)}")
    return folder


def open_run(cfg: SavedRun, which: str, where: str = "cpu") -> Saved:
    """Load the policy of checkpoint `which`: best, final, latest, auto (the first of these there is), or a file."""
    folder = folder_of(cfg)
    if which in ALIASES:
        path = checkpoint.Checkpoints(folder / "checkpoints").find(*ALIASES[which])
    elif (path := Path(which)).suffix != ".pt":
        raise UsageError(f"--checkpoint {which}: expected best, final, latest, auto or a .pt file")
    state = checkpoint.load(path)
    try:
        saved, agent = state["config"], state["parts"]["agent"]
        net = MPNDQN(**agent["model"])
        net.load_state_dict(agent["online"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"checkpoint {path} is not one of an mpn run: {' '.join(str(error).split())[:200]}") from error
    target = device.resolve(where)
    net = net.to(target).requires_grad_(False)
    train = from_dict(TrainConfig, saved, where=f"config in {path}")
    return Saved(folder, train, net, GreedyPolicy(net, target), path, int(state["step"]))


def check_fits(saved: Saved, envs: Any) -> None:
    """UsageError unless the env has the sizes that the network was trained on."""
    net = saved.net
    observed, actions = envs.single_observation_space.shape[0], int(envs.single_action_space.n)
    if (observed, actions) != (net.obs_dim, net.action_dim):
        raise UsageError(
            f"{saved.cfg.env} now has {observed} observations and {actions} actions, "
            f"{saved.checkpoint} was trained on {net.obs_dim} and {net.action_dim}"
        )
