"""gasp's skill update beside the published modules' equations run plainly, and what the mixture adds to it.

A kitchen's sizes: 128 windows of 10 steps, states of 60, actions of 9, 10 latent dimensions, layer norms, one thread.
The peer is the one that our tests compare with (packages/gasp/tests/plain_skills.py): the LSTM's cell unrolled in
Python, as published, the decoder step by step, torch's distributions, components one by one, RAdam with a loop over
parameters. Before the clock starts, both sides' losses are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.micro.timing import Row, Side, compare, load_plain, per_call, run
from gasp.config_skills import SkillsConfig
from gasp.skills import SkillLearner
from rlcore.config import from_dict

S, A, Z, H, B, K = 60, 9, 10, 10, 128, 10
DEARER = 1.1  # what the mixture's divergence may cost, as a multiple of an update with N(0, I)


plain = load_plain("gasp", "plain_skills")


def main(argv: Sequence[str] | None = None) -> int:
    torch.set_num_threads(1)
    packages = ("gasp", "rlcore", "rlblocks", "torch", "numpy")
    return run("gasp", "gasp: the skill update", measure, packages, argv)


def measure(repetitions: int) -> Iterator[Row]:
    same_numbers("gaussian")
    same_numbers("dpmm")
    unit, batch = "CPU time an update", random_batch()
    sides: dict[str, tuple[str, Side]] = {}
    for latent_prior, called in (("dpmm", f"mixture of {K}"), ("gaussian", "N(0, I)")):
        ours, peer = make_learner(latent_prior), plain_update(latent_prior, batch)
        sides[latent_prior] = f"gasp, {called}", per_call(lambda ours=ours: ours.update(batch))  # type: ignore[misc]
        yield compare(
            f"skills: an update with {called}", sides[latent_prior],
            (f"published equations step by step, {called}", per_call(peer)), bar=2 if latent_prior == "dpmm" else None,
            unit=unit, repetitions=repetitions,
        )  # fmt: skip
    yield compare(
        "skills: what the mixture adds to an update", sides["dpmm"], sides["gaussian"], bar=round(1 / DEARER, 2),
        unit=unit, repetitions=repetitions,
    )  # fmt: skip


def random_batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(B, H + 1, S, generator=rng), torch.rand(B, H, A, generator=rng) * 2 - 1


def make_learner(latent_prior: str) -> SkillLearner:
    """With a mixture, of K components."""
    prior_loss = "kl" if latent_prior == "dpmm" else "nll"
    cfg = from_dict(
        SkillsConfig, {"latent_prior": latent_prior, "prior_loss": prior_loss, "epochs": 10**6}, "benchmark"
    )
    assert (cfg.model.horizon, cfg.model.latent_dim, cfg.batch) == (H, Z, B)
    made = SkillLearner(cfg, {"obs_dim": S, "action_dim": A}, 2_000, 0)
    if latent_prior == "dpmm":
        rng = torch.Generator().manual_seed(0)
        blobs = 4.0 * torch.eye(Z)[torch.arange(2_000) % K] + 0.3 * torch.randn(2_000, Z, generator=rng)
        assert made.prior.fit(blobs)["components"] == K
    return made


def plain_loss(ours: SkillLearner, model: Any, batch: tuple[Tensor, Tensor], noise: Tensor) -> dict[str, Tensor]:
    """The peer's losses under our mixture."""
    mixture, cfg = ours.prior.mixture, ours.cfg
    components = [] if mixture is None else list(zip(ours.prior.means, ours.prior.variances))
    parts: dict[str, Tensor] = plain.loss(
        model, *batch, noise, beta=cfg.beta, prior_loss=cfg.prior_loss, components=components,
        weights=None if mixture is None else mixture.weights.float(),
    )  # fmt: skip
    return parts


def plain_update(latent_prior: str, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    ours = make_learner(latent_prior)
    model = plain.PlainSkills(ours.model)
    optimizer = torch.optim.RAdam(model.parameters(), lr=1e-3, foreach=False)

    def update() -> None:
        parts = plain_loss(ours, model, batch, torch.randn(B, Z))
        optimizer.zero_grad()
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
        optimizer.step()

    return update


def same_numbers(latent_prior: str) -> None:
    """Both sides' losses from the same weights, windows and noise.

    The peer's shares are of the expected Gaussians, ours of the variational posterior: alike for components that are
    apart, as these are.
    """
    ours, batch, noise = make_learner(latent_prior), random_batch(), torch.randn(B, Z)
    found = ours.loss(batch, noise)[1]
    for name, value in plain_loss(ours, plain.PlainSkills(ours.model), batch, noise).items():
        assert_close(found[name], value, atol=1e-2, rtol=1e-2)


if __name__ == "__main__":
    raise SystemExit(main())
