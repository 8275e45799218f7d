"""Model predictive path integral control in latent space (arXiv:2310.16828, sec. 3.2), for E environments at once.

Shapes: E envs, N sequences of H actions (A), P of them from the policy prior, D latent state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prismatic.model import WorldModel
from rlcore.seeding import set_torch_state, torch_generator


@dataclass(frozen=True)
class PlanSettings:
    """The planner's numbers; see `TrainConfig`."""

    horizon: int
    iterations: int
    num_samples: int
    num_elites: int
    num_pi_trajs: int
    min_std: float
    max_std: float
    temperature: float


class PlanNoise(NamedTuple):
    """All that chance decides in one plan; the planner itself is a function."""

    prior: Tensor  # (H, E, P, A) of the policy prior's sequences
    samples: Tensor  # (I, H, E, N - P, A) of the Gaussian's
    last: Tensor  # (I, E, N, A) of the policy where the model's rollout ends
    act: Tensor  # (E, A) of the action
    pick: Tensor  # (E,) in [0, 1): which elite acts
    heads: Tensor  # (I, 2) int64: the critics of each iteration, the same for all envs


class PlanState:
    """What planning carries from step to step, one row an env. Whoever steps the envs owns it.

    Each env draws from a generator of its own, named by (seed, env): its plans do not depend on who else is planned
    for. Which critics are asked comes from one more generator, that all envs share.
    """

    def __init__(
        self, num_envs: int, horizon: int, action_dim: int, seed: int, *path: str | int, first_env: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        on = str(device)
        self.mean = torch.zeros(horizon, num_envs, action_dim, device=device)  # of the last plan
        envs = range(first_env, first_env + num_envs)
        self.generators = [torch_generator(seed, *path, "env", env, device=on) for env in envs]
        self.shared = torch_generator(seed, *path, "heads", device=on)

    def noise(self, settings: PlanSettings, num_q: int) -> PlanNoise:
        """The draws of one plan, with one call to each env's generator for the Gaussian ones."""
        s, (_, envs, dim), on = settings, self.mean.shape, self.mean.device
        drawn = s.num_samples - s.num_pi_trajs
        shapes = [
            (s.horizon, s.num_pi_trajs, dim), (s.iterations, s.horizon, drawn, dim),
            (s.iterations, s.num_samples, dim), (dim,),
        ]  # fmt: skip
        sizes = [torch.Size(shape).numel() for shape in shapes]
        flat = torch.empty(envs, sum(sizes), device=on)
        pick = torch.empty(envs, device=on)
        for env, generator in enumerate(self.generators):
            flat[env].normal_(generator=generator)
            pick[env : env + 1].uniform_(generator=generator)
        prior, samples, last, act = (x.view(envs, *shape) for x, shape in zip(flat.split(sizes, 1), shapes))
        return PlanNoise(
            prior.movedim(0, 1), samples.movedim(0, 2), last.movedim(0, 1), act, pick,
            draw_heads(s.iterations, num_q, self.shared, on),
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "generators": [g.get_state() for g in self.generators],
            "shared": self.shared.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. ValueError where the number of envs differs."""
        if len(state["generators"]) != len(self.generators):
            raise ValueError(f"saved plans are for {len(state['generators'])} envs, not {len(self.generators)}")
        self.mean.copy_(state["mean"])
        for generator, saved in zip([*self.generators, self.shared], [*state["generators"], state["shared"]]):
            set_torch_state(generator, saved)


def draw_heads(rows: int, num_q: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(rows, 2) int64: two different critics of num_q, drawn uniformly, for each row."""
    return torch.rand(rows, num_q, generator=generator, device=device).argsort(1)[:, :2]


def rollout(model: WorldModel, z: Tensor, actions: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Follow H actions through the model.

    Args: z (E, N, D); actions (H, E, N, A); task (E, 1).
    Returns: sum_t gamma^t r_t (E, N); the discount behind it, 0 where the episode has ended (E, N); z_H (E, N, D).
    """
    states = [z]
    for action in actions:  # the only loop over time: everything else is asked for all steps at once
        states.append(model.next(states[-1], action, task))
    return *score(model, torch.stack(states), actions, task), states[-1]


def score(model: WorldModel, states: Tensor, actions: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
    """Return and remaining discount, (E, N) each, of states (H + 1, E, N, D) and the actions (H, E, N, A) between."""
    reward = model.value(model.reward(states[:-1], actions, task))  # (H, E, N)
    gamma = model.discounts[task]  # (E, 1)
    if not model.episodic:
        weights = gamma ** torch.arange(len(actions), device=gamma.device).view(-1, 1, 1)  # (H, E, 1)
        return (weights * reward).sum(0), (gamma ** len(actions)).expand_as(reward[0])
    ended = (model.terminated(states[1:], task) > 0) * model.can_end[task]  # (H, E, N): with probability above 1/2
    alive = (1 - ended).cumprod(0)
    total, left = torch.zeros_like(reward[0]), torch.ones_like(reward[0])
    for t in range(len(actions)):
        total = total + left * reward[t]
        left = gamma ** (t + 1) * alive[t]
    return total, left


def prior_sequences(model: WorldModel, z: Tensor, task: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Let the policy prior act in the model: z (E, D), noise (H, E, P, A) -> states (H + 1, E, P, D), actions."""
    states, actions = [z.unsqueeze(1).expand(-1, noise.shape[2], -1)], []
    for step in noise:
        actions.append(model.pi(states[-1], task, step).action)
        states.append(model.next(states[-1], actions[-1], task))
    return torch.stack(states), torch.stack(actions)


def plan(
    model: WorldModel, z: Tensor, task: Tensor, mean: Tensor, noise: PlanNoise, settings: PlanSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit a Gaussian over action sequences to the best of them, again and again.

    Args: z (E, D); task (E,) int64; mean (H, E, A) where to start.
    Returns: mean, std (H, E, A) of the last fit; its elites (H, E, n, A) and their weights (E, n).
    """
    s = settings
    task = task.unsqueeze(1)  # (E, 1)
    std = model.mask_action(torch.full_like(mean, s.max_std), task.squeeze(1))
    given = []  # the prior's sequences are the same in all iterations: they are followed once
    if s.num_pi_trajs:
        states, prior = prior_sequences(model, z, task, noise.prior)
        given = [*score(model, states, prior, task), states[-1]]
    start = z.unsqueeze(1).expand(-1, s.num_samples - s.num_pi_trajs, -1)
    for samples, last, heads in zip(noise.samples, noise.last, noise.heads):
        actions = model.mask_action((mean.unsqueeze(2) + std.unsqueeze(2) * samples).clamp(-1, 1), task)
        found = [*rollout(model, start, actions, task)]
        if given:
            actions = torch.cat((prior, actions), 2)  # (H, E, N, A)
            found = [torch.cat(pair, 1) for pair in zip(given, found)]
        total, left, end = found
        terminal = model.value(model.q(end, model.pi(end, task, last).action, task, heads)).mean(0)
        value = (total + left * terminal).nan_to_num(0.0, 0.0, 0.0)  # (E, N)
        best = value.topk(s.num_elites, dim=1)
        weight = (s.temperature * best.values).softmax(1)  # (E, n)
        index = best.indices.view(1, *best.indices.shape, 1).expand(s.horizon, -1, -1, actions.shape[-1])
        elites = actions.gather(2, index)  # (H, E, n, A)
        mean = (weight.unsqueeze(2) * elites).sum(2)
        variance = (weight.unsqueeze(2) * (elites - mean.unsqueeze(2)).square()).sum(2)
        std = model.mask_action(variance.sqrt().clamp(s.min_std, s.max_std), task.squeeze(1))
    return mean, std, elites, weight


def choose(
    mean: Tensor, std: Tensor, elites: Tensor, weight: Tensor, noise: PlanNoise, *, sample: bool, explore: bool
) -> Tensor:
    """The first action (E, A) of a plan: of its mean, or of an elite drawn by weight; explore adds std's noise."""
    action = mean[0]
    if sample:
        index = (weight.cumsum(1) < noise.pick.unsqueeze(1)).sum(1).clamp(max=weight.shape[1] - 1)  # (E,)
        action = elites[0, torch.arange(len(index), device=index.device), index]
    if explore:
        action = action + std[0] * noise.act
    return action.clamp(-1, 1)


def shift(mean: Tensor, first: Tensor) -> Tensor:
    """Where the next plan starts: one step into the last one's mean (H, E, A); 0 where it is the first (E,) bool."""
    ahead = torch.cat((mean[1:], torch.zeros_like(mean[:1])))
    return ahead.masked_fill(first.unsqueeze(1), 0.0)


def settings_of(cfg: Any, action_dim: int) -> PlanSettings:
    """The planner's part of the options; two more iterations from 20 action dimensions on, as TD-MPC2 has it."""
    given = {key: getattr(cfg, key) for key in PlanSettings.__dataclass_fields__}
    return PlanSettings(**{**given, "iterations": cfg.iterations + 2 * (action_dim >= 20)})
