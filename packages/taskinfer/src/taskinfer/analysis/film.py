"""Frames of a body on its way: the body, its task, what it is paid, and what is believed of the task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from taskinfer.analysis.figures import colour, title_of
from taskinfer.envs.bodies import GROUP_NAMES
from taskinfer.envs.toy import OBSERVED
from taskinfer.record import Record
from taskinfer.tasks import kind

Array = np.ndarray[Any, Any]
WIDTH, SCENE, HEAD, FOOT, MARGIN = 640, 230, 62, 66, 14
PIXELS, GROUND = 115.0, 185  # a metre of the side view; the row of its floor
INK, FAINT, PAPER, FLOOR, LIMB = (30, 34, 42), (130, 137, 148), (255, 255, 255), (228, 231, 236), (70, 84, 112)
UNITS = {"goal": "m", "velocity": "m/s", "stand": "rad", "jump": "m/s"}
SAID = {
    "goal": "be at x = {:+g} m", "velocity": "run at {:+g} m/s", "stand": "lean by {:+.2g} rad",
    "jump": "jump at {:g} m/s",
}  # fmt: skip


def side(view: Array) -> Image.Image:
    """A body from its `side_view` (G, 5), in the middle, over a floor with a mark at each metre."""
    page = Image.new("RGB", (WIDTH, SCENE), PAPER)
    draw = ImageDraw.Draw(page)
    centre = float(view[:, [0, 2]].mean())
    draw.rectangle((0, GROUND, WIDTH, SCENE), fill=FLOOR)
    font = ImageFont.load_default(size=11)
    for metre in range(int(np.floor(centre - 4)), int(np.ceil(centre + 4)) + 1):
        at = _column(metre, centre)
        draw.line((at, GROUND, at, GROUND + 8), FAINT, 2)
        draw.text((at, GROUND + 11), str(metre), FAINT, font, anchor="ma")
    for x0, z0, x1, z1, radius in view.tolist():
        size = radius * PIXELS
        ends = [(_column(x, centre), GROUND - z * PIXELS) for x, z in ((x0, z0), (x1, z1))]
        draw.line(ends, LIMB, max(1, round(2 * size)))
        for x, y in ends:
            draw.ellipse((x - size, y - size, x + size, y + size), LIMB)
    return page


def flag(page: Image.Image, view: Array, spec: float, shade: str) -> None:
    """A goal: a flag where it is, or an arrow towards it at the edge."""
    draw, centre = ImageDraw.Draw(page), float(view[:, [0, 2]].mean())
    at = _column(spec, centre)
    if 0 <= at < WIDTH:
        draw.line((at, GROUND, at, GROUND - 120), shade, 3)
        draw.polygon(((at, GROUND - 120), (at + 26, GROUND - 110), (at, GROUND - 100)), shade)
        return
    tip, base = (WIDTH - 8, WIDTH - 30) if at > 0 else (8, 30)
    draw.polygon(((tip, GROUND - 110), (base, GROUND - 122), (base, GROUND - 98)), shade)


def _column(x: float, centre: float) -> float:
    return WIDTH / 2 + (x - centre) * PIXELS


def compose(record: Record, views: Sequence[Sequence[Array]], stride: int, every: int) -> Iterator[Array]:
    """Frames (h, w, 3) uint8 of one episode after another, every `every`-th body step.

    views: of each body step, of each body: (G, 5) of `side_view`, or a picture (h, w, 3).
    """
    for episode in range(len(record.reward)):
        for step in range(0, len(views), every):
            yield np.asarray(page_of(record, episode, step // stride, views[step][episode]))


def page_of(record: Record, episode: int, t: int, view: Array) -> Image.Image:
    """One frame: decision t of one episode."""
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=12)
    family, spec = int(record.true_family[episode, t]), float(record.spec[episode, t])
    group, shade = kind(family), colour(family)
    page = Image.new("RGB", (WIDTH, HEAD + SCENE + FOOT), PAPER)
    draw = ImageDraw.Draw(page)
    if view.ndim == 3:
        scene = _fitted(Image.fromarray(view))
    else:
        scene = side(view)
        if group == "goal":
            flag(scene, view, spec, shade)
    page.paste(scene, (0, HEAD))
    rewards = record.reward[episode]
    draw.text((MARGIN, 9), f"task: {SAID[group].format(spec)}", shade, font)
    right = f"reward {rewards[t]:+.2f}   so far {rewards[: t + 1].sum():+.1f}"
    draw.text((WIDTH - MARGIN, 9), right, INK, font, anchor="ra")
    x, vx = record.obs[episode, t + 1][[OBSERVED[str(record.toy)].index(name) for name in ("x", "vx")]]
    asked = GROUP_NAMES[int(record.subgoal_group[episode, t])]
    value = float(record.action[episode, t, 0])
    draw.text((MARGIN, 36), f"asked of the body: {asked} {value:+.2f} {UNITS[asked]}", FAINT, small)
    draw.text((WIDTH - MARGIN, 36), f"x {x:+.2f} m   v {vx:+.2f} m/s   decision {t + 1}", FAINT, small, anchor="ra")
    _beliefs(draw, record, episode, t, small)
    return page


def _beliefs(draw: ImageDraw.ImageDraw, record: Record, episode: int, t: int, font: Any) -> None:
    """A bar a family, as long as it is likely; the true one is underlined."""
    ids, shares = record.family_ids, record.family_prob[episode, t + 1]
    width = (WIDTH - 2 * MARGIN) / len(ids)
    top = HEAD + SCENE + 10
    for i, (family, share) in enumerate(zip(ids.tolist(), shares.tolist())):
        left = MARGIN + i * width
        draw.rectangle((left, top, left + width - 12, top + 14), outline=FLOOR, fill=(246, 247, 249))
        draw.rectangle((left, top, left + share * (width - 12), top + 14), fill=colour(family))
        true = family == record.true_family[episode, t]
        draw.text((left, top + 20), f"{title_of(family)} {share:.0%}", INK if true else FAINT, font)
        if true:
            draw.line((left, top + 40, left + width - 12, top + 40), colour(family), 2)


def _fitted(picture: Image.Image) -> Image.Image:
    """A camera's picture in the room of the scene."""
    share = min(WIDTH / picture.width, SCENE / picture.height)
    size = round(picture.width * share), round(picture.height * share)
    page = Image.new("RGB", (WIDTH, SCENE), PAPER)
    page.paste(picture.resize(size, Image.Resampling.LANCZOS), ((WIDTH - size[0]) // 2, (SCENE - size[1]) // 2))
    return page
