"""Where episodes went, beside where they should have gone."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from rlcore.plots import PALETTE
from taskinfer.analysis.belief import UNITS
from taskinfer.analysis.figures import panels
from taskinfer.envs.toy import state_of
from taskinfer.record import Record
from taskinfer.tasks import kind, quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(record: Record, group: str, title: str) -> Figure:
    """The episodes of one kind of task: a colour a task, thin lines its episodes, dashed its target."""
    own = np.array([kind(family) == group for family in record.true_family[:, 0]])
    entry = quantity(int(record.true_family[own][0, 0]))[0]
    figure, (axes,) = panels(1, 1, 6.4, 3.6)
    values = np.asarray(getattr(state_of(str(record.toy), record.obs), entry))  # (n, T + 1)
    specs = sorted({float(spec) for spec in record.spec[own, 0]})
    colours = dict(zip(specs, itertools.cycle(PALETTE)))
    end = values.shape[1] - 1
    for spec, colour in colours.items():
        for episode in values[own & (record.spec[:, 0] == spec)]:
            axes.plot(episode, color=colour, lw=0.9, alpha=0.6)
        axes.axhline(spec, color=colour, lw=1.4, ls="--")
        axes.annotate(f"{spec:+g}", (1.0, spec), xycoords=("axes fraction", "data"), xytext=(5, 0),
                      textcoords="offset points", color=colour, va="center", fontsize=9)  # fmt: skip
    unit = "decisions" if str(record.body) else "steps"
    axes.set(title=f"{title}: {group}, targets dashed", xlabel=f"{unit} of {float(record.dt):g} s", ylabel=UNITS[entry],
             xlim=(0, end))  # fmt: skip
    return figure
