"""Where episodes went, beside where they should have gone."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.plots import PALETTE
from taskinfer.analysis.belief import UNITS
from taskinfer.analysis.figures import panels
from taskinfer.envs.toy import state_of
from taskinfer.record import Record
from taskinfer.tasks import kind, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]


def draw(record: Record, group: str, title: str) -> Figure:
    """The episodes of one kind of task, a panel for each quantity: in the plane a goal may be one of x or of y."""
    own = np.array([kind(family) == group for family in record.true_family[:, 0]])
    about = np.array([quantity(int(family))[0] for family in record.true_family[:, 0]])
    entries = list(dict.fromkeys(about[own].tolist()))
    figure, grid = panels(len(entries), 1, 6.4, 3.6)
    for axes, entry in zip(grid, entries):
        _panel(axes, record, entry, own & (about == entry))
    unit = "decisions" if str(record.body) else "steps"
    grid[0].set_title(f"{title}: {group}, targets dashed")
    grid[-1].set_xlabel(f"{unit} of {float(record.dt):g} s")
    return figure


def _panel(axes: Axes, record: Record, entry: str, own: Array) -> None:
    """One quantity of the episodes `own` (n,): a colour a task, thin lines its episodes, dashed its target."""
    values = np.asarray(getattr(state_of(str(record.toy), record.obs), entry))  # (n, T + 1)
    specs = sorted({float(spec) for spec in record.spec[own, 0]})
    for spec, colour in zip(specs, itertools.cycle(PALETTE)):
        for episode in values[own & (record.spec[:, 0] == spec)]:
            axes.plot(episode, color=colour, lw=0.9, alpha=0.6)
        axes.axhline(spec, color=colour, lw=1.4, ls="--")
        axes.annotate(f"{spec:+g}", (1.0, spec), xycoords=("axes fraction", "data"), xytext=(5, 0),
                      textcoords="offset points", color=colour, va="center", fontsize=9)  # fmt: skip
    axes.set(ylabel=UNITS[entry], xlim=(0, values.shape[1] - 1))
