"""Opening a skill run that was saved: read-only, with errors that name what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gasp.config_skills import SkillsConfig
from gasp.latent import LatentPrior
from gasp.model import SkillModel
from rlblocks.dpmm import DPMixture
from rlcore import checkpoint
from rlcore.config import from_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import read_json
from rlcore.provenance import near

ORDER = {"auto": ("best.pt", "final.pt", "last.pt")} | {name: (f"{name}.pt",) for name in ("best", "final", "last")}


@dataclass(frozen=True)
class Skills:
    """Skills that were learnt, and what they are for."""

    model: SkillModel  # in eval mode, not to be trained
    prior: LatentPrior  # N(0, I), or the mixture
    cfg: SkillsConfig
    facts: dict[str, Any]  # task, obs_mode, obs_dim, action_dim, horizon, ...
    checkpoint: Path
    step: int  # updates

    @property
    def mixture(self) -> DPMixture | None:
        """The mixture; None for SPiRL, and before its first fit."""
        return self.prior.mixture if self.prior.components else None


def load_skills(folder: Path, checkpoint: str = "auto") -> Skills:
    """The skills of checkpoint `checkpoint`: best, final, last, auto (the first of these there is), or a .pt file.

    On the CPU. Raises: UsageError where there is no skill run; DataError where the file is damaged.
    """
    return read_skills(find(folder, checkpoint))


def read_skills(path: Path, device: str | torch.device = "cpu") -> Skills:
    """The skills in one checkpoint file, networks and latent prior on `device`."""
    state = checkpoint.load(path)
    with _belongs(path):
        cfg = from_dict(SkillsConfig, state["config"], where=f"config in {path}")
        saved = state["parts"]["agent"]
        facts = dict(saved["facts"])
        model = SkillModel(cfg.model, facts["obs_dim"], facts["action_dim"])
        model.load_state_dict(saved["model"])
        prior = LatentPrior(cfg, 1, 0, device)
        prior.load_state_dict(saved["prior"])
    return Skills(model.to(device).eval().requires_grad_(False), prior, cfg, facts, path, int(state["step"]))


def find(folder: Path, which: str, stage: str = "skills") -> Path:
    """The file of a checkpoint of a run of that stage, skills or rl. UsageError where there is no such run."""
    if not (folder / "config.json").is_file():
        raise UsageError(f"there is no run {folder}{near(folder)}")
    facts: Any = read_json(folder / "env.json")
    found = facts.get("stage") if isinstance(facts, dict) else None
    if found != stage:
        kind = stage.removesuffix("s")
        raise UsageError(f"{folder} is no {kind} run (its stage is {found}): see `gasp {stage} train`")
    if which in ORDER:
        return checkpoint.Checkpoints(folder / "checkpoints").find(*ORDER[which])
    if Path(which).suffix != ".pt":
        raise UsageError(f"--checkpoint {which}: expected best, final, last, auto or a .pt file")
    return Path(which)


@contextmanager
def _belongs(path: Path) -> Iterator[None]:
    """Turn what a foreign checkpoint raises into one clear line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"checkpoint {path} is not one of skills: {' '.join(str(error).split())[:200]}") from error
