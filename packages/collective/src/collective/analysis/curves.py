"""Which numbers of a run's record belong into one panel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlcore.plots import read_metrics

Panels = Sequence[tuple[str, Sequence[str], str]]  # title, keys, kind of row
GROUPS: dict[str, tuple[str, ...]] = {  # title -> beginnings of the keys
    "success in evaluations": ("success_cls", "success_task-id", "success_zero", "success", "success_final"),
    "return in evaluations": ("return_mean",),
    "told by the nearest centroid": ("val_accuracy", "val_accuracy_"),
    "error on held-out rows": ("val_action_mse_", "val_"),
}
TRAINING: dict[str, tuple[str, ...]] = {
    "loss": ("loss_", "loss"), "critic loss": ("critic_loss", "critic_loss_"), "actor loss": ("actor_loss",),
    "return of training episodes": ("return_mean",), "success of training episodes": ("success", "success_last20"),
    "temperature": ("alpha",), "bonus": ("bonus", "weight"),
}  # fmt: skip


def panels_of(folder: Path) -> Panels:
    """The panels for which the run has numbers. Successes of single tasks are left to the tables."""
    rows = read_metrics(folder)
    found: list[tuple[str, Sequence[str], str]] = []
    for kind, groups in (("eval", GROUPS), ("train", TRAINING)):
        there = {key: None for row in rows if row["kind"] == kind for key in row if "/" not in key}
        taken: set[str] = set()
        for title, beginnings in groups.items():
            keys = [
                key for key in there
                if key not in taken and any(key == b or (b.endswith("_") and key.startswith(b)) for b in beginnings)
            ]  # fmt: skip
            taken |= set(keys)
            if keys:
                found.append((title, keys[:7], kind))
    return found
