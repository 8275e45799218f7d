"""HalfCheetah-v5: 17 observations without the absolute x, 6 torques, 0.05 s a step, never falls for good."""

from __future__ import annotations

from taskinfer.envs.planar import PlanarBody


def cheetah(render: bool = False) -> PlanarBody:
    """Gymnasium's HalfCheetah-v5. Its z is an offset from the height at rest."""
    return PlanarBody("HalfCheetah-v5", {"x": "rootx", "z": "rootz", "pitch": "rooty"}, render=render)
