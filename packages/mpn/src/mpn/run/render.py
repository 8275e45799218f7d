"""`mpn render`: one greedy episode as a film, the environment on the left, its memory on the right."""

from __future__ import annotations

from mpn.analysis.film import compose
from mpn.analysis.rollout import record_episode
from mpn.config import RenderConfig
from mpn.run.saved import check_fits, open_run
from rlcore import video
from rlcore.seeding import derive


def render(cfg: RenderConfig) -> int:
    """Play an episode once, keep every step of it, then draw: so the colour scale is that of this very episode."""
    saved = open_run(cfg, cfg.checkpoint)
    limit = cfg.max_episode_steps or saved.cfg.max_episode_steps
    seed = derive(cfg.seed_base, "evaluation")
    episode = record_episode(saved.net, saved.cfg.env, seed, limit, lambda envs: check_fits(saved, envs))
    output = cfg.output or saved.folder / "videos" / f"episode_{cfg.seed_base}.gif"
    video.write(output, compose(episode, saved.cfg.env), fps=cfg.fps)
    print(f"{output}: return {sum(episode.rewards):.2f} in {len(episode.rewards)} steps, {saved.checkpoint.name}")
    return 0
