"""collective's own work beside the published program's way of doing the same: acting, and drawing a batch to distil.

Acting: one step of N running episodes by a policy that is told the code, its code kept with the step as fine-tuning
needs it. The published way reads a window to act and once more to store the code, an env after the other. Both sides
have the same network, windows and numbers.

Drawing: 256 labelled rows of five tasks, each task alike, with the standardised input and the labels. The published way
keeps an array a field and a task, and draws, converts and joins them for each batch. First they are shown to give the
same rows for the same draws.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.micro.timing import Row, compare, per_call, run
from collective.agent import Collective, network
from collective.config_distill import DistillConfig
from collective.config_encoder import ModelConfig
from collective.data import Dataset
from collective.distiller import Distiller, Rows
from collective.encoder import Encoder
from collective.model import TrajectoryModel
from collective.students import View
from collective.windows import Rolling, compress

FIVE = ("reach-v3", "push-v3", "drawer-close-v3", "button-press-topdown-v3", "window-open-v3")
ROWS, LENGTH = 20_000, 200  # labelled rows of each task; of a trajectory
HIDDEN = (300, 300)
Array = np.ndarray[Any, Any]


def main(argv: Sequence[str] | None = None) -> int:
    packages = ("collective", "torch", "numpy")
    return run("collective", "collective: acting and distilling", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    torch.set_num_threads(1)
    policy = make_policy()
    for count in (1, 10):
        steps = Steps(policy, count)
        steps.same_numbers()
        yield compare(
            f"acting with a code, {count} env{'s' * (count > 1)}", ("one forward of all, kept", per_call(steps.ours)),
            ("two forwards of each", per_call(steps.published)), bar=1.8, unit="a step of all envs",
            repetitions=repetitions,
        )  # fmt: skip
    batches = Batches(policy)
    batches.same_numbers()
    yield compare(
        "drawing a batch of 256 to distil", ("one gather of packed rows", per_call(batches.ours)),
        ("arrays by task and field", per_call(batches.published)), bar=3.0, unit="a batch", repetitions=repetitions,
    )  # fmt: skip


def make_policy() -> Collective:
    """With first weights: what numbers mean costs no time."""
    torch.manual_seed(0)
    encoder = Encoder(TrajectoryModel(ModelConfig(), "transformer", 21, 4, len(FIVE)), FIVE)
    return Collective(FIVE, "cls", encoder, cfg=network(HIDDEN))


class Steps:
    """A step of N episodes, each with a full window, both ways."""

    def __init__(self, policy: Collective, count: int) -> None:
        rng = np.random.default_rng(0)
        self.policy, self.obs = policy, rng.standard_normal((count, 39)).astype(np.float32)
        self.reward = rng.random(count)
        self.view = View(policy, FIVE[0], count)
        self.alone = [Rolling(1) for _ in range(count)]
        self.begin()

    def begin(self) -> None:
        """All windows full of the same steps."""
        action = np.zeros((len(self.obs), 4), np.float32)
        self.view.begin(self.obs)
        for k, rolling in enumerate(self.alone):
            rolling.begin(self.obs[k : k + 1])
        for _ in range(20):
            self.view.advance(action, self.reward, self.obs)
            for k, rolling in enumerate(self.alone):
                rolling.advance(action[k : k + 1], self.reward[k : k + 1], self.obs[k : k + 1])

    def ours(self) -> tuple[Array, Array]:
        """What is stored with the step, and the actions."""
        inputs = self.view.inputs()
        action = self.policy.act(inputs)
        self.view.advance(action, self.reward, self.obs)
        return inputs, action

    def published(self) -> tuple[Array, Array]:
        policy, task, stored, actions = self.policy, np.zeros(1, np.int64), [], []
        for k, rolling in enumerate(self.alone):
            obs = self.obs[k : k + 1]
            action = policy.act(policy.inputs(obs, rolling, task))
            stored.append(policy.inputs(obs, rolling, task))
            rolling.advance(action, self.reward[k : k + 1], obs)
            actions.append(action)
        return np.concatenate(stored), np.concatenate(actions)

    def same_numbers(self) -> None:
        """Within 1e-5, over 30 steps."""
        for _ in range(30):
            for ours, published in zip(self.ours(), self.published()):
                np.testing.assert_allclose(ours, published, atol=1e-5)


class Batches:
    """The same labelled rows, packed, and as arrays by task and field."""

    def __init__(self, policy: Collective) -> None:
        rng, total = np.random.default_rng(0), ROWS * len(FIVE)
        data = Dataset(
            obs=rng.standard_normal((total, 39)).astype(np.float32),
            action=rng.uniform(-1, 1, (total, 4)).astype(np.float32),
            reward=rng.random(total).astype(np.float32), success=np.zeros(total, bool),
            expert_mean=rng.uniform(-1, 1, (total, 4)).astype(np.float32),
            expert_log_std=np.full((total, 4), -2.3, np.float32), q_target=np.full(total, np.nan, np.float32),
            executed_expert=np.zeros(total, bool), offsets=np.arange(0, total + 1, LENGTH),
            last_obs=np.zeros((total // LENGTH, 39), np.float32),
            task_id=np.repeat(np.arange(len(FIVE)), ROWS // LENGTH), goal_id=np.zeros(total // LENGTH, np.int64),
            arm_id=np.zeros(total // LENGTH, np.int64), split=np.zeros(total // LENGTH, np.int8), tasks=FIVE,
        )  # fmt: skip
        codes = rng.standard_normal((total, policy.code_dim)).astype(np.float32)
        cfg = DistillConfig(data=(), encoder=None, code_dropout=0.0)
        self.policy, self.distiller = policy, Distiller(cfg, {"cls": policy}, np.random.default_rng(1))
        self.distiller.use(Rows.of(data, codes, FIVE))
        labels = {"mean": data.expert_mean, "log_std": data.expert_log_std}
        fields = {"state": compress(data.obs), "code": codes, **labels}
        self.apart = [
            {key: value[k * ROWS : (k + 1) * ROWS] for key, value in fields.items()} for k in range(len(FIVE))
        ]
        self.rng = np.random.default_rng(2)

    def ours(self) -> tuple[torch.Tensor, ...]:
        """Input, expert's mean, expert's log-std."""
        made = self.distiller
        row, _ = made.draw(made.rows.starts, made.rows.counts)
        return made.packs["cls"].index_select(0, row).split((self.policy.code_dim + 21, 4, 4), dim=1)

    def published(self) -> tuple[torch.Tensor, ...]:
        share = self.distiller.cfg.batch_size // len(FIVE)
        return self.joined([self.rng.integers(ROWS, size=share + (k == 0)) for k in range(len(FIVE))])

    def joined(self, rows: Sequence[Array]) -> tuple[torch.Tensor, ...]:
        """The given rows of each task."""
        drawn = [
            {key: torch.tensor(value[row]) for key, value in fields.items()} for fields, row in zip(self.apart, rows)
        ]
        batch = {key: torch.cat([each[key] for each in drawn]) for key in drawn[0]}
        raw = torch.cat((batch["code"], batch["state"]), 1)
        shift, scale = torch.tensor(self.policy.shift), torch.tensor(self.policy.scale)
        return (raw - shift) / scale, batch["mean"], batch["log_std"]

    def same_numbers(self) -> None:
        """Within 1e-6, for all rows."""
        packed = self.distiller.packs["cls"].split((self.policy.code_dim + 21, 4, 4), dim=1)
        for ours, published in zip(packed, self.joined([np.arange(ROWS)] * len(FIVE))):
            torch.testing.assert_close(ours, published, atol=1e-6, rtol=1e-6)


if __name__ == "__main__":
    sys.exit(main())
