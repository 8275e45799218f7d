"""`gasp viz skills`: what each component of a skill run's mixture does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gasp.analysis import browse, motion
from gasp.analysis.figures import Array
from gasp.config_views import VizSkillsConfig
from gasp.data import Demos
from gasp.kitchen_obs import SUBTASKS
from gasp.run.saved import Skills, load_skills
from gasp.run.skills_eval import demonstrations
from gasp.run.viz_latent import components_of, encode
from gasp.windows import evenly
from rlcore.errors import UsageError
from rlcore.files import explained, write_json
from rlcore.plots import save

SHOWN = 25  # windows of a component drawn in the plane
STARTS = 6  # cells that it is played from
PLAYED = 4  # times H that its mean is played for


def show(cfg: VizSkillsConfig) -> int:
    """Print a table of the components; write plots/skills.png and analysis/skills.json."""
    skills = load_skills(cfg.run, cfg.checkpoint)
    if skills.mixture is None:
        raise UsageError(f"{cfg.run} has no components to show: its latent prior is N(0, I), or was not fitted yet")
    in_kitchen = skills.facts["task"].startswith("kitchen")
    if in_kitchen and cfg.rollouts is not None:
        raise UsageError("rollouts: only in mazes are components played; in a kitchen their windows are shown")
    known, _ = demonstrations(skills, cfg)
    horizon, weights = skills.cfg.model.horizon, skills.mixture.weights.numpy()
    starts = evenly(known, horizon, cfg.windows)
    component = components_of(skills, encode(skills, known, starts)[0])
    names = [str(name) for name in known.meta.get("labels", [])]
    table = browse.counts(component, known.label[starts + horizon // 2], len(weights), max(len(names), 1))
    information, share, told = browse.mutual_information(table)
    print(*browse.lines(weights, component, table, names, told), sep="\n")
    if names:
        print(f"components tell {information:.2f} nats of the subtask, {share:.0%} of its entropy")
    if in_kitchen:
        figure = motion.draw_tables(kitchen_tables(skills, known, starts, component, table, names), weights)
    else:
        figure = plane(skills, known, starts, component, weights, cfg.rollouts or STARTS)
    result = {"mutual_information_nats": information, "share_of_label_entropy": share, "windows": len(starts)}
    with explained(cfg.run):
        rows = browse.record(weights, component, table, names, told)
        write_json(cfg.run / "analysis" / "skills.json", {**result, "components": rows})
        save(figure, cfg.run / "plots" / "skills.png")
    print(cfg.run / "plots" / "skills.png")
    return 0


def kitchen_tables(
    skills: Skills, known: Demos, starts: Array, component: Array, table: Array, names: list[str]
) -> list[tuple[str, list[str], Array, str]]:
    """At which subtasks a component is at work, what comes nearer to its goal, and how its mean moves the robot."""
    count = len(table)
    obs, _ = known.gather(starts, skills.cfg.model.horizon)
    nearer = browse.by_component(browse.progress(obs, skills.facts["obs_mode"]), component, count)
    means = skills.prior.means[torch.from_numpy(component)]
    pushed = browse.by_component(act(skills, torch.from_numpy(obs[:, 0]), means).numpy(), component, count)
    tables: list[tuple[str, list[str], Array, str]] = []
    if names:
        used = table.sum(0) > 0
        share = table[:, used] / np.maximum(table[:, used].sum(1, keepdims=True), 1)
        tables.append(("subtask at work", [n for n, u in zip(names, used) if u], share, "share of windows"))
    joints = [f"joint {i + 1}" for i in range(7)] + ["finger 1", "finger 2"]
    return [
        *tables, ("came nearer to its goal", list(SUBTASKS), nearer, "distance in a window"),
        ("its mean moves", joints, pushed, "action"),
    ]  # fmt: skip


@torch.no_grad()
def act(skills: Skills, obs: Tensor, z: Tensor) -> Tensor:
    """Actions (N, A) of skills z (N, Z) in states (N, S), cut to what envs take."""
    return skills.model.decode(obs, z).clamp(-1.0, 1.0)


def plane(skills: Skills, known: Demos, starts: Array, component: Array, weights: Array, rollouts: int) -> Any:
    """The figure of `motion.draw_plane`: the mean of each component played from free cells of the task's maze."""
    from gasp import envs

    horizon = skills.cfg.model.horizon
    env: Any = envs.single(skills.facts["task"])
    try:
        grid = env.unwrapped.grid
        cells = grid.cells()
        cells = [cells[i] for i in np.unique(np.linspace(0, len(cells) - 1, rollouts).astype(int))]
        ways = [play(env, skills, k, cells, PLAYED * horizon) for k in range(len(weights))]
    finally:
        env.close()
    windows = []
    for k in range(len(weights)):
        own = starts[component == k]
        own = own[np.linspace(0, len(own) - 1, min(SHOWN, len(own))).astype(int)] if len(own) else own
        windows.append(known.gather(own, horizon)[0][..., :2])
    return motion.draw_plane(grid.free, ways, windows, weights)


def play(env: Any, skills: Skills, k: int, cells: list[Any], steps: int) -> Array:
    """(starts, steps + 1, 2) positions of the point that the mean of component k drives from each cell."""
    found = []
    for i, cell in enumerate(cells):
        obs, _ = env.reset(seed=i, options={"cell": cell})
        way = [obs[:2].copy()]
        for _ in range(steps):
            action = act(skills, torch.from_numpy(np.asarray(obs, np.float32))[None], skills.prior.means[k : k + 1])
            obs, *_ = env.step(action[0].numpy())
            way.append(obs[:2].copy())
        found.append(np.stack(way))
    return np.stack(found)
