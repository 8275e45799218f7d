"""`collective finetune`: a collective network goes on learning on one task. The same command goes on.

Soft actor-critic over [code, state], from the network's actor, critics and target critics. The encoder stays as it is,
so codes never age: a transition holds the inputs of both its ends, and the next state is judged by its own code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collective.agent import Collective, find
from collective.config import ACTION_DIM
from collective.config_student import TUNED, FinetuneConfig
from collective.rollout import Acting
from collective.run.exam import Coded
from collective.run.lesson import MAY_CHANGE, Learner
from collective.students import View, fingerprint, open_network
from rlblocks.sac import SAC
from rlcore import device
from rlcore.config import to_dict
from rlcore.errors import QuintetWarning, UsageError
from rlcore.files import read_json
from rlcore.run import Run
from rlcore.vecenv import VecStep

Array = np.ndarray[Any, Any]


def finetune(cfg: FinetuneConfig) -> Path:
    """Fine-tune as `cfg` says; returns the run's folder, which `Collective.load` opens.

    Errors: DataError where there is no such network; UsageError where it does not fit the task or its layers.
    """
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    network = open_network(cfg.collective, where)
    warn_of_discount(cfg)
    facts = {
        "stage": "finetune", "task": cfg.task, "collective": cfg.collective, "method": "fine-tuned",
        "horizon": cfg.horizon, "reward_version": cfg.reward_version, "success": "at any step",
        "collective_fingerprint": fingerprint(network), "known": cfg.task in network.tasks,
    }  # fmt: skip
    with (
        Run.open(
            cfg, program="collective", total=cfg.steps, stride=cfg.num_envs, may_change=MAY_CHANGE, facts=facts
        ) as run,
        contextlib.closing(Finetuning(run, cfg, network, where)) as learner,
    ):
        return learner.learn()


def warn_of_discount(cfg: FinetuneConfig) -> None:
    """Say where the network's critics were fitted to values of another discount: they begin on the wrong scale."""
    record = find(Path(cfg.collective)).parent.parent / "config.json"
    known = read_json(record) if record.is_file() else {}
    gamma = known.get("config", {}).get("gamma", cfg.gamma) if isinstance(known, dict) else cfg.gamma
    if gamma != cfg.gamma:
        said = f"{cfg.collective}'s critics have discount {gamma}, this run has {cfg.gamma}"
        warnings.warn(f"{said}: --gamma {gamma} goes on with them as they are", QuintetWarning, stacklevel=2)


def start_from(network: Collective, cfg: FinetuneConfig, seed: int, where: Any) -> None:
    """Give the network an agent that goes on from its actor, critics and target critics.

    Temperature, optimisers and random streams are new. What its outputs mean stays as it was.
    """
    loaded, options = network.sac, to_dict(cfg)
    changes = {name: options[name] for name in TUNED}
    sac = SAC(dataclasses.replace(loaded.cfg, **changes), loaded.obs_dim, ACTION_DIM, seeds=[seed], device=where)
    for name in ("actor", "critic", "target"):
        sac.tensors()[name].detach().copy_(loaded.tensors()[name].detach())
    network.sac = sac


class Policies:
    """The network as a run of `distill` saves its policies, so that `Collective.load` opens both."""

    def __init__(self, network: Collective) -> None:
        self.network = network

    def state_dict(self) -> dict[str, Any]:
        return {self.network.code: self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """UsageError where it was another network that was saved."""
        if self.network.code not in state:
            raise UsageError(f"the run fine-tunes a policy that is told {', '.join(state)}, not {self.network.code}")
        self.network.load_state_dict(state[self.network.code])


class Finetuning(Learner):
    """Sees [code, state] and acts from the first step on."""

    def __init__(self, run: Run, cfg: FinetuneConfig, network: Collective, where: Any) -> None:
        start_from(network, cfg, run.seed("agent"), where)
        super().__init__(run, cfg, network.sac)
        self.network, self.tuning = network, cfg
        self.view = View(network, cfg.task, cfg.num_envs)
        self.parts |= {"view": self.view, "policies": Policies(network)}

    def begin(self, obs: Array) -> None:
        self.view.begin(obs)

    def choose(self, obs: Array, step: int) -> Array:
        return self.sac.act(self.view.inputs())

    def keep(self, obs: Array, action: Array, moved: VecStep, after: Array, step: int) -> None:
        inputs = self.view.inputs()
        self.view.advance(action, moved.reward, after)
        self.experience.add(inputs, action, moved, np.zeros_like(moved.reward), self.view.inputs())
        if (done := moved.terminated | moved.truncated).any():
            self.view.begin(moved.obs, done)

    def owed(self, before: int, step: int) -> float:
        """One an env step; those of the time before the first update are made up for at its end."""
        if step < self.tuning.warmup:
            return 0.0
        return (step - (0 if before < self.tuning.warmup else before)) * self.cfg.updates_per_step

    def update(self, step: int) -> None:
        batch = self.experience.sample(self.cfg.batch_size, 0.0)
        self.run.meters.add(self.sac.update(batch, actor=self.sac.updates >= self.tuning.critic_warmup))

    def player(self) -> Acting:
        return Coded(self.network, self.view.number)
