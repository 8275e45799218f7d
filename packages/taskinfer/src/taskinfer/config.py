"""Options of the `taskinfer` command. The comments are its --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check the installation."""

    json: bool = False  # Print the findings as JSON.
    debug: bool = False  # Show full tracebacks.
