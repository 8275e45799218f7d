"""Options of the `taskinfer` command. The comments are its --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

import tyro.conf


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation."""

    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.


@dataclass(frozen=True, kw_only=True)
class BodyCheckConfig:
    """Say whether an environment can serve as a body, and what is missing if not."""

    env: tyro.conf.Positional[str]  # cheetah, a Gymnasium id, or module:factory.
    steps: int = 200  # Random steps to take.
    seed: int = 0  # Decides them.
    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.
