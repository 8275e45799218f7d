"""From a toy run and a low-level run to what drives a body; refuses parts that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlcore.errors import UsageError
from rlcore.seeding import derive
from taskinfer.config_transfer import TransferConfig, fixed_stride
from taskinfer.envs.bodies import GROUP_NAMES
from taskinfer.envs.toy import Dynamics
from taskinfer.highlevel import HighLevel, Limits, Oracle, RandomGoals, ToyPolicy
from taskinfer.run.saved import SavedLow, SavedToy, open_low, open_toy
from taskinfer.tasks import Family, Tasks, kind, parse_tasks
from taskinfer.transfer import Stack


@dataclass(frozen=True)
class Reused:
    """The two runs, put together."""

    cfg: TransferConfig
    toy: SavedToy
    low: SavedLow
    stack: Stack

    @property
    def limits(self) -> Limits:
        """The largest sub-goals that the low level was trained on, of the groups that the toy's families need."""
        groups = needed(self.toy.agent.inference.families)
        return {name: high for name, (_, high) in self.low.cfg.ranges.items() if name in groups}

    def high_level(self, name: str) -> HighLevel:
        """Who sets the sub-goals: one of HIGH_LEVELS."""
        if name == "random":
            return RandomGoals(self.limits, np.random.default_rng(derive(self.cfg.seed, "random sub-goals")))
        if name == "oracle":
            return Oracle(self.limits)
        agent, zeroed = self.toy.agent, name == "zeroed"
        # its own stream for each level, so that a transfer that was stopped goes on with the same numbers
        agent.sac.exploration = [np.random.default_rng(derive(self.cfg.seed, "policy noise"))]
        return ToyPolicy(agent, self.toy.cfg.toy, self.limits, self.cfg.reach, zeroed, self.cfg.sample)

    def tasks(self) -> Tasks:
        """The tasks asked for, each `repeats` times over: all of them, then all of them again."""
        return Tasks.of(parse_tasks(self.cfg.tasks).single() * self.cfg.repeats)


def put_together(cfg: TransferConfig, where: str) -> Reused:
    """Open both runs. UsageError where they are of another stage, arm or vocabulary, or the tasks are."""
    toy = open_toy(cfg.inference, cfg.inference_checkpoint, where)
    low = open_low(cfg.low, cfg.low_checkpoint, where)
    if toy.cfg.arm != "inferred":
        raise UsageError(f"{toy.folder} infers nothing (its arm is {toy.cfg.arm}): train one with --arm inferred")
    if toy.cfg.toy == "toy2d":
        raise UsageError(f"{toy.folder} is of the plane (toy2d): no body here has a y")
    families = toy.agent.inference.families
    if foreign := needed(families) - {*GROUP_NAMES}:
        raise UsageError(f"{toy.folder}: no body can be asked for {' or '.join(sorted(foreign))}, only for "
                         f"{', '.join(GROUP_NAMES)}: train the toy with --tasks of these")  # fmt: skip
    if lacking := needed(families) - {*low.cfg.groups}:
        raise UsageError(
            f"{low.folder} was not taught {', '.join(sorted(lacking))}, which the families of {toy.folder} need (it "
            f"knows {', '.join(low.cfg.groups)}): train one with --groups {' '.join(sorted(needed(families)))}"
        )
    known_tasks(parse_tasks(cfg.tasks), toy.folder, families)
    # Decisions that last longer than the toy's steps show the encoder changes that it has not met at such speeds.
    stride = fixed_stride(cfg.stride) or max(1, round(Dynamics().dt / low.dt))
    stack = Stack(toy.agent.inference, toy.cfg.toy, low.low, low.cfg.body, stride, cfg.reward)
    return Reused(cfg, toy, low, stack)


def known_tasks(tasks: Tasks, folder: Path, families: Sequence[Family]) -> Tasks:
    """The tasks. UsageError where one of them is of none of the families that the run in `folder` tells apart."""
    for task in tasks.single():
        if task.family not in families:
            known = ", ".join(family.name for family in families)
            raise UsageError(f"tasks: {task} is of no family that {folder} tells apart: name one of {known}")
    return tasks


def needed(families: Sequence[Family]) -> set[str]:
    """Groups of sub-goals for these families."""
    return {kind(family) for family in families}
