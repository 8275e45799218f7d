"""Does the belief cause the behaviour, and nothing but what was lived the belief? Four tests of a trained agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rlcore.errors import UsageError
from rlcore.seeding import derive, numpy_generator
from taskinfer.agent import Agent
from taskinfer.inference import Belief, Inference
from taskinfer.play import play
from taskinfer.record import Record
from taskinfer.tasks import TOY_RANGES, Family, Tasks, kind

Array = np.ndarray[Any, Any]
CONTEXT, ACT = 40, 20  # steps a context is gathered for, and acted on
# What tells the two of a pair apart: the sign of the way that was made.
PAIRS = {
    Family.goal_forward: Family.goal_backward, Family.velocity_forward: Family.velocity_backward,
    Family.stand_front: Family.stand_back,
}  # fmt: skip


def causality(agent: Agent, held_out: Tasks, seed: int, pairs: int = 10) -> dict[str, Any]:
    """All four as numbers.

    Args: held_out: tasks that training has not seen, for the returns. pairs: pairs of opposite tasks a family.
    Raises: UsageError for an agent whose arm does not infer.
    """
    if agent.cfg.arm != "inferred":
        raise UsageError(f"an agent that infers is needed, not one whose arm is {agent.cfg.arm}")
    if agent.cfg.toy == "toy2d":
        raise UsageError("toy2d: pairs of opposite tasks are known on a line alone")
    swap = swapped_contexts(agent, pairs, derive(seed, "swap"))
    returns = zeroed_belief(agent, held_out, derive(seed, "zeroed"))
    steps = agent.cfg.horizon
    lived = play(agent, lambda t: held_out, steps, derive(seed, "noise"))
    return {
        **swap, **returns, "noise_changes": actions_matter(agent.inference, lived, derive(seed, "noise")),
        "stream_gap": stream_gap(agent.inference, lived, derive(seed, "ends")),
    }  # fmt: skip


class Swap(NamedTuple):
    """Where each of P pairs went, by its own context and by the other's: (P, 2), forward first."""

    own: Array
    other: Array

    def apart(self) -> Array:
        """(P,) bool: by their own contexts, the forward one went forward and the backward one backward."""
        result: Array = (self.own[:, 0] > 0) & (self.own[:, 1] < 0)
        return result

    def swapped(self) -> Array:
        """(P,) bool: and told the other's context, each went the other's way."""
        result: Array = self.apart() & (self.other[:, 0] < 0) & (self.other[:, 1] > 0)
        return result


def swapped_contexts(agent: Agent, pairs: int, seed: int) -> dict[str, Any]:
    """Shares of ±pairs whose behaviour swaps with their contexts, over all and by kind; and what it is without.

    Each point first lives `CONTEXT` steps of its own task. Then it begins anew and acts for `ACT` steps on the belief
    that it, or its counterpart, ended with. A pair counts if each went the way of whose context it was told, twice.
    """
    tasks, kinds = opposite_tasks(agent.inference.families, pairs)
    lived = play(agent, lambda t: tasks, CONTEXT, derive(seed, "contexts"))
    means, stds = (torch.as_tensor(v[:, -1], device=agent.device) for v in (lived.belief_mean, lived.belief_std))
    context = torch.cat((means, stds), -1)  # (2 P, 2 L), forward ones first
    way = [
        travelled(agent, tasks, told, derive(seed, "acts")).reshape(2, -1).T
        for told in (context, context.roll(len(tasks) // 2, 0))
    ]
    swap = Swap(*way)
    found: dict[str, Any] = {
        "swapped": float(swap.swapped().mean()), "apart": float(swap.apart().mean()), "pairs": len(swap.own),
    }  # fmt: skip
    for name in dict.fromkeys(kinds):
        own = np.array(kinds) == name
        found[f"swapped_{name}"] = float(swap.swapped()[own].mean())
    return found


def pairs_of(families: Sequence[Family]) -> list[Family]:
    """Those of the families whose opposite is among them, too. None in the plane, and of jumps or flips."""
    return [family for family in PAIRS if family in families and PAIRS[family] in families]


def opposite_tasks(families: Sequence[Family], pairs: int) -> tuple[Tasks, list[str]]:
    """2 P tasks: P forward ones, then their mirror images; and the kind of each pair.

    Specs are evenly spaced between the quarter and three quarters of the toy's range.
    """
    forward = pairs_of(families)
    if not forward:
        raise UsageError("there are no two opposite families, such as goal_forward and goal_backward, to swap")
    specs, ids = [], []
    for family in forward:
        low, high = TOY_RANGES[family]
        specs += np.linspace(low + 0.25 * (high - low), low + 0.75 * (high - low), pairs).tolist()
        ids += [family] * pairs
    back = [PAIRS[family] for family in ids]
    return Tasks.of(family=[*ids, *back], spec=[*specs, *(-spec for spec in specs)]), [kind(f) for f in ids]


def travelled(agent: Agent, tasks: Tasks, told: torch.Tensor, seed: int) -> Array:
    """(n,) what `ACT` steps come to for a policy that is told (n, C) all the while: m, or rad for stand."""
    lived = play(agent, lambda t: tasks, ACT, seed, lambda belief, truth: told)
    stand = np.isin(tasks.family, [Family.stand_front, Family.stand_back])
    x = lived.obs[:, -1, 0] - lived.obs[:, 0, 0]
    if not stand.any():
        return x
    return np.where(stand, lived.obs[:, -1, 2] - lived.obs[:, 0, 2], x)  # toy1d-multi: x, z, pitch


def zeroed_belief(agent: Agent, tasks: Tasks, seed: int) -> dict[str, float]:
    """Mean returns of an episode as ever, and of one whose policy is told zeros for a belief."""
    steps = agent.cfg.horizon
    own = play(agent, lambda t: tasks, steps, seed).reward.sum(1).mean()
    zeroed = play(agent, lambda t: tasks, steps, seed, lambda belief, truth: torch.zeros_like(belief.params()))
    value = zeroed.reward.sum(1).mean()
    return {"return": float(own), "zeroed_return": float(value), "zeroed_worse_by": float(own - value)}


def actions_matter(inference: Inference, lived: Record, seed: int) -> int:
    """How many numbers of the beliefs change when the recorded actions are replaced by noise. To be 0."""
    episodes = lived.episodes(inference.device)
    noise = numpy_generator(seed, "actions").standard_normal(lived.action.shape, np.float32)
    one = inference.encode(episodes)
    two = inference.encode(episodes._replace(action=torch.as_tensor(noise, device=inference.device)))
    return sum(int((a != b).sum()) for a, b in zip(one, two))


def stream_gap(inference: Inference, lived: Record, seed: int) -> float:
    """The largest difference between beliefs streamed a step at a time and those of one pass over whole episodes.

    Two in three of the episodes end early, at random, beside the others.
    """
    n, steps = lived.reward.shape
    rng = numpy_generator(seed, "lengths")
    length = np.where(rng.random(n) < 2 / 3, rng.integers(1, steps + 1, n), steps)
    whole = inference.encode(lived.episodes(inference.device, length))
    stream, gap = inference.stream(n), 0.0
    for t in range(steps):
        gap = max(gap, _gap(stream.belief, whole, t))
        inference.update(stream, lived.obs[:, t], lived.reward[:, t], lived.obs[:, t + 1], t < length)
    return max(gap, _gap(stream.belief, whole, steps))


def _gap(streamed: Belief, whole: Belief, t: int) -> float:
    one, two = (_numbers(belief) for belief in (streamed, Belief(*(column[:, t] for column in whole))))
    return float((one - two).abs().max())


def _numbers(belief: Belief) -> torch.Tensor:
    """(n, 2 L + C): mean, standard deviation, probabilities of the families."""
    return torch.cat((belief.params(), torch.softmax(belief.family_logits, -1)), -1)
