"""`collective train-student`: soft actor-critic with a teacher, or plain. The same command goes on."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import numpy as np

from collective.cloning import advised_sac
from collective.config import ACTION_DIM, OBS_DIM
from collective.config_student import StudentConfig
from collective.rollout import Acting
from collective.run.exam import Plain
from collective.run.lesson import MAY_CHANGE, Learner
from collective.students import Guide, Learnt, Script, Teacher, open_network
from rlblocks.sac import SAC
from rlcore import device
from rlcore.errors import UsageError
from rlcore.files import read_json
from rlcore.run import Run
from rlcore.vecenv import VecStep

Array = np.ndarray[Any, Any]


def train(cfg: StudentConfig) -> Path:
    """Train as `cfg` says; returns the run's folder.

    Errors: DataError where there is no such teacher; see rlcore.run.Run.open, rlcore.errors.NumericalError.
    """
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    teacher = open_teacher(cfg, where)
    knows = teacher.fingerprint if teacher else None
    facts = {
        "stage": "student", "task": cfg.task, "teacher": cfg.teacher, "method": method(cfg), "horizon": cfg.horizon,
        "reward_version": cfg.reward_version, "success": "at any step",
        "teacher_fingerprint": knows,
    }  # fmt: skip
    may_change = MAY_CHANGE | ({"teacher"} if same_teacher(cfg, knows) else set())
    with (
        Run.open(
            cfg, program="collective", total=cfg.steps, stride=cfg.num_envs, may_change=may_change, facts=facts
        ) as run,
        contextlib.closing(Student(run, cfg, teacher, where)) as learner,
    ):
        return learner.learn()


def same_teacher(cfg: StudentConfig, fingerprint: str | None) -> bool:
    """Whether a run of that name has this teacher, wherever he lies now. UsageError where it has another."""
    path = cfg.dir / (cfg.name or "") / "env.json"
    if cfg.name is None or cfg.overwrite or not path.is_file():
        return False
    before = read_json(path)
    if not isinstance(before, dict) or "teacher_fingerprint" not in before:
        return False
    if (was := before["teacher_fingerprint"]) != fingerprint:
        raise UsageError(f"the teacher is another ({was or 'none'} -> {fingerprint or 'none'}): use another --name")
    return fingerprint is not None


def method(cfg: StudentConfig) -> str:
    """What the student has from its teacher, in words: `plain`, `scripted: clone 1 (kept 1), mix 0.5`."""
    if cfg.teacher == "none":
        return "plain"
    given = [f"{cfg.shaping} {cfg.bonus_scale:g}"] * (cfg.shaping != "none" and cfg.bonus_scale > 0)
    kept = f" (kept {cfg.clone_kept:g})" * (cfg.clone_kept > 0)
    given += [f"clone {cfg.clone:g}{kept}" + " filtered" * cfg.clone_filter] * (cfg.clone > 0)
    given += [f"mix {cfg.mix:g}"] * (cfg.mix > 0)
    kind = "scripted" if cfg.teacher == "scripted" else "collective"
    return f"{kind}: {', '.join(given) or 'nothing'}"


def open_teacher(cfg: StudentConfig, where: Any) -> Teacher | None:
    """The teacher that was asked for. DataError where no collective network is there."""
    if cfg.teacher == "none":
        return None
    if cfg.teacher == "scripted":
        return Script(cfg.task, cfg.num_envs)
    return Learnt(open_network(cfg.teacher, where), cfg.task, cfg.num_envs)


class Student(Learner):
    """Sees the observation; learns from the env's reward, the teacher's bonus and his advice."""

    def __init__(self, run: Run, cfg: StudentConfig, teacher: Teacher | None, where: Any) -> None:
        self.advised = teacher is not None and cfg.clone > 0
        kind = functools.partial(advised_sac, choosy=cfg.clone_filter) if self.advised else SAC
        sac = kind(cfg.sac, OBS_DIM, ACTION_DIM, seeds=[run.seed("agent")], device=where)
        super().__init__(run, cfg, sac, self.advised)
        self.student = cfg
        self.guide = Guide(cfg, teacher, cfg.num_envs, run.numpy_generator("guide"))
        self.parts = {"guide": self.guide, **self.parts, "agent": self.sac}  # first the teacher, who may be another

    def begin(self, obs: Array) -> None:
        self.guide.begin(obs, 0)

    def choose(self, obs: Array, step: int) -> Array:
        action = self.envs.sample() if step < self.student.warmup else self.sac.act(obs)
        return self.guide.act(action, step)

    def keep(self, obs: Array, action: Array, moved: VecStep, after: Array, step: int) -> None:
        advice = {"advice": self.guide.advice(step)} if self.advised else {}
        bonus = self.guide.pay(action, moved, after, step)
        self.experience.add(obs, action, moved, bonus, after, **advice)
        if self.guide.asked(step):
            self.run.meters.add({"bonus": float(bonus.mean()), "teacher_acts": float(self.guide.acted.mean())})

    def owed(self, before: int, step: int) -> float:
        counted = max(step - self.student.warmup, 0) - max(before - self.student.warmup, 0)
        return counted * self.cfg.updates_per_step

    def update(self, step: int) -> None:
        batch = self.experience.sample(self.cfg.batch_size, self.guide.weight(step))
        if self.advised:
            told = batch["advice"].isfinite().all(-1).float()
            batch["advice"] = batch["advice"].nan_to_num()
            # A mean over these rows, so that it does not fade as the memory fills up with others.
            batch["clone"] = self.guide.cloning(step) * told / told.mean().clamp(min=1 / len(told))
            self.run.meters.add({"advised": told.mean()})
        self.run.meters.add(self.sac.update(batch))

    def player(self) -> Acting:
        return Plain(self.sac)

    def shown(self, step: int) -> dict[str, Any]:
        guide = self.guide
        return {"bonus_weight": guide.weight(step), "clone": guide.cloning(step), "mix": guide.share(step)}
