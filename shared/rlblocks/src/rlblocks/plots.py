"""A mixture drawn over its data."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcore.plots import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rlblocks.dpmm import DPMixture

POINTS = 5_000  # more than these are thinned


def plot_components(axes: Axes, mixture: DPMixture, x: Any = None, dims: tuple[int, int] = (0, 1)) -> None:
    """Draw the components' ellipses of one and two standard deviations, numbered by size, over points x (N, D).

    Args:
        x: numpy or torch; each point has the colour of its component. None draws the ellipses alone.
        dims: the two dimensions shown; an ellipse is the component's marginal there.
    """
    from matplotlib.patches import Ellipse

    colours = list(itertools.islice(itertools.cycle(PALETTE), mixture.num_components))
    pair = list(dims)
    means = mixture.means[:, pair].cpu().numpy()
    covariances = mixture.covariances[:, pair][:, :, pair].cpu().numpy()
    if x is not None:
        shown = np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(int)
        points = np.asarray(x[shown].detach().cpu() if hasattr(x, "detach") else x[shown])
        labels = np.asarray(mixture.predict(points))
        shades = [colours[k] for k in labels]
        axes.scatter(points[:, dims[0]], points[:, dims[1]], s=3, c=shades, alpha=0.35, linewidths=0, rasterized=True)
    for k, (mean, covariance) in enumerate(zip(means, covariances)):
        variances, directions = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
        for sigmas in (1, 2):
            width, height = 2 * sigmas * np.sqrt(variances[::-1])
            ellipse = Ellipse(
                tuple(mean), width, height, angle=angle, fill=False, color=colours[k], lw=2.2 - 0.7 * sigmas
            )
            axes.add_patch(ellipse)
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colours[k], "alpha": 0.85}
        axes.annotate(str(k), tuple(mean), ha="center", va="center", fontsize=8, bbox=box)
    axes.autoscale_view()
    axes.set_xlabel(f"dimension {dims[0]}")
    axes.set_ylabel(f"dimension {dims[1]}")
