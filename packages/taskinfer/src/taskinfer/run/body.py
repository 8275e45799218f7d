"""`taskinfer body check`: can this environment serve as a body, and if not, what is missing?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from rlcore.doctor import Check, report
from rlcore.errors import EnvironmentProblem, UsageError
from taskinfer.config import BodyCheckConfig
from taskinfer.envs.bodies import Body, make_body, missing
from taskinfer.tasks import State


def check_body(cfg: BodyCheckConfig) -> int:
    """Print the findings; exit code 5 when something is missing."""
    try:
        body = make_body(cfg.env)
    except (UsageError, EnvironmentProblem) as error:
        return report(
            [Check("fail", str(error), "see taskinfer.envs.bodies.Body for what a body must offer")], cfg.json
        )
    findings = list(look(body, cfg))
    if hasattr(body, "close"):
        body.close()
    return report(findings, cfg.json)


def look(body: Body, cfg: BodyCheckConfig) -> Iterator[Check]:
    """Findings, from what it has to how it moves; the later ones need the earlier."""
    if lacking := missing(body):
        yield Check("fail", f"{cfg.env} has no {', '.join(lacking)}", "see taskinfer.envs.bodies.Body")
        return
    space = body.action_space
    if not isinstance(space, Box) or not space.is_bounded():
        yield Check("fail", f"its actions are {space}", "a body needs a bounded Box of actions")
        return
    yield Check("ok", f"{body.observation_dim} observations, {space.shape[0]} actions in "
                f"[{space.low.min():g}, {space.high.max():g}], {body.dt:g} s a step")  # fmt: skip
    obs = np.asarray(body.reset(cfg.seed))
    if obs.shape != (body.observation_dim,):
        yield Check("fail", f"reset gave an observation {obs.shape}", f"it must be ({body.observation_dim},)")
        return
    state = body.simple_state()
    if not isinstance(state, State) or any(np.shape(value) != () for value in state):
        yield Check("fail", f"simple_state gave {state!r:.80}", "it must be a taskinfer.tasks.State of numbers")
        return
    yield Check("ok", "x, z, pitch and their velocities are read: " + told(state))
    yield from moves(body, cfg)


def moves(body: Body, cfg: BodyCheckConfig) -> Iterator[Check]:
    """Random steps: finite, velocity the slope of position, the same again from the same seed."""
    first, again = (roll(body, cfg) for _ in range(2))
    if first["bad"] is not None:
        yield Check("fail", f"step {first['bad']} gave numbers that are not finite", "make the simulation stabler")
        return
    yield Check("ok", f"{first['steps']} random steps are finite, x from {first['x'].min():.2f} to "
                f"{first['x'].max():.2f} m")  # fmt: skip
    if first["steps"] < cfg.steps:
        yield Check("warn", f"it fell after {first['steps']} random steps", "it must learn to stay up, too")
    slope, vx = np.diff(first["x"]) / body.dt, first["vx"]
    if len(slope) > 10 and np.abs(slope - 0.5 * (vx[1:] + vx[:-1])).mean() > 0.5 * np.abs(vx).mean() + 0.05:
        yield Check("warn", "vx is not the slope of x", "are units or joints mixed up?")
    if first["end"] != again["end"]:
        yield Check("fail", "the same seed and actions end elsewhere", "reset(seed) must decide the whole episode")


def roll(body: Body, cfg: BodyCheckConfig) -> dict[str, Any]:
    """`cfg.steps` random steps from one seed, until it falls or breaks down."""
    rng, space = np.random.default_rng(cfg.seed), body.action_space
    body.reset(cfg.seed)
    x, vx, bad, steps = [], [], None, 0
    for steps in range(1, cfg.steps + 1):
        obs = np.asarray(body.step(rng.uniform(space.low, space.high).astype(np.float32)))
        state = body.simple_state()
        if not (np.isfinite(obs).all() and all(np.isfinite(value) for value in state)):
            bad = steps
            break
        x.append(float(state.x))
        vx.append(float(state.vx))
        if not body.healthy():
            break
    return {"x": np.array(x), "vx": np.array(vx), "bad": bad, "steps": steps, "end": (steps, x[-1:])}


def told(state: State) -> str:
    return ", ".join(f"{name} {float(getattr(state, name)):+.2f}" for name in ("x", "vx", "z", "vz", "pitch", "omega"))
