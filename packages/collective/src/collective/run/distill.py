"""`collective distill`: labelled data into one policy; between the updates it acts, and experts correct it."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from collective import data as datasets
from collective import envs
from collective.agent import Collective, network
from collective.codes import stored_codes
from collective.config import WINDOW
from collective.config_distill import DistillConfig
from collective.data import Array, Dataset
from collective.distiller import Distiller, Rows, constants
from collective.encoder import Encoder
from collective.labels import Labels
from collective.rollout import copies_of, play, scores
from collective.run.rounds import collect
from collective.run.told import Told
from collective.windows import compress
from rlcore import device
from rlcore.config import diff
from rlcore.errors import DataError
from rlcore.files import read_json
from rlcore.run import Run
from rlcore.seeding import derive

MAY_CHANGE = frozenset({"reencode", "workers"})


def distill(cfg: DistillConfig) -> Path:
    """Distil as `cfg` says; returns the run's folder. The same command goes on.

    Raises: DataError where data or encoder are missing, damaged or do not belong together; see rlcore.run.Run.open.
    """
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    known, codes, encoder = read(cfg, where)
    total = cfg.updates + cfg.critic_updates
    facts = {
        "stage": "collective", "tasks": list(known.tasks), "data_sha256": datasets.digest_of(known),
        "encoder": encoder.fingerprint if encoder else None, "goal_seed": datasets.goal_seeds(known.meta),
        "reward_version": known.meta.get("reward_version") or "v2",
    }  # fmt: skip
    check_same_data(cfg, facts)
    labels = Labels(known.tasks, cfg.expert) if cfg.rounds else None
    check_discounts(cfg, known, labels)
    with Run.open(cfg, program="collective", total=total, may_change=MAY_CHANGE, facts=facts) as run:
        distilling = Distilling(run, cfg, known, codes, encoder, labels, where)
        step = run.restore(**distilling.parts)
        distilling.resume()
        if run.unscored:
            run.score(step, partial(distilling.evaluate, step), **distilling.parts)
        while run.going(step):
            if distilling.round_due(step):
                distilling.collect()
            update = distilling.distiller.actor_update if step < cfg.updates else distilling.distiller.critic_update
            with run.phase("update"):
                losses = update()
            run.meters.add(losses)
            for name, loss in losses.items():
                if loss.device.type == "cpu" and not math.isfinite(float(loss)):
                    run.diverged(step, name, distilling.policies[name.rpartition("_")[2]].sac.tensors())
            step += 1
            if step == total:
                run.meters.add(distilling.distiller.critic_errors(distilling.held_out) if cfg.critic_updates else {})
            if run.due("log", step) or step == total:
                run.train_row(step, step)
            if (run.due("eval", step) and step <= cfg.updates) or step == cfg.updates:
                run.score(step, partial(distilling.evaluate, step), **distilling.parts)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **distilling.parts)
        return run.finish(step, **distilling.parts)


def check_same_data(cfg: DistillConfig, facts: Mapping[str, Any]) -> None:
    """DataError where a run of that name learnt from other data or codes; its checkpoints stay untouched."""
    path = cfg.dir / (cfg.name or "") / "env.json"
    if cfg.name is None or cfg.overwrite or not path.is_file():
        return
    before = read_json(path)
    if not isinstance(before, dict) or before.get("stage") != facts["stage"]:
        return  # Run.open says what is wrong
    if changes := diff({name: before.get(name) for name in facts}, facts):
        said = f"these data are not what {path.parent} learnt from ({'; '.join(changes)})"
        raise DataError(f"{said}: use another --name, or --overwrite")


def check_discounts(cfg: DistillConfig, known: Dataset, labels: Labels | None) -> None:
    """DataError where experts' values, in the data or to come in rounds, are of another discount than the critics'."""
    found = {f"{cfg.expert}'s": expert.gamma for expert in (labels and labels.experts) or ()}
    if np.isfinite(known.q_target).any():
        found[f"{known.where}'s"] = known.meta.get("gamma") or cfg.gamma
    for whose, gamma in found.items():
        if gamma != cfg.gamma:
            raise DataError(f"{whose} values have discount {gamma}, the critics {cfg.gamma}: give --gamma {gamma}")


def read(cfg: DistillConfig, where: Any) -> tuple[Dataset, Array | None, Encoder | None]:
    """The data, their codes and the encoder. A policy that is told codes needs one; DataError says how to make it."""
    parts = [datasets.load(folder) for folder in cfg.data]
    for part in parts:
        if cfg.rounds and cfg.expert is None and part.meta.get("expert", "scripted") != "scripted":
            said = f"{part.where} is labelled by {part.meta['expert']} experts, rounds would be by scripts"
            raise DataError(f"{said}: give their run with --expert, or --rounds 0")
        if part.meta.get("versions") and part.meta["versions"] != datasets.versions():
            said = f"{part.where} was recorded with {part.meta['versions']}, here is {datasets.versions()}"
            raise DataError(f"{said}: what is observed and rewarded may differ; record it again")
    if "cls" not in cfg.arms:
        return datasets.merge(parts) if len(parts) > 1 else parts[0], None, None
    if cfg.encoder is None:
        raise DataError("no encoder was given: --encoder RUN of `collective train-encoder`, or --arms task-id zero")
    encoder = Encoder.load(cfg.encoder).to(where)
    if encoder.length != WINDOW:
        raise DataError(f"{cfg.encoder} reads {encoder.length} steps, policies keep {WINDOW}: train one of that length")
    codes = [stored_codes(folder, part, encoder, cfg.reencode) for folder, part in zip(cfg.data, parts)]
    return datasets.merge(parts) if len(parts) > 1 else parts[0], np.concatenate(codes), encoder


class Policies:
    """All arms' policies, as a part of a run."""

    def __init__(self, arms: Mapping[str, Collective]) -> None:
        self.arms = dict(arms)

    def state_dict(self) -> dict[str, Any]:
        return {arm: policy.state_dict() for arm, policy in self.arms.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for arm, policy in self.arms.items():
            policy.load_state_dict(state[arm])


class Distilling:
    """Data, policies and rounds of one run."""

    def __init__(
        self,
        run: Run,
        cfg: DistillConfig,
        known: Dataset,
        codes: Array | None,
        encoder: Encoder | None,
        labels: Labels | None,
        where: Any,
    ) -> None:
        self.run, self.cfg, self.encoder, self.labels = run, cfg, encoder, labels
        self.tasks = known.tasks
        self.goal_seed = next(iter(datasets.goal_seeds(known.meta)), 0)
        self.reward_version = str(known.meta.get("reward_version") or "v2")
        self.base = [(known, codes)]
        training = np.flatnonzero(known.split[known.trajectory_of_rows] == 0)
        policies: dict[str, Collective] = {}
        for arm in cfg.arms:
            policy = Collective(
                known.tasks, arm, encoder if arm == "cls" else None, cfg=network(cfg.hidden), device=where,
                seed=run.seed("policy", arm),
            )  # fmt: skip
            told = Rows.of(known, codes, known.tasks).codes_of(policy, training)
            policy.shift, policy.scale = constants(told, compress(known.obs[training]))
            policies[arm] = policy
        self.policies = policies
        self.distiller = Distiller(cfg, policies, run.numpy_generator("batches"))
        self.rounds = 0
        self.parts = {"policies": Policies(policies), "distiller": self.distiller, "distilling": self}

    def resume(self) -> None:
        """Read what earlier rounds collected, and learn from all of it. An unfinished round is forgotten."""
        for folder in (self.run.folder / "rounds").glob("*"):
            if int(folder.name) > self.rounds:
                shutil.rmtree(folder)
        for number in range(1, self.rounds + 1):
            self._add(number)
        self._use()

    def _add(self, number: int) -> None:
        folder = self.run.folder / "rounds" / str(number)
        found = datasets.load(folder)
        codes = None if self.encoder is None else stored_codes(folder, found, self.encoder, reencode=True)
        self.base.append((found, codes))

    def _use(self) -> None:
        parts = [part for part, _ in self.base]
        joined = datasets.merge(parts) if len(parts) > 1 else parts[0]
        codes = None if self.encoder is None else np.concatenate([each for _, each in self.base if each is not None])
        split = joined.split[joined.trajectory_of_rows]
        self.distiller.use(part_of(joined, codes, split == 0, self.tasks))
        self.held_out = part_of(joined, codes, split == 1, self.tasks)

    def round_due(self, step: int) -> bool:
        """Whether the next round comes before the update after `step`: they are spread over the actors' updates."""
        cfg = self.cfg
        return self.rounds < cfg.rounds and step >= cfg.updates * (self.rounds + 1) // (cfg.rounds + 1)

    def collect(self) -> None:
        """A round: the policies act, the experts label, the rows join the data."""
        number, run = self.rounds + 1, self.run
        with run.phase("round"):
            assert self.labels is not None
            found, success = collect(
                self.policies, self.labels, self.cfg, seed=derive(self.cfg.seed, "round", number),
                goal_seed=self.goal_seed, reward_version=self.reward_version,
            )  # fmt: skip
            writer = datasets.Writer(
                run.folder / "rounds" / str(number), self.tasks,
                {
                    "goal_seed": self.goal_seed, "reward_version": self.reward_version, "policy": "collective",
                    "horizon": self.base[0][0].meta.get("horizon"),
                    **({"gamma": self.cfg.gamma} if self.labels.experts else {}),
                },
            )  # fmt: skip
            writer.append(found)
            self.rounds = number
            self._add(number)
            self._use()
        rates = ", ".join(f"{arm} {rate:.0%}" for arm, rate in success.items())
        run.console.say(f"round {number}: {len(found.obs):,} steps of their own were labelled; success {rates}")

    def evaluate(self, step: int) -> float:
        """Errors on held-out rows, and success in episodes of its own; returns the first arm's mean success."""
        run, cfg = self.run, self.cfg
        row: dict[str, Any] = self.distiller.errors(self.held_out)
        with run.phase("evaluate"):
            for arm, policy in self.policies.items():
                copies = copies_of(cfg.eval_episodes, len(self.tasks))
                vec = envs.make(
                    self.tasks, seed=run.seed("selection"), copies=copies, goals="random",
                    goal_seed=self.goal_seed, horizon=cfg.horizon, workers=cfg.workers,
                    reward_version=self.reward_version,
                )  # fmt: skip
                with contextlib.closing(vec):
                    played = play(Told(policy, self.tasks), vec, cfg.eval_episodes // copies, stop_after_success=1)
                    found = scores(played, self.tasks)
                row[f"success_{arm}"] = float(np.mean([score["success"] for score in found.values()]))
                row |= {f"success_{arm}/{task}": score["success"] for task, score in found.items()}
            first = cfg.arms[0]  # the result: under plain names, too
            row["success_mean"] = row[f"success_{first}"]
            row |= {f"success_{task}": row[f"success_{first}/{task}"] for task in self.tasks}
        run.log("eval", step, row)
        rates = ", ".join(f"{arm} {row[f'success_{arm}']:.0%}" for arm in self.policies)
        run.console.say(f"update {step:,}: success {rates}")
        return float(row[f"success_{cfg.arms[0]}"])

    def state_dict(self) -> dict[str, Any]:
        return {"rounds": self.rounds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rounds = int(state["rounds"])


def part_of(data: Dataset, codes: Array | None, chosen: Array, tasks: tuple[str, ...]) -> Rows:
    """The rows of the trajectories of which `chosen` (N,) holds. DataError where a task has none of them."""
    kept = np.unique(data.trajectory_of_rows[chosen])
    part = data.take(kept)
    rows = Rows.of(part, None if codes is None else codes[chosen], tasks)
    if (rows.counts == 0).any():
        task = tasks[int(rows.counts.argmin())]
        raise DataError(f"{data.where}: {task} has too few trajectories to hold some out: record more of it")
    return rows
