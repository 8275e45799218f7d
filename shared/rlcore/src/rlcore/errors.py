"""What can go wrong, each with the exit code a shell or a scheduler sees.

Messages are one line: what was wrong, where (file, key, step), what to do. `rlcore.cli` prints them, no traceback.
"""

from __future__ import annotations

import os


class QuintetError(Exception):
    """Base of every error a user can mend."""

    exit_code = 1


class UsageError(QuintetError):
    """Bad options or configuration."""

    exit_code = 2


class NumericalError(QuintetError):
    """NaN, Inf or an exploding quantity."""

    exit_code = 3


class DataError(QuintetError):
    """A damaged, foreign or missing file: checkpoint, replay segment, configuration, record."""

    exit_code = 4


class EnvironmentProblem(QuintetError):
    """A simulator or optional package that is missing, broken or unsuitable."""

    exit_code = 5


class Preempted(QuintetError):
    """Stopped by SIGTERM after saving: run the same command to continue."""

    exit_code = 85


class Interrupted(QuintetError):
    """Stopped by Ctrl-C after saving: run the same command to continue."""

    exit_code = 130


class QuintetWarning(UserWarning):
    """Something a user should know that does not stop the run."""


def renderer_fix(what: str) -> str:
    """What to do about `what`, a failed import, where PyOpenGL has no library for MUJOCO_GL; empty for other errors."""
    asked = os.environ.get("MUJOCO_GL")
    lacks = asked in ("egl", "osmesa") and what.startswith("AttributeError: 'NoneType' object")
    fix = "apt-get install libosmesa6 for osmesa, a GPU's driver for egl, or unset it: training draws nothing"
    return f"no library for MUJOCO_GL={asked}: {fix}" if lacks else ""


def why(error: Exception) -> str:
    """The error in one line, with what to do where that is known."""
    return "; ".join(filter(None, (what := f"{type(error).__name__}: {error}", renderer_fix(what))))
