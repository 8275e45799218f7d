"""The collective policy: a task code and the state in, an action out.

The code comes from a frozen trajectory encoder ("cls"), or it is the task's number ("task-id", one of T), or nothing
("zero"): the last two are what the first one is measured against. Actor and critics are those of a soft actor-critic
over [code, state], so that it can be trained on as one. Inputs are standardised by constants of its data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collective.config import ACTION_DIM, STATE_DIM
from collective.encoder import Encoder
from collective.windows import Rolling, compress
from rlblocks.config import SACConfig
from rlblocks.sac import SAC
from rlcore import checkpoint
from rlcore.errors import DataError, UsageError

Array = np.ndarray[Any, Any]
ORDER = ("final.pt", "last.pt")  # the critics are trained last, so the newest is the one to use
CODE_DIM = 6  # of an arm without an encoder


def network(hidden: Sequence[int], **changes: Any) -> SACConfig:
    """The soft actor-critic that a collective network is."""
    return SACConfig(hidden=tuple(hidden), init="xavier", log_std_map="tanh", **changes)


class Collective:
    """A policy for `tasks`, told by `code` which one it faces.

    Args:
        code: "cls", "task-id" or "zero". encoder: for cls.
        shift, scale: (C + 21,) constants that inputs are standardised by.
    """

    def __init__(
        self, tasks: Sequence[str], code: str, encoder: Encoder | None, *, cfg: SACConfig, seed: int = 0,
        shift: Array | None = None, scale: Array | None = None, device: str | torch.device = "cpu",
    ) -> None:  # fmt: skip
        if (code == "cls") != (encoder is not None):
            raise UsageError(f"a policy that is told {code} {'needs an' if code == 'cls' else 'has no'} encoder")
        self.tasks, self.code, self.encoder, self.cfg = tuple(tasks), code, encoder, cfg
        self.code_dim = encoder.code_dim if encoder else len(self.tasks) if code == "task-id" else CODE_DIM
        width = self.code_dim + STATE_DIM
        self.shift = np.zeros(width, np.float32) if shift is None else np.asarray(shift, np.float32)
        self.scale = np.ones(width, np.float32) if scale is None else np.asarray(scale, np.float32)
        self.sac = SAC(cfg, width, ACTION_DIM, seeds=[seed], device=device)

    def numbers(self, tasks: Sequence[str]) -> Array:
        """What each of `tasks` is called here: (T,) int64, -1 for one it was not trained on."""
        return np.array([self.tasks.index(task) if task in self.tasks else -1 for task in tasks], np.int64)

    def codes(self, rolling: Rolling, task: Array) -> Array:
        """(N, C): the codes of running episodes. task (N,): numbers of this policy's tasks; cls needs none."""
        if self.encoder is not None:
            return self.encoder.codes(*rolling.arrays())
        return told(self.code, task, len(self.tasks))

    def inputs(self, obs: Array, rolling: Rolling, task: Array) -> Array:
        """(N, C + 21) float32, standardised, for observations (N, 39)."""
        return self.standardised(self.codes(rolling, task), compress(obs))

    def standardised(self, codes: Array, states: Array) -> Array:
        """(N, C + 21) float32 of codes (N, C) and states (N, 21)."""
        raw = np.concatenate((codes, states), -1).astype(np.float32, copy=False)
        result: Array = (raw - self.shift) / self.scale
        return result

    def act(self, inputs: Array, deterministic: bool = True) -> Array:
        """Actions (N, 4) in [-1, 1]."""
        return self.sac.act(inputs, deterministic)

    def proposal(self, inputs: Array) -> tuple[Array, Array]:
        """Mean (N, 4) in [-1, 1], and log-std (N, 4) before squashing."""
        with torch.inference_mode():
            x = torch.as_tensor(inputs, device=self.sac.device)[None]
            sample = self.sac.policy(x, torch.zeros(1, len(inputs), ACTION_DIM, device=self.sac.device))
            return sample.action[0].cpu().numpy(), sample.log_std[0].cpu().numpy()

    def value(self, inputs: Array) -> Array:
        """(N,): the smaller critic's value of what the policy would do."""
        with torch.inference_mode():
            x = torch.as_tensor(inputs, device=self.sac.device)[None]
            action = torch.as_tensor(self.act(inputs), device=self.sac.device)[None]
            return np.asarray(self.sac.q(self.sac.critic, x, action)[0].min(0).values.cpu())

    def state_dict(self) -> dict[str, Any]:
        """All that `of_state` needs, and everything that shapes the future."""
        return {
            "tasks": list(self.tasks), "code": self.code, "sac": self.sac.state_dict(),
            "cfg": {"hidden": list(self.cfg.hidden)}, "shift": self.shift.copy(), "scale": self.scale.copy(),
            "encoder": None if self.encoder is None else self.encoder.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """UsageError where tasks, code or sizes are others, or the encoder is."""
        for name, mine in (("tasks", list(self.tasks)), ("code", self.code)):
            if state[name] != mine:
                raise UsageError(f"the saved policy has {name} {state[name]}, this one {mine}")
        if self.encoder and Encoder.from_state(state["encoder"]).fingerprint != self.encoder.fingerprint:
            raise UsageError("the saved policy was trained with another encoder: use another --name, or --overwrite")
        self.sac.load_state_dict(state["sac"])
        self.shift, self.scale = (np.asarray(state[name], np.float32) for name in ("shift", "scale"))

    @classmethod
    def of_state(cls, state: Mapping[str, Any], device: str | torch.device = "cpu") -> Collective:
        """The policy that gave this state."""
        encoder = None if state["encoder"] is None else Encoder.from_state(state["encoder"]).to(device)
        made = cls(
            state["tasks"], state["code"], encoder, cfg=network(state["cfg"]["hidden"]), device=device,
        )  # fmt: skip
        made.load_state_dict(state)
        return made

    @classmethod
    def load(cls, path: Path | str, arm: str | None = None, device: str | torch.device = "cpu") -> Collective:
        """From a run of `collective distill`, `finetune` or `pipeline`, or one of their checkpoint files.

        arm: which of the policies in it; the first one if left out. DataError where there is none: no policy is ever
        made up of random weights.
        """
        path = find(Path(path))
        parts = checkpoint.load(path).get("parts", {})
        try:
            arms = parts["policies"]
            name = arm or next(iter(arms))
            if name not in arms:
                raise UsageError(f"{path} holds the policies {', '.join(arms)}, not {name}")
            return cls.of_state(arms[name], device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"checkpoint {path} is no collective policy: {' '.join(str(error).split())[:200]}"
            ) from error


def find(path: Path) -> Path:
    """The checkpoint file in a run's folder, or `path` itself. DataError naming what makes one."""
    if path.suffix == ".pt" and path.is_file():
        return path
    for folder in (path, path / "collective"):
        for name in ORDER:
            if (file := folder / "checkpoints" / name).exists():
                return file.resolve()
    raise DataError(f"there is no collective policy in {path}: `collective distill` or `collective pipeline` makes one")


def told(code: str, task: Array, count: int) -> Array:
    """(N, C) codes without an encoder: the task's number, one of `count`, or zeros. UsageError for an unknown task."""
    if code == "zero":
        return np.zeros((len(task), CODE_DIM), np.float32)
    if (task < 0).any():
        raise UsageError("a policy that is told task numbers cannot do a task that it was not trained on")
    return np.eye(count, dtype=np.float32)[task]
