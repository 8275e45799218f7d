"""`taskinfer toy train`: points collect, the inference model learns, then the policy. The same command goes on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlcore import device
from rlcore.files import write_json
from rlcore.run import Run
from rlcore.seeding import derive
from taskinfer.agent import Agent, Aimless
from taskinfer.config import ToyConfig
from taskinfer.context import Episodes
from taskinfer.data import EpisodeRing, draw_batch
from taskinfer.envs.toy import VectorToy, dims
from taskinfer.priors import purity
from taskinfer.relabel import relabelling
from taskinfer.run.progress import write_progress
from taskinfer.run.rollout import roll, score
from taskinfer.tasks import Tasks, families_of, make_task_sets, task_dict

MAY_CHANGE = frozenset({"total_steps"})


def train(cfg: ToyConfig) -> Path:
    """Train as `cfg` says; returns the run's folder. Errors: see rlcore.run.Run.open, rlcore.errors.NumericalError."""
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    obs_dim, action_dim = dims(cfg.toy)
    families = families_of(cfg.tasks, cfg.toy)
    facts = {"env": cfg.toy, "stage": "toy", "families": [f.name for f in families], "action_repeat": 1}
    # Before there is a folder: tasks that the toy cannot have leave none behind.
    known, held_out = make_task_sets(families, cfg.num_train, cfg.num_eval, derive(cfg.seed, "tasks"))
    env = VectorToy(cfg.toy, known, derive(cfg.seed, "envs"), horizon=cfg.horizon, noise_std=cfg.noise_std)
    with Run.open(
        cfg, program="taskinfer", total=cfg.total_steps, stride=cfg.stride, may_change=MAY_CHANGE, facts=facts
    ) as run:
        write_json(run.folder / "task_dict.json", task_dict(known, held_out))
        agent = Agent(cfg, obs_dim, action_dim, families, run.seed("agent"), where)
        rng = run.numpy_generator("ring")
        ring = EpisodeRing(
            cfg.ring, cfg.horizon, obs_dim, action_dim, rng, where, relabelling(cfg), noisy=cfg.noise_std > 0
        )
        parts = {"agent": agent, "envs": env, "ring": ring}
        judged = (agent, known, held_out)
        step = run.restore(**parts)
        if run.unscored:
            run.score(step, partial(evaluate_now, run, step, *judged), **parts)
        while run.going(step):
            epoch = step // cfg.stride
            collect(run, epoch, cfg, agent, env, ring)
            step += cfg.stride
            if epoch + 1 >= cfg.warmup_rounds:
                updates = cfg.warmup_updates if epoch + 1 == cfg.warmup_rounds else cfg.encoder_updates
                learn(run, step, updates, agent, ring)
            if run.due("log", step):
                skipped = float(agent.inference.skipped)
                run.train_row(step, agent.updates, epoch=epoch + 1, skipped_updates=skipped)
            if run.due("eval", step):
                with run.phase("evaluate"):
                    run.score(step, partial(evaluate_now, run, step, *judged), **parts)
                with run.saving("progress.csv"):
                    write_progress(run.folder)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **parts)
        folder = run.finish(step, **parts)
        with run.saving("progress.csv"):
            write_progress(folder)
    return folder


def collect(run: Run, epoch: int, cfg: ToyConfig, agent: Agent, env: VectorToy, ring: EpisodeRing) -> None:
    """One episode of every training task: aimless ones first, and then as the policy has it.

    Some of them without its noise: a policy that holds its speed sees less of a task than one that trembles, and
    whoever learnt from trembling alone misreads it.
    """
    with run.phase("collect"):
        if epoch < cfg.warmup_rounds:
            aimless = Aimless(env.num_envs, env.action_dim, run.numpy_generator("aimless", epoch))
            rollout = roll(env, None, aimless=aimless.act)
        else:
            greedy = run.numpy_generator("greedy", epoch).random(env.num_envs) < cfg.greedy_share
            rollout = roll(env, agent, deterministic=greedy)
        ring.add(**rollout.fields(), place=rollout.place)
        run.meters.add({"train_return": torch.tensor(float(rollout.reward.sum(1).mean()))})


def learn(run: Run, step: int, encoder_updates: int, agent: Agent, ring: EpisodeRing) -> None:
    """Updates of the inference model (only of the arm that infers), its prior, then of the policy.

    Raises: NumericalError where every update of the inference model was skipped.
    """
    cfg = agent.cfg
    agent.inference.optimizer.param_groups[0]["lr"] = cfg.inference.lr * annealed(step, *cfg.anneal)
    if cfg.arm == "inferred":
        with run.phase("infer"):
            skipped = float(agent.inference.skipped)
            for _ in range(encoder_updates):
                agent.updates += 1
                run.meters.add(agent.inference.learn(draw_batch(ring, cfg.inference)))
            if encoder_updates and float(agent.inference.skipped) - skipped >= encoder_updates:
                run.diverged(step, f"the loss of all {encoder_updates} updates of the inference model", {})
            fit = agent.inference.fit_prior(ring)
            run.meters.add({"components": torch.tensor(float(fit.components)), "elbo": torch.tensor(fit.elbo)})
    with run.phase("policy"):
        experience = agent.experience(ring.sample(cfg.policy_episodes))
        for _ in range(cfg.policy_updates):
            run.meters.add(agent.learn_policy(experience))


def annealed(step: int, begin: int, end: int) -> float:
    """Share of the encoder's step size that is left: 1 until `begin`, 0 from `end` on.

    The policy reads a code that moves for as long as the encoder learns.
    """
    return min(1.0, max(0.0, (end - step) / (end - begin)))


def evaluate_now(run: Run, step: int, agent: Agent, known: Tasks, held_out: Tasks) -> float:
    """Deterministic episodes, always from the same starts; returns the mean return on the training tasks.

    Checkpoints are chosen by that, so that the held-out tasks stay unseen.
    """
    cfg, believed = agent.cfg, agent.cfg.arm == "inferred"
    row: dict[str, float] = {}
    for name, tasks in (("train", known), ("test", held_out)):
        env = VectorToy(cfg.toy, tasks, run.seed("selection", name), horizon=cfg.horizon, noise_std=cfg.noise_std)
        rollout = roll(env, agent, deterministic=True)
        row |= score(rollout, name, believed)
        if believed and name == "test":
            row["purity"] = purity_of(agent, rollout.fields())
    run.log("eval", step, row)
    known_by = f", family known {row['test_family_acc_40']:.0%}" if "test_family_acc_40" in row else ""
    said = f"return {row['test_return']:.1f}, success {row['test_success']:.0%}{known_by} on held-out tasks"
    run.console.say(f"step {step:,}: {said}")
    return row["train_return"]


def purity_of(agent: Agent, fields: Mapping[str, Any]) -> float:
    """Share of final beliefs that are of their component's most frequent family."""
    episodes = Episodes(**{k: torch.as_tensor(v, device=agent.device) for k, v in fields.items()})
    latents = agent.inference.encode(episodes).mean[:, -1]
    return purity(agent.inference.prior.assign(latents), episodes.family)
