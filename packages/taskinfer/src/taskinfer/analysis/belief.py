"""A belief over time under task switches, beside the truth: what is done, what is believed, what it earns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.errors import DataError, UsageError
from rlcore.plots import PALETTE
from rlcore.provenance import near
from taskinfer.analysis.figures import colour, panels, title_of
from taskinfer.envs.toy import OBSERVED, state_of
from taskinfer.tasks import Family, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
NEEDED = ("obs", "reward", "belief_mean", "belief_std", "family_prob", "families", "true_family", "spec")
UNITS = {"x": "x (m)", "y": "y (m)", "z": "z (m)", "vx": "v (m/s)", "vy": "vy (m/s)", "vz": "vz (m/s)",
         "pitch": "pitch (rad)", "omega": "turning (rad/s)"}  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One agent over T steps."""

    obs: Array  # (T + 1, ds)
    reward: Array  # (T,)
    mean: Array  # (T + 1, L)
    std: Array  # (T + 1, L)
    probability: Array  # (T + 1, C)
    families: tuple[Family, ...]  # (C,)
    true_family: Array  # (T,) ids, in force during each step
    spec: Array  # (T,)

    @property
    def starts(self) -> Array:
        """Steps in which a task begins; the first is 0."""
        new = (np.diff(self.true_family) != 0) | (np.diff(self.spec) != 0)
        return np.concatenate(([0], 1 + np.flatnonzero(new)))

    @property
    def ends(self) -> Array:
        """Steps at which those tasks are over."""
        return np.append(self.starts[1:], len(self.reward))

    def known_after(self) -> list[int | None]:
        """Of each task: steps until its family is believed to be the likeliest, and stays so; None: never."""
        guessed = np.array(self.families)[self.probability.argmax(-1)]
        found: list[int | None] = []
        for start, end in zip(self.starts, self.ends):
            right = guessed[start : end + 1] == self.true_family[start]
            right[0] &= start == 0  # at a switch the belief is still of what was before
            wrong = np.flatnonzero(~right)
            after = int(wrong[-1]) + 1 if len(wrong) else 0
            found.append(after if after < len(right) else None)
        return found


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
    """Agent `agent` of the file. DataError where arrays are missing or do not fit; UsageError for no such agent."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in NEEDED}
        families = tuple(Family[str(name)] for name in arrays.pop("families"))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is not what `eval nonstationary` writes: {' '.join(str(error).split())[:120]}"
        ) from error
    steps, count = arrays["reward"].shape[1], len(arrays["reward"])
    for name, values in arrays.items():
        length = steps if name in ("reward", "true_family", "spec") else steps + 1
        if values.shape[:2] != (count, length):
            raise DataError(f"{path}: {name} has the shape {values.shape}, expected ({count}, {length}, ...)")
    if not 0 <= agent < count:
        raise UsageError(f"agent: {path} has agents 0 .. {count - 1}, not {agent}")
    own = {name: values[agent] for name, values in arrays.items()}
    return Track(
        own["obs"], own["reward"], own["belief_mean"], own["belief_std"], own["family_prob"], families,
        own["true_family"].astype(int), own["spec"],
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
    grid[-1].set(ylabel="reward", xlabel="step")
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
    kind = next(kind for kind, entries in OBSERVED.items() if len(entries) == track.obs.shape[1])
    values = np.asarray(getattr(state_of(kind, track.obs), name))
    axes.plot(values, color="0.15", lw=1.2)
    for start, end in zip(track.starts, track.ends):
        family = int(track.true_family[start])
        if quantity(family)[0] == name:
            axes.plot([start, end], [track.spec[start]] * 2, color=colour(family), lw=2.2, ls=(0, (4, 1.2)))
    axes.set_ylabel(UNITS[name])


def _families(axes: Axes, track: Track) -> None:
    """Probabilities of the families, stacked; a bar above says which one is true, and when it was known."""
    shades = [colour(family) for family in track.families]
    axes.stackplot(np.arange(len(track.probability)), track.probability.T, colors=shades, alpha=0.75, lw=0)
    for start, end, after in zip(track.starts, track.ends, track.known_after()):
        axes.plot(
            [start, end], [1.09, 1.09], color=colour(int(track.true_family[start])), lw=5, solid_capstyle="butt",
            clip_on=False,
        )  # fmt: skip
        said = "not known" if after is None else f"known after {after}"
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
