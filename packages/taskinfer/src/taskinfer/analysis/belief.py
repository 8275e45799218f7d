"""A belief over time under task switches, beside the truth: what is done, what is believed, what it earns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.errors import UsageError
from rlcore.plots import PALETTE
from rlcore.provenance import near
from taskinfer.analysis.adaptation import lasting
from taskinfer.analysis.figures import colour, panels, title_of
from taskinfer.envs.toy import state_of
from taskinfer.record import Record
from taskinfer.tasks import Family, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
UNITS = {"x": "x (m)", "y": "y (m)", "z": "z (m)", "vx": "v (m/s)", "vy": "vy (m/s)", "vz": "vz (m/s)",
         "pitch": "pitch (rad)", "omega": "turning (rad/s)"}  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One agent over T steps (on a body: decisions)."""

    obs: Array  # (T + 1, ds)
    reward: Array  # (T,)
    mean: Array  # (T + 1, L)
    std: Array  # (T + 1, L)
    probability: Array  # (T + 1, C)
    families: tuple[Family, ...]  # (C,)
    true_family: Array  # (T,) ids, in force during each step
    spec: Array  # (T,)
    known: Array  # (T,) bool: was the likeliest family the true one, after each step
    good: Array  # (T,) bool: was the error small enough for a success
    toy: str
    unit: str  # step or decision

    @property
    def starts(self) -> Array:
        """Steps in which a task begins; the first is 0."""
        new = (np.diff(self.true_family) != 0) | (np.diff(self.spec) != 0)
        return np.concatenate(([0], 1 + np.flatnonzero(new)))

    @property
    def ends(self) -> Array:
        """Steps at which those tasks are over."""
        return np.append(self.starts[1:], len(self.reward))

    def after(self, holds: Array) -> list[int | None]:
        """Of each task: the step of it, from 1, from which `holds` (T,) stays true; None: it never does."""
        first = [float(lasting(holds[None, start:end])[0]) for start, end in zip(self.starts, self.ends)]
        return [None if np.isnan(step) else int(step) for step in first]


def find(source: Path) -> Path:
    """The npz file itself, or the newest one of `eval nonstationary` below a run's folder."""
    if source.is_dir():
        files = sorted(source.rglob("nonstationary*.npz"), key=lambda path: path.stat().st_mtime)
        if not files:
            raise UsageError(f"{source} holds no beliefs under task switches: run `taskinfer eval nonstationary` first")
        return files[-1]
    if not source.is_file():
        raise UsageError(f"there is no run and no file {source}{near(source)}")
    return source


def read(path: Path, agent: int) -> Track:
    """Agent `agent` of the file. DataError where it is no such file; UsageError for no such agent."""
    record = Record.load(path)
    if not 0 <= agent < len(record.reward):
        raise UsageError(f"agent: {path} has agents 0 .. {len(record.reward) - 1}, not {agent}")
    good = record.error < record.thresholds()
    return Track(
        record.obs[agent], record.reward[agent], record.belief_mean[agent], record.belief_std[agent],
        record.family_prob[agent], tuple(Family(int(f)) for f in record.family_ids), record.true_family[agent],
        record.spec[agent], record.known()[0][agent], good[agent], str(record.toy),
        "decision" if str(record.body) else "step",
    )  # fmt: skip


def draw(track: Track) -> Figure:
    """Panels over steps: what the targets are about, the families believed in, z, and the reward."""
    quantities = list(dict.fromkeys(quantity(int(f))[0] for f in track.true_family))
    figure, grid = panels(len(quantities) + 3, 1, 7.2, 1.7)
    for name, axes in zip(quantities, grid):
        _achieved(axes, track, name)
    _families(grid[-3], track)
    _latent(grid[-2], track)
    grid[-1].plot(np.arange(1, len(track.reward) + 1), track.reward, color="0.15", lw=1.2)
    grid[-1].set(ylabel="reward", xlabel=track.unit)
    for axes in grid:
        axes.set_xlim(0, len(track.reward))
        axes.sharex(grid[0])
        axes.tick_params(labelbottom=axes is grid[-1])
        for switch in track.starts[1:]:
            axes.axvline(switch, color="0.3", lw=0.9, ls=":", zorder=3)
    for start, end in zip(track.starts, track.ends):
        family = int(track.true_family[start])
        text = f"{title_of(family)} {track.spec[start]:.3g}".replace(" ", "\n", 1)  # two lines: a task may be short
        grid[0].text(
            (start + end) / 2, 1.04, text, transform=grid[0].get_xaxis_transform(), ha="center", fontsize=8,
            color=colour(family),
        )  # fmt: skip
    figure.align_ylabels(grid)
    return figure


def _achieved(axes: Axes, track: Track, name: str) -> None:
    """One quantity of the state, and the targets of the tasks that are about it."""
    values = np.asarray(getattr(state_of(track.toy, track.obs), name))
    axes.plot(values, color="0.15", lw=1.2)
    for start, end in zip(track.starts, track.ends):
        family = int(track.true_family[start])
        if quantity(family)[0] == name:
            axes.plot([start, end], [track.spec[start]] * 2, color=colour(family), lw=2.2, ls=(0, (4, 1.2)))
    axes.set_ylabel(UNITS[name])


def _families(axes: Axes, track: Track) -> None:
    """Probabilities of the families, stacked; a bar above says which one is true.

    Above that, from when on the task was known and its error small, for good.
    """
    shades = [colour(family) for family in track.families]
    axes.stackplot(np.arange(len(track.probability)), track.probability.T, colors=shades, alpha=0.75, lw=0)
    for start, end, known, done in zip(track.starts, track.ends, track.after(track.known), track.after(track.good)):
        axes.plot(
            [start, end], [1.09, 1.09], color=colour(int(track.true_family[start])), lw=5, solid_capstyle="butt",
            clip_on=False,
        )  # fmt: skip
        said = "not known" if known is None else f"known after {known}"
        said += "\nnot done" if done is None else f"\ndone after {done}"
        axes.text((start + end) / 2, 1.2, said, ha="center", va="bottom", fontsize=8, color="0.2", clip_on=False)
    axes.set(ylim=(0, 1), ylabel="P(family)")
    from matplotlib.patches import Patch

    handles = [Patch(color=shade, alpha=0.75, label=title_of(f)) for shade, f in zip(shades, track.families)]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=8)


def _latent(axes: Axes, track: Track) -> None:
    """The belief's mean, a band of one standard deviation around each coordinate."""
    steps = np.arange(len(track.mean))
    for i, (mean, std) in enumerate(zip(track.mean.T, track.std.T)):
        shade = PALETTE[i % len(PALETTE)]
        axes.plot(steps, mean, color=shade, lw=1.2, label=f"$z_{{{i + 1}}}$")
        axes.fill_between(steps, mean - std, mean + std, color=shade, alpha=0.15, lw=0)
    axes.set_ylabel("belief, ± std")
    axes.legend(
        loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=8, ncols=-(-track.mean.shape[1] // 6)
    )
