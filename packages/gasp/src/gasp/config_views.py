"""Options of `gasp skills eval` and `gasp viz`. The comments are their --help. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro.conf

from gasp.config import SEEDS, check_range


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What everything that looks at a skill run has."""

    run: tyro.conf.Positional[Path]  # Folder of a skill run.
    checkpoint: str = "auto"  # best, final, last, auto (the first of these there is), or a .pt file.
    data: Path | None = None  # Demonstrations to look at, in place of those that the run learnt from.
    seed: int = 0  # Decides what is drawn.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        check_range(self, "seed", low=0, high=SEEDS)


@dataclass(frozen=True, kw_only=True)
class SkillsEvalConfig(ViewConfig):
    """Score skills on held-out windows: the best of N drawn from the skill prior, the latent prior, the posterior."""

    all: bool = False  # Score every checkpoint that the run has kept.
    windows: int = 160  # Held-out windows.
    draws: int = 100  # Skills drawn for each window; the best counts.
    device: str = "auto"  # auto, cpu, cuda or cuda:0.
    json: bool = False  # Print the result as JSON.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "windows", "draws")


@dataclass(frozen=True, kw_only=True)
class VizLatentConfig(ViewConfig):
    """Draw the mixture over skills beside N(0, I), the distances of its components, and how it grew."""

    proj: Literal["pca", "tsne", "umap"] = "pca"  # How z becomes a plane; tsne: needs scikit-learn, umap: umap-learn.
    samples: int = 2_000  # Skills drawn from the mixture, and from N(0, I).
    windows: int = 2_000  # Encoded windows drawn under them.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "samples", "windows", low=10)


@dataclass(frozen=True, kw_only=True)
class VizInferenceConfig(ViewConfig):
    """Draw what the encoder and the skill prior make of single windows."""

    n: int = 12  # Windows.
    samples: int = 30  # Skills drawn for each from the encoder.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n", "samples")


@dataclass(frozen=True, kw_only=True)
class VizSkillsConfig(ViewConfig):
    """Say and draw what each component does: what it moves, in which subtasks it is at work."""

    windows: int = 4_000  # Windows that are assigned to components.
    rollouts: int | None = None  # Starts in the maze from which each component is played; 6 if left out.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "windows", "rollouts")
