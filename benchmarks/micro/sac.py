"""Soft actor-critic: the whole loop on HalfCheetah-v5, ours and the peer's; ten learners stacked and one by one.

The loop: observations of 17, actions of 6, two layers of 256, batch 256, one env, one update an env step, one thread,
no evaluation; both sides with stable-baselines3's default settings. A run's cost is that of a long run less that of a
short one, both past the first update: start-up cancels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.micro.dqn import cpu_seconds
from benchmarks.micro.timing import Row, Side, compare, per_call, run
from rlblocks.config import SACConfig
from rlblocks.sac import SAC

SHORT, LONG = 500, 2_500  # env steps; learning starts at 100
AGENTS, OBS, ACTION, BATCH = 10, 39, 4, 256  # those of Meta-World
PEER = """
import sys, torch
from stable_baselines3 import SAC
torch.set_num_threads(1)
SAC("MlpPolicy", "HalfCheetah-v5", device="cpu", seed=int(sys.argv[2])).learn(int(sys.argv[1]))
"""


def main(argv: Sequence[str] | None = None) -> int:
    torch.set_num_threads(1)
    packages = ("rlblocks", "rlcore", "torch", "numpy", "gymnasium", "mujoco", "stable-baselines3")
    return run("sac", "Soft actor-critic", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    peer_side = ("stable-baselines3 SAC", per_step(peer))
    for precision, bar in (("float32", 1.3), ("bf16", 2.5)):
        yield compare(
            f"the whole loop on HalfCheetah-v5, ours in {precision}",
            (f"rlblocks SAC, {precision}", per_step(ours(precision))), peer_side,
            bar=bar, unit="CPU time an env step", repetitions=repetitions,
        )  # fmt: skip
    for precision in ("float32", "bf16"):
        together, one_by_one = learners(precision)
        yield compare(
            f"one update of {AGENTS} learners in {precision}, observations of {OBS}, actions of {ACTION}",
            (f"one SAC with {AGENTS} seeds", per_call(together, 3)),
            (f"{AGENTS} SACs with one seed", per_call(one_by_one, 3)),
            bar=1.3, unit=f"CPU time for {AGENTS} updates", repetitions=repetitions,
        )  # fmt: skip


def per_step(command: Callable[[int, int], list[str]]) -> Side:
    """A side whose unit is an env step of `command(steps, seed)`. One run beforehand: the first writes bytecode."""
    cpu_seconds(command(SHORT, 0))
    return lambda k: (cpu_seconds(command(LONG, k)) - cpu_seconds(command(SHORT, k))) / (LONG - SHORT)


def ours(precision: str) -> Callable[[int, int], list[str]]:
    def command(steps: int, seed: int) -> list[str]:
        options = f"--json FOLDER/run.json --steps {steps} --seed {seed} --precision {precision} --eval-every 1000000"
        return [sys.executable, "-m", "benchmarks.blocks.sac_loop", *options.split()]

    return command


def peer(steps: int, seed: int) -> list[str]:
    return [sys.executable, "-c", PEER, str(steps), str(seed)]


def learners(precision: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """An update of all learners together, and one after the other."""
    shapes = {"obs": (OBS,), "next_obs": (OBS,), "action": (ACTION,), "reward": (), "discount": ()}
    batch = {name: torch.rand(AGENTS, BATCH, *shape) for name, shape in shapes.items()}
    batches = [{name: value[n].clone() for name, value in batch.items()} for n in range(AGENTS)]
    cfg = SACConfig(precision=precision)
    stacked = SAC(cfg, OBS, ACTION, seeds=range(AGENTS))
    single = [SAC(cfg, OBS, ACTION, seeds=[seed]) for seed in range(AGENTS)]
    return lambda: stacked.update(batch), lambda: [agent.update(b) for agent, b in zip(single, batches)]


if __name__ == "__main__":
    sys.exit(main())
