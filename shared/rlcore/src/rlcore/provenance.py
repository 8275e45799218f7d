"""Where a result came from: versions, machine and git state for env.json; and names for runs."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import platform
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "dm-control", "metaworld", "gymnasium-robotics", "envpool")
ADJECTIVES = """amber brave calm clever crisp eager fair fleet gentle golden keen lively lucid mellow nimble proud quiet
    rapid silver steady sunny swift vivid warm""".split()
NOUNS = """badger comet condor coral cricket falcon fern finch fjord glacier heron juniper lark lynx maple meadow otter
    pebble pine raven reef sparrow thistle willow""".split()


def describe_environment(program: str) -> dict[str, Any]:
    """Versions, machine and git state, as far as they can be told."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "host": socket.gethostname(),
        "packages": {name: version for name in (program, "rlcore", *PACKAGES) if (version := version_of(name))},
        "git": git_state(Path(sys.modules[program].__file__ or ".").parent) if program in sys.modules else None,
    }


def version_of(package: str) -> str | None:
    """Installed version; for a package that is only on PYTHONPATH, what it says of itself."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", None)


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files were changed, when the code runs from a checkout."""
    command = ["git", "-C", str(folder)]
    try:
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        status = subprocess.run(
            [*command, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def fresh_name(root: Path) -> str:
    """An adjective-noun name that no run in `root` has."""
    pick = random.SystemRandom()  # never a seeded generator: two runs of one seed need two names
    while True:
        name = f"{pick.choice(ADJECTIVES)}-{pick.choice(NOUNS)}-{pick.randrange(1000):03d}"
        if not (root / name).exists():
            return name


def near(folder: Path) -> str:
    """`; did you mean a, b?` for folders of similar names beside a missing one, or a list of the newest."""
    runs = sorted(folder.parent.glob("*/config.json"), key=lambda p: -p.stat().st_mtime)
    names = [p.parent.name for p in runs]
    similar = difflib.get_close_matches(folder.name, names, n=3, cutoff=0.5)
    if similar:
        return f"; did you mean {', '.join(similar)}?"
    return f"; {folder.parent} holds {', '.join(names[:5])}" if names else f"; {folder.parent} holds no runs"
