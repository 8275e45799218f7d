"""`prismatic bench`: how fast this machine is at this model. No simulator: observations and rewards are noise."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from prismatic import cpu
from prismatic.agent import Agent
from prismatic.config import NOISE_EPISODE, BenchConfig, TaskSpec, TrainConfig
from prismatic.model import WorldModel
from prismatic.planner import PlanState, plan, prior_sequences, score
from prismatic.replay import TaskReplay
from prismatic.run.bench_views import to_text
from prismatic.run.turns import TURNS, Array, Clock, Laps, clock_for, in_turns
from rlcore import device as devices
from rlcore.config import to_dict
from rlcore.files import explained, write_json
from rlcore.provenance import describe_environment
from rlcore.seeding import numpy_generator
from rlcore.vecenv import VecStep

UPDATE_PARTS = {  # methods of Agent: the part of an update that their time belongs to
    "draw": ("noise",), "_model_loss": ("model forward",), "_step": ("model backward, Adam", "policy"),
    "_policy_loss": ("policy",),
}  # fmt: skip


def bench(cfg: BenchConfig) -> int:
    """Measure, print a table (or JSON), write JSON to --output."""
    where = devices.resolve(cfg.device)
    cpu.reuse_memory()  # as training does
    with threads(cfg.threads):
        found = measure(cfg, where)
    print(json.dumps(found) if cfg.json else to_text(found), flush=True)
    if cfg.output is not None:
        with explained(cfg.output.parent):
            cfg.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(cfg.output, found)
    return 0


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """torch works on `count` threads inside, and on as many as before afterwards."""
    before = torch.get_num_threads()
    devices.set_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(cfg: BenchConfig, where: torch.device) -> dict[str, Any]:
    """All rows, ratios and parts, as plain types."""
    now, clock = clock_for(where, cfg.threads)
    sides = [Side(cfg.train(use_moe=moe), cfg, where) for moe in (False, True)]
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []

    def compare(what: str, calls: Mapping[str, Callable[[], Any]], ratio: tuple[str, str], count: int = 1) -> None:
        """Measure the named calls, of `count` units each, in turns; `ratio` names the dearer and the cheaper one."""
        print(f"measuring {what}: {', '.join(calls)}", file=sys.stderr, flush=True)
        costs = in_turns(calls, cfg.seconds, now)
        for name, spent in costs.items():
            rate = round(float(np.median(count / spent)), 3)
            rows.append({"what": what, "side": name, "per_s": rate, **spread(1e3 * spent, "ms")})
        over, under = ratio
        ratios.append({"what": what, "over": over, "under": under, **spread(costs[over] / costs[under], "ratio")})

    dense, moe = sides
    names = moe.name, dense.name
    compare("update", {side.name: side.update for side in sides}, names)
    compare("plan", {side.name: side.plan_one for side in sides}, names)
    for side in sides:
        many, one = f"{cfg.num_envs} at once", f"{cfg.num_envs} one by one"
        compare(f"plans, {side.name}", {many: side.plan_all, one: side.plan_each}, (one, many), cfg.num_envs)
        if side.cfg.size.num_q > 2:
            every, drawn = f"all {side.cfg.size.num_q} critics", "the 2 drawn"
            compare(f"plan, {side.name}", side.by_heads(every, drawn), (every, drawn))
    print("measuring the parts of updates and plans", file=sys.stderr, flush=True)
    parts = {
        "update": {side.name: update_parts(side, cfg.seconds, now) for side in sides},
        "plan": {side.name: plan_parts(side, cfg.seconds, now) for side in sides if not side.compiled},
    }
    return {
        "settings": to_dict(cfg), "machine": machine(where), "clock": clock, "turns": TURNS,
        "iterations": dense.agent.settings.iterations,
        "parameters": {side.name: side.agent.model.num_learnable for side in sides},
        "rows": rows, "ratios": ratios, "parts_ms": parts,
    }  # fmt: skip


class Side:
    """An agent on a task of noise, with its replay and planning memory."""

    def __init__(self, cfg: TrainConfig, bench: BenchConfig, where: torch.device) -> None:
        task = TaskSpec("noise", bench.obs_dim, bench.action_dim, NOISE_EPISODE)
        self.cfg, self.name = cfg, cfg.variant
        self.agent = Agent(cfg, [task], where)
        self.compiled = cfg.compile == "on" or (cfg.compile == "auto" and where.type == "cuda")
        self.replay = filled(cfg, task, where)
        self.obs = numpy_generator(cfg.seed, "bench", "obs").standard_normal((bench.num_envs, task.obs_dim), np.float32)
        self.one, self.all = (self.agent.new_plan(envs, cfg.seed, "bench") for envs in (1, bench.num_envs))

    def update(self) -> None:
        self.agent.update(self.replay.sample(self.cfg.batch_size))

    def plan_one(self, env: int = 0) -> None:
        self._act(self.obs[env : env + 1], self.one)

    def plan_all(self) -> None:
        self._act(self.obs, self.all)

    def plan_each(self) -> None:
        for env in range(len(self.obs)):
            self.plan_one(env)

    def _act(self, obs: Array, memory: PlanState) -> None:
        self.agent.act(obs, np.zeros(len(obs), bool), np.zeros(len(obs), np.int64), memory)

    def by_heads(self, every: str, drawn: str) -> dict[str, Callable[[], Any]]:
        """The same plan with all critics evaluated, and with those alone that were drawn. Never compiled."""
        models = {every: cast(WorldModel, AllHeads(self.agent.model)), drawn: self.agent.model}
        noise = self.one.noise(self.agent.settings, self.cfg.size.num_q)
        return {name: partial(self.plan_with, model, noise) for name, model in models.items()}

    @torch.inference_mode()
    def plan_with(self, model: WorldModel, noise: Any) -> tuple[Tensor, ...]:
        """One env's plan in `model`, as the agent makes it."""
        obs, task = self.tensors()
        with self.agent.precision():
            return plan(model, model.encode(obs, task), task, self.one.mean, noise, self.agent.settings)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """One env's observation (1, D) and task (1,), on the device."""
        on = self.agent.device
        return torch.as_tensor(self.obs[:1]).to(on), torch.zeros(1, dtype=torch.int64, device=on)


class AllHeads:
    """A world model that evaluates all critics and then takes those that were asked for: the same values, slower."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def q(self, z: Tensor, action: Tensor, task: Tensor, heads: Tensor) -> Tensor:
        return self.model.q(z, action, task)[heads]


def filled(cfg: TrainConfig, task: TaskSpec, where: torch.device) -> TaskReplay:
    """A full replay of random steps in episodes of NOISE_EPISODE steps."""
    rng = numpy_generator(cfg.seed, "bench", "replay")
    replay = TaskReplay(cfg, (task.obs_dim, task.action_dim), [rng], where)
    length = cfg.buffer_size
    obs = rng.standard_normal((length + 1, 1, task.obs_dim), np.float32)
    action = rng.uniform(-1, 1, (length, 1, task.action_dim)).astype(np.float32)
    reward = rng.random((length, 1), np.float32)
    never = np.zeros(1, bool)
    for t in range(length):
        ended, first = (np.array([(t + shift) % NOISE_EPISODE == 0]) for shift in (1, 0))
        moved = VecStep(obs[t + 1], reward[t], never, ended, obs[t + 1], {})
        replay.add(obs[t], action[t], moved, first, [slice(0, 1)])
    return replay


def update_parts(side: Side, seconds: float, now: Clock) -> dict[str, float]:
    """Milliseconds of each part of an update, medians over updates; the rest is targets, gates and counting."""
    laps, found = Laps(now), list[dict[str, float]]()
    sample = laps.timed(side.replay.sample, "replay")
    with laps.inside(side.agent, UPDATE_PARTS):
        update = laps.timed(side.agent.update, "whole")
        begin = now()
        while len(found) < TURNS or now() - begin < seconds:
            update(sample(side.cfg.batch_size))
            parts = laps.read()
            whole = parts.pop("whole")
            parts["targets, gates"] = whole - sum(parts.values()) + parts["replay"]  # which is not in the whole
            found.append(parts)
    return {part: in_ms([parts[part] for parts in found]) for part in found[0]}


def plan_parts(side: Side, seconds: float, now: Clock) -> dict[str, float]:
    """Milliseconds of each part of a plan; the rollouts and fits of the iterations are what the others leave."""
    agent, model, memory = side.agent, side.agent.model, side.one
    obs, task = side.tensors()
    noise = memory.noise(agent.settings, side.cfg.size.num_q)

    def within(function: Callable[[], Any]) -> None:
        with torch.inference_mode(), agent.precision():
            function()

    def prior() -> None:
        states, actions = prior_sequences(model, z, task.unsqueeze(1), noise.prior)
        score(model, states, actions, task.unsqueeze(1))

    with torch.inference_mode(), agent.precision():
        z = model.encode(obs, task)
    calls: dict[str, Callable[[], Any]] = {
        "noise": lambda: memory.noise(agent.settings, side.cfg.size.num_q),
        "encode": partial(within, lambda: model.encode(obs, task)),
    }
    if side.cfg.num_pi_trajs:
        calls["prior"] = partial(within, prior)
    costs = in_turns({**calls, "whole": side.plan_one}, seconds, now)
    costs["rollouts, fits"] = costs.pop("whole") - sum(costs[part] for part in calls)
    return {part: in_ms(spent) for part, spent in costs.items()}


def spread(values: Array, unit: str) -> dict[str, Any]:
    """The median of one number a turn, and its quartiles."""
    low, middle, high = (round(float(value), 4) for value in np.percentile(values, (25, 50, 75)))
    return {unit: middle, "quartiles": [low, high]}


def in_ms(seconds: Sequence[float] | Array) -> float:
    """The median. What is left of a difference may be below 0 by chance, and is 0 then."""
    return round(max(1e3 * float(np.median(seconds)), 0.0), 4)


def machine(where: torch.device) -> dict[str, Any]:
    """Versions and hardware, and how busy it is."""
    gpu = torch.cuda.get_device_name(where) if where.type == "cuda" else None
    return {**describe_environment("prismatic"), "gpu": gpu, "load": round(os.getloadavg()[0], 2)}
