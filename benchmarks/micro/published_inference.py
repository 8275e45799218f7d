"""What taskinfer's inference update is measured against: the published one, written plainly, and their common data.

The published update (Bing et al., task inference learnt on a toy and reused) encodes 4,096 windows with a GRU of
5 (2 ds + 1) units, and decodes from each z 199 transitions of the window's episode by nets of 5 (ds + da + L) units:
next states, rewards, families. Adam at 3e-4. Here it is eager torch, without a mixture prior, which costs 1 % there,
and on our compressed features, so that the errors of both are of one scale; that costs it nothing.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlcore.seeding import numpy_generator
from taskinfer import context
from taskinfer.agent import Aimless
from taskinfer.config import InferenceConfig
from taskinfer.context import Episodes
from taskinfer.data import EpisodeRing, draw_batch
from taskinfer.envs.toy import VectorToy
from taskinfer.inference import Inference
from taskinfer.run.rollout import roll
from taskinfer.tasks import make_task_sets, parse_families

WINDOWS, DECODED, WINDOW, LATENT, LR = 4_096, 199, 32, 4, 3e-4
OBS, ACTION, HORIZON, ROUNDS = 2, 1, 200, 5
FAMILIES = parse_families("goal,velocity")
FEATURES = InferenceConfig(window=WINDOW)  # how both see a transition


def make_data(seed: int) -> tuple[EpisodeRing, Episodes]:
    """Aimless episodes as at the start of `toy train`: 5 of each of 80 training tasks; one of each of 40 held out."""
    rings = []
    for tasks, rounds in zip(make_task_sets(FAMILIES, 80, 40, seed), (ROUNDS, 1)):
        ring = EpisodeRing(rounds * len(tasks), HORIZON, OBS, ACTION, numpy_generator(seed, "ring"))
        env = VectorToy("toy1d", tasks, seed, horizon=HORIZON)
        for k in range(rounds):
            rollout = roll(env, None, aimless=Aimless(len(tasks), ACTION, numpy_generator(seed, "aimless", k)).act)
            ring.add(**rollout.fields())
        rings.append(ring)
    held_out = rings[1].sample(200)
    return rings[0], Episodes(*(part.clone() for part in held_out))


class Ours:
    """`taskinfer`'s own model and update; `cfg` may ask for the published shape of a batch."""

    def __init__(self, seed: int, cfg: InferenceConfig | None = None) -> None:
        self.inference = Inference(cfg or InferenceConfig(prior="gauss"), OBS, ACTION, FAMILIES, seed)

    def update(self, ring: EpisodeRing) -> None:
        self.inference.learn(draw_batch(ring, self.inference.cfg))

    @torch.no_grad()
    def decode(self, episodes: Episodes, times: Tensor) -> tuple[Tensor, Tensor]:
        """(E M, H, ds) next states and (E M, H, 1) rewards of whole episodes from the beliefs at times (M,)."""
        z = self.inference.encode(episodes, slow=False).mean[:, times].flatten(0, 1)
        return self.inference.model.decode(*inputs(episodes, len(times)), z)


class Published(nn.Module):
    """The published model and update."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        features, width, joined = 2 * OBS + 1, 5 * (OBS + ACTION + LATENT), OBS + ACTION + LATENT
        self.gru = nn.GRU(features, 5 * features, batch_first=True)
        self.mean, self.log_var = nn.Linear(5 * features, LATENT), nn.Linear(5 * features, LATENT)
        self.state = layers(joined, width, width, OBS)
        self.reward = layers(joined, width, width, width // 2, 1)
        self.family = layers(OBS + LATENT, width, width, width // 2, len(FAMILIES))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LR)

    def encode(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L) each of windows (N, T, F)."""
        last = self.gru(windows)[1][0].relu()
        return self.mean(last), self.log_var(last).clamp(-10.0, 4.0)

    def update(self, ring: EpisodeRing) -> None:
        """4,096 windows, 199 transitions of each one's episode."""
        episodes = ring.sample(WINDOWS)
        times = torch.from_numpy(ring.rng.integers(HORIZON + 1, size=(WINDOWS, 1)))
        mean, log_var = self.encode(windows(episodes, times))
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        every = transitions(episodes)[:, :DECODED]
        s, r, s2 = every[..., :OBS], every[..., OBS : OBS + 1], every[..., OBS + 1 :]
        x = torch.cat((s, episodes.action[:, :DECODED], z[:, None].expand(-1, DECODED, -1)), -1)
        logits = self.family(torch.cat((s[:, 0], z), -1))
        divergence = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1).mean()
        loss = (F.mse_loss(self.state(x), s2) + F.mse_loss(self.reward(x), r)) / 3
        loss = loss + 0.05 * F.cross_entropy(logits, classes(episodes.family)) + 1e-3 * divergence
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def decode(self, episodes: Episodes, times: Tensor) -> tuple[Tensor, Tensor]:
        """As `Ours.decode`."""
        z, _ = self.encode(windows(episodes, times.expand(len(episodes.length), -1)))
        states, actions = inputs(episodes, len(times))
        x = torch.cat((states, actions, z[:, None].expand(-1, states.shape[1], -1)), -1)
        return self.state(x), self.reward(x)


def layers(*sizes: int) -> nn.Sequential:
    """Linear and ReLU in turns."""
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def transitions(episodes: Episodes) -> Tensor:
    """(E, H, 2 ds + 1) of [s, r, s'], compressed: what the published encoder is shown, and what both decode."""
    return context.transition(episodes.obs[:, :-1], episodes.reward, episodes.obs[:, 1:], FEATURES)


def windows(episodes: Episodes, times: Tensor) -> Tensor:
    """(E M, T, 2 ds + 1) of them before times (E, M)."""
    return context.windows(episodes, times, FEATURES)[0].flatten(0, 1)[..., : 2 * OBS + 1]


def classes(family: Tensor) -> Tensor:
    """Families' places among ours."""
    return (family[:, None] == torch.tensor([int(f) for f in FAMILIES])).int().argmax(-1)


def inputs(episodes: Episodes, repeats: int) -> tuple[Tensor, Tensor]:
    """States (E M, H, ds) and actions (E M, H, da), each episode `repeats` times."""
    states = context.symlog(episodes.obs[:, :-1])
    return states.repeat_interleave(repeats, 0), episodes.action.repeat_interleave(repeats, 0)


def error(side: Ours | Published, episodes: Episodes, times: tuple[int, ...] = (20, 40, 80, 160)) -> float:
    """Mean squared error of next states plus that of rewards, compressed, of episodes that were never trained on.

    Each is decoded from the mean of its belief at `times`.
    """
    state, reward = side.decode(episodes, torch.tensor(times))
    true = transitions(episodes).repeat_interleave(len(times), 0)
    wrong = F.mse_loss(state, true[..., OBS + 1 :]) + F.mse_loss(reward, true[..., OBS : OBS + 1])
    return round(float(wrong), 6)
