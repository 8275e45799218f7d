"""`taskinfer eval video`: a transfer's body at its tasks, one after another, with what it is paid and believes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlcore import video
from rlcore.errors import UsageError
from rlcore.seeding import derive
from taskinfer.config_transfer import EvalVideoConfig
from taskinfer.run.subject import asked_of, open_transfer
from taskinfer.tasks import Tasks, parse_tasks
from taskinfer.transfer import Driver

Array = np.ndarray[Any, Any]


def film(cfg: EvalVideoConfig) -> int:
    """Play an episode of each task, then draw. UsageError where a body has no side view and no camera was asked for."""
    from taskinfer.analysis.film import compose

    reused = open_transfer(cfg.run, cfg.checkpoint)
    tasks = asked_of(cfg, cfg.run, reused.stack.inference.families, farthest(parse_tasks(reused.cfg.tasks)))
    driver = Driver(reused.stack, len(tasks), cfg.steps, derive(cfg.seed_base, "video"), render=cfg.view == "camera")
    bodies: list[Any] = driver.bodies.bodies
    if cfg.view == "side" and not hasattr(bodies[0], "side_view"):
        raise UsageError(f"{reused.stack.body} has no side_view: use --view camera")

    def view(body: Any) -> Array:
        return np.asarray(body.render() if cfg.view == "camera" else body.side_view())

    views: list[list[Array]] = []

    last: list[Array] = []  # each body's own last view while it was up: a fallen one has begun anew, unseen

    def watch(step: int, driver: Driver) -> None:
        if step % cfg.every:
            views.append([])
            return
        seen = [last[i] if last and not up else view(body) for i, (body, up) in enumerate(zip(bodies, driver.alive))]
        last[:] = seen
        views.append(seen)

    record = driver.run(reused.high_level(cfg.high_level), lambda t: tasks, watch=watch)
    assert record is not None  # nobody asks for a stop
    seconds = bodies[0].dt * cfg.every
    driver.close()
    output = cfg.output or cfg.run / "videos" / f"{cfg.high_level}.{'gif' if cfg.gif else 'mp4'}"
    frames = compose(record, views, reused.stack.stride, cfg.every)
    video.write(output, frames, fps=cfg.fps or 1.0 / seconds)
    returns = ", ".join(f"{task} {value:.1f}" for task, value in zip(tasks.single(), record.reward.sum(1)))
    print(f"{output}: returns {returns}")
    return 0


def farthest(tasks: Tasks) -> Tasks:
    """Of each family the task that asks for most."""
    best: dict[int, Any] = {}
    for task in tasks.single():
        if task.family not in best or abs(task.spec) > abs(best[task.family].spec):
            best[task.family] = task
    return Tasks.of(list(best.values()))
