"""The encoder: as it learns (`EncoderLearner`), and frozen, for whoever needs task codes (`Encoder`).

It learns to tell hidden states, actions and rewards of a window from the rest, twice, with two choices of what is
hidden; and that its two codes of the window agree, where they must differ from the codes of other tasks.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from collective import losses
from collective.config_encoder import EncoderConfig, ModelConfig
from collective.masking import hide
from collective.model import Kind, TrajectoryModel, Windows
from collective.prefixes import Batch
from rlcore import checkpoint
from rlcore.config import from_dict
from rlcore.errors import DataError
from rlcore.provenance import near
from rlcore.seeding import derive, set_torch_state, torch_generator

Array = np.ndarray[Any, Any]
Readout = Literal["cls", "last-state", "mean"]
CHUNK, CHUNK_GPU = 32, 4_096  # windows read at once; on a CPU what they need then stays in the cache
MADE_BY = "`collective train-encoder` makes one"


class Encoder:
    """A frozen encoder: windows in, task codes out. It owns the constants that windows are normalised by.

    Args: tasks: those it was trained on. hides_actions: it learnt without ever seeing an action, and shall not now.
    """

    def __init__(self, model: TrajectoryModel, tasks: tuple[str, ...], hides_actions: bool = False) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tasks, self.hides_actions = tuple(tasks), hides_actions
        self.code_dim, self.length = model.cfg.code_dim, model.cfg.length
        self.fingerprint = fingerprint(model, hides_actions)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.cls.device

    def to(self, device: torch.device | str) -> Encoder:
        """Itself, on that device."""
        self.model.to(device)
        return self

    def width(self, readout: Readout = "cls") -> int:
        """Numbers in what `codes` gives for that readout."""
        return self.code_dim if readout == "cls" else self.model.cfg.width

    @torch.no_grad()
    def codes(self, states: Array, actions: Array, rewards: Array, lengths: Array, readout: Readout = "cls") -> Array:
        """(B, 6) float32 codes of windows: states (B, T, 21), actions (B, T-1, 4), rewards (B, T-1) raw, lengths (B,).

        Windows are right-aligned, T <= 20. A window's code depends on nothing outside it; those of like length are
        read together. readout: in place of the code, the output at the last state, or the mean over all steps' tokens.
        """
        assert states.shape[1] <= self.length, (states.shape, self.length)
        found = np.empty((len(states), self.width(readout)), np.float32)
        same = not len(lengths) or bool((lengths == lengths[0]).all())
        order = slice(None) if same else np.argsort(lengths, kind="stable")
        arrays = states[order], actions[order], rewards[order], np.asarray(lengths)[order]
        size = CHUNK if self.device.type == "cpu" else CHUNK_GPU
        parts = []
        for begin in range(0, len(states), size):
            chunk = [array[begin : begin + size] for array in arrays]
            parts.append(self._read(self._windows(*chunk), chunk[3], readout).cpu().numpy())
        if parts:
            found[order] = np.concatenate(parts)
        return found

    def _windows(self, states: Array, actions: Array, rewards: Array, lengths: Array) -> Windows:
        """Normalised, on the device, with no more room than the longest needs."""
        longest = int(lengths.max())
        cut = states.shape[1] - longest
        moved = self._put(actions[:, cut:])
        counts = torch.from_numpy(np.asarray(lengths, np.int64)).to(self.device)
        windows = Windows(
            self._put(states[:, cut:]), torch.zeros_like(moved) if self.hides_actions else moved,
            self._put(rewards[:, cut:, None]), counts,
        )  # fmt: skip
        return self.model.normalized(windows)

    def _put(self, value: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(value, np.float32)).to(self.device)

    def _read(self, windows: Windows, lengths: Array, readout: Readout) -> Tensor:
        if readout == "cls":
            return self.model.code(windows, alike=bool((lengths == lengths[0]).all()))
        out = self.model.outputs(windows)
        if readout == "last-state":
            return out[:, -2]  # CLS is the last token
        step = windows.valid.repeat_interleave(3, 1)[:, :-2, None]  # a state, its action and its reward share it
        return (out[:, :-1] * step).sum(1) / step.sum(1)

    def state_dict(self) -> dict[str, Any]:
        """What `from_state` makes it of; plain types and tensors."""
        return _state(self.model, self.tasks, self.hides_actions)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], where: str = "an encoder's state") -> Encoder:
        """An encoder on the CPU. DataError where the state is of something else."""
        try:
            cfg = from_dict(ModelConfig, state["model"], where)
            state_dim, action_dim = state["dims"]
            with torch.random.fork_rng(devices=[]):  # first weights are drawn, and replaced: nobody is to notice
                model = TrajectoryModel(cfg, state["kind"], state_dim, action_dim, int(state["classes"]))
            model.load_state_dict(state["weights"])
            return cls(model, tuple(state["tasks"]), bool(state["hides_actions"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{where} holds no encoder: {' '.join(str(error).split())[:200]}") from error

    @classmethod
    def load(cls, path: Path | str) -> Encoder:
        """The encoder of a run of `collective train-encoder` (its best checkpoint), or of a checkpoint file.

        Raises: DataError where there is none, where the file is damaged or of something else.
        """
        file = find(Path(path))
        part = checkpoint.load(file)["parts"].get("agent", {})
        if "encoder" not in part:
            raise DataError(f"{file} holds no encoder; {MADE_BY}")
        return cls.from_state(part["encoder"], str(file))


def find(path: Path) -> Path:
    """The checkpoint file meant by a run's folder or a file. DataError that names what makes one."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"there is no encoder {path}{near(path)}; {MADE_BY}")
    folder = path / "checkpoints"
    if not any((folder / name).exists() for name in ("best.pt", "final.pt", "last.pt")):
        raise DataError(f"{path} holds no trained encoder; {MADE_BY}")
    return checkpoint.Checkpoints(folder).find("best.pt", "final.pt", "last.pt")


def fingerprint(model: TrajectoryModel, hides_actions: bool = False) -> str:
    """16 hex digits that change with any weight, any constant of normalisation, and what windows mean to the model."""
    digest = hashlib.sha256(f"{model.kind} {model.cfg} {model.dims} {hides_actions}".encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _both(one: Tensor, other: Tensor) -> Tensor:
    """(B, ...) twice -> (2 B, ...): the two views of a window follow each other."""
    return torch.stack((one, other), 1).flatten(0, 1)


def _state(model: TrajectoryModel, tasks: tuple[str, ...], hides_actions: bool) -> dict[str, Any]:
    classes = 0 if model.class_head is None else model.class_head.out_features
    return {
        "model": dataclasses.asdict(model.cfg), "kind": model.kind, "dims": list(model.dims[:2]), "classes": classes,
        "tasks": list(tasks), "hides_actions": hides_actions, "weights": model.state_dict(),
    }  # fmt: skip


class EncoderLearner:
    """Network, optimiser and noise of an encoder that learns.

    Args:
        facts: what a checkpoint must agree on: state_dim, action_dim, tasks, digest of the data, ...
        states: (N, S) of the training trajectories: what is normalised by. seed: decides first weights and noise.
    """

    def __init__(
        self, cfg: EncoderConfig, facts: Mapping[str, Any], states: Array, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        self.cfg, self.facts, self.device = cfg, dict(facts), torch.device(device)
        self.tasks: tuple[str, ...] = tuple(facts["tasks"])
        kind: Kind = cfg.encoder
        classes = len(self.tasks) if cfg.objective == "classify" else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "encoder weights"))
            self.model = TrajectoryModel(cfg.model, kind, facts["state_dim"], facts["action_dim"], classes)
        self.model.normalize_by(torch.from_numpy(np.ascontiguousarray(states)))
        self.model.to(self.device)
        self.noise = torch_generator(seed, "encoder noise", device=str(self.device))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=cfg.lr, fused=True)
        self.updates = 0

    # --- learning -----------------------------------------------------------------------------------------------------
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step; the parts of the loss, as tensors."""
        loss, parts = self.loss(batch, self.noise, learning=True)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        length = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.clip, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.cfg.lr * self.rate()
        self.optimizer.step()
        self.updates += 1
        return {**{name: value.detach() for name, value in parts.items()}, "gradient_length": length}

    def rate(self) -> float:
        """Share of the step size in this update: it rises while warming up and falls to `lr_end` at the last one."""
        cfg = self.cfg
        left = max(0.0, 1.0 - self.updates / cfg.updates)
        return min(1.0, (self.updates + 1) / (cfg.warmup_updates + 1)) * (cfg.lr_end + (1.0 - cfg.lr_end) * left)

    def loss(self, batch: Batch, rng: torch.Generator, learning: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts, each (). rng decides what is hidden, and dropped, which is while learning only."""
        cfg, windows = self.cfg, self.model.normalized(batch.windows)
        seen = self._without_actions(windows, rng if learning else None)
        valid = windows.valid, windows.valid_between, windows.valid_between
        views = [[hide(x, there, cfg.mask, rng) for x, there in zip(seen[:3], valid)] for _ in range(2)]
        states, actions, rewards = (_both(a.values, b.values) for a, b in zip(*views))
        groups = tuple(group._replace(size=2 * group.size) for group in windows.groups)
        twice = Windows(states, actions, rewards, windows.lengths.repeat_interleave(2), groups)
        read = self.model(twice, rng if learning else None)
        errors = [
            losses.masked_mse(told, true.repeat_interleave(2, 0), _both(a.chosen, b.chosen))
            for told, true, a, b in zip(read[:3], windows[:3], *views)
        ]
        weights = cfg.loss.state, cfg.loss.action, cfg.loss.reward
        reconstruction = sum((w * error for w, error in zip(weights, errors)), torch.zeros((), device=self.device))
        name, apart = self._telling_apart(read.code, batch)
        parts = dict(zip(("state", "action", "reward"), errors))
        total = reconstruction + cfg.loss.contrast * apart
        return total, {"loss": total, "reconstruction": reconstruction, **parts, name: apart}

    def _telling_apart(self, code: Tensor, batch: Batch) -> tuple[str, Tensor]:
        """What keeps codes of tasks apart, of codes (2 B, C): the contrast, or the cross-entropy of the tasks."""
        if self.model.class_head is not None:  # logits: cross-entropy takes the softmax itself
            return "cross_entropy", F.cross_entropy(self.model.class_head(code), batch.task.repeat_interleave(2))
        own = torch.arange(len(batch.task), device=self.device)
        labels = {"task": batch.task, "arm": batch.arm, "none": own}[self.cfg.contrast_by]
        one, other = code.view(len(batch.task), 2, -1).unbind(1)
        return "contrast", losses.info_nce(one, other, labels, self.cfg.loss.temperature)

    def _without_actions(self, windows: Windows, rng: torch.Generator | None) -> Windows:
        """With the actions of some windows hidden; all of them, always, where the code is never to know of actions."""
        share = self.cfg.action_dropout
        if share == 1.0:
            return windows._replace(actions=torch.zeros_like(windows.actions))
        if rng is None or not share:
            return windows
        blind = torch.rand(len(windows.actions), generator=rng, device=self.device) < share
        return windows._replace(actions=windows.actions.masked_fill(blind[:, None, None], 0.0))

    # --- saving -------------------------------------------------------------------------------------------------------
    def encoder(self) -> Encoder:
        """The encoder as it is now; it does not learn on."""
        return Encoder.from_state(self._encoder_state()).to(self.device)

    def _encoder_state(self) -> dict[str, Any]:
        return _state(self.model, self.tasks, self.cfg.action_dropout == 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future, and all that `Encoder` needs."""
        return {
            "facts": dict(self.facts), "encoder": self._encoder_state(), "optimizer": self.optimizer.state_dict(),
            "noise": self.noise.get_state(), "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. DataError where it learnt from other data."""
        for name, here in self.facts.items():
            if (there := state["facts"].get(name)) != here:
                raise DataError(f"encoder: {name} is {here} in these data and {there} in the checkpoint")
        self.model.load_state_dict(state["encoder"]["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_torch_state(self.noise, state["noise"])
        self.updates = int(state["updates"])
