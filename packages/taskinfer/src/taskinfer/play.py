"""The toy's agent at play: recorded episodes, with tasks that may switch and a policy that may be told anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taskinfer import tasks as task_rules
from taskinfer.agent import Agent
from taskinfer.envs.toy import VectorToy
from taskinfer.inference import Belief
from taskinfer.record import Record, Recorder, TasksAt
from taskinfer.tasks import Tasks

Array = np.ndarray[Any, Any]
Told = Callable[[Belief, Tasks], Tensor]  # what the policy is told, (n, C), of beliefs (n, ...) and of the truth


def play(agent: Agent, tasks_at: TasksAt, steps: int, seed: int, told: Told | None = None) -> Record:
    """One deterministic episode of n points, from starts that `seed` decides.

    told: in place of the agent's own code. Whatever it is, beliefs are those of what was lived.
    """
    tasks, cfg, inference = tasks_at(0), agent.cfg, agent.inference
    env = VectorToy(cfg.toy, tasks, seed, horizon=steps, noise_std=cfg.noise_std)
    n, code = env.num_envs, told or (lambda belief, truth: code_of(agent, belief, truth))
    recorder = Recorder(
        inference.families, inference.cfg.latent_dim, n, steps, env.obs_dim, env.action_dim, dt=env.how.dt, toy=cfg.toy
    )
    obs, stream = env.reset(), inference.stream(n)
    for t in range(steps):
        if (asked := tasks_at(t)) is not tasks:
            tasks = asked
            env.set_tasks(tasks)
        recorder.saw(t, obs, stream.belief)
        action = agent.act(obs, code(stream.belief, tasks), deterministic=True)
        then, reward, _, _ = env.step(action)
        inference.update(stream, obs, reward, then)
        error = task_rules.error(tasks, env.simple_state())
        recorder.did(t, tasks, action=action, reward=reward, error=error)
        obs = then
    recorder.saw(steps, obs, stream.belief)
    return recorder.done()


def code_of(agent: Agent, belief: Belief, truth: Tasks) -> Tensor:
    """What the agent's arm tells its policy."""
    family, spec = (torch.as_tensor(value, device=agent.device) for value in (truth.family, truth.spec))
    return agent.code(belief, family, spec)
