"""`gasp viz inference`: what the encoder and the skill prior make of single windows."""

from __future__ import annotations

import torch

from gasp.analysis import latent_map as views
from gasp.config_views import VizInferenceConfig
from gasp.run.saved import load_skills
from gasp.run.skills_eval import demonstrations
from gasp.run.viz_latent import encode
from gasp.score import sample_latent
from gasp.windows import evenly
from rlcore.files import explained
from rlcore.plots import save
from rlcore.seeding import torch_generator

CLOUD = 2_000  # skills of the latent prior drawn under the windows'


@torch.no_grad()
def draw(cfg: VizInferenceConfig) -> int:
    """Write plots/inference_windows.png and plots/inference_means.png, of windows that training held out."""
    skills = load_skills(cfg.run, cfg.checkpoint)
    _, held_out = demonstrations(skills, cfg)
    starts = evenly(held_out, skills.cfg.model.horizon, cfg.n)
    rng = torch_generator(cfg.seed, "viz inference")
    mean, log_std = encode(skills, held_out, starts)
    noise = torch.randn(len(starts), cfg.samples, mean.shape[1], generator=rng)
    drawn = (mean[:, None] + log_std.exp()[:, None] * noise).numpy()  # (n, S, Z)
    guessed = skills.model.prior(torch.from_numpy(held_out.obs[starts]))[0].numpy()
    cloud = sample_latent(skills.prior, CLOUD, rng)[0].numpy()
    projection = views.pca(cloud)
    names = views.axis_names(projection, "pca")
    centroids = skills.prior.means.numpy()
    first = views.draw_inference(projection(cloud), [projection(row) for row in drawn], names)
    places = [projection(points) for points in (cloud, mean.numpy(), guessed, centroids)]
    second = views.draw_means(places[0], places[1], places[2], places[3], names)
    with explained(cfg.run):
        for name, figure in (("windows", first), ("means", second)):
            path = cfg.run / "plots" / f"inference_{name}.png"
            save(figure, path)
            print(path)
    return 0
