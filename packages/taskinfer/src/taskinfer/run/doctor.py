"""`taskinfer doctor`: is the installation sound."""

from __future__ import annotations

from rlcore.doctor import check, report
from taskinfer.config import DoctorConfig

EXTRAS = {"mujoco": ["mujoco"], "video": ["imageio"], "tb": ["tensorboardX"], "wandb": ["wandb"]}


def doctor(cfg: DoctorConfig) -> int:
    """Print the findings; exit code 5 when something needed is broken."""
    return report(check("taskinfer", EXTRAS), as_json=cfg.json)
