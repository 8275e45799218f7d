"""Students: what a teacher tells them, what they are paid for it, and what they remember.

The teacher's advice and the bonus for acting like him are computed once, when a transition is stored; their weights
belong to the time at which the transition is learnt from: what counts less now does so in the whole memory.
`N` envs, `A` action dimensions. The teacher watches the student's own last steps, whoever chose the actions in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from collective.config import ACTION_DIM, OBS_DIM
from collective.config_student import StudentConfig
from collective.envs import script_actions
from collective.losses import LOG_STD_SCRIPTED, potential_bonus, shaping_bonus, shaping_weight
from collective.windows import Rolling
from rlcore.buffer import Field, ReplayBuffer
from rlcore.errors import DataError, UsageError
from rlcore.provenance import near
from rlcore.seeding import numpy_state, set_numpy_state
from rlcore.vecenv import VecStep

if TYPE_CHECKING:
    from collective.agent import Collective

Array = np.ndarray[Any, Any]


class Teacher(Protocol):
    """Knows what to do in the running episodes of N envs."""

    fingerprint: str  # of what it knows

    def begin(self, obs: Array, where: Array | None = None) -> None: ...  # episodes begin, all or where (N,) bool
    def advance(self, action: Array, reward: Array, obs: Array) -> None: ...  # one step within all of them
    def advise(self) -> tuple[Array, Array]: ...  # mean (N, A) in [-1, 1], log_std (N, A)
    def value(self) -> Array: ...  # (N,) what it thinks the present states are worth
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Script:
    """A teacher that follows a hand-written script: sigma is what `losses` lends it."""

    fingerprint = "scripted"

    def __init__(self, task: str, num_envs: int) -> None:
        self.task, self.obs = task, np.zeros((num_envs, OBS_DIM), np.float32)
        self._rows = np.zeros(num_envs, np.int64)
        self._log_std = np.full((num_envs, ACTION_DIM), LOG_STD_SCRIPTED, np.float32)
        self._mean: Array | None = None

    def begin(self, obs: Array, where: Array | None = None) -> None:
        chosen = slice(None) if where is None else where
        self.obs[chosen] = obs[chosen]
        self._mean = None

    def advance(self, action: Array, reward: Array, obs: Array) -> None:
        self.obs[:] = obs
        self._mean = None

    def advise(self) -> tuple[Array, Array]:
        if self._mean is None:
            self._mean = script_actions((self.task,), self._rows, self.obs)
        return self._mean, self._log_std

    def value(self) -> Array:
        raise UsageError("shaping potential: a script has no critics; use --shaping bonus, or a distilled teacher")

    def state_dict(self) -> dict[str, Any]:
        return {"obs": self.obs.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.obs[:] = np.asarray(state["obs"])
        self._mean = None


class View:
    """What a collective network sees of N running episodes: [code, state], with one encoder forward a step.

    UsageError where the network goes by the number of a task that it has none for.
    """

    def __init__(self, network: Collective, task: str, num_envs: int) -> None:
        self.number = number_of(network, task)
        self.network, self.rolling = network, Rolling(num_envs)
        self.task = np.full(num_envs, self.number)
        self.obs = np.zeros((num_envs, OBS_DIM), np.float32)
        self._inputs: Array | None = None

    def begin(self, obs: Array, where: Array | None = None) -> None:
        """First observations (N, 39) of episodes, of all or `where` (N,) bool."""
        chosen = slice(None) if where is None else where
        self.obs[chosen] = obs[chosen]
        self.rolling.begin(obs, where)
        self._inputs = None

    def advance(self, action: Array, reward: Array, obs: Array) -> None:
        """One step within all episodes, also where `obs` is their last observation."""
        self.obs[:] = obs
        self.rolling.advance(action, reward, obs)
        self._inputs = None

    def inputs(self) -> Array:
        """(N, C + 21) float32, computed once a step however often it is asked for."""
        if self._inputs is None:
            self._inputs = self.network.inputs(self.obs, self.rolling, self.task)
        return self._inputs

    def state_dict(self) -> dict[str, Any]:
        return {"obs": self.obs.copy(), "rolling": self.rolling.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.obs[:] = np.asarray(state["obs"])
        self.rolling.load_state_dict(state["rolling"])
        self._inputs = None


class Learnt(View):
    """A teacher that is a collective network. About a task that it does not know it is asked all the same."""

    def __init__(self, network: Collective, task: str, num_envs: int) -> None:
        super().__init__(network, task, num_envs)
        self.fingerprint = fingerprint(network)
        self._advice: tuple[Array, tuple[Array, Array]] | None = None  # and the inputs that it was given for

    def advise(self) -> tuple[Array, Array]:
        inputs = self.inputs()
        if self._advice is None or self._advice[0] is not inputs:
            self._advice = inputs, self.network.proposal(inputs)
        return self._advice[1]

    def value(self) -> Array:
        return self.network.value(self.inputs())


def open_network(name: str, device: str | torch.device) -> Collective:
    """The collective network of that run. DataError where there is none: random weights never take its place."""
    from collective.agent import Collective

    if not Path(name).exists():
        raise DataError(f"there is no collective network {name}{near(Path(name))}: make one with `collective distill`")
    network = Collective.load(Path(name), device=device)
    if network.encoder:
        network.encoder.to(device)
    return network


def number_of(network: Collective, task: str) -> int:
    """What the network calls the task, -1 where it does not know it. UsageError where it must."""
    number = int(network.numbers([task])[0])
    if number < 0 and network.code == "task-id":
        known = ", ".join(network.tasks)
        raise UsageError(f"{task} is none of the network's tasks ({known}): use one that is told codes (cls)")
    return number


def fingerprint(network: Collective) -> str:
    """Of the networks that act and judge, and of the encoder: 16 hexadecimal digits."""
    digest = hashlib.sha256((network.encoder.fingerprint if network.encoder else network.code).encode())
    for name in ("actor", "critic"):
        digest.update(network.sac.tensors()[name].detach().cpu().numpy().tobytes())
    for constants in (network.shift, network.scale):
        digest.update(constants.tobytes())
    return digest.hexdigest()[:16]


class Guide:
    """What a teacher does for a student: he pays for actions like his own, advises, may act himself. All of it
    fades, but for the share of the advice that is to be kept.

    Args:
        teacher: None for a student who is on its own.
        rng: tosses who acts.
    """

    def __init__(self, cfg: StudentConfig, teacher: Teacher | None, num_envs: int, rng: np.random.Generator) -> None:
        self.cfg, self.teacher, self.rng = cfg, teacher, rng
        self.leads = np.zeros(num_envs, bool)  # where the teacher acts for this whole episode
        self.acted = np.zeros(num_envs, bool)  # where he has acted in the last step

    def weight(self, step: int) -> float:
        """w(t): what a bonus of 1 is worth in reward after `step` env steps."""
        return self._fading(step, self.cfg.bonus_scale) if self.cfg.shaping != "none" else 0.0

    def cloning(self, step: int) -> float:
        """c(t): what imitating the teacher counts beside the critics' values; never less than `clone_kept`."""
        return max(self._fading(step, self.cfg.clone), self.cfg.clone_kept) if self.teacher else 0.0

    def share(self, step: int) -> float:
        """p(t): probability that the teacher acts."""
        return self._fading(step, self.cfg.mix)

    def _fading(self, step: int, start: float) -> float:
        if self.teacher is None:
            return 0.0
        return shaping_weight(step, self.cfg.warmup, self.cfg.constant, self.cfg.expire, start)

    def asked(self, step: int) -> bool:
        """Whether the teacher is still needed: once he is not, he never will be again."""
        return self.weight(step) > 0 or self.share(step) > 0 or self.advises(step)

    def advises(self, step: int) -> bool:
        """Whether he is asked what he would do, for imitation: what he said may count for longer than that."""
        return self._fading(step, self.cfg.clone) > 0

    def begin(self, obs: Array, step: int, where: Array | None = None) -> None:
        """Episodes begin, all or `where`."""
        if self.teacher is None or not self.asked(step):
            return
        self.teacher.begin(obs, where)
        if self.cfg.mix_by == "episode" and self.share(step) > 0:
            tossed = self.rng.random(len(self.leads)) < self.share(step)
            self.leads = tossed if where is None else np.where(where, tossed, self.leads)

    def act(self, action: Array, step: int) -> Array:
        """The actions to execute, (N, A): the student's, or the teacher's where it is his turn."""
        share = self.share(step)
        if self.teacher is None or share <= 0:
            self.acted[:] = False
            return action
        self.acted = self.leads.copy() if self.cfg.mix_by == "episode" else self.rng.random(len(action)) < share
        if not self.acted.any():
            return action
        return np.where(self.acted[:, None], self.teacher.advise()[0], action)

    def advice(self, step: int) -> Array:
        """What the teacher would do now, (N, A); NaN once he is not asked for that any more."""
        if self.teacher is None or not self.advises(step):
            return np.full((len(self.leads), ACTION_DIM), np.nan, np.float32)
        return self.teacher.advise()[0]

    def pay(self, action: Array, moved: VecStep, after: Array, step: int) -> Array:
        """The bonus (N,) of the step that began after `step` env steps; the teacher follows the episodes.

        Args: action (N, A) as executed; after (N, 39): where it led, also where an episode ended.
        """
        teacher, shaping, later = self.teacher, self.cfg.shaping, step + len(action)
        bonus = np.zeros(len(action), np.float32)
        if teacher is None or not self.asked(step):
            return bonus
        paid = self.weight(step) > 0
        if paid and shaping == "bonus":
            bonus = shaping_bonus(action, *teacher.advise(), self.cfg.sigma_min, self.cfg.sigma_max)
        worth = teacher.value() if paid and shaping == "potential" else None
        teacher.advance(action, moved.reward, after)
        if worth is not None:
            bonus = potential_bonus(worth, teacher.value(), self.cfg.gamma, moved.terminated)
        if (done := moved.terminated | moved.truncated).any():
            self.begin(moved.obs, later, done)
        return bonus

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes what the teacher will do."""
        teacher = self.teacher and {"fingerprint": self.teacher.fingerprint, "memory": self.teacher.state_dict()}
        return {"rng": numpy_state(self.rng), "leads": self.leads.copy(), "teacher": teacher or None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. UsageError where another teacher gave it, before anything is changed."""
        was, now = state["teacher"] and state["teacher"]["fingerprint"], self.teacher and self.teacher.fingerprint
        if was != now:
            raise UsageError(f"the teacher is another ({was or 'none'} -> {now or 'none'}): use another --name")
        set_numpy_state(self.rng, state["rng"])
        self.leads = np.asarray(state["leads"]).copy()
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"]["memory"])


class Experience:
    """The newest `capacity` transitions, each with its bonus.

    Args:
        dim: numbers of what the student sees; it is stored of both ends of a transition.
        advised: whether a transition also holds what the teacher would have done.
        rng: draws the batches; its state is saved with the data.
    """

    def __init__(
        self, capacity: int, num_envs: int, dim: int, gamma: float, rng: np.random.Generator,
        device: str | torch.device = "cpu", advised: bool = False,
    ) -> None:  # fmt: skip
        self.gamma, wide, one = gamma, Field((dim,)), Field()
        fields = {"obs": wide, "next_obs": wide, "action": Field((ACTION_DIM,)), "reward": one, "bonus": one}
        fields |= {"terminated": Field((), "bool")} | ({"advice": Field((ACTION_DIM,))} if advised else {})
        self.buffer = ReplayBuffer(fields, capacity, num_envs, device=device, rng=rng)

    def __len__(self) -> int:
        return len(self.buffer)

    def add(self, obs: Array, action: Array, moved: VecStep, bonus: Array, next_obs: Array, **more: Array) -> None:
        """Store one step of all envs: obs, next_obs (N, D), action (N, A), bonus (N,). A cut episode goes on.

        more: advice (N, A), where it was said that there is.
        """
        self.buffer.add(
            obs=obs, action=action, reward=moved.reward, bonus=bonus, next_obs=next_obs, terminated=moved.terminated,
            **more,
        )  # fmt: skip

    def sample(self, batch: int, weight: float) -> dict[str, Tensor]:
        """`batch` transitions, uniformly, whose bonus is worth `weight` now; valid until the next call."""
        rows = self.buffer.sample(batch)
        rows["reward"] = rows["reward"] + weight * rows.pop("bonus")
        rows["discount"] = self.gamma * (~rows.pop("terminated")).float()
        return rows

    def save(self, folder: Path) -> dict[str, Any]:
        """Append what is new to files in `folder`; returns the cursor for `load`."""
        return self.buffer.save(folder)

    def load(self, folder: Path, cursor: Mapping[str, Any]) -> None:
        """Put back what `save` described. DataError where files are damaged or belong to another configuration."""
        self.buffer.load(folder, cursor)

    def prune(self, folder: Path, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete the files that no cursor in `keep` needs."""
        self.buffer.prune(folder, keep)
