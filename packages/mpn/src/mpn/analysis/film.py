"""Frames of an episode: the environment, its memory, and what the network makes of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mpn.analysis.rollout import Episode

Array = np.ndarray[Any, Any]
HEIGHT, LEFT, RIGHT, MARGIN, HEAD, FOOT = 320, 480, 300, 16, 30, 64
INK, PAPER, RULE = (30, 34, 42), (255, 255, 255), (205, 210, 218)
NEGATIVE, POSITIVE = np.array([33.0, 102.0, 172.0]), np.array([178.0, 24.0, 43.0])  # blue and red, white between


def diverging(values: Array, scale: float) -> Array:
    """Values (h, w) as colours (h, w, 3): blue under 0, white at 0, red over 0, full at +-scale."""
    share = np.clip(values / max(scale, 1e-12), -1.0, 1.0)[..., None]
    end = np.where(share < 0, NEGATIVE, POSITIVE)
    return np.asarray(255.0 + np.abs(share) * (end - 255.0)).round().astype(np.uint8)


def compose(episode: Episode, env_id: str) -> Iterator[Array]:
    """Frames (h, w, 3) uint8, one a step. The colour scale is the episode's largest magnitude."""
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(size=15), ImageFont.load_default(size=12)
    scale = max(float(np.abs(memory).max()) for memory in episode.memories)
    plastic = episode.core.startswith("mpn")
    title = "Hebbian matrix M (hidden x input)" if plastic else f"hidden state of {episode.core} (one row a unit)"
    total = 0.0
    for t, (memory, reward) in enumerate(zip(episode.memories, episode.rewards)):
        total += reward
        page = Image.new("RGB", (LEFT + RIGHT + 3 * MARGIN, HEAD + HEIGHT + FOOT), PAPER)
        draw = ImageDraw.Draw(page)
        draw.text((MARGIN, 8), env_id, INK, font)
        draw.text((LEFT + 2 * MARGIN, 8), title, INK, font)
        left = Image.fromarray(episode.frames[t]) if episode.frames else _bars(episode, t, small)
        page.paste(_fitted(left, LEFT, HEIGHT), (MARGIN, HEAD))
        picture = Image.fromarray(diverging(memory, scale)).resize((RIGHT, HEIGHT), Image.Resampling.NEAREST)
        page.paste(picture, (LEFT + 2 * MARGIN, HEAD))
        draw.rectangle((LEFT + 2 * MARGIN, HEAD, LEFT + 2 * MARGIN + RIGHT, HEAD + HEIGHT), outline=RULE)
        q = "   ".join(f"Q{a} {value:7.2f}" for a, value in enumerate(episode.q_values[t]))
        foot = HEAD + HEIGHT + 10
        draw.text((MARGIN, foot), f"step {t + 1} of {len(episode.rewards)}   return so far {total:.2f}", INK, font)
        draw.text((MARGIN, foot + 24), f"{q}   action {episode.actions[t]}", INK, small)
        norm = float(np.linalg.norm(memory))
        draw.text((LEFT + 2 * MARGIN, foot), f"±{scale:.2g} at full colour   norm {norm:.2f}", INK, small)
        yield np.asarray(page)


def _fitted(picture: Any, width: int, height: int) -> Any:
    from PIL import Image

    share = min(width / picture.width, height / picture.height)
    size = (round(picture.width * share), round(picture.height * share))
    page = Image.new("RGB", (width, height), PAPER)
    page.paste(picture.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2))
    return page


def _bars(episode: Episode, t: int, font: Any) -> Any:
    """For tasks that draw nothing: every observation up to now, a column a step, and the reward under it."""
    from PIL import Image, ImageDraw

    seen = np.stack(episode.observations)
    steps, channels = seen.shape
    page = Image.new("RGB", (LEFT, HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    left, cell_w, cell_h = 56, (LEFT - 60) / steps, min(36.0, (HEIGHT - 60) / (channels + 1))
    colours = diverging(seen, max(float(np.abs(seen).max()), 1e-9))
    for channel in range(channels):
        top = 24 + channel * cell_h
        draw.text((4, top + cell_h / 2 - 7), f"obs {channel}", INK, font)
        for step in range(steps):
            box = (left + step * cell_w, top, left + (step + 1) * cell_w - 2, top + cell_h - 2)
            fill = tuple(int(c) for c in colours[step, channel]) if step <= t else PAPER
            draw.rectangle(box, fill=fill, outline=RULE)
    draw.text((4, 24 + channels * cell_h + cell_h / 2 - 7), "reward", INK, font)
    for step in range(t + 1):
        text = f"{episode.rewards[step]:+.0f}" if episode.rewards[step] else "·"
        draw.text((left + (step + 0.35) * cell_w, 24 + channels * cell_h + cell_h / 2 - 7), text, INK, font)
    return page
