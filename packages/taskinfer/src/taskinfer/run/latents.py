"""`taskinfer plot latent`: play every task of a toy run once, and draw what was believed."""

from __future__ import annotations

import numpy as np
import torch

from rlcore.errors import UsageError
from rlcore.files import explained
from rlcore.seeding import derive
from taskinfer.analysis import latents as views
from taskinfer.analysis.figures import formats_of, save_all
from taskinfer.analysis.latents import Latents, Mixture
from taskinfer.config_use import PlotLatentConfig
from taskinfer.context import Episodes
from taskinfer.envs.toy import VectorToy
from taskinfer.run.rollout import roll
from taskinfer.run.saved import SavedToy, held_out_tasks, open_toy, training_tasks
from taskinfer.tasks import Tasks


def plot_latent(cfg: PlotLatentConfig) -> int:
    """Write plots/latent_pca.png, latent_tsne.png and analysis/latents/: latents.npz, vectors.tsv, metadata.tsv."""
    formats = formats_of(cfg.format)
    saved = open_toy(cfg.run, cfg.checkpoint)
    if saved.cfg.arm != "inferred":
        raise UsageError(f"{cfg.run} has no beliefs: its arm is {saved.cfg.arm}, not inferred")
    latents, mixture = beliefs(saved, cfg.times, cfg.seed_base)
    projection = views.pca(latents.mean, cfg.dims)
    flat = projection(latents.mean)
    ellipses = None
    if cfg.dims == 2 and len(mixture.means):
        used = np.bincount(latents.component, minlength=len(mixture.means)) >= 0.01 * len(latents.component)
        covariances = np.einsum("ld,kl,le->kde", projection.axes, mixture.variances[used], projection.axes)
        ellipses = projection(mixture.means[used]), covariances
    names = tuple(f"PC {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(projection.share))
    figures, places = {"pca": views.draw(latents, flat, names, ellipses)}, {"pca": flat}
    if cfg.tsne and (found := views.tsne(latents.mean, cfg.dims, cfg.seed_base)) is not None:
        figures["tsne"] = views.draw(latents, found, ("t-SNE 1", "t-SNE 2", "t-SNE 3")[: cfg.dims])
        places["tsne"] = found
    elif cfg.tsne:
        print("t-SNE left out: it needs scikit-learn (pip install scikit-learn) and at least 5 points")
    with explained(saved.folder):
        folder = saved.folder / "analysis" / "latents"
        folder.mkdir(parents=True, exist_ok=True)
        views.write_npz(folder / "latents.npz", latents, mixture, **places)
        written = [folder / "latents.npz", *views.write_projector(folder, latents)]
        for name, figure in figures.items():
            written += save_all(figure, saved.folder / "plots" / f"latent_{name}", formats)
    for path in written:
        print(path)
    return 0


def beliefs(saved: SavedToy, times: int, seed_base: int) -> tuple[Latents, Mixture]:
    """Beliefs at `times` evenly spaced steps of one deterministic episode of each task, and the prior's components."""
    cfg, agent = saved.cfg, saved.agent
    known = training_tasks(saved)
    tasks = Tasks.of(known.single() + held_out_tasks(saved).single())
    env = VectorToy(cfg.toy, tasks, derive(seed_base, "latents"), horizon=cfg.horizon, noise_std=cfg.noise_std)
    rollout = roll(env, agent, deterministic=True)
    belief = agent.inference.encode(Episodes(**{k: torch.as_tensor(v) for k, v in rollout.fields().items()}))
    steps = np.unique(np.linspace(0, cfg.horizon, times + 1).round().astype(int)[1:])
    mean, std = (part[:, steps].flatten(0, 1) for part in (belief.mean, belief.std))
    count = len(steps)
    latents = Latents(
        mean.numpy(), std.numpy(), tasks.family.repeat(count), tasks.spec.repeat(count), np.tile(steps, len(tasks)),
        (np.arange(len(tasks)) >= len(known)).repeat(count), agent.inference.prior.assign(mean).numpy(),
        np.tile(steps == cfg.horizon, len(tasks)),
    )  # fmt: skip
    prior = agent.inference.prior
    if not prior.components:
        return latents, Mixture(np.zeros((0, mean.shape[1])), np.zeros((0, mean.shape[1])))
    return latents, Mixture(prior.mixture.means.numpy(), prior.mixture.variances.numpy())
