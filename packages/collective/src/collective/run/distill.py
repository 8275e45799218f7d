"""`collective distill`: labelled data into one policy; between the updates it acts, and experts correct it."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collective import data as datasets
from collective import envs
from collective.agent import Collective, network
from collective.codes import stored_codes
from collective.config_distill import DistillConfig
from collective.data import Array, Dataset
from collective.distiller import Distiller, Rows, constants
from collective.encoder import Encoder
from collective.labels import Labels
from collective.rollout import play, scores
from collective.run.rounds import collect
from collective.run.told import Told
from collective.windows import compress
from rlcore import device
from rlcore.errors import DataError
from rlcore.run import Run
from rlcore.seeding import derive

MAY_CHANGE = frozenset({"reencode"})


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
        "encoder": encoder.fingerprint if encoder else None, "goal_seed": known.meta.get("goal_seed"),
    }  # fmt: skip
    with Run.open(cfg, program="collective", total=total, may_change=MAY_CHANGE, facts=facts) as run:
        distilling = Distilling(run, cfg, known, codes, encoder, where)
        step = run.restore(**distilling.parts)
        distilling.resume()
        while run.going(step):
            if distilling.round_due(step):
                distilling.collect()
            update = distilling.distiller.actor_update if step < cfg.updates else distilling.distiller.critic_update
            with run.phase("update"):
                losses = update()
            run.meters.add(losses)
            for name, loss in losses.items():
                if loss.device.type == "cpu" and not math.isfinite(float(loss)):
                    run.diverged(step, name, {})
            step += 1
            if run.due("log", step):
                run.train_row(step, step)
            if (run.due("eval", step) and step <= cfg.updates) or step == cfg.updates:
                run.save_if_best(step, distilling.evaluate(step), **distilling.parts)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **distilling.parts)
        return run.finish(step, **distilling.parts)


def read(cfg: DistillConfig, where: Any) -> tuple[Dataset, Array | None, Encoder | None]:
    """The data, their codes and the encoder. A policy that is told codes needs one; DataError says how to make it."""
    parts = [datasets.load(folder) for folder in cfg.data]
    if "cls" not in cfg.arms:
        return datasets.merge(parts) if len(parts) > 1 else parts[0], None, None
    if cfg.encoder is None:
        raise DataError("no encoder was given: --encoder RUN of `collective train-encoder`, or --arms task-id zero")
    encoder = Encoder.load(cfg.encoder).to(where)
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
        self, run: Run, cfg: DistillConfig, known: Dataset, codes: Array | None, encoder: Encoder | None, where: Any
    ) -> None:
        self.run, self.cfg, self.encoder = run, cfg, encoder
        self.tasks = known.tasks
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
            labels = Labels(self.tasks, self.cfg.expert)
            meta = {key: self.base[0][0].meta.get(key) for key in ("reward_version", "goal_seed")}
            found, success = collect(
                self.policies, labels, self.cfg, seed=derive(self.cfg.seed, "round", number),
                goal_seed=int(meta["goal_seed"] or 0), reward_version=str(meta["reward_version"] or "v2"),
            )  # fmt: skip
            writer = datasets.Writer(
                run.folder / "rounds" / str(number), self.tasks,
                {**meta, "horizon": self.base[0][0].meta.get("horizon"), "policy": "collective"},
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
            meta = self.base[0][0].meta
            for arm, policy in self.policies.items():
                vec = envs.make(
                    self.tasks, seed=run.seed("selection"), copies=min(cfg.eval_episodes, 10), goals="random",
                    goal_seed=int(meta.get("goal_seed") or 0), horizon=cfg.horizon,
                    reward_version=str(meta.get("reward_version") or "v2"),
                )  # fmt: skip
                with contextlib.closing(vec):
                    each = -(-cfg.eval_episodes // min(cfg.eval_episodes, 10))
                    found = scores(play(Told(policy, self.tasks), vec, each, stop_after_success=1), self.tasks)
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
