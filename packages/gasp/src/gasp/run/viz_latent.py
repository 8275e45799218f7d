"""`gasp viz latent`: the mixture over skills beside N(0, I), the distances of its components, how it grew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gasp.analysis import distances, growth
from gasp.analysis import latent_map as views
from gasp.analysis.figures import Array, write_matrix
from gasp.config_views import VizLatentConfig
from gasp.data import Array as Rows
from gasp.data import Demos
from gasp.run.saved import Skills, load_skills
from gasp.run.skills_eval import demonstrations
from gasp.score import sample_latent
from gasp.windows import batches, evenly
from rlcore.files import explained
from rlcore.plots import save
from rlcore.seeding import derive, torch_generator


def draw(cfg: VizLatentConfig) -> int:
    """Write plots/latent_mixture.png, latent_gaussian.png, mixture_growth.png and analysis/distance_*.csv.

    For a run with a Gaussian prior, latent_gaussian.png alone.
    """
    skills = load_skills(cfg.run, cfg.checkpoint)
    known, _ = demonstrations(skills, cfg)
    rng = torch_generator(cfg.seed, "viz latent")
    encoded = encode(skills, known, evenly(known, skills.cfg.model.horizon, cfg.windows))[0].numpy()
    components = components_of(skills, torch.from_numpy(encoded))
    sampled, drawn = (value.numpy() for value in sample_latent(skills.prior, cfg.samples, rng))
    standard = torch.randn(cfg.samples, encoded.shape[1], generator=rng).numpy()
    projection, places = project(cfg.proj, cfg.seed, encoded, sampled, standard)
    names = views.axis_names(projection, cfg.proj)
    windows = views.Cloud(places[0], components)
    written: list[Path] = []
    with explained(cfg.run):
        plots = cfg.run / "plots"
        if (mixture := skills.mixture) is not None:
            means, variances = mixture.means.numpy(), mixture.variances.numpy()
            ellipses = None if projection is None else (projection(means), projection.covariance(variances))
            figure = views.draw_mixture(
                views.Cloud(places[1], drawn), windows, mixture.weights.numpy(), names, ellipses
            )
            save(figure, plots / "latent_mixture.png")
            save(growth.draw(growth.fits_of(cfg.run)), plots / "mixture_growth.png")
            written += [plots / "latent_mixture.png", plots / "mixture_growth.png"]
            written += write_distances(cfg.run / "analysis", means, variances)
            print_components(skills, means, variances)
        save(views.draw_gaussian(places[2], windows, names, frame=places[1]), plots / "latent_gaussian.png")
        written.append(plots / "latent_gaussian.png")
    for path in written:
        print(path)
    return 0


@torch.no_grad()
def encode(skills: Skills, demos: Demos, starts: Rows) -> tuple[Tensor, Tensor]:
    """Means and log stds (N, Z) of q(z|s,a) of the windows from `starts`."""
    pairs = [skills.model.encode(*batch) for batch in batches(demos, starts, skills.cfg.model.horizon)]
    means, log_stds = zip(*pairs)
    return torch.cat(means), torch.cat(log_stds)


def components_of(skills: Skills, z: Tensor) -> Array:
    """(N,) the component of each skill (N, Z); all 0 for N(0, I)."""
    if skills.mixture is None:
        return np.zeros(len(z), np.int64)
    return np.asarray(skills.mixture.predict(z.double()).numpy()).astype(np.int64)


def project(method: str, seed: int, *clouds: Array) -> tuple[views.Projection | None, list[Array]]:
    """Clouds (N_i, Z) in one plane; the projection, where it is a linear one. It is that of the first cloud."""
    if method != "pca":
        return None, views.embed(method, clouds, derive(seed, method))
    projection = views.pca(clouds[0])
    return projection, [projection(cloud) for cloud in clouds]


def write_distances(folder: Path, means: Array, variances: Array) -> list[Path]:
    """analysis/distance_euclidean.csv and distance_bhattacharyya.csv; diagonals are distances to N(0, I)."""
    names = [str(k) for k in range(len(means))]
    paths = [folder / f"distance_{name}.csv" for name in ("euclidean", "bhattacharyya")]
    for path, matrix in zip(paths, (distances.euclidean(means), distances.bhattacharyya(means, variances))):
        write_matrix(path, matrix, names)
    return paths


def print_components(skills: Skills, means: Array, variances: Array) -> None:
    """One line a component."""
    assert skills.mixture is not None
    overlap = distances.bhattacharyya(means, variances)
    apart = np.where(np.eye(len(means), dtype=bool), np.inf, overlap)
    print(f"{'k':>3} {'weight':>7} {'|mean|':>7} {'std':>6} {'to N(0, I)':>10} {'nearest (Bhattacharyya)':>24}")
    for k, weight in enumerate(skills.mixture.weights.numpy()):
        near = f"{apart[k].min():.2f} to {apart[k].argmin()}" if len(means) > 1 else "-"
        size, std = np.linalg.norm(means[k]), float(np.sqrt(variances[k]).mean())
        print(f"{k:>3} {weight:>7.1%} {size:>7.2f} {std:>6.2f} {overlap[k, k]:>10.2f} {near:>24}")
