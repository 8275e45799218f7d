"""Opens environments of gymnasium-robotics (extra `robotics`)."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import gymnasium

from rlcore.errors import EnvironmentProblem


def open_robotics(env_id: str, **options: Any) -> Any:
    """The unwrapped environment. EnvironmentProblem with the fix where the package is missing."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its import prints news about environments that are not ours
            import gymnasium_robotics
    except ImportError as error:
        raise EnvironmentProblem(f"{env_id} needs pip install 'gasp[robotics]' ({error})") from error
    if env_id not in gymnasium.registry:
        gymnasium.register_envs(gymnasium_robotics)
    return gymnasium.make(env_id, disable_env_checker=True, **options).unwrapped
