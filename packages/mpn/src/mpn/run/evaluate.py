"""`mpn eval`: greedy episodes that training never saw; each line can be repeated from its seed."""

from __future__ import annotations

import json

from mpn.config import EvalConfig
from mpn.envs import make
from mpn.run.saved import Saved, check_fits, open_run
from rlcore.evaluate import EvalResult, evaluate
from rlcore.files import explained, write_json
from rlcore.seeding import derive
from rlcore.vecenv import VecEnv


def evaluate_run(cfg: EvalConfig) -> int:
    """Score the run's policy, print a line an episode, write eval.json."""
    saved = open_run(cfg, cfg.checkpoint, cfg.device)
    limit = cfg.max_episode_steps or saved.cfg.max_episode_steps

    def make_envs(num_envs: int, first_env: int) -> VecEnv:
        # a stream of its own: no training run, whatever its seed, has met these episodes
        seed = derive(cfg.seed_base, "evaluation")
        envs = make(saved.cfg.env, num_envs, seed=seed, first_env=first_env, max_episode_steps=limit)
        check_fits(saved, envs)
        return envs

    result = evaluate(saved.policy, make_envs, cfg.num_eval_episodes)
    report = {
        "env": saved.cfg.env, "core": saved.cfg.core, "checkpoint": saved.checkpoint.name, "step": saved.step,
        "seed_base": cfg.seed_base, **result.as_row(),
        "returns": result.returns.tolist(), "lengths": result.lengths.tolist(),
    }  # fmt: skip
    if cfg.json:
        print(json.dumps(report), flush=True)
    else:
        tell(saved, result)
    with explained(saved.folder):
        write_json(saved.folder / "eval.json", report)
    if not cfg.json:
        print(f"written to {saved.folder / 'eval.json'}")
    return 0


def tell(saved: Saved, result: EvalResult) -> None:
    """Print a line an episode, and what they come to."""
    row = result.as_row()
    print(f"{saved.folder}: {saved.checkpoint.name} of {saved.cfg.core} on {saved.cfg.env}")
    for episode, (score, length) in enumerate(zip(result.returns, result.lengths), 1):
        print(f"  episode {episode:3d}: return {score:8.2f}   length {int(length):5d}")
    spread = f"min {row['return_min']:.2f}   median {row['return_median']:.2f}   max {row['return_max']:.2f}"
    print(f"return {row['return_mean']:.2f} ± {row['return_std']:.2f}   {spread}   length {row['length_mean']:.1f}")
    if row.get("success_rate") is not None:
        print(f"success {row['success_rate']:.1%}")
